"""A small picture of any file that the job reads or writes, for people."""

import io

from PIL import Image, ImageOps

from pipeline.opening import opened
from pipeline.scan import read_scan


def thumbnail(data: bytes, side: int, *, max_pixels: int, quality: int = 85) -> bytes:
    """A JPEG of a picture, upright and at most `side` pixels wide and high, with the tones the job sees.

    Raises:
      Refusal: the file cannot be read, or has more than `max_pixels`.
    """
    with opened(data, max_pixels=max_pixels, min_side=1) as image:
        if image.mode.startswith("I"):  # deeper than 8 bits: scaled as for the network
            small = Image.fromarray(read_scan(data, output_format="png", max_pixels=max_pixels).luma)
        else:
            image.draft(None, (side, side))
            small = ImageOps.exif_transpose(image)
            small = small.convert("L" if small.mode in ("1", "L") else "RGB")
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()
