"""The records of a collection: committed in shards as the work proceeds, the latest of each scan counts."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from pipeline import scratch, storage
from pipeline.collections import JobError
from pipeline.record import SCHEMA, Record, fields

FOLDER = "manifest"
DEAD_LETTERS = "dead_letters.jsonl"
CLOCKS_APART = timedelta(hours=1)  # that the clocks of two machines may be, and records of both be believed


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
        raise JobError(unwritable(output, error)) from error


def unwritable(output: str, error: OSError) -> str:
    """In words: an output that could be written to before cannot be any more."""
    return (
        f"cannot write to {output}: {error.strerror or error}; what is finished is kept, "
        "run the same command again once it can be written to"
    )


def shards(output: str, run: str = "") -> Iterator[str]:
    """URIs of the manifest's shards, or of one run's, in the order of their names.

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
    """How many shards each run has committed. Raises JobError as `shards` does."""
    return Counter(uri.rpartition("/")[2].rpartition("-")[0] for uri in shards(output))


def read_shard(uri: str) -> Iterator[Record]:
    """The records of a shard, in its order.

    Raises:
      JobError: it cannot be read, or a line is no record: somebody else's file, an edited one, or one of a later
        version of this program.
    """
    return (record for record, _ in _read(uri))


def _read(uri: str) -> Iterator[tuple[Record, bytes]]:
    """Records with their lines."""
    try:
        lines = storage.read(uri).splitlines()
    except OSError as error:
        raise JobError(f"cannot read {uri}: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        try:
            said = fields(line)
            record = Record.from_fields(said)
        except (ValueError, TypeError) as error:
            raise JobError(f"{uri}, line {number}: {error}") from error
        schema = said.get("schema", SCHEMA)
        if type(schema) is not int or schema > SCHEMA:
            raise JobError(
                f"{uri}, line {number}: a later version of archive-colorize wrote this record (schema "
                f"{schema}, this one knows {SCHEMA}): update the program, or choose another output"
            )
        yield record, line


def rank(record: Record, now: datetime | None = None) -> tuple:
    """Orders the records of a scan: the greatest counts.

    It is the one finished last. One dated more than `CLOCKS_APART` after now comes from a machine whose clock was
    wrong, and ranks below all that can be true: what a later run finds is not hidden behind it until that date comes.
    Of two of the same moment always the same one counts.
    """
    latest = (now or datetime.now(UTC)) + CLOCKS_APART
    believed = record.finished <= latest.isoformat(timespec="milliseconds")
    return (believed, record.finished, record.outcome, record.derivative_sha256)


def later(a: Record, b: Record) -> Record:
    """Which of two records of a scan counts; see `rank`."""
    return max(a, b, key=rank)


class Latest:
    """The record that counts of every scan, in bounded memory: a temporary database on this machine.

    Iterating gives them by key. Raises JobError as `read_shard` does, and where there is no room for the database.
    """

    def __init__(self, output: str):
        self._output = output

    def __enter__(self) -> "Latest":
        with contextlib.ExitStack() as stack:
            self._database = stack.enter_context(scratch.database())
            self._fill()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised) -> None:
        self._stack.__exit__(*raised)

    def _fill(self) -> None:
        now = datetime.now(UTC)
        # Rows are large: a table WITHOUT ROWID would keep a few to a page, half of it empty.
        self._database.execute("CREATE TABLE records (key BLOB PRIMARY KEY, rank TEXT, line BLOB)")
        for uri in shards(self._output):
            self._database.executemany(
                "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET rank = excluded.rank, line = excluded.line WHERE excluded.rank > rank",
                (
                    (storage.as_bytes(record.key), "{:d} {} {} {}".format(*rank(record, now)), line)
                    for record, line in _read(uri)
                ),
            )

    def get(self, key: str) -> Record | None:
        """The record of a scan, if it has one."""
        found = self._database.execute("SELECT line FROM records WHERE key = ?", (storage.as_bytes(key),))
        return next((Record.from_json(line) for (line,) in found), None)

    def __iter__(self) -> Iterator[Record]:
        for (line,) in self._database.execute("SELECT line FROM records ORDER BY key"):
            yield Record.from_json(line)


def latest(output: str) -> Iterator[Record]:
    """The record that counts of every scan, by key; see `Latest`."""
    with Latest(output) as records:
        yield from records
