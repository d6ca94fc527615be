"""Near-duplicates: copies of a photograph that were cropped a little, resized, recompressed or toned.

The signature of a picture holds what its copies share: the low frequencies of its luma, without its contrast, and
its coarse colours. Keys of the signatures find the candidates, so that only few pairs are compared.
"""

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence

import cv2
import numpy as np

_SIDE = 64  # pixels; side of the square whose frequencies are taken
_LOW = (
    16  # frequencies per axis in the signature; the highest serve only to compute those of a cropped picture
)
_COLORS = 4  # cells per axis of the coarse colours
_CROP = 0.03  # share of a side that may be missing at each edge of a copy
_POOL, _STRONGEST, _CHOSEN = 32, 8, 6  # a key: 6 of the 8 strongest of the 32 lowest frequencies
_KEYED = [0, 5, 10, 15]  # crops that get keys: none, both starts, both ends, all four edges
_COLOR_DISTANCE = 8.0  # Lab units; pictures whose colours differ by more are not copies

# Thresholds of `similarity`. RELATED: the two pictures belong in the same split. COPY: one of them is enough.
# Between the two lie bursts, distant copies, and horizons that merely look alike.
RELATED, COPY = 0.95, 0.98

_FREQUENCY = np.hypot(*np.mgrid[:_LOW, :_LOW])
_ORDER = np.argsort(_FREQUENCY.ravel(), kind="stable")[1 : 1 + _POOL]
# The higher a frequency, the weaker it is in photographs: whitening evens this out. The weights then fade out the
# highest frequencies, which a crop changes most.
_WHITEN = np.maximum(_FREQUENCY, 1) ** 0.5
_WEIGHT = np.where(_FREQUENCY > 0, _FREQUENCY * np.exp(-((_FREQUENCY / 6) ** 2)), 0)


def signature(rgb: np.ndarray) -> bytes:
    """Signature (288 bytes) of RGB uint8 [H, W, 3]: low frequencies of luma, scaled to one contrast, and colours."""
    square = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).astype(np.float32))[:_LOW, :_LOW] * _WHITEN
    low[0, 0] = 0
    low = np.rint(low * (127 / (np.abs(low).max() + 1e-3)))
    cells = cv2.resize(square, (_COLORS, _COLORS), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    chroma = np.clip(np.rint(cv2.cvtColor(cells, cv2.COLOR_RGB2LAB)[..., 1:]), -127, 127)
    return np.concatenate([low.ravel(), chroma.ravel()]).astype(np.int8).tobytes()


def keys(signature: bytes) -> list[bytes]:
    """About 73 keys of 6 bytes each. The signatures of two near-duplicates have at least one key in common.

    A key names six of the eight strongest low frequencies and their signs. There are keys for the whole picture and
    for crops of it. A small change to a copy therefore changes only a few of the keys.
    """
    found = set()
    for low in _cropped(_parts(signature)[0])[_KEYED]:
        lowest = low.ravel()[_ORDER]
        strongest = sorted(np.argsort(-np.abs(lowest), kind="stable")[:_STRONGEST])
        named = [int(2 * index + (lowest[index] > 0)) for index in strongest]
        found |= {bytes(some) for some in itertools.combinations(named, _CHOSEN)}
    return sorted(found)


def similarity(one: bytes, other: bytes) -> float:
    """Similarity of two signatures: the largest correlation of luma over crops of either, or 0 if colours differ."""
    (low1, color1), (low2, color2) = _parts(one), _parts(other)
    if np.mean((color1 - color2) ** 2) > _COLOR_DISTANCE**2:
        return 0.0
    crops1, crops2 = _cropped(low1), _cropped(low2)
    return max(_correlation(crops1, crops2[0]), _correlation(crops2, crops1[0]))


def color_order(signature: bytes) -> int:
    """Mean colour of a picture on an axis from blue-green to orange-red; nearly the same for its copies."""
    return int(_parts(signature)[1].sum())


def pairs(members: Sequence[Hashable], crowd: int = 16) -> Iterator[tuple]:
    """Yields pairs of pictures that share a key: each picture with the `crowd` pictures before it.

    The number of pairs grows linearly with the number of members. Sort the members by `color_order`, so that
    near-duplicates are neighbours. Two near-duplicates have several keys in common, so they are found where hundreds
    of pictures share a key, and mostly where thousands do.
    """
    for position, one in enumerate(members):
        for other in members[max(0, position - crowd) : position]:
            yield other, one


def components(edges: Iterable[tuple[Hashable, Hashable]]) -> dict:
    """Connected components: a dictionary from each item of an edge to the smallest item of its component.

    It holds every item that has an edge in memory, about 300 bytes each.
    """
    roots: dict = {}

    def root(item):
        while roots.setdefault(item, item) != item:
            roots[item] = item = roots[roots[item]]
        return item

    for one, other in edges:
        low, high = sorted((root(one), root(other)))
        roots[high] = low
    return {item: root(item) for item in list(roots)}


def _parts(signature: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies [16, 16], without the whitening, and colours [32] of a signature."""
    values = np.frombuffer(signature, np.int8).astype(np.float32)
    size = _LOW * _LOW
    return values[:size].reshape(_LOW, _LOW) / _WHITEN, values[size:]


def _cropped(low: np.ndarray) -> np.ndarray:
    """Weighted frequencies [16, 16, 16] of a picture under each combination of crops: first none, last all edges."""
    rows = np.einsum("aij,jk->aik", _CROPS, low)
    return np.einsum("aik,blk->abil", rows, _CROPS).reshape(-1, _LOW, _LOW) * _WEIGHT


def _correlation(many: np.ndarray, one: np.ndarray) -> float:
    """Largest correlation of frequencies [K, 16, 16] with others [16, 16]; 0 for a flat picture."""
    norms = np.linalg.norm(many, axis=(1, 2)) * np.linalg.norm(one)
    return float(np.max(np.einsum("kij,ij->k", many, one) / np.maximum(norms, 1e-6)))


def _crops() -> np.ndarray:
    """Matrices [4, 16, 16] that crop along one axis, in frequencies: nothing, the start, the end, both."""
    transform = cv2.dct(np.eye(_SIDE), flags=cv2.DCT_ROWS).T[:_LOW]
    centres = (np.arange(_SIDE) + 0.5) / _SIDE
    matrices = []
    for start, end in ((0, 1), (_CROP, 1), (0, 1 - _CROP), (_CROP, 1 - _CROP)):
        at = (start + (end - start) * centres) * _SIDE - 0.5
        sampled = [np.interp(at, np.arange(_SIDE), basis) for basis in transform]
        matrices.append(transform @ np.stack(sampled, axis=1))
    return np.stack(matrices).astype(np.float32)


_CROPS = _crops()
