"""TIFF masters: finds the picture, checks that its data are complete, and decodes it.

Pillow decodes 8-bit samples and the compressions that only libtiff has. It misreads or refuses several other kinds
(deep planes, extra channels, BigTIFF in Motorola order), which `tifffile` decodes. Specification: TIFF 6.0.
"""

import contextlib
import io
import logging
import os
import struct
from collections.abc import Iterator
from functools import partial

from PIL import Image
from tifffile import COMPRESSION, TiffFile, TiffFileError, TiffFrame, TiffPage

from pipeline.decoding import levels, pages, tags, tiff_samples
from pipeline.decoding.pages import Check, Data, Pictures
from pipeline.decoding.pillow import open_image
from pipeline.records.record import Reason, Refusal

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its findings are checked below

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXTENSIONS = (".tif", ".tiff", ".ptif", ".ptiff")
_DNG_VERSION = 50706
_DEFLATE = {8, 32946}
_LONGEST = 500  # bytes of the complaints of libtiff that are read
# Besides these: LZW, JPEG, PackBits, LZMA, Zstandard, for which Pillow's wheels have decoders.
_PILLOWS = {tags.UNCOMPRESSED, *tags.CCITT, 5, tags.OLD_JPEG, tags.JPEG, *_DEFLATE, 32773, 34925, 50000}
# Decoded by tifffile only.
_TIFFFILES = {tags.LERC, tags.WEBP, tags.PNG, tags.JPEG_XL, *tags.JPEG_XR, *tags.JPEG_2000}
_DAMAGED = (TiffFileError, Refusal, IndexError, ValueError, TypeError, OverflowError, struct.error)


def is_tiff(data: Data) -> bool:
    return data[:4] in _MAGIC


def find(data: Data, check: Check) -> Pictures:
    """Finds the pictures of a TIFF, as `pages.find`. Arguments and errors are those of `open_tiff`."""
    return pages.find(data, check, partial(_open_only, check=lambda width, height: None, notes=[]))


def open_tiff(data: bytes, check: Check, notes: list[str]) -> Image.Image:
    """Opens the full-size picture of a TIFF.

    Args:
      data: the whole file.
      check: raises Refusal for a width and height that are not allowed. It is called before pixels are decoded.
      notes: remarks for people about assumptions and omissions are added.

    Returns:
      An image with the profile in `info` and the orientation in its EXIF. White is never zero. Deep grey has the mode
      "I;16", with white at 65 535.

    Raises:
      Refusal: it has several pages, is damaged, or has samples that cannot be read correctly.
    """
    found = find(data, check)
    if len(found.places) > 1:
        raise Refusal(Reason.MULTIPAGE, f"{len(found.places)} pages in one file: split it into single pages")
    notes += found.notes
    image = _open_only(pages.extract(data, found.places[0]) if found.directories > 1 else data, check, notes)
    if found.copies:
        notes.append(f"{found.copies} reduced copies of it in the file were left out")
    return image


def _open_only(data: bytes, check: Check, notes: list[str]) -> Image.Image:
    """Opens the picture of the first directory."""
    with TiffFile(io.BytesIO(data)) as file:
        file.pages.useframes = False
        try:
            page = _sound(file.pages[0])
        except _DAMAGED as error:
            raise _no_directory(data, error) from error
        check(page.imagewidth, page.imagelength)
        _check_directory(page, notes)
        _check_segments(page, len(data))
        return _decoded(data, page, notes)


def _no_directory(data: bytes, error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    order, long = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    try:
        (offset,) = struct.unpack_from(order + "Q" if long else order + "I", data, 8 if long else 4)
    except struct.error:
        offset = len(data)
    if not offset:
        return Refusal(Reason.TRUNCATED, "it has no directory, because its writer did not finish it")
    if offset >= len(data):
        return Refusal(Reason.TRUNCATED, "its directory is behind the end of the file")
    return Refusal(Reason.UNREADABLE, f"its directory is damaged ({error})")


def _sound(page: TiffPage | TiffFrame) -> TiffPage:
    """Raises Refusal if a directory does not describe a picture."""
    if isinstance(page, TiffPage) and page.imagewidth > 0 and page.imagelength > 0 and page.dataoffsets:
        return page
    raise Refusal(Reason.UNREADABLE, "its directory lacks the size or the place of the pixels")


def _check_directory(page: TiffPage, notes: list[str]) -> None:
    """Raises Refusal for samples without known tones."""
    if _DNG_VERSION in page.tags:
        raise Refusal(
            Reason.UNSUPPORTED_MODE, "it is a DNG with raw data of a camera; develop it to a TIFF first"
        )
    levels.check(page)
    planes_of_webp = page.compression == tags.WEBP and page.planarconfig != 1
    if page.compression not in _PILLOWS | _TIFFFILES or planes_of_webp:
        known = page.compression in list(COMPRESSION)
        kind = COMPRESSION(page.compression).name if known else str(page.compression)
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its compression is not supported: {kind}")
    if tags.PHOTOMETRIC not in page.tags:
        white = "white" if tags.photometric(page) == tags.MIN_IS_WHITE else "black"
        notes.append(f"it does not state the meaning of zero; it was taken as {white}")


def _check_segments(page: TiffPage, size: int) -> None:
    """Raises Refusal if strips or tiles are behind the end of the file, or have fewer bytes than the tags require."""
    name = "tile" if page.is_tiled else "strip"
    needed = list(_segment_bytes(page)) if page.compression == tags.UNCOMPRESSED else None
    places, counts = page.dataoffsets, page.databytecounts
    expected = _segment_count(page)
    if (
        needed
        and len(counts) == len(needed)
        and all(count > size and count % size == 0 for count, size in zip(counts, needed, strict=True))
    ):
        words = f"{name} 1 has {counts[0]} bytes, but its size and depth need {needed[0]}"
        raise Refusal(Reason.UNREADABLE, words)
    if page.compression != tags.OLD_JPEG and (len(places) < expected or len(counts) < expected):
        raise Refusal(Reason.TRUNCATED, f"it has {min(len(places), len(counts))} {name}s of {expected}")
    for index, (place, count) in enumerate(zip(places, counts, strict=False)):
        if needed and index < len(needed):
            if 0 < count < needed[index]:
                words = f"{name} {index + 1} has {count} bytes, but its size and depth need {needed[index]}"
                raise Refusal(Reason.TRUNCATED, words)
            count = needed[index]
        if not place:
            raise Refusal(Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} was never written")
        if place + count > size:
            raise Refusal(
                Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} is behind the end of the file"
            )


