"""What is to be done: a folder, a glob, a gs:// prefix or a manifest, expanded to scans one at a time."""

import codecs
import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline import record, storage
from pipeline.record import Reason, Record, Refusal

SUFFIX = "_color"
MANIFEST = ".jsonl"  # the extension of an input that lists scans
EXTENSIONS = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif"}  # of the derivative, by --format
_WILDCARD = re.compile(r"[*?\[]")
_LONGEST_NAME = 255  # bytes that a file's name may have
_SHORTENED = re.compile(rb".*~[0-9a-f]{32}", re.DOTALL)

# A file with another extension is recorded as no image, unopened; one with none is looked into.
_EXTENSIONS = """
    .jpg .jpeg .jpe .jfif .jp2 .j2k .j2c .jpc .jpf .jpx .mpo .png .tif .tiff .ptif .ptiff .gif .bmp .dib .webp
    .avif .ppm .pgm .pbm .pnm
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
    reason: str = ""  # of a line of a manifest that names no scan: why there is nothing to look at,
    detail: str = ""  # in words

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
    """`box/a.tif` -> `OUTPUT/box/a.tif_color.jpg`: of the key and the format alone, and no two keys share one.

    A name that a local file system cannot have, one of more than 255 bytes, ends early, with a digest of the whole.
    """
    ending = SUFFIX + EXTENSIONS[format]
    if storage.is_gcs(output):
        return storage.join(output, key + ending)
    *folders, name = key.split("/")
    return storage.join(output, *map(_fitting, folders), _fitting(name, ending))


def derivative_name(output: str, key: str, format: str) -> bytes:
    """The derivative's path below the output, in the bytes by which all that is known of a scan is joined."""
    return below(output, derivative_uri(output, key, format))


def below(folder: str, uri: str) -> bytes:
    """The path of a file in a folder, relative to it, as bytes."""
    return storage.as_bytes(uri[len(folder.rstrip("/")) + 1 :])


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
    check_reachable(source)
    uri = storage.normalize(source)
    if storage.is_gcs(uri):
        bucket, _, name = uri.removeprefix(storage.GCS).partition("/")
        if _WILDCARD.search(bucket) or (source.endswith(MANIFEST) and not name):
            raise JobError(f"no bucket is named in {source}: write gs://BUCKET/FOLDER")
        return
    if source.endswith(MANIFEST):
        if not os.path.isfile(uri):
            raise JobError(f"no such manifest: {source}")
    elif not _is_glob(uri) and not os.path.isdir(uri):
        there = os.path.exists(uri)
        hint = "give its folder, a glob, or a manifest that names it" if there else "check the path"
        raise JobError(f"no such folder: {source} ({hint})")


def check_reachable(uri: str) -> None:
    """Raises JobError for a place that is neither a local path nor in a bucket, or that nothing can be named."""
    if scheme := storage.foreign_scheme(uri):
        raise JobError(f"{scheme}:// is not supported: {uri} (local paths and gs:// are)")
    if re.match(r"gs:(?!//[^/])", uri):
        raise JobError(f"no bucket is named in {uri}: write gs://BUCKET/FOLDER")
    if not storage.can_be_named(uri):
        raise JobError(f"no folder or file can be named {uri!r}")


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
      JobError: a folder cannot be listed, or what is to be a manifest is none.
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
    if not storage.can_be_named(key):
        raise Refusal(Reason.BAD_KEY, f"no file can be named by the key {key!r}: it is no valid Unicode")


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
    """The scan of each line of a manifest, and all that the line says.

    A line that names no scan gives an item with a reason, whose source and key are MANIFEST:LINE. A relative source
    is one below the manifest's folder.

    Raises:
      JobError: it is no text in UTF-8, or no line names a scan.
      OSError: it cannot be read.
    """
    fault, good = None, False
    for number, line in enumerate(_text_lines(uri), 1):
        if not line.strip():
            continue
        try:
            said = record.fields(line)
            known = Record.from_fields(said)
        except ValueError as error:
            words = f"line {number}: {error}"
            fault = fault or words
            place = f"{uri}:{number}"
            yield Item(place, place, reason=Reason.BAD_LINE, detail=words), {}
            continue
        good = True
        yield _item(known, uri), said
    if fault and not good:
        raise JobError(f"{uri} is no manifest: {fault}")


def _item(said: Record, manifest: str) -> Item:
    """The scan that a line of a manifest names."""
    if said.reason == Reason.BAD_LINE:  # of the dead letters
        return Item(said.key, said.source, reason=said.reason, detail=said.detail)
    if scheme := storage.foreign_scheme(said.source):
        words = f"{scheme}:// is not read: download it first, and name the copy"
        key = said.key or said.source.partition("://")[2]
        return Item(key, said.source, reason=Reason.UNSUPPORTED_SOURCE, detail=words)
    source = _located(said.source, manifest)
    info = _look_up(source)
    key = said.key or source.removeprefix(storage.GCS).lstrip("/")
    return Item(_as_listed(key), source, info.size, info.version)


def _located(source: str, manifest: str) -> str:
    """A source as a URI; a relative one is below the manifest's folder."""
    if storage.is_gcs(source) or source.startswith(("/", "~", "file://")):
        return _as_listed(storage.normalize(source))
    folder = manifest.rpartition("/")[0]
    if storage.is_gcs(manifest):
        return storage.GCS + posixpath.normpath(f"{folder.removeprefix(storage.GCS)}/{source}")
    return _as_listed(os.path.normpath(os.path.join(folder, source)))


def _as_listed(name: str) -> str:
    """As a listing has it: of a local name's bytes that are written one by one, those that are UTF-8 become text."""
    try:
        return name if storage.is_gcs(name) else os.fsdecode(os.fsencode(name))
    except UnicodeEncodeError:
        return name


def _look_up(source: str) -> storage.FileInfo:
    """What is known of a file; of one that cannot be looked at, nothing: reading it gives the record its reason."""
    try:
        info = storage.stat(source)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        info = None
    return info or storage.FileInfo(source, -1, "")


def _text_lines(uri: str) -> Iterator[bytes]:
    """The lines of a manifest. Raises JobError where it is no text in UTF-8."""
    lines = storage.lines(uri)
    first = next(lines, b"")
    encoding = ""
    if first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    elif b"\0" in first:
        head = first[:4096]
        in_turn = max(head[0::2].count(0), head[1::2].count(0)) > 0.4 * len(head) / 2
        if not in_turn:
            raise JobError(f"{uri} is no manifest: it is a binary file")
        encoding = "UTF-16"
    if encoding:
        raise JobError(f"{uri} is no manifest: it is {encoding}; save it as UTF-8")
    return itertools.chain([first.removeprefix(codecs.BOM_UTF8)], lines)


def _fitting(name: str, ending: str = "") -> str:
    """A part of a path with its ending, shortened where a file system cannot have it.

    What looks as if it were shortened is, too: no other name then gives the same.
    """
    data, room = storage.as_bytes(name), _LONGEST_NAME - len(ending)
    if len(data) <= room and not (len(data) > room - 4 and _SHORTENED.fullmatch(data)):
        return name + ending
    stop = least = room - 33
    while stop > least - 3 and data[stop] & 0xC0 == 0x80:  # not within a character
        stop -= 1
    return f"{os.fsdecode(data[:stop])}~{hashlib.sha256(data).hexdigest()[:32]}{ending}"
