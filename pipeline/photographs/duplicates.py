"""Near-duplicates: copies of a photograph that were cropped a little, resized, recompressed or toned.

A picture's signature is what its copies share: the low frequencies of its luma, whatever its contrast, and its
coarse colours. Candidates are found by keys, never by comparing all pairs.
"""

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence

import cv2
import numpy as np

_SIDE = 64  # pixels of the square that frequencies are taken of
_LOW = 16  # frequencies an axis that the signature holds: a crop carries the highest into those that are compared
_COLORS = 4  # cells an axis of the coarse colours
_CROP = 0.03  # of a side: what a copy may lack at each edge
_POOL, _STRONGEST, _CHOSEN = 32, 8, 6  # keys: the strongest of the lowest frequencies, so many at a time
_KEYED = [0, 5, 10, 15]  # of `_cropped`: whole, without the edges at the start, at the end, and without any
_COLOR_DISTANCE = 8.0  # Lab units: what farther apart in colour is no copy

# Of `similarity`: from where on two pictures must not be told apart by a split, and from where on one of them is
# enough. Between the two lie bursts, remote copies, and horizons that merely look alike.
RELATED, COPY = 0.95, 0.98

_FREQUENCY = np.hypot(*np.mgrid[:_LOW, :_LOW])
_ORDER = np.argsort(_FREQUENCY.ravel(), kind="stable")[1 : 1 + _POOL]
# Photographs have ever less of higher frequencies, which is made up for; the highest are what a crop shifts most.
_WHITEN = np.maximum(_FREQUENCY, 1) ** 0.5
_WEIGHT = np.where(_FREQUENCY > 0, _FREQUENCY * np.exp(-((_FREQUENCY / 6) ** 2)), 0)


def signature(rgb: np.ndarray) -> bytes:
    """Signature, 288 bytes, of RGB [H, W, 3] uint8: low frequencies of its luma, whatever the contrast, and colours."""
    square = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).astype(np.float32))[:_LOW, :_LOW] * _WHITEN
    low[0, 0] = 0
    low = np.rint(low * (127 / (np.abs(low).max() + 1e-3)))
    cells = cv2.resize(square, (_COLORS, _COLORS), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    chroma = np.clip(np.rint(cv2.cvtColor(cells, cv2.COLOR_RGB2LAB)[..., 1:]), -127, 127)
    return np.concatenate([low.ravel(), chroma.ravel()]).astype(np.int8).tobytes()


def keys(signature: bytes) -> list[bytes]:
    """Keys, 6 bytes each, about 73 of them: the signatures of two near-duplicates have one in common.

    They name the strongest of the lowest frequencies and their signs, all but two at a time, of the whole
    picture and of parts of it, so that what a copy changes a little changes few of them.
    """
    found = set()
    for low in _cropped(_parts(signature)[0])[_KEYED]:
        lowest = low.ravel()[_ORDER]
        strongest = sorted(np.argsort(-np.abs(lowest), kind="stable")[:_STRONGEST])
        named = [int(2 * index + (lowest[index] > 0)) for index in strongest]
        found |= {bytes(some) for some in itertools.combinations(named, _CHOSEN)}
    return sorted(found)


def similarity(one: bytes, other: bytes) -> float:
    """How alike two signatures are, up to 1: correlation of luma once either is cropped; 0 where colours differ."""
    (low1, color1), (low2, color2) = _parts(one), _parts(other)
    if np.mean((color1 - color2) ** 2) > _COLOR_DISTANCE**2:
        return 0.0
    crops1, crops2 = _cropped(low1), _cropped(low2)
    return max(_correlation(crops1, crops2[0]), _correlation(crops2, crops1[0]))


def warmth(signature: bytes) -> int:
    """A picture's mean colour on a line from blue-green to orange-red, which its copies hardly move along."""
    return int(_parts(signature)[1].sum())


def pairs(members: Sequence[Hashable], crowd: int = 16) -> Iterator[tuple]:
    """Pairs of those who share a key: each with the `crowd` before it, so that no key costs all pairs.

    Near-duplicates are to lie side by side in a crowd: give it in the order of `warmth`. They still meet
    where hundreds share a key, and mostly where thousands do, as each two have several keys in common.
    """
    for position, one in enumerate(members):
        for other in members[max(0, position - crowd) : position]:
            yield other, one


def components(edges: Iterable[tuple[Hashable, Hashable]]) -> dict:
    """Each end of an edge -> the smallest of all that edges lead to from it.

    Holds what edges touch in memory, which duplicates do: about 300 bytes each.
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
    """Frequencies [16, 16] as they were, and colours [32]."""
    values = np.frombuffer(signature, np.int8).astype(np.float32)
    size = _LOW * _LOW
    return values[:size].reshape(_LOW, _LOW) / _WHITEN, values[size:]


def _cropped(low: np.ndarray) -> np.ndarray:
    """Weighted frequencies [16, 16, 16] of a picture: as it is, first; without each set of edges; without any, last."""
    rows = np.einsum("aij,jk->aik", _CROPS, low)
    return np.einsum("aik,blk->abil", rows, _CROPS).reshape(-1, _LOW, _LOW) * _WEIGHT


def _correlation(many: np.ndarray, one: np.ndarray) -> float:
    """Largest correlation of frequencies [K, 16, 16] with others [16, 16]; 0 where there are none."""
    norms = np.linalg.norm(many, axis=(1, 2)) * np.linalg.norm(one)
    return float(np.max(np.einsum("kij,ij->k", many, one) / np.maximum(norms, 1e-6)))


def _crops() -> np.ndarray:
    """What a crop does to the frequencies along one axis: matrices [4, 16, 16] for none, the start, the end, both."""
    transform = cv2.dct(np.eye(_SIDE), flags=cv2.DCT_ROWS).T[:_LOW]
    centres = (np.arange(_SIDE) + 0.5) / _SIDE
    matrices = []
    for start, end in ((0, 1), (_CROP, 1), (0, 1 - _CROP), (_CROP, 1 - _CROP)):
        at = (start + (end - start) * centres) * _SIDE - 0.5
        sampled = [np.interp(at, np.arange(_SIDE), basis) for basis in transform]
        matrices.append(transform @ np.stack(sampled, axis=1))
    return np.stack(matrices).astype(np.float32)


_CROPS = _crops()
