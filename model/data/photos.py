"""Reads a folder of photographs as training data: drops grey ones and splits the others without leaks.

Sub-folders are collections. Everything depends only on the contents of the files, so that two machines with the same
photographs make the same split.
"""

import hashlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.photographs import duplicates
from pipeline.photographs.judge import photograph
from pipeline.photographs.splits import PARTS, part_of
from pipeline.records.record import Reason, Refusal

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
HELD_OUT = "held_out.json"  # beside an exported model: the result of `held_out`
_SHORT = 16  # hexadecimal digits; enough to identify a photograph


class PhotosError(ValueError):
    """A folder of photographs cannot be used; the message is one line for a person."""


@dataclass(frozen=True)
class Photo:
    """One photograph.

    Attributes:
        path: relative to the folder of the photographs.
        collection: first folder in the path; for files without one, the name of the folder of the photographs.
        digest: SHA-256 of the file, hexadecimal.
        pixels: [H, W, 3] uint8 sRGB, reduced to the requested short side.
    """

    path: str
    collection: str
    digest: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Photos:
    """Photographs by split, and the number of those left out, `grey` or `broken`, by collection."""

    train: list[Photo]
    validation: list[Photo]
    test: list[Photo]
    grey: dict[str, int]
    broken: dict[str, int]


def read_photos(folder: str, side: int = 224, held_out: dict[str, list[str]] | None = None) -> Photos:
    """Reads all pictures below `folder`, drops grey and unreadable ones, and splits the rest about 80/10/10.

    Args:
        folder: of the photographs.
        side: largest short side in pixels. It determines the memory: about 0.2 MB per picture at 224.
        held_out: validation and test pictures of another run; see `split`.

    Raises:
        PhotosError: the folder does not exist or has no usable picture.
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
    """Reads a photograph, or returns the reason why it cannot be used."""
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
    """Assigns each picture to `train`, `validation` or `test`: 80/10/10 of the groups of near-duplicates.

    The result depends only on the contents, not on order or names. A group follows its smallest digest.

    Args:
        digests: of the files.
        signatures: of the pictures; see `pipeline.photographs.duplicates`.
        held_out: result of `held_out` for the model from which this run starts. Only its pictures become `validation`
            and `test`, except for near-duplicates of pictures that the model has seen.
    """
    buckets = defaultdict(list)
    for index in sorted(
        range(len(digests)), key=lambda at: (duplicates.color_order(signatures[at]), digests[at])
    ):
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
    # A group in both is validation: pictures that helped to choose options must not be used for the test.
    return [min(found[groups.get(digest, digest)], key=PARTS.index) for digest in digests]


def held_out(photos: Photos) -> dict[str, list[str]]:
    """Digest prefixes of held-out pictures, by split. A run that starts from this model must not train on them."""
    return {part: sorted(photo.digest[:_SHORT] for photo in getattr(photos, part)) for part in PARTS[1:]}


def unseen(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    """Pictures that two runs both held out, from their `held_out`. A picture in any `validation` stays there."""
    validation, test = (set(one[part]) | set(other[part]) for part in PARTS[1:])
    both = {digest for its in one.values() for digest in its} & {
        digest for its in other.values() for digest in its
    }
    return {PARTS[1]: sorted(validation & both), PARTS[2]: sorted((test & both) - validation)}
