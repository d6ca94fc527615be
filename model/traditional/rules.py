"""Colours by rules: a bright and smooth region at the top is sky, a rough one below is foliage.

The first rule that holds for a pixel gives its colour. Other pixels are filled by propagation along luma. There are
no weights, and the result is the same on every machine.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from keras import ops

from model.color import conversion, propagation
from model.data import batches
from model.data.photos import Photo, chroma
from model.predictor import Predictor

SOLVED = 64 * 64  # pixels; size at which other pixels are filled
_WINDOW = 1 / 24  # side of the windows for the local deviation, as a share of the longer side
_ANY = (-np.inf, np.inf)


@dataclass(frozen=True)
class Rule:
    """The bounds (from, up to) of the features of a pixel, its colour, and the confidence in it.

    Attributes:
        lightness: L*, 0..100.
        deviation: local standard deviation of L*.
        height: position, from 0 at the top of the picture to 1 at its bottom.
        gradient: change of the smoothed L* over a window.
        chroma: a*, b*.
        confidence: 0..1.
    """

    name: str
    lightness: tuple[float, float] = _ANY
    deviation: tuple[float, float] = _ANY
    height: tuple[float, float] = _ANY
    gradient: tuple[float, float] = _ANY
    chroma: tuple[float, float] = (0.0, 0.0)
    confidence: float = 0.5

    def holds(self, found: "Features") -> np.ndarray:
        """Where the rule holds, bool [H, W]."""
        bounds = (self.lightness, self.deviation, self.height, self.gradient)
        planes = (found.lightness, found.deviation, found.height, found.gradient)
        return np.logical_and.reduce(
            [(low <= plane) & (plane < high) for plane, (low, high) in zip(planes, bounds, strict=True)]
        )


@dataclass(frozen=True)
class Features:
    """Features of the pixels, float32 [H, W] each; see `Rule`."""

    lightness: np.ndarray
    deviation: np.ndarray
    height: np.ndarray
    gradient: np.ndarray


# Bounds and colours were chosen by looking at photographs. `fit` replaces the colours and the confidences.
RULES = (
    Rule("sky", (60, 101), (0, 4), (0, 0.4), (0, 12), chroma=(-5, -20), confidence=0.6),
    Rule("deep sky", (35, 60), (0, 2.5), (0, 0.25), (0, 8), chroma=(-2, -25), confidence=0.5),
    Rule("shade", (0, 12), chroma=(0, 1), confidence=0.5),
    Rule("foliage", (15, 60), (6, np.inf), (0.35, 1.01), chroma=(-12, 20), confidence=0.4),
    Rule("lawn, sand", (35, 75), (2, 6), (0.6, 1.01), (0, 15), chroma=(-3, 18), confidence=0.3),
    Rule("skin", (50, 80), (0, 5), (0.15, 0.6), (12, np.inf), chroma=(12, 15), confidence=0.2),
    Rule("paper, cloud", (88, 101), chroma=(0, 4), confidence=0.5),
)


def features(lightness: np.ndarray) -> Features:
    """Features of a picture from its lightness [H, W], L*."""
    lightness = np.asarray(lightness, np.float32)
    height, width = lightness.shape
    side = max(3, round(_WINDOW * max(height, width)) | 1)
    mean = cv2.blur(lightness, (side, side), borderType=cv2.BORDER_REFLECT)
    square = cv2.blur(lightness * lightness, (side, side), borderType=cv2.BORDER_REFLECT)
    down, right = np.gradient(mean)
    rows = np.broadcast_to(np.linspace(0, 1, height, dtype=np.float32)[:, None], lightness.shape)
    return Features(
        lightness, np.sqrt(np.maximum(square - mean * mean, 0)), rows, side * np.hypot(down, right)
    )


def assigned(lightness: np.ndarray, rules: tuple[Rule, ...] = RULES) -> np.ndarray:
    """Index int [H, W] of the first rule that holds for each pixel of lightness [H, W]; -1 if none does."""
    found = features(lightness)
    return np.select([rule.holds(found) for rule in rules], range(len(rules)), default=-1)


def colored(lightness: np.ndarray, rules: tuple[Rule, ...] = RULES) -> tuple[np.ndarray, float]:
    """Chroma [H, W, 2] float32 for lightness [H, W], and a confidence 0..1.

    The confidence is the mean confidence of the rules times the share of pixels for which a rule holds. If there
    are none, the picture is neutral and the confidence 0.
    """
    which = assigned(lightness, rules)
    known = which >= 0
    if not known.any():
        return np.zeros((*which.shape, 2), np.float32), 0.0
    own = np.array([rule.chroma for rule in rules], np.float32)[which]
    grey = ops.convert_to_numpy(conversion.grey_of_lightness(lightness))
    luma = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    filled = propagation.propagate(luma, own, known, largest=SOLVED)
    confidence = np.array([rule.confidence for rule in rules], np.float32)[which[known]].mean() * known.mean()
    return np.where(known[..., None], own, filled), float(confidence)


def predictor(rules: tuple[Rule, ...] = RULES) -> Predictor:
    """The rules as a predictor."""

    def predict(lightness):
        chroma_of, confidence = zip(*(colored(picture[..., 0], rules) for picture in lightness), strict=True)
        return np.stack(chroma_of), np.array(confidence, np.float32)

    return predict


def fit(
    photos: list[Photo], rules: tuple[Rule, ...] = RULES, size: int = 64, least: int = 1000
) -> tuple[Rule, ...]:
    """Fits the colours of rules to photographs.

    The chroma of a rule becomes the mean over its pixels, at `size` x `size`. Its confidence becomes the share of
    the mean square of their chroma that this mean explains. A rule with fewer than `least` pixels does not change.
    """
    sums, squares, counts = np.zeros((len(rules), 2)), np.zeros(len(rules)), np.zeros(len(rules))
    for photo in photos:
        square = batches.resized(photo.pixels, size, size)
        which, truth = assigned(batches.lightness(square)[..., 0], rules), chroma(square)
        known = which >= 0
        np.add.at(sums, which[known], truth[known])
        np.add.at(squares, which[known], (truth[known] ** 2).sum(axis=-1))
        np.add.at(counts, which[known], 1)
    fitted = []
    for rule, total, square, count in zip(rules, sums, squares, counts, strict=True):
        if count >= least:
            mean = total / count
            explained = float(mean @ mean / max(square / count, 1e-6))
            rule = replace(rule, chroma=tuple(mean.round(1).tolist()), confidence=round(explained, 2))
        fitted.append(rule)
    return tuple(fitted)
