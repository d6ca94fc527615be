"""PNG files (ISO/IEC 15948), with 8 or 16 bits."""

import struct
import zlib

import imagecodecs
import numpy as np

from pipeline.imaging.icc import srgb_profile
from pipeline.metadata.embedded import Carried

_HEADER = 8 + 25  # bytes of the signature and IHDR
_PER_METRE = 1 / 0.0254


def encode(rgb: np.ndarray, carried: Carried, packet: bytes) -> bytes:
    """Encodes RGB [H, W, 3], uint8 or uint16, with the sRGB profile, metadata and an XMP packet."""
    coded = imagecodecs.png_encode(rgb, level=6)
    chunks = [_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile(), 9))]
    if carried.dpi:
        chunks.append(
            _chunk(b"pHYs", struct.pack(">IIB", *(round(dpi * _PER_METRE) for dpi in carried.dpi), 1))
        )
    chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    if carried.photoshop:  # the form of ImageMagick and ExifTool
        digits = carried.photoshop.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        profile = f"\niptc\n{len(carried.photoshop):8}\n{lines}\n"
        chunks.append(_chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile.encode(), 9)))
    if carried.exif:
        chunks.append(_chunk(b"eXIf", carried.exif))
    chunks += [_chunk(kind, data) for kind, data in carried.chunks]
    return b"".join((coded[:_HEADER], *chunks, coded[_HEADER:]))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
