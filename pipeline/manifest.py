"""The records of a collection: committed in shards as the work proceeds, the latest of each scan counts."""

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator

from pipeline import storage
from pipeline.collections import JobError
from pipeline.record import Record

FOLDER = "manifest"
DEAD_LETTERS = "dead_letters.jsonl"


def folder(output: str) -> str:
    return storage.join(output, FOLDER)


def commit(output: str, run: str, records: Iterable[Record]) -> None:
    """Writes a shard, whole. The same results give the same name: a retried bundle adds nothing.

    Raises:
      JobError: it could not be written. Work whose records cannot be kept must stop.
    """
    records = sorted(records, key=lambda record: record.key)
    if not records:
        return
    digest = hashlib.sha256()
    for record in records:
        digest.update(
            f"{record.key}\0{record.outcome}\0{record.derivative_sha256}\n".encode("utf-8", "surrogatepass")
        )
    uri = storage.join(folder(output), f"{run}-{digest.hexdigest()[:20]}.jsonl")
    data = "".join(record.to_json() + "\n" for record in records).encode()
    try:
        storage.write(uri, data, keep_existing=True)
    except OSError as error:
        raise JobError(
            f"cannot write to {output}: {error.strerror or error}; what is finished is kept, "
            "run the same command again once it can be written to"
        ) from error


def shards(output: str) -> Iterator[str]:
    """URIs of the manifest's shards, in the order of their names."""
    for info in storage.list_files(folder(output)):
        if info.uri.endswith(".jsonl"):
            yield info.uri


def read_shard(uri: str) -> Iterator[Record]:
    """The records of a shard, in its order.

    Raises:
      JobError: a line is no record: somebody else's file, or an edited one.
    """
    for number, line in enumerate(storage.read(uri).splitlines(), 1):
        try:
            yield Record.from_json(line)
        except (ValueError, TypeError) as error:
            raise JobError(f"{uri}, line {number}: {error}") from error


def later(a: Record, b: Record) -> Record:
    """Which of two records of a scan counts: the one finished last; of two at the same moment always the same."""
    return max(a, b, key=lambda record: (record.finished, record.outcome, record.derivative_sha256))


class Latest:
    """The record that counts of every scan, in bounded memory: a temporary file on this machine.

    Iterating gives them by key. Raises JobError as `read_shard` does.
    """

    def __init__(self, output: str):
        self._output = output

    def __enter__(self) -> "Latest":
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="colorize-"))
            database = sqlite3.connect(os.path.join(scratch, "records.db"), isolation_level=None)
            self._database = stack.enter_context(contextlib.closing(database))
            self._fill()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _fill(self) -> None:
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            "CREATE TABLE records (key BLOB PRIMARY KEY, rank TEXT, line BLOB) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        for uri in shards(self._output):
            self._database.executemany(
                "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET rank = excluded.rank, line = excluded.line WHERE excluded.rank > rank",
                (
                    (os.fsencode(r.key), f"{r.finished} {r.outcome} {r.derivative_sha256}", r.to_json())
                    for r in read_shard(uri)
                ),
            )

    def get(self, key: str) -> Record | None:
        """The record of a scan, if it has one."""
        found = self._database.execute("SELECT line FROM records WHERE key = ?", (os.fsencode(key),))
        return next((Record.from_json(line) for (line,) in found), None)

    def __iter__(self) -> Iterator[Record]:
        for (line,) in self._database.execute("SELECT line FROM records ORDER BY key"):
            yield Record.from_json(line)


def latest(output: str) -> Iterator[Record]:
    """The record that counts of every scan, by key; see `Latest`."""
    with Latest(output) as records:
        yield from records
