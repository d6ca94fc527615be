"""Hints files: colours that an archivist gives for single scans, in a folder of their own.

The hints for the scan `box/a.tif` are in `DIR/box/a.tif.txt` or `DIR/box/a.tif.png`. `pipeline.imaging.hints` reads
them.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs.collection import base_folder
from pipeline.inputs.item import Item
from pipeline.records.record import Reason, Refusal

TEXT, PICTURE = ".txt", ".png"
_UNREADABLE = "unreadable"  # replaces the digest of a file that cannot be read
_NO_KEY = "/"  # suffix that no key has, because keys are paths of files


@dataclass(frozen=True, slots=True)
class Hint:
    """A hints file."""

    uri: str
    sha256: str  # of its bytes


def check(folder: str, source: str, output: str) -> None:
    """Raises JobError unless the folder exists and is apart from input and output. Both paths must be normalised."""
    try:
        there = storage.is_folder(folder)
    except OSError as error:
        raise JobError(f"cannot list {folder}: {error.strerror or error} (--hints)") from error
    if not there:
        raise JobError(f"no such folder: {folder} (--hints; without hints, remove the option)")
    for name, other in (("output", output), ("input", base_folder(source))):
        if other and (storage.contains(folder, other) or storage.contains(other, folder)):
            raise JobError(f"the hints in {folder} overlap the {name} {other}; choose a folder beside it")


def listing(folder: str) -> Iterator[tuple[str, str]]:
    """Yields the key of the scan and the URI for all files in the folder.

    Other files get a key that no scan can have.

    Raises JobError if the folder cannot be listed.
    """
    try:
        for info in storage.list_files(folder):
            relative = info.uri[len(folder) :].lstrip("/")
            ending = relative[-len(TEXT) :].lower()
            key = relative[: -len(TEXT)] if ending in (TEXT, PICTURE) else relative + _NO_KEY
            yield key, info.uri
    except OSError as error:
        raise JobError(f"cannot list {error.filename or folder}: {error.strerror or error}") from error


def identified(uri: str) -> Hint:
    """Makes a Hint, with the digest of the file."""
    try:
        return Hint(uri, hashlib.sha256(storage.read(uri)).hexdigest())
    except OSError:
        return Hint(uri, _UNREADABLE)  # reading it again gives the reason for the record


def with_hints(item: Item, hints: Iterable[Hint]) -> Item:
    """Adds hints to a scan. Several files for one scan are an error; see `read`."""
    hints = sorted(set(hints), key=lambda hint: hint.uri)
    digests = [hint.sha256 for hint in hints]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return dataclasses.replace(item, hints=tuple(hint.uri for hint in hints), hints_sha256=digest)


def read(item: Item) -> bytes:
    """Reads the hints file of a scan. Raises Refusal if there are several, or if it cannot be read."""
    if len(item.hints) > 1:
        names = " and ".join(uri.rpartition("/")[2] for uri in item.hints)
        raise _refusal(f"there are several: {names}; keep one of them")
    (uri,) = item.hints
    try:
        return storage.read(uri)
    except OSError as error:
        raise _refusal(f"cannot read {uri}: {error.strerror or error}") from error


def _refusal(words: str) -> Refusal:
    return Refusal(Reason.BAD_HINTS, f"hints: {words}")
