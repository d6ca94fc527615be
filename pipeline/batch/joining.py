"""The plan of a run on a cluster: items, records, derivatives and hints are joined by the name of the derivative.

On one machine, `pipeline.batch.worklist` makes the plan.
"""

import dataclasses
import json
import os
import pickle
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

import apache_beam as beam

from pipeline import storage
from pipeline.batch.plan import Task, derivatives, plan
from pipeline.codec.settings import Settings
from pipeline.inputs import collection, hint_files, neighbors
from pipeline.inputs.hint_files import Hint
from pipeline.inputs.item import Item, derivative_name
from pipeline.records import keys, manifest
from pipeline.records.record import Record

UNUSED, ALONE = "unused", "alone"  # outputs for hints files without a scan, and for items without a group


def planned(
    root: beam.Pipeline,
    source: str,
    settings: Settings,
    *,
    hints_folder: str | None = None,
    on_existing: str = "stale",
    since: str = "",
    group_by: str = "",
) -> tuple[beam.PCollection, beam.PCollection]:
    """Plans a run on the workers. Returns the tasks, and the URIs (bytes) of hints files without a scan.

    Args:
      root: of the graph.
      source: the input.
      settings: of the job.
      hints_folder: of the hints, or None.
      on_existing: as for `plan.plan`.
      since: as for `plan.derivatives`.
      group_by: as for `neighbors.named`.
    """
    # Paths are arguments or bytes, because Beam's text coder refuses names that are not UTF-8.
    once = root | "Input" >> beam.Create([None])
    join = settings.output, settings.format
    items = (
        once
        | "Parts" >> beam.FlatMap(lambda _: collection.parts(source))
        | "Split" >> beam.FlatMap(partial(collection.split, source))
        | "SpreadFolders" >> beam.Reshuffle()
        | "SplitAgain" >> beam.FlatMap(partial(collection.split, source))
        | "SpreadParts" >> beam.Reshuffle()
        | "Expand" >> beam.FlatMap(partial(collection.expand_part, source))
    )
    if group_by or collection.base_folder(source) is None:  # only manifests have groups of their own
        items = _with_neighbors(items, group_by)
    inputs = {
        "items": items | "PackItem" >> beam.Map(packed_item, *join),
        "records": once
        | "Shards" >> beam.FlatMap(lambda _: map(os.fsencode, manifest.shards(settings.output)))
        | "Spread" >> beam.Reshuffle()
        | "ReadRecords" >> beam.FlatMap(lambda shard: manifest.read_shard(os.fsdecode(shard)))
        | "PackRecord" >> beam.Map(packed_record, *join),
        "derivatives": once
        | "Derivatives"
        >> beam.FlatMap(lambda _: derivatives(*join, since)).with_output_types(tuple[bytes, tuple[int, int]]),
    }
    if hints_folder:
        inputs["hints"] = (
            once
            | "ListHints" >> beam.FlatMap(lambda _: _listed_hints(hints_folder))
            | "SpreadHints" >> beam.Reshuffle()
            | "PackHint" >> beam.Map(_packed_hint, *join)
        )
    joined = inputs | "Join" >> beam.CoGroupByKey()
    planned = joined | "Plan" >> beam.FlatMap(tasks, settings, on_existing).with_outputs(UNUSED, main="tasks")
    return planned.tasks, planned[UNUSED]


def _with_neighbors(items: beam.PCollection, group_by: str) -> beam.PCollection:
    """Adds groups and neighbours to items. Those without a group are not shuffled."""
    split = items | "Group" >> beam.FlatMap(_by_group, group_by).with_outputs(ALONE, main="grouped")
    grouped = (
        split.grouped
        | "GroupByKey" >> beam.GroupByKey()
        | "FindNeighbors" >> beam.FlatMap(lambda group: neighbors.found(map(pickle.loads, group[1]), ""))
    )
    return (grouped, split[ALONE]) | "Items" >> beam.Flatten()


def _by_group(item: Item, group_by: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields scans with a group by its name. Those without one go to a side output."""
    item = neighbors.named(item, group_by)
    if item.group:
        yield storage.as_bytes(item.group), pickle.dumps(item)
    else:
        yield beam.pvalue.TaggedOutput(ALONE, item)


# Joined values are packed as bytes, which are much smaller than objects; a runner may hold all of them.


def packed_item(item: Item, output: str, format: str) -> tuple[bytes, bytes]:
    return derivative_name(output, item.key, format), json.dumps(item.values()).encode()


def packed_record(record: Record, output: str, format: str) -> tuple[bytes, bytes]:
    return derivative_name(output, record.key, format), json.dumps(record.values()).encode()


def _listed_hints(folder: str) -> Iterator[tuple[bytes, bytes]]:
    return ((os.fsencode(key), os.fsencode(uri)) for key, uri in hint_files.listing(folder))


def _packed_hint(listed: tuple[bytes, bytes], output: str, format: str) -> tuple[bytes, bytes]:
    key, uri = map(os.fsdecode, listed)
    hint = hint_files.identified(uri)
    values = keys.split(key)[1], *dataclasses.astuple(hint)
    return derivative_name(output, key, format), json.dumps(values).encode()


def tasks(joined: tuple[bytes, dict], settings: Settings, on_existing: str) -> Iterator[Task]:
    """Yields the tasks of one file. Hints files without a scan go to a side output."""
    found = joined[1]
    items = [Item.from_values(json.loads(packed)) for packed in found["items"]]
    records = (Record(*json.loads(packed)) for packed in found["records"])
    hints: dict[int, list[Hint]] = defaultdict(list)
    for packed in found.get("hints", ()):
        page, *values = json.loads(packed)
        hints[page].append(Hint(*values))
    if not items:
        unused = (hint for some in hints.values() for hint in some)
        yield from (beam.pvalue.TaggedOutput(UNUSED, os.fsencode(hint.uri)) for hint in unused)
    yield from plan(items, records, dict(found["derivatives"]), settings, on_existing, hints)
