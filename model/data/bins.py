"""Chroma bins of a run: from its photographs, and as `bins.json` in its folder and beside an exported model."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model import color
from model.batches import resized
from model.photos import Photo, chroma

BINS = "bins.json"


def fit_bins(photos: list[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres [Q, 2] and their shares [Q] of the pixels of all photographs, reduced."""
    return color.grid_bins(np.concatenate(list(_colors(photos))))


def count_bins(photos: list[Photo], centres: np.ndarray) -> np.ndarray:
    """Shares [Q] of given bin centres [Q, 2] in the pixels of all photographs, reduced.

    Each bin is counted once more than it occurs: one that never does has a finite weight, too.
    """
    counts = np.ones(len(centres))
    for colors in _colors(photos):
        counts += np.bincount(color.nearest_bins(colors, centres), minlength=len(centres))
    return counts / counts.sum()


def _colors(photos: list[Photo], size: int = 32) -> Iterator[np.ndarray]:
    for photo in photos:
        yield chroma(resized(photo.pixels, size, size)).reshape(-1, 2)


def read_bins(folder: str | Path) -> dict:
    """What `bins.json` in a folder holds.

    `centres` [Q, 2] in Lab units, `shares` [Q] of the training pixels, and `uniform`, the part of the uniform
    distribution in the weights of the loss (see `losses.rebalancing_weights`).
    """
    return json.loads((Path(folder) / BINS).read_text(encoding="utf-8"))
