"""Manifests: files with a JSON object for each scan."""

import codecs
import itertools
import os
import posixpath
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs.item import Item, not_a_page
from pipeline.records import keys, record
from pipeline.records.record import Outcome, Reason, Record

EXTENSION = ".jsonl"
_KEYLESS = (Reason.DUPLICATE_KEY, Reason.BAD_KEY)


def lines(uri: str) -> Iterator[tuple[Item, dict]]:
    """Yields the scan and all fields of each line of a manifest.

    For a line that names no scan, the item has a reason, and MANIFEST:LINE as source and key. Relative sources are
    relative to the folder of the manifest.

    Raises:
      JobError: the manifest is not UTF-8 text, or no line names a scan.
      OSError: it cannot be read.
    """
    fault, good = None, False
    for number, line in enumerate(_text_lines(uri), 1):
        if not line.strip():
            continue
        try:
            values = record.fields(line)
            known = Record.from_fields(values)
        except ValueError as error:
            words = f"line {number}: {error}"
            fault = fault or words
            place = f"{uri}:{number}"
            yield Item(place, place, reason=Reason.BAD_LINE, detail=words), {}
            continue
        good = True
        yield _item(known, uri), values
    if fault and not good:
        raise JobError(f"{uri} is not a manifest: {fault}")


def _item(line: Record, manifest: str) -> Item:
    """The scan in a line of a manifest."""
    # Lines of the dead letters; a scan without a key of its own has its source as key.
    if line.reason == Reason.BAD_LINE or (line.reason in _KEYLESS and line.key == line.source):
        return Item(line.key, line.source, reason=line.reason, detail=line.detail)
    if scheme := storage.foreign_scheme(line.source):
        words = f"{scheme}:// is not supported: download the file, and name the copy"
        key = line.key or line.source.partition("://")[2]
        return Item(key, line.source, reason=Reason.UNSUPPORTED_SOURCE, detail=words)
    source = _located(line.source, manifest)
    info = _look_up(source)
    key = line.key or source.removeprefix(storage.scheme(source)).lstrip("/")
    if keys.split(key)[1] and not line.key:
        return not_a_page(info)
    alone = line.outcome == Outcome.FAILED  # dead letters lack the scans between them
    return Item(_as_listed(key), source, info.size, info.version, group=line.group, alone=alone)


def _located(source: str, manifest: str) -> str:
    """URI of a source. A relative source is relative to the folder of the manifest."""
    in_home = os.path.expanduser(source) != source  # names may begin with a tilde, too
    if in_home or storage.is_cloud(source) or source.startswith(("/", "file://")):
        return _as_listed(storage.normalize(source))
    folder = manifest.rpartition("/")[0]
    if storage.is_cloud(manifest):
        start = storage.scheme(manifest)
        return start + posixpath.normpath(f"{folder.removeprefix(start)}/{source}")
    return _as_listed(os.path.normpath(os.path.join(folder, source)))


def _as_listed(name: str) -> str:
    """A name as a listing gives it: escaped bytes of a local name that are valid UTF-8 become text."""
    try:
        return name if storage.is_cloud(name) else os.fsdecode(os.fsencode(name))
    except UnicodeEncodeError:
        return name


def _look_up(source: str) -> storage.FileInfo:
    """Information about a file. For an inaccessible file it is empty; reading the file gives the reason."""
    try:
        info = storage.stat(source)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        info = None
    return info or storage.FileInfo(source, -1, "")


def _text_lines(uri: str) -> Iterator[bytes]:
    """Yields the lines of a manifest. Raises JobError if it is not UTF-8 text."""
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
            raise JobError(f"{uri} is not a manifest: it is a binary file")
        encoding = "UTF-16"
    if encoding:
        raise JobError(f"{uri} is not a manifest: it is {encoding}; save it as UTF-8")
    return itertools.chain([first.removeprefix(codecs.BOM_UTF8)], lines)
