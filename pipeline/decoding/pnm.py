"""Several pictures in a file of the formats of Netpbm (PBM, PGM, PPM), of which Pillow reads only the first."""

import re

from PIL import Image

_CHANNELS = {b"P4": 0, b"P5": 1, b"P6": 3}  # of the formats with raw samples; a PBM has packed rows


def has_another(data: bytes, image: Image.Image) -> bool:
    """Whether another picture follows the one that Pillow has opened, but not loaded."""
    channels, tiles = _CHANNELS.get(data[:2]), getattr(image, "tile", ())
    if channels is None or not tiles:
        return False
    start, (width, height) = tiles[0].offset, image.size
    size = 2 if channels and int(data[:start].split()[-1]) > 255 else 1  # bytes of a sample
    row = width * channels * size or -(-width // 8)
    return re.match(rb"\s*P[1-6]\s", data[start + row * height : start + row * height + 16]) is not None
