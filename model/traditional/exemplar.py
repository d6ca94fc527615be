"""Colour from a reference picture: Welsh, Ashikhmin and Mueller 2002, "Transferring Color to Greyscale Images".

Each pixel gets the chroma of the sample of the reference with the nearest lightness and texture. With several
references, the most similar one is taken. The paper uses the colour space l-alpha-beta; here it is Lab.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from model.data import batches
from model.data.photos import chroma
from model.predictor import Predictor

SAMPLES = 256  # of a reference, one in each cell of a square grid
SIDE = 160  # pixels; size of a squashed reference
_WINDOW = 5  # pixels; side of the windows for the local deviation (ibid.)
_LAYOUT = 8  # positions on each side of the descriptor


@dataclass(frozen=True)
class Reference:
    """A reference picture.

    Attributes:
        lightness: [P] float32, L* of each sample.
        deviation: [P] float32, standard deviation of L* in the 5 x 5 pixels around it.
        chroma: [P, 2] float32, a*b*.
        mean, spread: mean and standard deviation of L* over the whole picture.
        descriptor: see `descriptor`.
    """

    lightness: np.ndarray
    deviation: np.ndarray
    chroma: np.ndarray
    mean: float
    spread: float
    descriptor: np.ndarray


def reference(pixels: np.ndarray, seed: int = 0) -> Reference:
    """Makes a reference from RGB [H, W, 3] uint8. `seed` determines the random positions of the samples."""
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
    """Describes the layout of a picture of lightness [H, W]: where it is light and where it is rough.

    Returns [128] float32: the mean of L* and of its local deviation at 8 x 8 positions, each with mean 0 and length
    sqrt(1/2). The scalar product of two descriptors is in -1..1; it is 1 for the same picture at another exposure.
    """
    places = [
        cv2.resize(np.asarray(plane, np.float32), (_LAYOUT, _LAYOUT), interpolation=cv2.INTER_AREA).ravel()
        for plane in (lightness, _deviation(lightness))
    ]
    centred = [plane - plane.mean() for plane in places]
    return np.concatenate([plane / max(np.sqrt(2) * np.linalg.norm(plane), 1e-3) for plane in centred])


def transferred(lightness: np.ndarray, source: Reference) -> np.ndarray:
    """Chroma [H, W, 2] float32 for lightness [H, W].

    The lightness of the samples is first matched to the mean and the spread of the picture. Samples are compared by
    the mean of lightness and local deviation (ibid., section 2).
    """
    scale = float(lightness.std()) / max(source.spread, 1e-3)
    matched = (source.lightness - source.mean) * scale + lightness.mean()
    known = (matched + scale * source.deviation) / 2
    wanted = (lightness + _deviation(lightness)) / 2
    order = np.argsort(known, kind="stable")
    between = (known[order][1:] + known[order][:-1]) / 2
    return source.chroma[order][np.searchsorted(between, wanted)].astype(np.float32)


def most_similar(lightness: np.ndarray, references: Sequence[Reference]) -> tuple[Reference, float]:
    """The most similar reference to lightness [H, W], and the scalar product of the descriptors, -1..1."""
    own = descriptor(lightness)
    alike = [float(own @ each.descriptor) for each in references]
    best = int(np.argmax(alike))
    return references[best], alike[best]


def predictor(references: Sequence[Reference]) -> Predictor:
    """Transfers from the most similar of several references. The confidence is the similarity.

    Raises ValueError if there is no reference.
    """
    if not references:
        raise ValueError("there is no reference picture")

    def predict(lightness):
        found = [most_similar(picture[..., 0], references) for picture in lightness]
        colors = [
            transferred(picture[..., 0], source)
            for picture, (source, _) in zip(lightness, found, strict=True)
        ]
        return np.stack(colors), np.array([max(0.0, alike) for _, alike in found], np.float32)

    return predict


def _deviation(lightness: np.ndarray) -> np.ndarray:
    lightness = np.asarray(lightness, np.float32)
    mean, square = (
        cv2.blur(plane, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT)
        for plane in (lightness, lightness * lightness)
    )
    return np.sqrt(np.maximum(square - mean * mean, 0))
