"""Propagates given colours through a picture: Levin, Lischinski and Weiss 2004, "Colorization using Optimization".

The colour of a pixel is the mean of its neighbours' colours, weighted by the similarity of their luma. Colours
therefore spread over surfaces and stop at edges. Luma is only read; the unknowns are two chroma planes of any
luma-chroma space.

Imports only NumPy, SciPy and OpenCV, because the batch job's codec process uses it, too.
"""

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph, linalg

from model.color import edges

# Constants of the authors' published code, for luma 0..1.
_SHARE = 0.6  # factor on the variance of the window, in the denominator of the exponent
_LEAST = 0.01  # smallest weight, before normalisation, of the most similar neighbour
_FLOOR = 2e-6  # smallest denominator, for flat windows

LARGEST = 1_000_000  # pixels; larger pictures are reduced before they are solved
_NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
# The mean over 8 neighbours minus the pixel, as a multiple of the Laplacian: 6 of 8 lie one step away along an axis.
_DIFFUSION = 0.375
_GRAIN = 1.0  # standard deviation of the blur before changes of luma are summed
_STEP = 0.02  # levels; cost of a step between pixels of equal luma
_FARTHEST = 3.5  # in units of the contrast; beyond it the pull stays constant


def weights(luma: np.ndarray) -> sparse.csr_matrix:
    """Weights of the neighbours of each pixel (ibid., equation 2, with the constants of the published code).

    Args:
      luma: uint8 [H, W].

    Returns:
      Float64 [N, N] for N = H * W pixels. Row r holds w_rs ~ exp(-(Y(r) - Y(s))^2 / c_r) for the at most eight
      neighbours s of r; they sum to 1. c_r is 0.6 times the variance of the 3 x 3 window around r, but so large that
      the most similar neighbour has a weight of at least 0.01 before normalisation.
    """
    height, width = luma.shape
    level = luma / 255
    framed = np.pad(level, 1, constant_values=np.nan)
    around = np.stack([_shifted(framed, *step, level.shape) for step in _NEIGHBOURS])
    variance = np.nanvar(np.concatenate([around, level[None]]), axis=0)
    square = (around - level) ** 2
    denominator = np.maximum(_SHARE * variance, -np.nanmin(square, axis=0) / np.log(_LEAST))
    weight = np.exp(-square / np.maximum(denominator, _FLOOR))
    weight /= np.nansum(weight, axis=0)
    index = np.arange(height * width).reshape(height, width)
    others = np.stack([_shifted(np.pad(index, 1), *step, level.shape) for step in _NEIGHBOURS])
    inside = np.isfinite(weight)
    rows = np.broadcast_to(index, others.shape)
    return sparse.csr_matrix((weight[inside], (rows[inside], others[inside])), shape=(index.size, index.size))


