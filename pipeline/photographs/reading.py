"""Reads photographs in colour."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.decoding import png
from pipeline.decoding.opening import opened
from pipeline.imaging.scan import flatten, to_srgb
from pipeline.metadata.orientation import orientation_of, upright
from pipeline.records.record import Reason, Refusal


@dataclass(frozen=True, eq=False, slots=True)
class Photograph:
    """A decoded photograph."""

    rgb: np.ndarray  # uint8 [h, w, 3], upright, sRGB, reduced
    size: tuple[int, int]  # width, height in pixels of the upright original
    mode: str  # of the original's pixels, in Pillow's words


def read_color(
    data: bytes,
    *,
    max_pixels: int,
    min_side: int,
    side: int,
    announce: Callable[[int], None] = lambda pixels: None,
) -> Photograph:
    """Decodes a picture in colour.

    Args:
      data: the whole file.
      max_pixels: larger pictures are refused before they are decoded.
      min_side: pictures whose shorter side has fewer pixels are refused, too.
      side: pixels; a longer short side is reduced to it.
      announce: called with the number of pixels before they are decoded.

    Raises:
      Refusal: as `scan.read_scan`, and GREY for pictures without colour.
    """
    with opened(data, max_pixels=max_pixels, min_side=min_side, announce=announce) as image:
        mode, size = image.mode, image.size
        profile, gamma = image.info.get("icc_profile"), png.gamma(image)
        if mode in ("1", "L", "LA", "La") or mode.startswith(("I", "F")):
            raise Refusal(Reason.GREY, f"its pixels have the mode {mode!r}, without colour")
        scale = 2 * side / min(size)  # what a JPEG's decoder leaves is then reduced by area
        image.draft(mode, (round(scale * size[0]), round(scale * size[1])))
        image.load()
        orientation = orientation_of(image)  # now: Pillow turns a TIFF by itself
        if mode in ("P", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = flatten(image, [])
        if image.mode not in ("CMYK", "LAB", "RGB", "YCbCr"):
            raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the mode {mode!r} are not supported")
        image = to_srgb(image, profile, [], gamma)
        rgb = _shrunk(upright(np.asarray(image), orientation), side)
        return Photograph(rgb, size if orientation < 5 else size[::-1], mode)


def _shrunk(rgb: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(rgb.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    size = [max(1, round(scale * edge)) for edge in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
