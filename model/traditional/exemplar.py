"""Colour from a reference picture: Welsh, Ashikhmin and Mueller 2002, "Transferring Color to Greyscale Images".

Each pixel takes the chroma of that sample of the reference whose lightness and texture are nearest to its own.
With several references, the one that looks most like the picture lends its colours. The paper's space is l-alpha-beta,
ours Lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from model import batches
from model.photos import chroma

if TYPE_CHECKING:
    from model.evaluation import Predictor

SAMPLES = 256  # of a reference, one in each cell of a square grid
SIDE = 160  # pixels to which a reference is squashed
_WINDOW = 5  # side of the windows of the local deviation (ibid.)
_LAYOUT = 8  # places a side in the descriptor


@dataclass(frozen=True)
class Reference:
    """What is kept of a reference picture.

    Attributes:
        lightness: [P] float32, L* of each sample.
        deviation: [P] float32, standard deviation of L* in the 5 x 5 pixels around it.
        chroma: [P, 2] float32, a*b*.
        mean, spread: of L* over the whole picture.
        descriptor: see `descriptor`.
    """

    lightness: np.ndarray
    deviation: np.ndarray
    chroma: np.ndarray
    mean: float
    spread: float
    descriptor: np.ndarray


def reference(pixels: np.ndarray, seed: int = 0) -> Reference:
    """Of a colour picture, RGB [H, W, 3] uint8; `seed` jitters the places of the samples."""
    square = batches.resized(pixels, SIDE, SIDE)
    lightness = batches.lightness(square)[..., 0]
    side = round(SAMPLES**0.5)
    jitter = np.random.default_rng(seed).random((2, side, side))
    y, x = ((np.mgrid[:side, :side] + jitter) * SIDE / side).astype(int).reshape(2, -1)
    return Reference(
        lightness[y, x],
        _deviation(lightness)[y, x],
        chroma(square)[y, x],
        float(lightness.mean()),
        float(lightness.std()),
        descriptor(lightness),
    )


def descriptor(lightness: np.ndarray) -> np.ndarray:
    """What a picture looks like without its colours: where it is light and where it is rough.

    Of lightness [H, W], at 8 x 8 places: the mean of L* and of its local deviation, each with mean 0 and length
    sqrt(1/2) over the places. [128] float32; the scalar product of two is -1..1, and 1 for the same picture at another
    exposure.
    """
    places = [
        cv2.resize(np.float32(plane), (_LAYOUT, _LAYOUT), interpolation=cv2.INTER_AREA).ravel()
        for plane in (lightness, _deviation(lightness))
    ]
    centred = [plane - plane.mean() for plane in places]
    return np.concatenate([plane / max(np.sqrt(2) * np.linalg.norm(plane), 1e-3) for plane in centred])


def transferred(lightness: np.ndarray, source: Reference) -> np.ndarray:
    """Chroma [H, W, 2] float32 for lightness [H, W].

    The samples' lightness is first given the picture's mean and spread. What is compared is half the lightness and half
    the local deviation, added up (ibid., section 2).
    """
    scale = float(lightness.std()) / max(source.spread, 1e-3)
    matched = (source.lightness - source.mean) * scale + lightness.mean()
    known = (matched + scale * source.deviation) / 2
    wanted = (lightness + _deviation(lightness)) / 2
    order = np.argsort(known, kind="stable")
    between = (known[order][1:] + known[order][:-1]) / 2
    return source.chroma[order][np.searchsorted(between, wanted)].astype(np.float32)


def most_similar(lightness: np.ndarray, references: Sequence[Reference]) -> tuple[Reference, float]:
    """The reference whose descriptor is nearest to that of lightness [H, W], and how alike they are, -1..1."""
    own = descriptor(lightness)
    alike = [float(own @ each.descriptor) for each in references]
    best = int(np.argmax(alike))
    return references[best], alike[best]


def predictor(references: Sequence[Reference]) -> Predictor:
    """Transfer from the most similar of several references; confident of a picture that looks like it.

    Raises ValueError where there is no reference.
    """
    if not references:
        raise ValueError("there is no reference picture")

    def predict(lightness):
        found = [most_similar(picture[..., 0], references) for picture in lightness]
        colors = [
            transferred(picture[..., 0], source)
            for picture, (source, _) in zip(lightness, found, strict=True)
        ]
        return np.stack(colors), np.float32([max(0.0, alike) for _, alike in found])

    return predict


def _deviation(lightness: np.ndarray) -> np.ndarray:
    lightness = np.float32(lightness)
    mean, square = (
        cv2.blur(plane, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT)
        for plane in (lightness, lightness * lightness)
    )
    return np.sqrt(np.maximum(square - mean * mean, 0))
