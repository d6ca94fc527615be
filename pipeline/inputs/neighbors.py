"""Scans that belong together: the frames of a film, the pages of an issue, recto and verso.

Each scan of a group knows its neighbours, those before and after it in the order of their keys. They are known from
the listing alone. Numbers in keys are ordered by their value: `frame9.png` is before `frame10.png`.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import re
import sqlite3
from collections.abc import Iterable, Iterator
from operator import attrgetter, itemgetter

from pipeline import storage
from pipeline.inputs.item import IMAGE_EXTENSIONS, Item, Neighbor
from pipeline.records import keys
from pipeline.storage import scratch

FOLDER, STEM = "folder", "stem"  # what makes a group: a folder, or in it the first part of the names
REACH = 2  # neighbours before a scan, and after it
_FEW = 10_000  # items that are sorted in memory

# A suffix for recto, verso or a part of a sheet; without one, a number.
_SIDE = re.compile(r"(?:^|[ ._-]+|(?<=\d))(?:recto|verso)$|[ ._-]+[rv]$|(?<=\d)[rvab]$", re.IGNORECASE)
_NUMBER = re.compile(r"[ ._-]*\d+$")


def found(items: Iterable[Item], group_by: str) -> Iterator[Item]:
    """Adds groups and neighbours to the scans of an input, with bounded memory.

    Scans with a group come last, ordered by group and key.

    Args:
      group_by: as for `named`.

    Raises:
      JobError: there is no room for temporary files.
    """
    with contextlib.ExitStack() as stack:
        grouped = _Ordered(stack)
        for item in items:
            item = named(item, group_by)
            if item.group:
                grouped.add(item)
            else:
                yield item
        for _, group in itertools.groupby(grouped, attrgetter("group")):
            yield from _with_neighbors([*same] for _, same in itertools.groupby(group, attrgetter("key")))


def named(item: Item, group_by: str) -> Item:
    """Gives a scan its group. That of a manifest counts first. Failed scans of a manifest and other files have none.

    Args:
      group_by: `FOLDER`, `STEM`, or empty.
    """
    if not (item.group or group_by):
        return item
    file, page = keys.split(item.key)
    folder, slash, name = file.rpartition("/")
    stem, extension = os.path.splitext(name)
    if item.alone or item.reason or (extension and extension.lower() not in IMAGE_EXTENSIONS):
        group = ""
    elif item.group:
        return item
    elif group_by == FOLDER:
        group = folder or "."
    elif page:
        group = file
    else:
        shorter = _SIDE.sub("", stem)
        group = folder + slash + (shorter if shorter != stem else _NUMBER.sub("", stem)) or "."
    return dataclasses.replace(item, group=group)


def _with_neighbors(scans: Iterator[list[Item]]) -> Iterator[Item]:
    """Adds neighbours to the scans of a group. Items with the same key, as in a wrong manifest, are one scan."""
    window: list[list[Item]] = []
    at = 0  # in the window, of the scan whose neighbours are known next
    for scan in itertools.chain(scans, itertools.repeat([], REACH)):
        window.append(scan)
        if len(window) <= at + REACH:
            continue
        others = tuple(
            _neighbor(number - at, other[0]) for number, other in enumerate(window) if other and number != at
        )
        yield from (_knowing(item, others) for item in window[at])
        if at < REACH:
            at += 1
        else:
            window.pop(0)


def _neighbor(away: int, item: Item) -> Neighbor:
    return Neighbor(away, item.key, item.source, item.size, item.version, item.digests)


def _knowing(item: Item, others: tuple[Neighbor, ...]) -> Item:
    if not others:
        return item
    listed = [(other.away, other.key, other.size, other.version) for other in others]
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return dataclasses.replace(item, neighbors=others, neighbors_sha256=digest)


class _Ordered:
    """Items in the order of their places, in memory or, if there are many, in a temporary database."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack  # removes the database
        self._items: list[tuple[bytes, Item]] = []
        self._database: sqlite3.Connection | None = None

    def add(self, item: Item) -> None:
        self._items.append((_place(item), item))
        if len(self._items) == _FEW:
            self._store()

    def _store(self) -> None:
        if self._database is None:
            self._database = self._stack.enter_context(scratch.database())
            self._database.execute("CREATE TABLE items (place BLOB, item BLOB)")
        rows = ((place, pickle.dumps(item)) for place, item in self._items)
        self._database.executemany("INSERT INTO items VALUES (?, ?)", rows)
        self._items.clear()

    def __iter__(self) -> Iterator[Item]:
        if self._database is None:
            return map(itemgetter(1), sorted(self._items, key=itemgetter(0)))
        self._store()
        rows = self._database.execute("SELECT item FROM items ORDER BY place")
        return (pickle.loads(packed) for (packed,) in rows)


def _place(item: Item) -> bytes:
    """Sort key: the group, the key with its numbers by value, and what else tells items apart."""
    key = storage.as_bytes(item.key)
    natural = re.sub(rb"\d+", lambda digits: digits[0].lstrip(b"0").rjust(20, b"0"), key)
    return b"\0".join([storage.as_bytes(item.group), natural, key, storage.as_bytes(item.source)])
