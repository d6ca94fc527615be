"""Decides whether a picture is grey. A tint, a colour chart or a stamp do not count as colour."""

import cv2
import numpy as np

from pipeline.records.record import Reason, Refusal

# RMS distance of a*b* from their mean at the same lightness. Sepia prints as JPEGs of quality 70 stay below 3.1,
# unevenly stained ones mostly below 4; nine of ten colour photographs are above.
COLOR_SPREAD = 3.3
# A chart or a stamp beside a grey photograph: its largest share, its smallest chroma, and the largest chroma of the
# rest.
PART_SHARE, PART_CHROMA, PART_REST = 0.1, 8.0, 1.5
SIDE = 128  # pixels; the picture is reduced first, so that noise does not count as colour


def check_grey(rgb: np.ndarray, notes: list[str]) -> None:
    """Raises Refusal for a picture in colour. Colour in a small part of a grey picture is noted."""
    if color_spread(rgb) <= COLOR_SPREAD:
        return
    if is_grey_but_for_a_part(rgb):
        notes.append("a small part of it has colour (a colour chart, a stamp?); it was taken as grey")
        return
    raise Refusal(Reason.ALREADY_COLOR, "it has colour already (--color_scans colorize colours it again)")


def color_spread(rgb: np.ndarray) -> float:
    """Deviation of chroma from a function of lightness: about 0 for grey and for any tint.

    Args:
      rgb: uint8 [H, W, 3], sRGB.

    Returns:
      RMS distance in Lab units of the pixels' a*b* from the mean at their lightness, at a size of 128 pixels.
    """
    lab = cv2.cvtColor(_spread_view(rgb).astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    return float(np.sqrt(np.mean(_squared_deviation(lab, np.ones(len(lab), bool)))))


def is_grey_but_for_a_part(rgb: np.ndarray) -> bool:
    """Whether a grey or tinted picture has colour only in a small part, such as a colour chart, a stamp or a label.

    Args:
      rgb: uint8 [H, W, 3], sRGB.
    """
    small = _spread_view(rgb)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    flat, grey = lab.reshape(-1, 3), np.ones(small.shape[:2], bool)
    for _ in range(3):  # coloured pixels shift the means from which they are measured
        strong = _squared_deviation(flat, grey.ravel()).reshape(grey.shape) > PART_CHROMA**2
        grey = ~cv2.dilate(strong.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        if grey.mean() < 0.5:
            return False
    rest = np.sqrt(_squared_deviation(flat, grey.ravel())[grey.ravel()].mean())
    return bool(grey.mean() >= 1 - PART_SHARE and rest <= PART_REST)


def _spread_view(rgb: np.ndarray) -> np.ndarray:
    scale = SIDE / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    size = [max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0])]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _squared_deviation(lab: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Squared distances [P] of a*b* from the means at their lightness, which are taken over the counted pixels."""
    level = np.clip(lab[:, 0] * (16 / 100), 0, 15).astype(np.intp)
    count = np.bincount(level[counted], minlength=16)
    square = np.zeros(len(lab))
    for chroma in (lab[:, 1], lab[:, 2]):
        mean = np.bincount(level[counted], chroma[counted], minlength=16) / np.maximum(count, 1)
        mean = np.where(count > 0, mean, chroma[counted].mean() if counted.any() else 0.0)
        square += (chroma - mean[level]) ** 2
    return square
