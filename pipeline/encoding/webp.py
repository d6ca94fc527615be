"""WebP files."""

import io

import numpy as np
from PIL import Image

from pipeline.imaging.icc import srgb_profile
from pipeline.metadata.embedded import Carried

LOSSLESS = 100  # quality


def encode(rgb: np.ndarray, carried: Carried, packet: bytes, quality: int) -> bytes:
    """Encodes RGB uint8 [H, W, 3] with the sRGB profile, EXIF and an XMP packet; without loss at quality 100."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer,
        "WEBP",
        quality=quality,
        lossless=quality == LOSSLESS,
        exif=carried.exif,
        xmp=packet,
        icc_profile=srgb_profile(),
    )
    return buffer.getvalue()
