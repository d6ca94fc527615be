"""Small pictures for people, from files that the job reads or writes, and from scans that it holds."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from pipeline.decoding.opening import opened
from pipeline.imaging import chroma
from pipeline.imaging.scan import Scan, read_scan
from pipeline.metadata.orientation import upright

SIDE = 640  # pixels; longest side of a thumbnail
_QUALITY = 85


def thumbnail(data: bytes, *, max_pixels: int, side: int = SIDE) -> bytes:
    """Makes an upright JPEG of a picture, at most `side` pixels wide and high, with the tones that the job sees.

    Raises:
      Refusal: the file cannot be read, or has more than `max_pixels`.
    """
    with opened(data, max_pixels=max_pixels, min_side=1) as image:
        if image.mode.startswith("I"):  # more than 8 bits are scaled as for the network
            luma = read_scan(data, output_format="png", max_pixels=max_pixels).luma
            assert luma is not None  # only a scan that is read for a JPEG has no luma
            small = Image.fromarray(luma)
        else:
            image.draft(None, (side, side))
            small = ImageOps.exif_transpose(image)
            small = small.convert("L" if small.mode in ("1", "L") else "RGB")
        small.thumbnail((side, side))
        return _jpeg(small)


def before_and_after(scan: Scan, model: np.ndarray) -> tuple[bytes, bytes]:
    """Makes upright JPEGs of a scan and its derivative from the guide of the scan, without decoding again.

    Args:
      scan: the decoded master.
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
