"""What a picture must be to be trained on: a photograph, in colour. Judgements of RGB pixels, each in words."""

import cv2
import numpy as np

from pipeline.record import Reason, Refusal
from pipeline.scan import color_spread

# RMS distance of a*b* from their mean at the same lightness: see `scan.color_spread`. What is below the first is
# grey; below the second it is if one tint, so many times as strong as that distance, lies over everything.
NEARLY_GREY, TINTED, TINT = 1.5, 3.3, 4.0
FLAT = 0.65  # of neighbouring pixels that are equal; one photograph in a thousand has as many
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
    spread, tint = color_spread(rgb), _tint(rgb)
    if spread < NEARLY_GREY:
        raise Refusal(
            Reason.GREY, f"its colours vary by {spread:.1f} at one lightness: too little to learn from"
        )
    if spread < TINTED and tint > TINT * spread:
        raise Refusal(Reason.GREY, f"one tint of strength {tint:.0f} lies over all of it")


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


def _tint(rgb: np.ndarray) -> float:
    """Length in Lab units of the mean chroma."""
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(np.float32(small) / 255, cv2.COLOR_RGB2LAB)
    return float(np.hypot(lab[..., 1].mean(), lab[..., 2].mean()))
