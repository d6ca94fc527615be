"""Steadies the chroma of a film frame over its neighbours in the same shot.

A network colours each frame as if it were alone, so its colours flicker. Here the chroma of neighbours is carried to
the frame along the motion of luma, and averaged. The result depends on the frame and its neighbours only.

The motion is dense optical flow (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search"; OpenCV), from the
frame to the neighbour and back. A place is *matched* if the way there and back leads to where it began, and luma is
alike on both ends. Across a cut, flow finds little that holds in both directions. Luma is normalised first, so that
exposure, flicker and fades do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# A neighbour is of the same shot if this share of the places is matched, and luma correlates this well along the flow.
# On the film of `tests.benchmarks.flicker`, both were at least 0.39 and 0.83 in shots, and at most 0.11 and 0.30 across
# cuts. Of unrelated photographs, closely cropped faces in one pose come nearest: up to 0.34 and 0.92.
MATCHED, CORRELATED = 0.36, 0.6

_SHARE, _LEAST_SIDE = 2, 32  # flow is found on a half of the tile's side; OpenCV needs 24 pixels
_BLUR = 0.7  # pixels: standard deviation, against grain
_LEVEL, _DEVIATION, _FLAT = 128, 48, 3.0  # of normalised luma; least deviation that is stretched
_RETURN = 0.75  # pixels: standard deviation of the way there and back
_ALIKE = 16.0  # normalised levels: standard deviation between places that are the same
_LIKELY = 0.25  # likelihood, 0...1, above which a place is matched


@dataclass(frozen=True, slots=True)
class Other:
    """A neighbour of a frame."""

    away: int  # frames; negative before it
    tiles: np.ndarray  # luma, uint8 [K, S, S]
    chroma: np.ndarray  # float [K, S, S, 2], a*b*; without it (not finite) the neighbour is not used


def steadied(
    tiles: np.ndarray, chroma: np.ndarray, others: Sequence[Other], reach: int
) -> tuple[np.ndarray, list[int]]:
    """Averages the chroma of a frame over those of its neighbours that are of the same shot.

    Args:
      tiles: luma of the frame, uint8 [K, S, S].
      chroma: of the frame, float [K, S, S, 2], a*b*.
      others: its neighbours.
      reach: of the farthest neighbour that there can be, in frames. Weights fall linearly, to zero behind it.

    Returns:
      chroma float32 [K, S, S, 2], and the indices of the neighbours that were used.
    """
    chroma = np.asarray(chroma, np.float32)
    frame, own = _normalised(tiles), [_reduced(planes) for planes in chroma]
    total = [planes.copy() for planes in own]
    weight = [np.ones(luma.shape, np.float32) for luma in frame]
    used = []
    for index, other in enumerate(others):
        if not np.isfinite(other.chroma).all():
            continue
        theirs = _normalised(other.tiles)
        ways = [_way(here, there) for here, there in zip(frame, theirs, strict=True)]
        if not _is_same_shot(frame, theirs, ways):
            continue
        used.append(index)
        share = np.float32(1 - abs(other.away) / (reach + 1))
        for tile, (way, likely) in enumerate(ways):
            carried = _carried(_reduced(np.asarray(other.chroma[tile], np.float32)), way)
            total[tile] += carried * (share * likely)[..., None]
            weight[tile] += share * likely
    changes = [new / sum_[..., None] - old for new, sum_, old in zip(total, weight, own, strict=True)]
    size = tiles.shape[:0:-1]
    return chroma + np.stack([cv2.resize(change, size) for change in changes]), used


def _is_same_shot(
    frame: list[np.ndarray], theirs: list[np.ndarray], ways: list[tuple[np.ndarray, np.ndarray]]
) -> bool:
    if np.mean([likely > _LIKELY for _, likely in ways]) < MATCHED:
        return False
    pairs = zip(theirs, ways, strict=True)
    carried = np.stack([_carried(luma.astype(np.float32), way) for luma, (way, _) in pairs])
    return bool(
        carried.std() > 0 and np.corrcoef(np.stack(frame).ravel(), carried.ravel())[0, 1] > CORRELATED
    )


def _reduced(plane: np.ndarray) -> np.ndarray:
    side = max(_LEAST_SIDE, len(plane) // _SHARE)
    method = cv2.INTER_AREA if side < len(plane) else cv2.INTER_LINEAR
    return cv2.resize(plane, (side, side), interpolation=method)


def _normalised(tiles: np.ndarray) -> list[np.ndarray]:
    """Reduced luma uint8, with the same mean and deviation over all tiles for every exposure."""
    soft = [cv2.GaussianBlur(_reduced(tile).astype(np.float32), (0, 0), _BLUR) for tile in tiles]
    mean, gain = np.mean(soft), _DEVIATION / max(_FLAT, float(np.std(soft)))
    return [np.rint(np.clip(_LEVEL + gain * (tile - mean), 0, 255)).astype(np.uint8) for tile in soft]


def _way(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places float32 [h, w, 2] (x, y) to which those of a frame move, and how likely, float32 [h, w], 0...1."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forth, back = (flow.calc(one, other, np.empty(0)) for one, other in ((here, there), (there, here)))
    height, width = here.shape
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    way = places + forth
    astray = ((forth + _carried(back, way)) ** 2).sum(axis=-1) / np.float32(_RETURN**2)
    unlike = (_carried(there.astype(np.float32), way) - here) ** 2 / np.float32(_ALIKE**2)
    inside = ((way >= 0) & (way <= (width - 1, height - 1))).all(axis=-1)
    return way, np.exp(-(astray + unlike) / 2) * inside


def _carried(planes: np.ndarray, way: np.ndarray) -> np.ndarray:
    """The values at other places, of float32 [h, w] or [h, w, 2]."""
    x, y = cv2.split(way)
    return cv2.remap(planes, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
