"""What Pillow ignores of a PNG: missing rows, checksums, gamma, a transparent level, 16 bits of colour and opacity."""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from PIL import Image

from pipeline.decoding.samples import on_white
from pipeline.records.record import Reason, Refusal

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
# First column, first row and their steps for the seven passes of an interlaced picture.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_STEP = 1 << 20  # bytes in one step of decompression


def fault(data: bytes, image: Image.Image) -> Refusal | None:
    """What is wrong with the rows of `image`, which Pillow has loaded from the file `data`.

    The last row, or in an interlaced picture the row before it, comes last in the file. Only if one of them is black,
    or the checksum of a chunk is wrong, are all rows inflated. In the latter case their own checksum must be right.
    Specification: ISO/IEC 15948, sections 5.3, 8.2, 9 and 10.
    """
    width, height = image.size
    last = np.asarray(image.crop((0, max(0, height - 2), width, height)))
    is_sound = all(zlib.crc32(part, zlib.crc32(b"IDAT")) == checksum for part, checksum in _compressed(data))
    if is_sound and all(row.any() for row in last):
        return None
    missing = _size(data)
    inflater = zlib.decompressobj()
    try:
        for part, _ in _compressed(data):
            while part and not inflater.eof and (missing > 0 or not is_sound):
                missing -= len(inflater.decompress(part, _STEP))
                part = inflater.unconsumed_tail
    except zlib.error:
        return Refusal(Reason.UNREADABLE, "its compressed pixels are damaged")
    if missing > 0:
        return Refusal(Reason.TRUNCATED, "rows that its header promises are missing")
    if is_sound or inflater.eof:
        return None
    return Refusal(Reason.UNREADABLE, "its compressed pixels are damaged")


def gamma(image: Image.Image) -> float | None:
    """Gamma of a PNG, or None if there is none, or a profile or sRGB chunk takes precedence (section 12.9)."""
    info = image.info
    if image.format != "PNG" or info.get("icc_profile") or "srgb" in info:
        return None
    value = info.get("gamma")
    return value if value and 0.05 < value < 20 else None


def mend_transparency(data: bytes, image: Image.Image) -> None:
    """Scales the transparent level of a grey PNG of 2 or 4 bits like its pixels in Pillow.

    Raises Refusal for a transparent colour with 16 bits, of which Pillow keeps only the upper half. Section 11.3.2.1.
    """
    depth, kind = data[24], data[25]
    level = image.info.get("transparency")
    if kind == 0 and depth in (2, 4) and isinstance(level, int):
        image.info["transparency"] = level * 255 // ((1 << depth) - 1)
    if kind == 2 and depth == 16 and level is not None:
        raise Refusal(Reason.UNSUPPORTED_MODE, "a transparent colour of 16 bits is not handled")


def deep(data: bytes) -> np.ndarray | None:
    """A whole PNG of 16 bits with colour or opacity, as for `samples.DEEP`; None for other kinds, and for damage."""
    if data[24] != 16 or data[25] not in (2, 4, 6):
        return None
    try:
        samples = imagecodecs.png_decode(data)
    except (RuntimeError, ValueError):  # Pillow says what is wrong
        return None
    return samples if data[25] == 2 else on_white(samples, "straight")


def _size(data: bytes) -> int:
    """Number of uncompressed bytes of all rows, from the header."""
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        if columns:
            total += rows * (1 + (columns * depth * _SAMPLES[kind] + 7) // 8)
    return total


def _compressed(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields the contents of the IDAT chunks, and their checksums; -1 for one behind the end of the file."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind == b"IDAT":
            checksum = struct.unpack_from(">I", data, end)[0] if end + 4 <= len(data) else -1
            yield data[at + 8 : end], checksum
        at = end + 4
