"""What a run on this machine has to do, planned before it begins: in temporary files, not in memory.

A cluster plans within its graph (`graph.planned`). Here one pass over input, manifest and output does it, and what is
current already, most of a resumed collection, never enters the graph.
"""

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import collections, hints, manifest, scratch, storage
from pipeline.collections import Item, JobError
from pipeline.hints import Hint
from pipeline.plan import Action, Task, derivatives, plan
from pipeline.record import Record
from pipeline.settings import Settings
from pipeline.summary import Sample, Summary


@dataclass(frozen=True)
class Worklist:
    """What there is to do, and an account of what is not."""

    file: str  # on this machine; see `read`
    todo: int  # records that the run will make
    kept: Summary  # of the records that stay as they are
    sample: Sample  # of these
    unused_hints: list[str]  # URIs of files that belong to no scan


def write(
    folder: str,
    source: str,
    settings: Settings,
    *,
    hints_folder: str | None,
    on_existing: str,
    gallery_size: int,
    since: str,
) -> Worklist:
    """Plans the whole run, and writes what is to be done to a file in `folder`, which lies on this machine.

    Raises:
      JobError: input, manifest or output cannot be read, or there is no room for temporary files.
    """
    file, todo, kept, sample = os.path.join(folder, "tasks"), 0, Summary(), Sample(gallery_size)
    given = hints_by_key(hints_folder)
    unused = dict(given)
    planned = tasks(source, settings, given, on_existing, since)
    try:
        with open(file, "wb") as lines:
            for task in planned:
                unused.pop(task.item.key, None)
                if task.action == Action.KEEP:
                    kept.add(task.record, settings.run)
                    sample.add(task.record)
                else:
                    lines.write(_packed(task))
                    todo += 1
    except OSError as error:
        raise JobError(scratch.no_room(error)) from error
    return Worklist(file, todo, kept, sample, sorted(hint.uri for some in unused.values() for hint in some))


def read(file: str) -> Iterator[bytes]:
    """The tasks of a worklist's file, packed."""
    with open(file, "rb") as lines:
        yield from lines


def unpacked(line: bytes) -> Task:
    action, item, why, record = json.loads(line)
    return Task(Action(action), _item(item), why, Record.from_fields(record) if record else None)


def _packed(task: Task) -> bytes:
    record = "null" if task.record is None or task.action == Action.COLORIZE else task.record.to_json()
    head = json.dumps([task.action, _values(task.item), task.why])
    return f"{head[:-1]}, {record}]\n".encode()


def hints_by_key(folder: str | None) -> dict[str, list[Hint]]:
    """Hints files by the key they are named for. Raises JobError where they cannot be listed."""
    given = defaultdict(list)
    for key, uri in hints.listing(folder) if folder else ():
        given[key].append(hints.identified(uri))
    return given


def tasks(
    source: str, settings: Settings, given: dict[str, list[Hint]], on_existing: str, since: str = ""
) -> Iterator[Task]:
    """The plan of a run.

    Args:
      given: hints files by key.
      since: as for `plan.derivatives`.

    Raises:
      JobError: as `write`.
    """
    with manifest.Latest(settings.output) as records, scratch.database() as there:
        there.execute("CREATE TABLE derivatives (name BLOB PRIMARY KEY, size INTEGER) WITHOUT ROWID")
        found = derivatives(settings.output, settings.format, since)
        there.executemany("INSERT OR REPLACE INTO derivatives VALUES (?, ?)", found)
        for items in _by_key(source):
            key = items[0].key
            record = records.get(key)
            name = collections.derivative_name(settings.output, key, settings.format)
            size = there.execute("SELECT size FROM derivatives WHERE name = ?", (name,)).fetchone()
            yield from plan(
                items,
                [record] if record else [],
                size[0] if size else None,
                settings,
                on_existing,
                given.get(key, ()),
            )


def _by_key(source: str) -> Iterator[list[Item]]:
    """The items of each key: in a listing there is one, in a manifest there may be several, far apart."""
    if collections.base_folder(source) is not None:
        for item in collections.expand(source):
            yield [item]
        return
    with scratch.database() as items:
        items.execute("CREATE TABLE items (key BLOB, item TEXT)")
        items.executemany(
            "INSERT INTO items VALUES (?, ?)",
            ((storage.as_bytes(item.key), json.dumps(_values(item))) for item in collections.expand(source)),
        )
        ordered = items.execute("SELECT key, item FROM items ORDER BY key, rowid")
        for _, same in itertools.groupby(ordered, key=lambda row: row[0]):
            yield [_item(json.loads(line)) for _, line in same]


def _values(item: Item) -> list:
    return [getattr(item, name) for name in Item.__slots__]


def _item(values: list) -> Item:
    said = dict(zip(Item.__slots__, values, strict=True))
    return Item(**said | {"hints": tuple(said["hints"])})
