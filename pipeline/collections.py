"""What is to be done: a folder, a glob, a gs:// prefix or a manifest, expanded to scans one at a time."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline import storage
from pipeline.record import Reason, Record, Refusal

SUFFIX = "_color"
EXTENSIONS = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif"}  # of the derivative, by --format
_WILDCARD = re.compile(r"[*?\[]")

# A file with another extension is recorded as no image, unopened; one with none is looked into.
IMAGE_EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .jp2 .j2k .jpf .jpx .png .tif .tiff .gif .bmp .dib .webp .avif .ppm .pgm .pbm .pnm "
    ".tga .pcx .psd .ico .icns .sgi .ras .im .dds .mpo".split()
)


class JobError(Exception):
    """The job cannot start or go on; the message is one line that says what to do about it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A scan to look at."""

    key: str  # relative path in the collection, with `/`
    source: str  # URI
    size: int = -1  # bytes; -1: not known yet
    version: str = ""

    def record(self, **fields) -> Record:
        return Record(
            source=self.source, key=self.key, source_bytes=self.size, source_version=self.version, **fields
        )


def derivative_uri(output: str, key: str, format: str) -> str:
    """`box/a.tif` -> `OUTPUT/box/a.tif_color.jpg`: of the key and the format alone, and no two keys share one."""
    return storage.join(output, key + SUFFIX + EXTENSIONS[format])


def base_folder(source: str) -> str | None:
    """The folder that an input lies in, or None for a manifest, whose masters may lie anywhere."""
    if source.endswith(".jsonl"):
        return None
    wildcard = _WILDCARD.search(source)
    if wildcard and (storage.is_gcs(source) or not os.path.exists(source)):
        return storage.normalize(source[: wildcard.start()].rpartition("/")[0] or "/")
    return storage.normalize(source)


def check_input(source: str) -> None:
    """Raises JobError where there is no such input (an empty one is found on expanding it)."""
    if source.endswith(".jsonl"):
        if storage.stat(storage.normalize(source)) is None:
            raise JobError(f"no such manifest: {source}")
    elif not _WILDCARD.search(source) and not storage.is_gcs(source) and not os.path.isdir(source):
        hint = "give its folder, a glob, or a manifest that names it" if os.path.exists(source) else "check the path"
        raise JobError(f"no such folder: {source} ({hint})")


def check_output(source: str, output: str) -> None:
    """Masters are read, never written: raises JobError where input and output lie in one another."""
    base = base_folder(source)
    if base is None:
        return
    output = storage.normalize(output)
    if storage.contains(base, output) or storage.contains(output, base):
        raise JobError(f"the output {output} overlaps the input {base}; choose a folder beside it")


def expand(source: str) -> Iterator[Item]:
    """Every scan of the input, in a fixed order, in bounded memory.

    Raises:
      JobError: a folder cannot be listed, or a manifest has a line that is no record.
    """
    try:
        yield from _expand(source)
    except OSError as error:
        raise JobError(f"cannot list {error.filename or source}: {error.strerror or error}") from error


def check_key(key: str) -> None:
    """A key becomes a path below the output. Raises Refusal where it would lead out of it."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise Refusal(Reason.BAD_KEY, f"the key {key!r} is no relative path below the output")


def _expand(source: str) -> Iterator[Item]:
    if source.endswith(".jsonl"):
        yield from _manifest(storage.normalize(source))
        return
    base = base_folder(source)
    literal = storage.is_gcs(source) and not _WILDCARD.search(source) or os.path.isdir(source)
    if literal:
        matches = storage.list_files(base)
    elif storage.is_gcs(source):
        pattern = re.compile(_translate(source))
        matches = (info for info in storage.list_files(base) if pattern.fullmatch(info.uri))
    else:
        matches = _glob(storage.normalize(source))
    for info in matches:
        key = info.uri[len(base):].lstrip("/")
        yield Item(key, info.uri, info.size, info.version)


def _glob(pattern: str) -> Iterator[storage.FileInfo]:
    for path in glob.iglob(pattern, recursive=True):
        if not os.path.isdir(path):
            yield storage.stat(path) or storage.FileInfo(path, -1, "")


def _translate(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stop at `/`, `**/` does not."""
    tokens = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meaning.get(token) or (token.replace("[!", "[^") if token.startswith("[") else re.escape(token))
        for token in tokens
    )


def _manifest(uri: str) -> Iterator[Item]:
    for number, line in enumerate(_lines(uri), 1):
        if not line.strip():
            continue
        try:
            record = Record.from_json(line)
        except (ValueError, TypeError) as error:
            raise JobError(f"{uri}, line {number}: {error}") from error
        source = storage.normalize(record.source)
        key = record.key or str(PurePosixPath(source.removeprefix(storage.GCS)).relative_to("/")
                                if source.startswith("/") else source.removeprefix(storage.GCS))
        info = storage.stat(source) or storage.FileInfo(source, -1, "")
        yield Item(key, source, info.size, info.version)


def _lines(uri: str) -> Iterator[bytes]:
    if storage.is_gcs(uri):
        yield from storage.read(uri).splitlines()
    else:
        with open(uri, "rb") as file:
            yield from file
