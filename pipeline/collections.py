"""What is to be done: a folder, a glob, a gs:// prefix or a manifest, expanded to scans one at a time."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline import storage
from pipeline.record import Reason, Record, Refusal

SUFFIX = "_color"
MANIFEST = ".jsonl"  # the extension of an input that lists scans
EXTENSIONS = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif"}  # of the derivative, by --format
_WILDCARD = re.compile(r"[*?\[]")

# A file with another extension is recorded as no image, unopened; one with none is looked into.
_EXTENSIONS = """
    .jpg .jpeg .jpe .jfif .jp2 .j2k .jpf .jpx .mpo .png .tif .tiff .gif .bmp .dib .webp .avif .ppm .pgm .pbm .pnm
    .tga .pcx .psd .ico .icns .sgi .ras .im .dds
"""
IMAGE_EXTENSIONS = frozenset(_EXTENSIONS.split())


class JobError(Exception):
    """The job cannot start or go on; the message is one line that says what to do about it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A scan to look at."""

    key: str  # relative path in the collection, with `/`
    source: str  # URI
    size: int = -1  # bytes; -1: not known yet
    version: str = ""
    hints: tuple[str, ...] = ()  # URIs of its hints files; see `pipeline.hints`
    hints_sha256: str = ""

    def record(self, **fields) -> Record:
        return Record(
            source=self.source,
            key=self.key,
            source_bytes=self.size,
            source_version=self.version,
            hints_sha256=self.hints_sha256,
            **fields,
        )


def derivative_uri(output: str, key: str, format: str) -> str:
    """`box/a.tif` -> `OUTPUT/box/a.tif_color.jpg`: of the key and the format alone, and no two keys share one."""
    return storage.join(output, key + SUFFIX + EXTENSIONS[format])


def base_folder(source: str) -> str | None:
    """The folder that an input lies in, or None for a manifest, whose masters may lie anywhere."""
    if source.endswith(MANIFEST):
        return None
    source = storage.normalize(source)
    if not _is_glob(source):
        return source
    return source[: _WILDCARD.search(source).start()].rpartition("/")[0] or "/"


def check_input(source: str) -> None:
    """Raises JobError where there is no such input (an empty one is found on expanding it)."""
    uri = storage.normalize(source)
    if storage.is_gcs(uri):
        if not re.match(r"gs://[^/*?\[]+(/|$)", uri):
            raise JobError(f"no bucket is named in {source}: write gs://BUCKET/FOLDER")
        return
    if source.endswith(MANIFEST):
        if not os.path.isfile(uri):
            raise JobError(f"no such manifest: {source}")
    elif not _is_glob(uri) and not os.path.isdir(uri):
        there = os.path.exists(uri)
        hint = "give its folder, a glob, or a manifest that names it" if there else "check the path"
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
    base = base_folder(source)
    if base is None:
        yield from _manifest(storage.normalize(source))
        return
    source = storage.normalize(source)
    pattern = source[len(base) :].strip("/").split("/") if _is_glob(source) else ["**"]

    def relative(uri: str) -> str:
        return uri[len(base) :].lstrip("/")

    def enter(folder: str) -> bool:
        return _may_lead_to(relative(folder).split("/"), pattern)

    for info in storage.list_files(base, enter):
        key = relative(info.uri)
        if _matches(key.split("/"), pattern):
            yield Item(key, info.uri, info.size, info.version)


def _is_glob(uri: str) -> bool:
    """Whether it has wildcards. A local file or folder may have such characters in its very name."""
    return bool(_WILDCARD.search(uri)) and (storage.is_gcs(uri) or not os.path.exists(uri))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, name by name, matches a glob, in which `**` stands for any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skipped:], pattern[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _may_lead_to(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path in this folder may match."""
    if not names or pattern[:1] == ["**"]:
        return True
    return bool(pattern[1:]) and fnmatchcase(names[0], pattern[0]) and _may_lead_to(names[1:], pattern[1:])


def _manifest(uri: str) -> Iterator[Item]:
    return (item for item, _ in manifest_lines(uri))


def manifest_lines(uri: str) -> Iterator[tuple[Item, dict]]:
    """The scan of each line of a manifest, and all that the line says. Raises JobError where one is no record."""
    for number, line in enumerate(lines(uri), 1):
        if not line.strip():
            continue
        try:
            record = Record.from_json(line)
        except (ValueError, RecursionError) as error:
            raise JobError(f"{uri}, line {number}: {error}") from error
        source = storage.normalize(record.source)
        info = _look_up(source)
        key = record.key or source.removeprefix(storage.GCS).lstrip("/")
        yield Item(key, source, info.size, info.version), json.loads(line)


def _look_up(source: str) -> storage.FileInfo:
    """What is known of a file; of one that cannot be looked at, nothing: reading it gives the record its reason."""
    try:
        info = storage.stat(source)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        info = None
    return info or storage.FileInfo(source, -1, "")


def lines(uri: str) -> Iterator[bytes]:
    """Those of a file, one at a time where it is local."""
    if storage.is_gcs(uri):
        yield from storage.read(uri).splitlines()
    else:
        with open(uri, "rb") as file:
            yield from file