def propagate(luma: np.ndarray, planes: np.ndarray, marked: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """Solves the sparse linear system of the paper: chroma of all pixels from that of the marked ones.

    Args:
      luma: uint8 [H, W].
      planes: float [H, W, 2], read where `marked`.
      marked: bool [H, W].
      largest: pixels; larger pictures are solved at this size, and the chroma is enlarged along the edges of luma.

    Returns:
      Float32 [H, W, 2]. Marked pixels keep their colours (in a reduced picture: up to its resolution).

    Raises:
      ValueError: no pixel is marked.
    """
    if not marked.any():
        raise ValueError("no pixel is marked: there is no colour to propagate")
    small = reduced(luma, largest)
    if small is luma:
        return _solved(luma, planes, marked)
    planes, marked = gathered(np.argwhere(marked), planes[marked], marked.shape, small.shape)
    solved = _solved(small, planes, marked)
    model = edges.fit(small, np.ascontiguousarray(np.moveaxis(solved, -1, 0)), softness=0)
    return np.stack(edges.apply(model, luma), axis=-1)


def corrected(
    luma: np.ndarray,
    base: np.ndarray,
    planes: np.ndarray,
    marked: np.ndarray,
    *,
    reach: float,
    contrast: float,
) -> np.ndarray:
    """Corrects a base chroma near marks.

    This is the system of the paper with an additional pull towards the base. The influence of a mark decreases by a
    small share from pixel to pixel, and the rest is filled from the base at the same pixel. (As a random walk: a walk
    that reaches a mark brings the colour of the mark; a walk that ends earlier brings the colour of the base.) A
    surface with a mark gets the even colour of the mark. Pixels that no mark reaches keep their base chroma, even
    where it varies on an even surface. The pull grows with the change of luma on the path from the nearest mark, so
    that weak edges, which the weights alone do not stop at, add up.

    Args:
      luma: uint8 [H, W].
      base: float [H, W, 2].
      planes: float [H, W, 2], read where `marked`.
      marked: bool [H, W].
      reach: of a mark on an even surface, as a share of the longer side: the distance at which the influence of a
        long straight mark has fallen to 1/e.
      contrast: in levels of luma, summed along the path with the smallest sum, at which the pull is e times as strong
        as at the mark. The exponent grows with the square of the sum.

    Returns:
      Float32 [H, W, 2]. Marked pixels keep their colours.
    """
    if not marked.any():
        return base.astype(np.float32)
    growth = np.exp((_contrast_to(luma, marked, _FARTHEST * contrast) / contrast) ** 2)
    pull = _DIFFUSION / (reach * max(luma.shape)) ** 2 * growth
    share_too = np.concatenate([planes, np.ones((*marked.shape, 1))], axis=-1)
    solved = _solved(luma, share_too, marked, pull)
    return (1 - solved[..., 2:]) * base.astype(np.float32) + solved[..., :2]


def reduced(luma: np.ndarray, largest: int) -> np.ndarray:
    """Reduces luma uint8 [H, W] by area to at most about `largest` pixels. Returns smaller luma unchanged."""
    height, width = luma.shape
    if height * width <= largest:
        return luma
    scale = (largest / (height * width)) ** 0.5
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def gathered(
    places: np.ndarray, colors: np.ndarray, shape: tuple[int, ...], grid: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Moves marks to a coarser grid; each cell gets the mean of its marks.

    Args:
      places: int [P, 2], rows and columns in the picture.
      colors: float [P, 2].
      shape: height and width of the picture.
      grid: height h and width w of the grid.

    Returns:
      Planes float32 [h, w, 2] and marked bool [h, w].
    """
    cell = places[:, 0] * grid[0] // shape[0] * grid[1] + places[:, 1] * grid[1] // shape[1]
    counts = np.bincount(cell, minlength=grid[0] * grid[1])
    sums = [np.bincount(cell, plane, minlength=counts.size) for plane in np.transpose(colors)]
    means = np.stack(sums, axis=-1) / np.maximum(counts, 1)[:, None]
    return means.reshape(grid[0], grid[1], 2).astype(np.float32), (counts > 0).reshape(grid)


def _solved(
    luma: np.ndarray, planes: np.ndarray, marked: np.ndarray, pull: np.ndarray | float = 0.0
) -> np.ndarray:
    """Planes [H, W, K] float32: marked pixels as given, others the weighted mean of their neighbours over 1 + pull."""
    free = ~marked.ravel()
    pull = np.ravel(pull)
    given = np.where(free[:, None], 0.0, planes.reshape(free.size, -1))
    system = sparse.diags(1.0 + pull * free) - sparse.diags(free.astype(float)) @ weights(luma)
    # The pattern is symmetric and diagonally dominant: SuperLU needs no pivoting, and this ordering fits.
    factors = linalg.splu(
        system.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return factors.solve(given).reshape(*marked.shape, -1).astype(np.float32)


def _contrast_to(luma: np.ndarray, marked: np.ndarray, largest: float) -> np.ndarray:
    """Smallest sum of changes of luma [H, W], in levels, on any path from each pixel to a mark; at most `largest`."""
    soft = cv2.GaussianBlur(luma.astype(np.float64), (0, 0), _GRAIN).ravel()
    ways = weights(luma).tocoo()
    change = np.abs(soft[ways.row] - soft[ways.col]) + _STEP
    graph = sparse.csr_matrix((change, (ways.row, ways.col)), shape=ways.shape)
    found = csgraph.dijkstra(graph, indices=np.flatnonzero(marked), min_only=True, limit=largest)
    return np.minimum(found, largest).reshape(luma.shape)


def _shifted(framed: np.ndarray, down: int, right: int, shape: tuple[int, ...]) -> np.ndarray:
    return framed[1 + down : 1 + down + shape[0], 1 + right : 1 + right + shape[1]]
