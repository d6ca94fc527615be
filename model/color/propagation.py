"""Given colours carried through a picture along its luma: Levin, Lischinski and Weiss 2004, "Colorization using
Optimization".

A pixel's colour is the mean of its neighbours', weighed by how alike their luma is. So colours spread over surfaces
and stop at edges. Y' is only read: what is solved for are two chroma planes of any space with a luma.

Knows numpy, SciPy and OpenCV only: the batch job's codec process uses it, too.
"""

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph, linalg

from model import edges

# Of the authors' published code, on luma 0..1.
_SHARE = 0.6  # of the window's variance, in the exponent's denominator
_LEAST = 0.01  # at least this weight, before they are normalised, has the neighbour that is most alike
_FLOOR = 2e-6  # of the denominator, where a window is flat

LARGEST = 1_000_000  # pixels; a larger picture is solved reduced
_NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
# Of the mean over 8 neighbours minus the pixel, as a multiple of the Laplacian: 6 of 8 lie one step away on an axis.
_DIFFUSION = 0.375
_GRAIN = 1.0  # standard deviation of the blur under which luma's changes are added up
_STEP = 0.02  # levels that a step costs where luma does not change
_FARTHEST = 3.5  # times the contrast; the pull is no stronger beyond


def weights(luma: np.ndarray) -> sparse.csr_matrix:
    """How much each neighbour says about a pixel's colour (ibid., equation 2, with the constants of the code).

    Args:
      luma: uint8 [H, W].

    Returns:
      Float64 [N, N], N = H * W pixels in rows. Row r has w_rs ~ exp(-(Y(r) - Y(s))^2 / c_r) for the up to eight
      neighbours s of r, which sum to 1. c_r is 0.6 times the variance of the 3 x 3 window around r, but large enough
      that one neighbour weighs at least 0.01 before the sum is made 1.
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
    """The chroma of every pixel, given that of some: the solution of the paper's sparse linear system.

    Args:
      luma: uint8 [H, W].
      planes: float [H, W, 2], read where `marked`.
      marked: bool [H, W].
      largest: pixels; a larger picture is solved at this size, and its chroma enlarged along the edges of luma.

    Returns:
      Float32 [H, W, 2]: marked pixels (in a reduced picture: places) as they were given, others between them.

    Raises:
      ValueError: no pixel is marked.
    """
    if not marked.any():
        raise ValueError("no pixel is marked: there is no colour to propagate")
    small = reduced(luma, largest)
    if small is luma:
        return _solved(luma, planes, marked)
    planes, marked = gathered(*np.nonzero(marked), planes[marked], marked.shape, small.shape)
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
    """Chroma that is the base's, but for what marks correct.

    The paper's system with a pull: what a pixel has of the marks' colours is what its neighbours have, less a small
    share; what it lacks is filled from the base at that very pixel. (As a random walk over neighbours: a walk from
    the pixel that comes to a mark brings its colour, one that is lost before brings the base's.) So a surface with
    a mark takes on its even colour, and what no mark reaches keeps the base's chroma as it is, also where that
    varies on an even surface. The pull is the stronger the more luma changes on the way from the nearest mark: weak
    edges, which the weights alone let through, add up.

    Args:
      luma: uint8 [H, W].
      base: float [H, W, 2].
      planes: float [H, W, 2], read where `marked`.
      marked: bool [H, W].
      reach: of a mark on an even surface, as a share of the longer side: the length over which the share of a long
        straight mark falls to 1/e.
      contrast: levels of luma, added up along the way that has the fewest, at which the pull has become e times as
        strong as at the mark; it grows with their square.

    Returns:
      Float32 [H, W, 2]; marked pixels as they were given.
    """
    if not marked.any():
        return np.float32(base)
    growth = np.exp((_contrast_to(luma, marked, _FARTHEST * contrast) / contrast) ** 2)
    pull = _DIFFUSION / (reach * max(luma.shape)) ** 2 * growth
    share_too = np.concatenate([planes, np.ones((*marked.shape, 1))], axis=-1)
    solved = _solved(luma, share_too, marked, pull)
    return (1 - solved[..., 2:]) * np.float32(base) + solved[..., :2]


def reduced(luma: np.ndarray, largest: int) -> np.ndarray:
    """Luma uint8 [H, W], by area, so that it has at most about `largest` pixels; itself where it has no more."""
    height, width = luma.shape
    if height * width <= largest:
        return luma
    scale = (largest / (height * width)) ** 0.5
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def gathered(
    y: np.ndarray, x: np.ndarray, colors: np.ndarray, shape: tuple[int, int], grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Marks of a picture on a coarser grid: the mean of those in each cell.

    Args:
      y, x: int [P], below `shape`, the picture's.
      colors: float [P, 2].

    Returns:
      Planes float32 [h, w, 2] and marked bool [h, w], of the shape `grid`.
    """
    cell = y * grid[0] // shape[0] * grid[1] + x * grid[1] // shape[1]
    counts = np.bincount(cell, minlength=grid[0] * grid[1])
    sums = [np.bincount(cell, plane, minlength=counts.size) for plane in np.transpose(colors)]
    means = np.stack(sums, axis=-1) / np.maximum(counts, 1)[:, None]
    return means.reshape(*grid, 2).astype(np.float32), (counts > 0).reshape(grid)


def _solved(
    luma: np.ndarray, planes: np.ndarray, marked: np.ndarray, pull: np.ndarray | float = 0.0
) -> np.ndarray:
    """Planes [H, W, K] float32: a marked pixel is as given, another the mean of its neighbours over 1 + pull."""
    free = ~marked.ravel()
    pull = np.ravel(pull)
    given = np.where(free[:, None], 0.0, planes.reshape(free.size, -1))
    system = sparse.diags(1.0 + pull * free) - sparse.diags(free.astype(float)) @ weights(luma)
    # The pattern is symmetric and the diagonal dominates: no pivots, and the ordering for such systems.
    factors = linalg.splu(
        system.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return factors.solve(given).reshape(*marked.shape, -1).astype(np.float32)


def _contrast_to(luma: np.ndarray, marked: np.ndarray, largest: float) -> np.ndarray:
    """Change of luma [H, W], in levels, on the way from each pixel to a mark that has the least; at most `largest`."""
    soft = cv2.GaussianBlur(np.float64(luma), (0, 0), _GRAIN).ravel()
    ways = weights(luma).tocoo()
    change = np.abs(soft[ways.row] - soft[ways.col]) + _STEP
    graph = sparse.csr_matrix((change, (ways.row, ways.col)), shape=ways.shape)
    found = csgraph.dijkstra(graph, indices=np.flatnonzero(marked), min_only=True, limit=largest)
    return np.minimum(found, largest).reshape(luma.shape)


def _shifted(framed: np.ndarray, down: int, right: int, shape: tuple[int, int]) -> np.ndarray:
    return framed[1 + down : 1 + down + shape[0], 1 + right : 1 + right + shape[1]]
