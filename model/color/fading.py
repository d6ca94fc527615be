"""Fades chroma where a network is uncertain: the mean of many likely colours would be a pale brown."""

import numpy as np


def faded(chroma: np.ndarray, certainty: np.ndarray, calm: float) -> np.ndarray:
    """Scales chroma by certainty / calm where the certainty is less than calm.

    Args:
        chroma: float32 [..., 2].
        certainty: float32 [...], 0..1.
        calm: more than 0, at most 1.
    """
    return chroma * np.minimum(certainty / np.float32(calm), 1)[..., None]


def share(chroma: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Share [N], 0..1, of the chroma [N, H, W, 2] of each picture that is missing in what is `left` of it."""
    before, after = (np.hypot(planes[..., 0], planes[..., 1]).sum(axis=(1, 2)) for planes in (chroma, left))
    return 1 - after / np.maximum(before, 1e-6)
