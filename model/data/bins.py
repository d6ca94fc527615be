"""The chroma bins of a run, which are stored as `bins.json` in its folder and beside an exported model."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.color import conversion
from model.data.batches import resized
from model.data.photos import Photo, chroma

BINS = "bins.json"


def fit_bins(photos: list[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres [Q, 2] and their shares [Q] of the pixels of all photographs, which are reduced first."""
    return conversion.grid_bins(np.concatenate(list(_colors(photos))))


def count_bins(photos: list[Photo], centres: np.ndarray) -> np.ndarray:
    """Shares [Q] of given bin centres [Q, 2] in the pixels of all photographs, which are reduced first.

    Each count is increased by one, so that bins that do not occur have a finite weight.
    """
    counts = np.ones(len(centres))
    for colors in _colors(photos):
        counts += np.bincount(conversion.nearest_bins(colors, centres), minlength=len(centres))
    return counts / counts.sum()


def _colors(photos: list[Photo], size: int = 32) -> Iterator[np.ndarray]:
    for photo in photos:
        yield chroma(resized(photo.pixels, size, size)).reshape(-1, 2)


def read_bins(folder: str | Path) -> dict:
    """Reads `bins.json` in a folder.

    Returns `centres` [Q, 2] in Lab units, `shares` [Q] of the training pixels, and `uniform`, the share of the
    uniform distribution in the weights of the loss (see `losses.rebalancing_weights`).
    """
    return json.loads((Path(folder) / BINS).read_text(encoding="utf-8"))
