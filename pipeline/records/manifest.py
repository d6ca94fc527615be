"""Records of a collection. They are committed in shards while the job runs; for each scan the latest record counts."""

import contextlib
import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta

from pipeline import clock, storage
from pipeline.errors import JobError
from pipeline.records import keys
from pipeline.records.record import SCHEMA, Record, fields
from pipeline.storage import scratch

FOLDER = "manifest"
DEAD_LETTERS = "dead_letters.jsonl"
CLOCKS_APART = timedelta(hours=1)  # largest plausible difference between the clocks of two machines


def folder(output: str) -> str:
    return storage.join(output, FOLDER)


def commit(output: str, run: str, records: Iterable[Record]) -> None:
    """Writes a shard atomically. Its name depends on the results, so that a repeated bundle adds nothing.

    Raises:
      JobError: it could not be written. The job must stop if its records cannot be written.
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
        raise JobError(unwritable(output, error)) from error


def unwritable(output: str, error: OSError) -> str:
    """Describes that an output can no longer be written to."""
    return (
        f"cannot write to {output}: {error.strerror or error}; what is finished is kept, "
        "run the same command again once it can be written to"
    )


def shards(output: str, run: str = "") -> Iterator[str]:
    """URIs of the shards of the manifest, or of one run, ordered by name.

    Raises:
      JobError: they cannot be listed.
    """
    try:
        for info in storage.list_files(folder(output), prefix=f"{run}-" if run else ""):
            if info.uri.endswith(".jsonl"):
                yield info.uri
    except OSError as error:
        raise JobError(
            f"cannot list {error.filename or folder(output)}: {error.strerror or error}"
        ) from error


def runs(output: str) -> Counter[str]:
    """Number of shards of each run. Raises JobError like `shards`."""
    return Counter(uri.rpartition("/")[2].rpartition("-")[0] for uri in shards(output))


def read_shard(uri: str) -> Iterator[Record]:
    """Yields the records of a shard in its order.

    Raises:
      JobError: it cannot be read, or a line is not a record: the file is foreign, edited, or from a later version
        of this program.
    """
    try:
        lines = storage.read(uri).splitlines()
    except OSError as error:
        raise JobError(f"cannot read {uri}: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        try:
            values = fields(line)
            record = Record.from_fields(values)
        except (ValueError, TypeError) as error:
            raise JobError(f"{uri}, line {number}: {error}") from error
        schema = values.get("schema", SCHEMA)
        if type(schema) is not int or schema > SCHEMA:
            raise JobError(
                f"{uri}, line {number}: a later version of archive-colorize wrote this record (schema "
                f"{schema}, this one knows {SCHEMA}): update the program, or choose another output"
            )
        yield record


def rank(record: Record, limit: str = "") -> tuple:
    """Sort key for the records of a scan; the one with the greatest key counts.

    This is the record that was finished last. A record dated after the limit comes from a machine with a wrong
    clock. It ranks below all others, so that it does not hide later results. For equal times the choice is
    deterministic.

    Args:
      limit: the latest time that is believed; see `latest_time`, which is the default.
    """
    believed = record.finished <= (limit or latest_time())
    return (believed, record.finished, record.outcome, record.derivative_sha256)


def latest_time() -> str:
    """The latest time that a record can have now, in the form of `Record.finished`."""
    return (clock.now() + CLOCKS_APART).isoformat(timespec="milliseconds")


def later(a: Record, b: Record) -> Record:
    """The record of a scan that counts; see `rank`."""
    return max(a, b, key=rank)


class Latest:
    """The latest record of every scan, in a temporary database, with bounded memory.

    Iteration is ordered by key. A file that had one picture when its newest record was made has no records of pages
    from earlier times, and a file that had several has none of the file or of later pages. Raises JobError like
    `read_shard`, and if there is no room for the database.
    """

    def __init__(self, output: str):
        self._output = output
        self._has_pages = False

    def __enter__(self) -> "Latest":
        with contextlib.ExitStack() as stack:
            self._database = stack.enter_context(scratch.database())
            self._fill()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised) -> None:
        self._stack.__exit__(*raised)

    def _fill(self) -> None:
        limit = latest_time()
        # Rows are large. A table WITHOUT ROWID would hold few of them in a page, half of it empty.
        self._database.execute("CREATE TABLE records (key BLOB PRIMARY KEY, rank TEXT, record BLOB)")
        # The newest record of each file, of those that have pages.
        self._database.execute("CREATE TABLE files (key BLOB PRIMARY KEY, rank TEXT, pages INTEGER)")
        for uri in shards(self._output):
            self._database.executemany(
                "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET rank = excluded.rank, record = excluded.record WHERE excluded.rank > rank",
                (self._row(record, limit) for record in read_shard(uri)),
            )

    def _row(self, record: Record, limit: str) -> tuple[bytes, str, bytes]:
        place = "{:d} {} {} {}".format(*rank(record, limit))
        file, page = keys.split(record.key)
        if page:
            self._has_pages = True
            self._database.execute(
                "INSERT INTO files VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET rank = excluded.rank, pages = excluded.pages WHERE excluded.rank > rank",
                (storage.as_bytes(file), place, record.pages or keys.LARGEST),
            )
        return storage.as_bytes(record.key), place, pickle.dumps(record.values())

    def get(self, key: str) -> Record | None:
        """The record of a scan, or None."""
        found = self._database.execute("SELECT record FROM records WHERE key = ?", (storage.as_bytes(key),))
        return next((Record(*pickle.loads(packed)) for (packed,) in found), None)

    def of_file(self, key: str) -> list[Record]:
        """The records of a file and its pages, also those from earlier times."""
        record = self.get(key)
        found = [] if record is None else [record]
        if self._has_pages:
            rows = self._database.execute(
                "SELECT record FROM records WHERE key >= ? AND key < ?",
                keys.pages_between(storage.as_bytes(key)),
            )
            found += [
                record
                for (packed,) in rows
                if keys.split((record := Record(*pickle.loads(packed))).key)[0] == key
            ]
        return found

    def __iter__(self) -> Iterator[Record]:
        for packed, place in self._database.execute("SELECT record, rank FROM records ORDER BY key"):
            record = Record(*pickle.loads(packed))
            if not self._has_pages or self._counts(record, place):
                yield record

    def _counts(self, record: Record, place: str) -> bool:
        """Whether a record is not from a time when its file had another number of pictures."""
        file, page = keys.split(record.key)
        key = storage.as_bytes(file)
        newest = self._database.execute("SELECT rank, pages FROM files WHERE key = ?", (key,)).fetchone()
        if newest is None:
            return True
        if not page:
            return place > newest[0]
        own = self._database.execute("SELECT rank FROM records WHERE key = ?", (key,)).fetchone()
        return page <= newest[1] and (own is None or own[0] < newest[0])


def latest(output: str) -> Iterator[Record]:
    """Yields the latest record of every scan, by key; see `Latest`."""
    with Latest(output) as records:
        yield from records
