"""Colour by rules: what a bright and smooth place at the top is, a sky, what a rough one below is, foliage.

Rules are tried in order; what none of them knows is filled from what they do know, along the luma
(`propagation`). Without weights, and the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from keras import ops

from model import batches, color
from model.photos import Photo, chroma
from model.traditional import propagation

if TYPE_CHECKING:
    from model.evaluation import Predictor

SOLVED = 64 * 64  # pixels at which the unknown places are filled
_WINDOW = 1 / 24  # side of the windows of the local deviation, as a share of the picture's
_ANY = (-np.inf, np.inf)


@dataclass(frozen=True)
class Rule:
    """What a place must be like (each bound: from, up to), its colour, and how sure that is.

    Attributes:
        lightness: L*, 0..100.
        deviation: standard deviation of L* around.
        height: 0 at the top of the picture, 1 at its bottom.
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

    def holds(self, found: Features) -> np.ndarray:
        """Where it applies, bool [H, W]."""
        bounds = (self.lightness, self.deviation, self.height, self.gradient)
        planes = (found.lightness, found.deviation, found.height, found.gradient)
        return np.logical_and.reduce(
            [(low <= plane) & (plane < high) for plane, (low, high) in zip(planes, bounds, strict=True)]
        )


@dataclass(frozen=True)
class Features:
    """What rules look at, float32 [H, W] each; see `Rule`."""

    lightness: np.ndarray
    deviation: np.ndarray
    height: np.ndarray
    gradient: np.ndarray


# Suggestions, from looking at photographs; `fit` replaces colours and confidences, the bounds are ours.
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
    """Of a picture's lightness [H, W], L*."""
    lightness = np.float32(lightness)
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
    """Index int [H, W] of the first rule that holds in each pixel of lightness [H, W]; -1 where none does."""
    found = features(lightness)
    return np.select([rule.holds(found) for rule in rules], range(len(rules)), default=-1)


def colored(lightness: np.ndarray, rules: tuple[Rule, ...] = RULES) -> tuple[np.ndarray, float]:
    """Chroma [H, W, 2] float32 of lightness [H, W], and a confidence 0..1: the rules', times the share they know.

    Where no rule holds anywhere, all is neutral and the confidence 0.
    """
    which = assigned(lightness, rules)
    known = which >= 0
    if not known.any():
        return np.zeros((*which.shape, 2), np.float32), 0.0
    own = np.float32([rule.chroma for rule in rules])[which]
    luma = np.uint8(np.rint(255 * np.clip(ops.convert_to_numpy(color.grey_of_lightness(lightness)), 0, 1)))
    filled = propagation.propagate(luma, own, known, largest=SOLVED)
    confidence = np.float32([rule.confidence for rule in rules])[which[known]].mean() * known.mean()
    return np.where(known[..., None], own, filled), float(confidence)


def predictor(rules: tuple[Rule, ...] = RULES) -> Predictor:
    """The rules as a row of a comparison."""

    def predict(lightness):
        chroma_of, confidence = zip(*(colored(picture[..., 0], rules) for picture in lightness), strict=True)
        return np.stack(chroma_of), np.float32(confidence)

    return predict


def fit(
    photos: list[Photo], rules: tuple[Rule, ...] = RULES, size: int = 64, least: int = 1000
) -> tuple[Rule, ...]:
    """The rules with the colours that photographs have where each applies.

    Chroma becomes the mean over those pixels, at `size` x `size`; confidence the share of their chroma's mean
    square that it explains. A rule that applies to fewer than `least` pixels stays as it is.
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
