"""A folder of photographs as training material: reading, dropping grey ones, splitting without leaks.

Sub-folders are collections. Everything is a function of the files' contents, so that two machines
with the same photographs make the same split.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from model import duplicates
from pipeline.judge import photograph
from pipeline.record import Reason, Refusal

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
HELD_OUT = "held_out.json"  # beside an exported model, what `held_out` gives
_SHORT = 16  # hexadecimal digits that tell one photograph from another


class PhotosError(ValueError):
    """What a folder of photographs lacks, in one line for a person."""


@dataclass(frozen=True)
class Photo:
    """One photograph: where it is, its collection, its identity, and its pixels.

    Attributes:
        path: relative to the folder that was read.
        collection: first folder of the path; the folder's own name for files that lie directly in it.
        digest: SHA-256 of the file, hexadecimal.
        pixels: [H, W, 3] uint8 sRGB, reduced so that the short side is at most the size asked for.
    """

    path: str
    collection: str
    digest: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Photos:
    """The photographs of each part, and how many were left out: `grey` or `broken`, by collection."""

    train: list[Photo]
    validation: list[Photo]
    test: list[Photo]
    grey: dict[str, int]
    broken: dict[str, int]


def read_photos(folder: str, side: int = 224, held_out: dict[str, list[str]] | None = None) -> Photos:
    """Reads every picture below `folder`, drops grey and unreadable ones, splits about 80/10/10.

    `side` bounds the short side in pixels, and so the memory: about 0.2 MB a picture at 224. `held_out` are the
    parts of another run, see `split`. Raises PhotosError when there is no such folder or it holds no usable picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise PhotosError(f"no such folder: {folder}")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    collections = [_collection(root, file) for file in files]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda file, name: _read(root, file, name, side), files, collections))
    colored = [photo for photo in found if isinstance(photo, Photo)]
    if not colored:
        raise PhotosError(f"no colour photographs in {folder} ({len(files)} picture files found)")
    refused = [
        (name, photo) for name, photo in zip(collections, found, strict=True) if isinstance(photo, Reason)
    ]
    grey = Counter(name for name, reason in refused if reason == Reason.GREY)
    broken = Counter(name for name, reason in refused if reason != Reason.GREY)
    digests = [photo.digest for photo in colored]
    parts = split(digests, [duplicates.signature(photo.pixels) for photo in colored], held_out)
    chosen = {
        part: [photo for photo, its in zip(colored, parts, strict=True) if its == part] for part in PARTS
    }
    return Photos(**chosen, grey=dict(grey), broken=dict(broken))


def _collection(root: Path, file: Path) -> str:
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else root.resolve().name


def _read(root: Path, file: Path, collection: str, side: int) -> Photo | Reason:
    """A photograph, or why it is none."""
    try:
        data = file.read_bytes()
        pixels = photograph(data, side)
    except OSError:
        return Reason.READ_ERROR
    except Refusal as refusal:
        return refusal.reason
    path = file.relative_to(root).as_posix()
    return Photo(path, collection, hashlib.sha256(data).hexdigest(), pixels)


def chroma(pixels: np.ndarray) -> np.ndarray:
    """Chroma a*, b* [..., 2] float32 of RGB [H, W, 3] uint8."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:]


def split(
    digests: list[str], signatures: list[bytes], held_out: dict[str, list[str]] | None = None
) -> list[str]:
    """Part of each picture: `train`, `validation` or `test`, 80/10/10 of the groups of near-duplicates.

    A function of the contents alone: neither order nor names matter, and a group falls where the
    smallest digest in it falls.

    `held_out` has the pictures that the run of a model held out, see `held_out`, when another run starts from that
    model: of them alone come `validation` and `test` then, and no near-duplicate of what the model has seen.
    """
    buckets = defaultdict(list)
    for index in sorted(range(len(digests)), key=lambda at: (duplicates.warmth(signatures[at]), digests[at])):
        for key in duplicates.keys(signatures[index]):
            buckets[key].append(index)
    candidates = {pair for members in buckets.values() for pair in duplicates.pairs(members)}
    related = (
        (digests[one], digests[other])
        for one, other in candidates
        if duplicates.similarity(signatures[one], signatures[other]) >= duplicates.RELATED
    )
    groups = duplicates.components(related)
    if held_out is None:
        return [part_of(groups.get(digest, digest)) for digest in digests]
    part = {digest: part for part, its in held_out.items() for digest in its}
    found = defaultdict(set)
    for digest in digests:
        found[groups.get(digest, digest)].add(part.get(digest[:_SHORT], PARTS[0]))
    # PARTS[1] of a group in both: what chose the model's options must not judge it.
    return [min(found[groups.get(digest, digest)], key=PARTS.index) for digest in digests]


def held_out(photos: Photos) -> dict[str, list[str]]:
    """What a run must not be trained on if it starts from this one's model: the beginnings of digests by part."""
    return {part: sorted(photo.digest[:_SHORT] for photo in getattr(photos, part)) for part in PARTS[1:]}


def unseen(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    """What two runs both held out, of their `held_out`; what either chose its options by is `validation`."""
    validation, test = (set(one[part]) | set(other[part]) for part in PARTS[1:])
    both = {digest for its in one.values() for digest in its} & {
        digest for its in other.values() for digest in its
    }
    return {PARTS[1]: sorted(validation & both), PARTS[2]: sorted((test & both) - validation)}


def part_of(digest: str, shares: Sequence[float] = SHARES) -> str:
    """Part of a group whose smallest digest, hexadecimal, is given; `shares` of the parts sum to 1."""
    # Hashed anew, as the smallest of many digests is a small one.
    share = int(hashlib.sha256(digest.encode()).hexdigest()[:8], 16) / 0x100000000
    return PARTS[0] if share < shares[0] else PARTS[1] if share < shares[0] + shares[1] else PARTS[2]
