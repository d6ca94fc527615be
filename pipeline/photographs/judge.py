"""Judges whether a picture is a colour photograph, fit for training."""

import cv2
import numpy as np

from pipeline.decoding.limits import MAX_PIXELS, MIN_SIDE
from pipeline.imaging import layout
from pipeline.imaging.grey import color_spread
from pipeline.photographs.reading import read_color
from pipeline.records.record import Reason, Refusal

NEARLY_GREY = 1.5  # smallest `grey.color_spread` of a colour photograph
# A tint, like sepia or stained paper: warm, of one hue but uneven strength, and nearly everywhere.
_WARM = 50, 105  # hues in degrees of Lab, from orange to yellow
_TINT = 4.0  # Lab units of mean chroma; weaker tints have a small colour spread
_ACROSS = 1.8  # Lab units: RMS of chroma across the mean hue. Nine of ten sepia prints stay below 1.4
_EVERYWHERE = 0.1  # chroma along the mean hue of all but a twentieth of the pixels, over its mean
_SMALL = 64  # pixels; side of the square in which a tint is searched
FLAT = 0.75  # share of equal neighbouring pixels; drawings have 0.8 and more, also as JPEGs of quality 40
_COLORED = 8.0  # largest colour spread of a page of text


def judge(rgb: np.ndarray) -> None:
    """Raises Refusal for RGB [H, W, 3] uint8 that is a page of text, clip-art, grey, or tinted."""
    if (share := flatness(rgb)) > FLAT:
        raise Refusal(Reason.CLIP_ART, f"{share:.0%} of it is flat colour, as in drawings")
    if is_text_page(rgb):
        raise Refusal(Reason.TEXT_PAGE, "it is mostly paper with rows of strokes, as in text")
    check_color(rgb)


def check_color(rgb: np.ndarray) -> None:
    """Raises Refusal for RGB [H, W, 3] uint8 that is grey or tinted."""
    if (spread := color_spread(rgb)) < NEARLY_GREY:
        raise Refusal(Reason.GREY, f"its colours vary by only {spread:.1f} at equal lightness")
    if is_tinted(rgb):
        raise Refusal(Reason.GREY, "it has one warm tint, like a sepia print")


def photograph(data: bytes, side: int) -> np.ndarray:
    """Reads a colour photograph: RGB [h, w, 3] uint8, upright sRGB.

    Args:
      data: the whole file.
      side: pixels; a longer short side is reduced to it.

    Raises:
      Refusal: it cannot be read, or is grey.
    """
    rgb = read_color(data, max_pixels=MAX_PIXELS, min_side=MIN_SIDE, side=side).rgb
    check_color(rgb)
    return rgb


def flatness(rgb: np.ndarray) -> float:
    """Share, 0..1, of horizontally neighbouring pixels of RGB [H, W, 3] uint8 that are equal."""
    return float(np.mean((rgb[:, 1:] == rgb[:, :-1]).all(axis=-1)))


def is_text_page(rgb: np.ndarray) -> bool:
    """Whether RGB [H, W, 3] uint8 looks like print or handwriting on paper."""
    return color_spread(rgb) <= _COLORED and layout.is_text(
        layout.reduced(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    )


def is_tinted(rgb: np.ndarray) -> bool:
    """Whether RGB [H, W, 3] uint8 has only one warm hue, like sepia, possibly uneven.

    Blue tints are only found by `NEARLY_GREY`, because they cannot be told from ice, sea and haze.
    """
    small = cv2.resize(rgb, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
    chroma = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:].reshape(-1, 2)
    a, b = mean = chroma.mean(axis=0)
    tint = float(np.hypot(a, b))
    if tint < _TINT or not _WARM[0] < np.degrees(np.arctan2(b, a)) < _WARM[1]:
        return False
    along, across = chroma @ mean / tint, chroma @ (-b, a) / tint
    return bool(across.std() < _ACROSS and np.percentile(along, 5) > _EVERYWHERE * tint)
