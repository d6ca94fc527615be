"""Verifies an output against its manifest: derivatives that are missing, changed or not listed; masters, if asked."""

import itertools
import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline import storage
from pipeline.gallery import pictures
from pipeline.inputs.item import EXTENSIONS, MANIFEST_STORE, SUFFIX, derivative_uri
from pipeline.records import manifest, premis, summary
from pipeline.records.record import Outcome, Record
from pipeline.storage import scratch

READERS = 8  # files that are read at the same time
_BATCH = 256  # files whose names are in memory
_OWN = {
    manifest.FOLDER,
    pictures.FOLDER,
    summary.FILE,
    manifest.DEAD_LETTERS,
    pictures.REPORT,
    premis.FOLDER,
}  # files and folders of the job
_FORMATS = {extension: name for name, extension in EXTENSIONS.items()}

_ENDINGS = tuple(
    SUFFIX + extension for extension in (*_FORMATS, f".{MANIFEST_STORE}")
)  # of a collection's files

MISSING, CHANGED, UNREADABLE, UNLISTED = "missing", "changed", "unreadable", "not in the manifest"
_SPELT = {"sha256": "SHA-256", "md5": "MD5", "sha512": "SHA-512"}
MASTER = "master "  # before the problems of masters


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not as the manifest says."""

    problem: str
    uri: str
    detail: str = ""  # for people


def verify(
    output: str, *, masters: bool = False, done: Callable[[int, int], None] = lambda number, total: None
) -> Iterator[Finding]:
    """Reads all derivatives again, and compares all their digests with the manifest.

    Memory does not grow with the number of derivatives. An output may have been moved since it was written.

    Args:
      output: of one or more runs.
      masters: read the masters, too.
      done: called with the number of files that were read so far, and of all.

    Raises:
      JobError: the manifest cannot be read.
      OSError: the output cannot be listed.
    """
    with (
        manifest.Latest(output) as records,
        scratch.database() as listed,
        ThreadPoolExecutor(READERS) as pool,
    ):
        listed.execute("CREATE TABLE files (uri BLOB PRIMARY KEY) WITHOUT ROWID")
        total = sum(1 for _ in _files(output, records, masters))
        every = _files(output, records, masters)
        number = 0
        while batch := list(itertools.islice(every, _BATCH)):
            listed.executemany(
                "INSERT OR IGNORE INTO files VALUES (?)", [(storage.as_bytes(uri),) for _, uri, _ in batch]
            )
            yield from filter(None, pool.map(_check, batch))
            number += len(batch)
            done(number, total)
        for info in storage.list_files(output):
            first = info.uri[len(output) :].lstrip("/").partition("/")[0]
            known = listed.execute("SELECT 1 FROM files WHERE uri = ?", (storage.as_bytes(info.uri),))
            is_own = first in _OWN and not info.uri.endswith(_ENDINGS)
            if not is_own and known.fetchone() is None:
                yield Finding(UNLISTED, info.uri)


def files(output: str, record: Record) -> Iterator[tuple[str, dict[str, str]]]:
    """URI and digests, by algorithm, of the files that belong to a record."""
    if record.outcome == Outcome.COLORIZED:
        format = _FORMATS[posixpath.splitext(record.derivative)[1]]
        yield derivative_uri(output, record.key, format), record.fixity("derivative")
        if record.sidecar_sha256:
            yield derivative_uri(output, record.key, MANIFEST_STORE), {"sha256": record.sidecar_sha256}


def _files(
    output: str, records: Iterable[Record], masters: bool
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The files of all records: words for problems, URI, and digests. The pages of a file have one master."""
    last = None
    for record in records:
        for uri, fixity in files(output, record):
            yield "", uri, fixity
        master = record.source, record.fixity("source")
        if masters and record.source_sha256 and master != last:
            yield MASTER, *master
        last = master


def check(
    uri: str,
    wanted: dict[str, str],
    digests: Callable[[str, Iterable[str]], dict[str, str]] = storage.digests,
    whose: str = "",
) -> Finding | None:
    """Reads a file and compares it with its digests.

    Args:
      wanted: digests by algorithm.
      digests: reads a file, like `storage.digests`.
      whose: words before the problem.

    Returns:
      What is not as it should be, or None.
    """
    try:
        found = digests(uri, wanted)
    except FileNotFoundError:
        return Finding(whose + MISSING, uri)
    except OSError as error:
        return Finding(whose + UNREADABLE, uri, str(error.strerror or error))
    for name, digest in wanted.items():
        if found[name] != digest:
            return Finding(whose + CHANGED, uri, f"{_SPELT[name]} is {found[name]}, was {digest}")
    return None


def _check(file: tuple[str, str, dict[str, str]]) -> Finding | None:
    whose, uri, wanted = file
    return check(uri, wanted, whose=whose)
