"""Small pictures for people: of any file that the job reads or writes, and of a scan that it holds."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from pipeline import chroma
from pipeline.metadata import upright
from pipeline.opening import opened
from pipeline.scan import Scan, read_scan

SIDE = 640  # pixels; longer sides are reduced to it
_QUALITY = 85


def thumbnail(data: bytes, *, max_pixels: int, side: int = SIDE) -> bytes:
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
        return _jpeg(small)


def before_and_after(scan: Scan, model: np.ndarray) -> tuple[bytes, bytes]:
    """JPEGs of a scan and of its derivative, upright, made of the scan's guide: nothing is decoded again.

    Args:
      model: float32 [h, w, 4] from `derivative.paint`.
    """
    height, width = scan.guide.shape
    scale = min(1.0, SIDE / max(width, height))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    luma = scan.guide if scale == 1 else cv2.resize(scan.guide, size, interpolation=cv2.INTER_AREA)
    rgb = chroma.to_rgb(luma, *chroma.apply_model(model, luma))
    before, after = (
        _jpeg(Image.fromarray(np.ascontiguousarray(upright(pixels, scan.orientation))))
        for pixels in (luma, rgb)
    )
    return before, after


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
