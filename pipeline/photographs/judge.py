"""What a picture must be to be trained on: a photograph, in colour. Judgements of RGB pixels, each in words."""

import cv2
import numpy as np

from pipeline.opening import MIN_SIDE
from pipeline.record import Reason, Refusal
from pipeline.scan import color_spread, read_color
from pipeline.settings import MAX_PIXELS

NEARLY_GREY = 1.5  # see `scan.color_spread`: below it there is little to learn from
# A tint, as of sepia or stained paper: warm, of one hue however unevenly strong, and over (nearly) everything.
_WARM = 50, 105  # hues in degrees of Lab, from orange to yellow
_TINT = 4.0  # Lab units of mean chroma; weaker ones leave little colour spread
_ACROSS = 1.8  # Lab units: RMS of chroma across the mean hue. Nine of ten sepia prints stay below 1.4
_EVERYWHERE = 0.1  # chroma along the mean hue of all but a twentieth of the pixels, over its mean
_SMALL = 64  # pixels of the square that a tint is looked for in
FLAT = 0.75  # of neighbouring pixels that are equal; drawings have 0.8 and more, also as JPEGs of quality 40
# Text: so much of a page is paper of one lightness, light and hardly coloured, and so many of its rows alternate
# so often between paper and ink.
_PAPER, _ROWS, _STROKES = 0.5, 0.5, 10
_EVEN, _LIGHT, _INK = 20, 140, 50  # 8-bit levels: around the paper's, of the paper, below the paper's
_COLORED = 8.0  # colour spread that no page of print has


def judge(rgb: np.ndarray) -> None:
    """Raises Refusal for RGB [H, W, 3] uint8 that is a text page, clip-art, or grey in whatever tint."""
    if (share := flatness(rgb)) > FLAT:
        raise Refusal(Reason.CLIP_ART, f"{share:.0%} of it is flat colour, as in drawings")
    if is_text_page(rgb):
        raise Refusal(Reason.TEXT_PAGE, "it is mostly paper with rows of strokes, as in text")
    check_color(rgb)


def check_color(rgb: np.ndarray) -> None:
    """Raises Refusal for RGB [H, W, 3] uint8 that is grey in whatever tint."""
    if (spread := color_spread(rgb)) < NEARLY_GREY:
        raise Refusal(
            Reason.GREY, f"its colours vary by {spread:.1f} at one lightness: too little to learn from"
        )
    if is_tinted(rgb):
        raise Refusal(Reason.GREY, "one warm tint lies over all of it, as on sepia prints")


def photograph(data: bytes, side: int) -> np.ndarray:
    """RGB [h, w, 3] uint8 of a colour photograph in a file, upright sRGB.

    Args:
      side: pixels to which the shorter side is reduced where it is longer.

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
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.int16)
    paper = int(np.percentile(luma, 75))
    if paper < _LIGHT or np.mean(np.abs(luma - paper) <= _EVEN) < _PAPER or color_spread(rgb) > _COLORED:
        return False
    ink = luma < paper - _INK
    strokes = np.count_nonzero(ink[:, 1:] & ~ink[:, :-1], axis=1)
    return bool(np.mean(strokes >= _STROKES) > _ROWS)


def is_tinted(rgb: np.ndarray) -> bool:
    """Whether all colour of RGB [H, W, 3] uint8 is one warm hue, as of sepia, be it unevenly stained.

    Blue tints are left to `NEARLY_GREY`: they cannot be told from ice, sea and haze.
    """
    small = cv2.resize(rgb, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
    chroma = cv2.cvtColor(np.float32(small) / 255, cv2.COLOR_RGB2LAB)[..., 1:].reshape(-1, 2)
    a, b = mean = chroma.mean(axis=0)
    tint = float(np.hypot(a, b))
    if tint < _TINT or not _WARM[0] < np.degrees(np.arctan2(b, a)) < _WARM[1]:
        return False
    along, across = chroma @ mean / tint, chroma @ (-b, a) / tint
    return bool(across.std() < _ACROSS and np.percentile(along, 5) > _EVERYWHERE * tint)
