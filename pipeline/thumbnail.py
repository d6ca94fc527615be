"""A small picture of any file that the job reads or writes, for people."""

import io

from PIL import Image, ImageOps

from pipeline.scan import read_scan


def thumbnail(data: bytes, side: int, *, max_pixels: int, quality: int = 85) -> bytes:
    """A JPEG of a picture, upright and at most `side` pixels wide and high, with the tones the job sees.

    Raises:
      Whatever decoding raises, and ValueError for more than `max_pixels`.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > max_pixels:
            raise ValueError(f"{image.width} x {image.height} is more than {max_pixels} pixels")
        if image.mode.startswith("I"):  # deeper than 8 bits: scaled as for the network
            scan = read_scan(data, output_format="png", max_pixels=max_pixels)
            small = Image.fromarray(scan.luma)
        else:
            image.draft(None, (side, side))
            small = ImageOps.exif_transpose(image)
            small = small.convert("L" if small.mode in ("1", "L") else "RGB")
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()
