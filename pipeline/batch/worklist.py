"""The plan of a run on this machine, which is made before the run begins, in temporary files.

On a cluster the graph makes the plan (`joining.planned`). On one machine a single pass over input, manifest and
output makes it. Scans that are up to date, which are most of a resumed collection, never enter the graph.
"""

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import storage
from pipeline.batch.plan import Action, Task, derivatives, plan
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.inputs import collection, hint_files, neighbors
from pipeline.inputs.hint_files import Hint
from pipeline.inputs.item import Item, derivative_name
from pipeline.records import keys, manifest
from pipeline.records.record import Record
from pipeline.records.sample import Sample
from pipeline.records.summary import Summary
from pipeline.storage import scratch

TOGETHER = 32  # largest number of scans with neighbours that one worker does one after the other


@dataclass(frozen=True)
class Worklist:
    """The tasks of a run, and a summary of the records that stay."""

    file: str  # on this machine; see `read`
    todo: int  # number of records that the run will make
    kept: Summary  # of the records that stay
    sample: Sample  # of the records that stay
    unused_hints: list[str]  # URIs of hints files without a scan


def write(
    folder: str,
    source: str,
    settings: Settings,
    *,
    hints_folder: str | None,
    on_existing: str,
    gallery_size: int,
    since: str,
    group_by: str = "",
) -> Worklist:
    """Plans a run and writes its tasks to a file in the local `folder`. See `tasks` for the arguments.

    Raises:
      JobError: input, manifest or output cannot be read, or there is no room for temporary files.
    """
    file, todo, kept, sample = os.path.join(folder, "tasks"), 0, Summary(), Sample(gallery_size)
    hints = hints_by_key(hints_folder)
    unused = dict(hints)
    planned = tasks(source, settings, hints, on_existing, since, group_by)
    near = 0  # tasks in a row whose scans have neighbours
    try:
        with open(file, "wb") as lines:
            for task in planned:
                for one in (task, *task.pages):
                    unused.pop(one.item.key, None)
                if task.action == Action.KEEP:
                    assert task.record is not None  # every kept task has one
                    kept.add(task.record, settings.run)
                    sample.add(task.record)
                    continue
                near = near + 1 if task.item.neighbors else 0
                if todo:
                    lines.write(b"\t" if near and near % TOGETHER != 1 else b"\n")
                lines.write(packed(task))
                todo += 1
    except OSError as error:
        raise JobError(scratch.no_room(error)) from error
    return Worklist(file, todo, kept, sample, sorted(hint.uri for some in unused.values() for hint in some))


def read(file: str) -> Iterator[bytes]:
    """Yields the lines of a worklist, with one task or several that one worker should do."""
    with open(file, "rb") as lines:
        yield from lines


def together(line: bytes) -> Iterator[Task]:
    """The tasks in a line of a worklist."""
    return map(unpacked, line.split(b"\t"))


def unpacked(packed: bytes) -> Task:
    return _task(json.loads(packed))


def _task(values: list) -> Task:
    action, item, why, record, pages = values
    known = Record.from_fields(record) if record else None
    return Task(Action(action), Item.from_values(item), why, known, tuple(map(_task, pages)))


def packed(task: Task) -> bytes:
    return _packed(task).encode()


def _packed(task: Task) -> str:
    """JSON in one line, without tabs. Of scans that will be coloured, only records with a sidecar are needed."""
    record = task.record
    if record is not None and task.action == Action.COLORIZE and not record.sidecar_sha256:
        record = None
    known = "null" if record is None else record.to_json()
    head = json.dumps([task.action, task.item.values(), task.why])
    return f"{head[:-1]}, {known}, [{', '.join(map(_packed, task.pages))}]]"


def hints_by_key(folder: str | None) -> dict[str, list[Hint]]:
    """Hints files by key. Raises JobError if they cannot be listed."""
    hints = defaultdict(list)
    for key, uri in hint_files.listing(folder) if folder else ():
        hints[key].append(hint_files.identified(uri))
    return hints


def tasks(
    source: str,
    settings: Settings,
    hints: dict[str, list[Hint]],
    on_existing: str,
    since: str = "",
    group_by: str = "",
) -> Iterator[Task]:
    """Yields the tasks of a run.

    Args:
      hints: hints files by key.
      since: as for `plan.derivatives`.
      group_by: as for `neighbors.named`.

    Raises:
      JobError: as `write`.
    """
    with manifest.Latest(settings.output) as records, scratch.database() as there:
        there.execute(
            "CREATE TABLE derivatives (name BLOB, page INTEGER, size INTEGER, PRIMARY KEY (name, page)) WITHOUT ROWID"
        )
        found = derivatives(settings.output, settings.format, since)
        rows = ((name, page, size) for name, (page, size) in found)
        there.executemany("INSERT OR REPLACE INTO derivatives VALUES (?, ?, ?)", rows)
        by_file: dict[str, dict[int, list[Hint]]] = defaultdict(dict)
        for key, some in hints.items():
            file, page = keys.split(key)
            by_file[file][page] = some
        for items in _by_file(source, group_by):
            file, _ = keys.split(items[0].key)
            name = derivative_name(settings.output, file, settings.format)
            sizes = there.execute("SELECT page, size FROM derivatives WHERE name = ?", (name,)).fetchall()
            yield from plan(
                items, records.of_file(file), dict(sizes), settings, on_existing, by_file.get(file)
            )


def _by_file(source: str, group_by: str) -> Iterator[list[Item]]:
    """Yields the items of each file. A listing has one for each; a manifest may have several in different places."""
    if collection.base_folder(source) is not None:
        listed = collection.expand(source)
        for item in neighbors.found(listed, group_by) if group_by else listed:
            yield [item]
        return
    with scratch.database() as items:
        items.execute("CREATE TABLE items (key BLOB, item TEXT)")
        items.executemany(
            "INSERT INTO items VALUES (?, ?)",
            (
                (storage.as_bytes(keys.split(item.key)[0]), json.dumps(item.values()))
                for item in neighbors.found(collection.expand(source), group_by)
            ),
        )
        ordered = items.execute("SELECT key, item FROM items ORDER BY key, rowid")
        for _, same in itertools.groupby(ordered, key=lambda row: row[0]):
            yield [Item.from_values(json.loads(line)) for _, line in same]
