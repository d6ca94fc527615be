"""Chroma looked up by lightness: the mean of all training pixels of that lightness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model import batches
from model.photos import Photo, chroma

if TYPE_CHECKING:
    from model.evaluation import Predictor


def predictor(table: np.ndarray) -> Predictor:
    """Chroma by whole L*, from a table [101, 2] in Lab units; its confidence is 0, as it looks at no picture."""

    def predict(lightness):
        levels = np.round(lightness[..., 0]).astype(int)
        return table[levels], np.zeros(len(lightness), np.float32)

    return predict


def fit(photos: list[Photo], size: int = 32) -> np.ndarray:
    """Mean chroma [101, 2] float32 of each whole L* over all photographs at `size` x `size`; empty levels are grey."""
    sums, counts = np.zeros((101, 2)), np.zeros(101)
    for photo in photos:
        square = batches.resized(photo.pixels, size, size)
        levels = np.round(batches.lightness(square)).astype(int).ravel()
        np.add.at(sums, levels, chroma(square).reshape(-1, 2))
        np.add.at(counts, levels, 1)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
