"""TIFF files, with 8 or 16 bits, in strips; and pyramids in tiles, as servers of IIIF read them.

The directory of the picture has the values of the master byte for byte, and comes first, because a maker note must
stay at its offset. tifffile codes the pixels, a band of rows at a time.
"""

import contextlib
import io
import itertools
import mmap
import tempfile
from collections.abc import Iterator
from typing import IO, Protocol

import cv2
import numpy as np
import tifffile

from pipeline.imaging.icc import srgb_profile
from pipeline.metadata import containers, embedded, ifd
from pipeline.metadata.embedded import Carried, Metadata
from pipeline.storage import scratch

TILE = 256  # pixels
_STRIP = 1 << 18  # bytes, about
_BAND = 1 << 24  # bytes of pixels, about, that are coded at a time
_IN_MEMORY = 64 << 20  # bytes of pixels; larger pictures go to temporary files
# TIFF 6.0 and its technical notes: offsets of strips or tiles, and their sizes; all tags of the coded picture.
_PARTS = {273: 279, 324: 325}
_CODED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 347, 530, 531, 532}
_LENGTH = 257


class Picture(Protocol):
    """RGB [H, W, 3], uint8 or uint16, of which rows are taken: an array, or `derivative.Rows`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def encode(rgb: Picture, carried: Carried, packet: bytes, compression: str) -> bytes | mmap.mmap:
    """Encodes a picture with the sRGB profile, metadata and an XMP packet.

    Args:
      rgb: sRGB, [H, W, 3], uint8 or uint16.
      carried: metadata of the master.
      packet: XMP.
      compression: "lzw", "deflate" or "none".

    Returns:
      The file; a large one is a temporary file without a name, mapped into memory.

    Raises:
      OSError: there is no room for the temporary file.
    """
    rows = max(1, _STRIP // _row_bytes(rgb))
    step = _step(rgb, rows)
    bands = (rgb[top : top + step] for top in range(0, rgb.shape[0], step))
    with _file_for(rgb) as file:
        _write(file, rgb.shape, bands, carried, packet, rows, _options(compression, rowsperstrip=rows))
        return _content(file)


def encode_pyramid(
    rgb: Picture, carried: Carried, packet: bytes, compression: str, quality: int
) -> bytes | mmap.mmap:
    """Encodes a pyramid: the picture, and copies that are halved until they fit into a tile, as further pages.

    Args:
      rgb: sRGB, [H, W, 3], uint8 or, without JPEG, uint16.
      carried: metadata of the master, for the first page.
      packet: XMP.
      compression: "lzw", "deflate", "none" or "jpeg".
      quality: of JPEG.

    Returns:
      The file, and raises, as `encode`.
    """
    options = _options(compression, quality=quality, tile=(TILE, TILE))
    halves: list[np.ndarray] = []

    def bands() -> Iterator[np.ndarray]:
        step = _step(rgb, TILE)
        for top in range(0, rgb.shape[0], step):
            band = rgb[top : top + step]
            halves.append(_halved(band))
            yield band

    with _file_for(rgb) as file:
        _write(file, rgb.shape, bands(), carried, packet, TILE, options)
        level, larger = np.concatenate(halves), max(rgb.shape[:2])
        halves.clear()
        file.seek(0)
        with tifffile.TiffWriter(tifffile.FileHandle(file, name="pyramid"), append=True) as writer:
            while larger > TILE:
                writer.write(level, subfiletype=1, **options)
                level, larger = _halved(level), max(level.shape[:2])
        return _content(file)


def _row_bytes(rgb: Picture) -> int:
    return rgb.shape[1] * rgb.shape[2] * rgb.dtype.itemsize


def _step(rgb: Picture, rows: int) -> int:
    """Number of rows of a band: a multiple of the rows of a strip or tile."""
    return rows * max(1, _BAND // (rows * _row_bytes(rgb)))


def _halved(rgb: np.ndarray) -> np.ndarray:
    """The picture at half of its size: means of 2 x 2 pixels. An odd last row or column counts twice."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)


def _options(compression: str, *, quality: int = 0, **layout) -> dict:
    """Options of tifffile."""
    options = {"photometric": "rgb", "software": False, "metadata": None, **layout}
    if compression == "jpeg":  # as YCbCr 4:2:0
        options |= {"compression": "jpeg", "compressionargs": {"level": quality}, "subsampling": (2, 2)}
    elif compression != "none":
        names = {"deflate": "adobe_deflate"}
        options |= {"compression": names.get(compression, compression), "predictor": 2}
    return options


def _write(
    file: IO[bytes],
    shape: tuple[int, ...],
    bands: Iterator[np.ndarray],
    carried: Carried,
    packet: bytes,
    rows: int,
    options: dict,
) -> None:
    """Writes a TIFF of one page: a directory with metadata, and the strips or tiles that tifffile has coded.

    Args:
      file: is written.
      shape: of the picture.
      bands: its rows; each except the last has a multiple of `rows`, those of a strip or tile.
      carried: metadata of the master.
      packet: XMP.
      rows: of a strip or tile.
      options: of tifffile.
    """
    height, width = shape[:2]
    exif = carried.exif or embedded.carry(Metadata(), format="tiff", size=(width, height), orientation=1).exif
    reader = ifd.Reader(exif)
    directory, order = reader.tree(next(reader.directories())), reader.order
    directory |= {
        containers.XMP_TAG: ifd.octets(packet),
        containers.ICC_TAG: ifd.undefined(srgb_profile()),
    }
    if carried.iptc:
        directory[containers.IPTC_TAG] = ifd.words(carried.iptc)
    if carried.photoshop:
        directory[containers.PHOTOSHOP_TAG] = ifd.octets(carried.photoshop)
    sizes: list[int] = []
    start = places = 0
    for band in bands:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, band, byteorder="<" if order == "<" else ">", **options)
        coded = buffer.getbuffer()
        page = next(ifd.Reader(coded).directories())
        (places,) = _PARTS.keys() & page.keys()
        at, of = (ifd.numbers(page[tag], order) for tag in (places, _PARTS[places]))
        if not sizes:  # the directory has the same size for any numbers
            directory |= {tag: entry for tag, entry in page.items() if tag in _CODED}
            directory[_LENGTH] = ifd.long(order, height)
            count = -(-height // rows) * (-(-width // TILE) if places == 324 else 1)
            directory |= {tag: ifd.long(order, *[0] * count) for tag in (places, _PARTS[places])}
            start = len(ifd.encode(directory, order))
            file.seek(start)
        for one, size in zip(at, of, strict=True):
            file.write(coded[one : one + size])
        sizes += of
    directory[_PARTS[places]] = ifd.long(order, *sizes)
    directory[places] = ifd.long(order, *itertools.accumulate(sizes[:-1], initial=start))
    file.seek(0)
    file.write(ifd.encode(directory, order))


@contextlib.contextmanager
def _file_for(rgb: Picture) -> Iterator[IO[bytes]]:
    """A file without a name, in memory or, for a large picture, in the folder for temporary files."""
    if rgb.shape[0] * _row_bytes(rgb) <= _IN_MEMORY:
        yield io.BytesIO()
        return
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        raise OSError(scratch.no_room(error)) from error


def _content(file: IO[bytes]) -> bytes | mmap.mmap:
    """All bytes of a file from `_file_for`."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