def _segment_count(page: TiffPage) -> int:
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if page.is_tiled:
        return planes * -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
    return planes * -(-page.imagelength // min(page.rowsperstrip or page.imagelength, page.imagelength))


def _segment_bytes(page: TiffPage) -> Iterator[int]:
    """Yields the uncompressed size of each strip or tile in bytes."""
    separate = page.planarconfig == 2
    row_bits = (1 if separate else page.samplesperpixel) * tags.bits(page)[0]
    if page.is_tiled:
        size = page.tilelength * -(-page.tilewidth * row_bits // 8)
        yield from [size] * _segment_count(page)
        return
    if tags.photometric(page) == tags.YCBCR:  # subsampled; Pillow cannot read it uncompressed
        return
    row = -(-page.imagewidth * row_bits // 8)
    rows = min(page.rowsperstrip or page.imagelength, page.imagelength)
    for _ in range(page.samplesperpixel if separate else 1):
        for top in range(0, page.imagelength, rows):
            yield min(rows, page.imagelength - top) * row


def _decoded(data: bytes, page: TiffPage, notes: list[str]) -> Image.Image:
    if _is_pillows(page):
        image = open_image(data)
        if page.compression in (*tags.CCITT, tags.JPEG):
            with _complaints() as said:
                image.load()
            if said:
                notes.append(f"its pixels are damaged, and wrong in places ({said[0]})")
        return image
    image = tiff_samples.to_picture(page, notes)
    if tags.ICC in page.tags:
        image.info["icc_profile"] = bytes(page.tags[tags.ICC].value)
    if (orientation := tags.number(page, tags.ORIENTATION, 1)) != 1:
        image.getexif()[tags.ORIENTATION] = orientation
    return image


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Yields a list that has the errors of libtiff at the end. It prints those after which it goes on to stderr."""
    said: list[str] = []
    before = os.dup(2)
    with open(os.memfd_create("complaints"), "rb+") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines = file.read(_LONGEST).decode("utf-8", "replace").splitlines()
            said += [line.rstrip(".") for line in lines if line.strip()]


def _is_pillows(page: TiffPage) -> bool:
    """Whether Pillow is known to decode this kind correctly."""
    if (
        tags.PHOTOMETRIC not in page.tags
        or tags.EXTRA_SAMPLES in page.tags
        or page.sampleformat != tags.UNSIGNED
    ):
        return page.compression in (*tags.CCITT, tags.OLD_JPEG)
    if page.compression not in _PILLOWS or (page.parent.is_bigtiff and page.parent.byteorder == ">"):
        return False
    bits, photometric, samples = tags.bits(page)[0], tags.photometric(page), page.samplesperpixel
    if bits == 8 and page.compression != tags.JPEG and tags.S_MAX_SAMPLE in page.tags:
        return False
    if bits == 8 and page.compression in _DEFLATE and photometric != tags.PALETTE:
        return False  # libtiff does not compare the checksums of its strips
    if samples == 1:
        plain = photometric in (tags.MIN_IS_WHITE, tags.MIN_IS_BLACK)
        palette = photometric == tags.PALETTE
        return bits in (1, 2, 4, 8) and (plain or (palette and tiff_samples.palette(page).max() > 255))
    if photometric == tags.YCBCR and page.compression == tags.UNCOMPRESSED:
        return False
    return bits == 8 and samples == {tags.RGB: 3, tags.YCBCR: 3, tags.CMYK: 4}.get(photometric)
