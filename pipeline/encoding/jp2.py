"""JPEG 2000 files in JP2 (ITU-T T.800, annex I), with 8 or 16 bits.

They declare sRGB by its number (I.5.3.3), which all readers understand, and not by a profile.
"""

import math
import struct

import imagecodecs
import numpy as np

from pipeline.metadata import containers
from pipeline.metadata.embedded import Carried

LOSSLESS = 100  # quality


def encode(rgb: np.ndarray, carried: Carried, packet: bytes, quality: int) -> bytes:
    """Encodes RGB [H, W, 3], uint8 or uint16, with the metadata and an XMP packet.

    Args:
      rgb: sRGB.
      carried: metadata of the master.
      packet: XMP.
      quality: 1...99 stand for a peak signal-to-noise ratio of 25 + quality / 5 dB; 100 is without loss.
    """
    options = (
        {"reversible": True} if quality == LOSSLESS else {"level": 25 + quality / 5, "reversible": False}
    )
    coded = imagecodecs.jpeg2k_encode(rgb, codecformat="jp2", mct=True, **options)
    blocks = {"xmp": packet, "exif": carried.exif, "iptc": carried.iptc}
    out: list[bytes] = []
    for kind, content in containers.jp2_boxes(memoryview(coded)):
        if kind == b"jp2c":
            out += [
                _box(b"uuid", containers.JP2_UUIDS[name], block) for name, block in blocks.items() if block
            ]
        more = [_resolution(carried.dpi)] if kind == b"jp2h" and carried.dpi else []
        out.append(_box(kind, content, *more))
    return b"".join(out)


def _resolution(dpi: tuple[float, float]) -> bytes:
    """A resolution superbox with the resolution of the scanner (I.5.3.7)."""
    (right, below, shift), (down, below_too, shift_too) = (_fraction(value / 0.0254) for value in dpi)
    numbers = struct.pack(">HHHHbb", down, below_too, right, below, shift_too, shift)
    return _box(b"res ", _box(b"resc", numbers))


def _fraction(number: float) -> tuple[int, int, int]:
    """A positive number as numerator and denominator of 16 bits, and the exponent of a power of ten."""
    exponent = max(0, math.ceil(math.log10(number / 0xFFFF)))
    number /= 10**exponent
    denominator = max(1, min(1000, int(0xFFFF / number)))
    return round(number * denominator), denominator, exponent


def _box(kind: bytes, *parts: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">I", 8 + sum(map(len, parts))), kind, *parts))
