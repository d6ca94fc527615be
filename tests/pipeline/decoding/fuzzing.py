"""Changes files of all formats at random, and reads them: each must become a scan or a refusal.

    python -m tests.pipeline.decoding.fuzzing 3600   # for an hour

They are read in a process of its own, so that a crash or a hang is found, too, and Hypothesis can make it smaller.
"""

import io
import multiprocessing
import os
import resource
import sys
import time
import traceback
from multiprocessing.connection import Connection

import imagecodecs
import numpy as np
import tifffile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.decoding import pages, tiff
from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal

SECONDS = 60  # that a file may take
_MEMORY = 6 << 30  # bytes
_LIMIT = 10**6  # pixels
_Y, _X = np.mgrid[:24, :32]
_GREY = (_X * 5 + _Y * 3).astype(np.uint8)
_RGB, _DEEP, _BITONAL = np.stack([_GREY] * 3, -1), _GREY.astype(np.uint16) * 257, _GREY > 128


def _pillows(array, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, format, **options)
    return buffer.getvalue()


def _tiff(*arrays: np.ndarray, bigtiff: bool = False, byteorder: str = "<", **options) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff, byteorder=byteorder) as writer:  # type: ignore[arg-type]
        for array in arrays:
            kind = "rgb" if array.shape[-1] == 3 else "minisblack"
            writer.write(array, **{"photometric": kind, "metadata": None, **options})
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Small files of all formats that are read, with metadata."""
    exif = Image.Exif()
    exif[274], exif[270], exif[0x8769], exif[0x8825] = (
        6,
        "a street",
        {0x9003: "1901:02:03 00:00:00"},
        {1: "N"},
    )
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    xmp += b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>"
    said = {
        "exif": exif.tobytes(),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    palette = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)
    half = _GREY[::2, ::2]
    made = {
        "jpeg": _pillows(_GREY, "JPEG", xmp=xmp, **said),
        "jpeg rgb": _pillows(_RGB, "JPEG", progressive=True, **said),
        "jpeg cmyk": _pillows(Image.fromarray(_RGB).convert("CMYK"), "JPEG"),
        "jpeg 12": imagecodecs.jpeg8_encode(_DEEP >> 4, bitspersample=12),
        "jpeg lossless": imagecodecs.ljpeg_encode(_DEEP),
        "jpeg ls": imagecodecs.jpegls_encode(_DEEP),
        "mpo": _pillows(_RGB, "MPO", save_all=True, append_images=[Image.fromarray(_RGB)]),
        "png": _pillows(_GREY, "PNG", **said),
        "png 16": _pillows(_DEEP, "PNG"),
        "png 16 with opacity": imagecodecs.png_encode(np.stack([_DEEP] * 2, -1)),
        "png rgba": _pillows(Image.fromarray(_RGB).convert("RGBA"), "PNG"),
        "png palette": _pillows(Image.fromarray(_GREY).convert("P"), "PNG", transparency=3),
        "apng": _pillows(_GREY, "PNG", save_all=True, append_images=[Image.fromarray(255 - _GREY)]),
        "webp": _pillows(_RGB, "WEBP", lossless=True, xmp=xmp, **said),
        "bmp": _pillows(_GREY, "BMP"),
        "gif": _pillows(_GREY, "GIF"),
        "pgm": _pillows(_GREY, "PPM"),
        "avif": _pillows(_RGB, "AVIF"),
        "tga": _pillows(_RGB, "TGA", compression="tga_rle"),
        "jp2": imagecodecs.jpeg2k_encode(_GREY, codecformat="jp2", level=0),
        "jp2 rgb": imagecodecs.jpeg2k_encode(_RGB, codecformat="jp2", level=20),
        "j2k": imagecodecs.jpeg2k_encode(_DEEP, codecformat="j2k", level=0),
        "htj2k": imagecodecs.htj2k_encode(_GREY),
        "tiff": _pillows(_GREY, "TIFF", **said),
        "tiff lzw": _pillows(_GREY, "TIFF", compression="tiff_lzw"),
        "tiff g4": _pillows(_BITONAL, "TIFF", compression="group4"),
        "tiff g3": _pillows(_BITONAL, "TIFF", compression="group3"),
        "tiff palette": _tiff(_GREY, photometric="palette", colormap=palette),
        "tiff float": _tiff(_GREY / np.float32(255), compression="deflate", predictor=True),
        "tiff infrared": _tiff(np.stack([_DEEP] * 2, -1), photometric="minisblack", planarconfig="contig"),
        "tiff premultiplied": _tiff(
            np.stack([_DEEP] * 2, -1),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["assocalpha"],
        ),
        "tiff planes": _tiff(np.stack([_DEEP] * 3), photometric="rgb", planarconfig="separate"),
        "tiff lab": _tiff(_RGB, photometric="icclab"),
        "tiff pages": _tiff(_GREY, _GREY[:20], _GREY[:, :28]),
        "tiff pyramid": _tiff(np.kron(_GREY, np.ones((2, 2), np.uint8)), _GREY, half),
        "bigtiff pages": _tiff(_DEEP, _DEEP[:20], bigtiff=True, byteorder=">", compression="packbits"),
    }
    for compression in ("jpeg", "zstd", "lzma", "lerc", "png", "jpeg2000", "jpegxl", "jpegxr"):
        made[f"tiff {compression}"] = _tiff(_GREY, compression=compression, tile=(16, 16))
    made["tiff webp"] = _tiff(_RGB, compression="webp", rowsperstrip=8)
    return made


FILES = files()
_WHERE = st.floats(0, 1, exclude_max=True)
_EDITS = st.one_of(
    st.tuples(st.just("set"), _WHERE, st.binary(min_size=1, max_size=4)),
    st.tuples(
        st.just("set"), _WHERE, st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 64])
    ),
    st.tuples(st.just("header"), st.integers(0, 200), st.binary(min_size=1, max_size=2)),
    st.tuples(st.just("cut"), _WHERE, st.just(b"")),
    st.tuples(st.just("insert"), _WHERE, st.binary(max_size=8)),
    st.tuples(st.just("remove"), _WHERE, st.binary(max_size=16)),
    st.tuples(st.just("double"), _WHERE, st.binary(max_size=64)),
)


def changed(data: bytes, edits) -> bytes:
    """A file with these changes: what is done, where as a part of the file, and with which bytes."""
    for kind, where, value in edits:
        at = where if kind == "header" else int(where * len(data))
        if kind in ("set", "header"):
            data = data[:at] + value[: max(0, len(data) - at)] + data[at + len(value) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + len(value) :]
        else:
            data = data[: at + len(value)] + data[at:]
    return data


def read(data: bytes, output_format: str) -> str:
    """Reads a file and, if it has several pictures, each of them. Returns the outcome in a word."""
    try:
        scan = read_scan(data, output_format=output_format, max_pixels=_LIMIT, colorize_color=True)
        return f"a scan of {scan.size[0]} x {scan.size[1]}"
    except Refusal as refusal:
        if refusal.reason != Reason.MULTIPAGE or not tiff.is_tiff(data):
            return str(refusal.reason)
    for place in tiff.find(data, lambda width, height: None).places[:4]:
        read(pages.extract(data, place), output_format)
    return "several pages"


def _serve(channel: Connection) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libraries print errors of broken files
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    while True:
        data, output_format = channel.recv()
        try:
            channel.send(read(data, output_format))
        except Exception:
            channel.send("!" + traceback.format_exc())


class Reader:
    """Reads files in a process of its own, which is started again after a crash."""

    def __init__(self):
        self._process = None

    def read(self, data: bytes, output_format: str) -> str:
        """The outcome. Raises AssertionError for a crash, a hang, and any exception but a Refusal."""
        if self._process is None or not self._process.is_alive():
            self._channel, theirs = multiprocessing.Pipe()
            self._process = multiprocessing.get_context("fork").Process(
                target=_serve, args=(theirs,), daemon=True
            )
            self._process.start()
            theirs.close()
        self._channel.send((data, output_format))
        try:
            assert self._channel.poll(SECONDS), f"no answer in {SECONDS} s"
            outcome = self._channel.recv()
        except EOFError:
            self._process.join()
            raise AssertionError(f"it crashed ({self._process.exitcode})") from None
        finally:
            if not self._process.is_alive() or sys.exc_info()[0]:
                self.close()
        assert not outcome.startswith("!"), outcome[1:]
        return outcome

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None


def run(seconds: float, seed: int | None = None) -> int:
    """Reads changed files for so long. Returns how many. Raises AssertionError with the smallest file that fails."""
    reader, end, number = Reader(), time.monotonic() + seconds, 0

    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(
        st.sampled_from(sorted(FILES)),
        st.lists(_EDITS, min_size=1, max_size=6),
        st.sampled_from(["png", "jpeg"]),
    )
    def target(name, edits, output_format):
        nonlocal number
        number += 1
        if time.monotonic() < end + SECONDS:
            reader.read(changed(FILES[name], edits), output_format)

    try:
        while time.monotonic() < end:
            target()
    finally:
        reader.close()
    return number


if __name__ == "__main__":
    print(run(float(sys.argv[1])), "files were read")
