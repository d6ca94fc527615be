"""The batch job as a Beam graph.

    items, records, derivatives, hints -> CoGroupByKey -> plan -> open -> RunInference -> paint -> commit -> report
    worklist's file -> Reshuffle -----------------------^

On a cluster the graph makes the plan; on one machine it is made before (see `pipeline.batch.worklist`). The join, or
the reshuffle, moves only paths. From there to `commit` everything runs in one fused stage, where elements are passed
by reference: a scan is decoded once, and its pixels never leave the codec process.
"""

import contextlib
import dataclasses
import functools
import heapq
import itertools
import json
import logging
import os
import pickle
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference
from apache_beam.transforms.combiners import TupleCombineFn
from apache_beam.transforms.window import GlobalWindows

from pipeline import clock, storage
from pipeline.batch import worklist
from pipeline.batch.inference import ColorizationHandler, Opened, Prediction
from pipeline.batch.plan import Action, Task, derivatives, plan
from pipeline.batch.stopping import Stop
from pipeline.codec.codec import View
from pipeline.codec.guard import Guard
from pipeline.codec.masters import Several
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.gallery import pages
from pipeline.gallery.pictures import Shown
from pipeline.inputs import collection, hint_files, neighbors
from pipeline.inputs.collection import Item, Neighbor, derivative_name, page_of
from pipeline.inputs.hint_files import Hint
from pipeline.records import keys, manifest
from pipeline.records.record import Outcome, Reason, Record, Refusal
from pipeline.records.sample import Sample
from pipeline.records.summary import FILE, Summary

NAMESPACE = "colorize"  # of the metrics
SHARD_RECORDS = 500
DEAD_LETTERS = 100_000  # largest number of records in the file of failed scans; the manifest has all
SHARD_SECONDS = {True: 2.0, False: 30.0}  # between commits; shorter in local runs

_LOGGER = logging.getLogger(__name__)

KEPT, RECORDS, UNUSED, ALONE = "kept", "records", "unused", "alone"
NOT_STARTED = "not_started"  # counter of scans that were left because of a request to stop


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
    planned = joined | "Plan" >> beam.FlatMap(_plan, settings, on_existing).with_outputs(UNUSED, main="tasks")
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


def listed(root: beam.Pipeline, file: str) -> beam.PCollection:
    """Reads the tasks of a worklist, on this machine."""
    return (
        root
        | "Worklist" >> beam.Create([None])
        | "ReadTasks" >> beam.FlatMap(lambda _: worklist.read(file))
        | "SpreadTasks" >> beam.Reshuffle()
        | "UnpackTasks" >> beam.FlatMap(worklist.together)
    )


def colorize(
    tasks: beam.PCollection,
    settings: Settings,
    *,
    batch_size: int,
    max_batch_pixels: int,
    threads: int = 0,
    kept: Summary | None = None,
    sample: Sample | None = None,
    unused_hints: Sequence[str] | beam.PCollection = (),
    gallery_size: int = 240,
    started: datetime | None = None,
) -> None:
    """Builds the graph of the job.

    Args:
      tasks: from `planned` or `listed`.
      settings: of the job.
      batch_size, max_batch_pixels, threads: as for `ColorizationHandler`.
      kept, sample: records of scans that are not among the tasks.
      unused_hints: URIs of hints files without a scan, or the result of `planned`.
      gallery_size: number of scans in the gallery.
      started: time of the start.
    """
    root = tasks.pipeline
    opened = tasks | "Open" >> beam.ParDo(OpenScans(settings)).with_outputs(KEPT, RECORDS, main="opened")
    handler = ColorizationHandler(
        settings.model_uri,
        settings.model_sha256,
        settings.side,
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        threads=threads,
        gpu=settings.gpu,
        gpu_memory=settings.gpu_memory,
        calm=settings.calm,
    )
    paint_scans = PaintScans(settings, gallery_size)
    painted = opened.opened | "Infer" >> RunInference(handler) | "Paint" >> beam.ParDo(paint_scans)
    # There is no Flatten before the commits: a runner may materialise it, and records would wait for the last scan.
    records = {
        "Painted": painted | "CommitPainted" >> beam.ParDo(CommitRecords(settings)),
        "Unpainted": opened[RECORDS] | "CommitUnpainted" >> beam.ParDo(CommitRecords(settings)),
        "Kept": opened[KEPT],
    }
    account = TupleCombineFn(_SummaryFn(settings.run), _SampleFn(gallery_size)).with_common_input()
    accounts = [some | f"Account{name}" >> beam.CombineGlobally(account) for name, some in records.items()]
    letters = [
        some
        | f"Failures{name}" >> beam.Filter(_failed)
        | f"Letters{name}" >> beam.CombineGlobally(_LettersFn())
        for name, some in records.items()
    ]
    (
        root
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.FlatMap(
            report,
            beam.pvalue.AsList(accounts | "Accounts" >> beam.Flatten()),
            beam.pvalue.AsIter(letters | "Letters" >> beam.Flatten()),
            beam.pvalue.AsIter(unused_hints) if isinstance(unused_hints, beam.PCollection) else unused_hints,
            settings,
            (kept or Summary(), sample or Sample(gallery_size)),
            gallery_size,
            started or clock.now(),
        )
    )


def report(
    _,
    accounts: Sequence[tuple[Summary, Sample]],
    letters: Iterable[list[Record]],
    unused_hints: Iterable[str | bytes],
    settings: Settings,
    kept: tuple[Summary, Sample],
    gallery_size: int,
    started: datetime,
) -> Iterator[None]:
    """Writes the dead letters, the gallery and finally `summary.json`. Raises JobError if one cannot be written."""
    try:
        _report([*accounts, kept], letters, unused_hints, settings, gallery_size, started)
    except OSError as error:
        raise JobError(manifest.unwritable(settings.output, error)) from error
    return iter(())


def _report(
    accounts: Sequence[tuple[Summary, Sample]],
    letters: Iterable[list[Record]],
    unused_hints: Iterable[str | bytes],
    settings: Settings,
    gallery_size: int,
    started: datetime,
) -> None:
    summaries, samples = zip(*accounts, strict=True)
    summary = Summary().merge(summaries)
    failures = _first(itertools.chain.from_iterable(letters))
    lines = "".join(record.to_json() + "\n" for record in failures)
    storage.write(storage.join(settings.output, manifest.DEAD_LETTERS), lines.encode())
    more: dict[str, object] = {
        "run": settings.run,
        "model": settings.model,
        "model_version": settings.model_version,
        "model_sha256": settings.model_sha256,
        "model_uri": settings.model_uri,
        "options": settings.options,
        "options_sha256": settings.options_sha256,
        "output": settings.output,
        "manifest": manifest.folder(settings.output),
        "dead_letters": storage.join(settings.output, manifest.DEAD_LETTERS),
        "dead_letters_left_out": summary.outcomes[Outcome.FAILED] - len(failures),
        "gallery": None,
        "unused_hints": sorted(map(os.fsdecode, unused_hints)),
        "stopped": _stopped(settings),
    }
    chosen = Sample(gallery_size).merge(samples).records()
    if chosen:
        guard = Guard(settings)
        try:
            more["gallery"] = pages.write_gallery(
                settings.output, chosen, summary.to_dict() | more, guard.thumbnail
            )
        finally:
            guard.close()
    seconds = (clock.now() - started).total_seconds()
    more |= {
        "started": f"{started:%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(seconds, 1),
        "pictures_per_second": round((summary.records - summary.kept) / max(seconds, 1e-9), 3),
    }
    storage.write(storage.join(settings.output, FILE), summary.to_json(**more).encode())


class OpenScans(beam.DoFn):
    """Opens scans. Records of scans that do not need the network go to side outputs."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def setup(self):
        self._guard = Guard(self._settings)
        self._number = _lend(self._guard)

    def process(self, task: Task):
        if task.action == Action.KEEP:
            yield beam.pvalue.TaggedOutput(KEPT, task.record)
        elif _stopped(self._settings):
            _counter(NOT_STARTED).inc()  # it gets no record, and the next run finds it
        elif task.action == Action.REFUSE:
            yield beam.pvalue.TaggedOutput(RECORDS, task.record)
        else:
            answer = self._answer(task)
            if isinstance(answer, Several):
                yield from self._open_pages(task, answer.pages)
            elif isinstance(answer, Record):
                yield beam.pvalue.TaggedOutput(RECORDS, answer)
            else:
                yield Opened(task.item, answer, self._number)

    def _open_pages(self, task: Task, number: int):
        """Does the tasks of the pages of a file, one after the other."""
        if task.item.hints:
            words = f"the file has {number} pictures; name the hints of each {task.item.key}{keys.PAGE}1.txt and so on"
            refusal = Refusal(Reason.BAD_HINTS, words)
            yield beam.pvalue.TaggedOutput(RECORDS, self._settings.record(task.item).refuse(refusal))
            return
        told = {keys.split(page.item.key)[1]: page for page in task.pages}
        for page in range(1, number + 1):
            one = told.get(page) or Task(Action.COLORIZE, page_of(task.item, page), task.why)
            yield from self.process(
                dataclasses.replace(one, item=dataclasses.replace(one.item, pages=number))
            )
        for page, one in told.items():
            if page > number and one.item.hints:  # they say that there is no such page
                yield from self.process(Task(Action.COLORIZE, one.item, one.why))

    def _answer(self, task: Task) -> View | Record | Several:
        record, before = None, task.record
        if task.action == Action.ADOPT:
            record = self._guard.adopt(task.item)
        elif (
            task.action == Action.VERIFY
            and before is not None
            and self._guard.sha256(task.item) == before.source_sha256
        ):
            item = task.item
            record = before.finish(source=item.source, source_version=item.version, run=self._settings.run)
        self._guard.start()
        with _timed("open"):
            return record or self._guard.open(task.item)

    def teardown(self):
        _return(self._number)
        self._guard.close()


class PaintScans(beam.DoFn):
    """Writes derivatives, and pictures for the gallery. Returns records.

    On a cluster the report makes the pictures for the gallery, because too many workers would write their own.
    """

    def __init__(self, settings: Settings, gallery_size: int = 0):
        self._settings = settings
        self._gallery_size = gallery_size if settings.local else 0
        self._own: Guard | None = None

    def setup(self):
        self._shown = Shown(self._settings.output, self._gallery_size)

    def process(self, prediction: Prediction):
        # If a runner has moved the scan to another process, it is opened again.
        guard = _GUARDS.get(prediction.opened.codec) or self._spare()
        _distribution("infer_milliseconds").update(round(1000 * prediction.seconds))
        with _timed("paint"):
            record = paint(guard, prediction, self._settings, show=self._shown.wants(prediction.confidence))
        self._shown.add(record)
        yield record

    def _spare(self) -> Guard:
        self._own = self._own or Guard(self._settings)
        return self._own

    def teardown(self):
        if self._own is not None:
            self._own.close()


def paint(guard: Guard, prediction: Prediction, settings: Settings, show: bool = False) -> Record:
    """Paints a scan after the network. Returns its record; `show` as for `Codec.paint`."""
    item = prediction.opened.item
    if prediction.chroma is None:
        guard.drop(item)
        return settings.record(item).refuse(Refusal(Reason.MODEL_ERROR, prediction.error))
    return guard.paint(
        item,
        prediction.chroma,
        prediction.confidence,
        prediction.seconds,
        prediction.opened.view.pixels,
        show,
        prediction.faded,
    )


class CommitRecords(beam.DoFn):
    """Writes records in shards, and passes them on when they are durable."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._seconds = SHARD_SECONDS[settings.local]

    def start_bundle(self):
        self._records, self._since = [], time.monotonic()

    def process(self, record: Record):
        self._records.append(record)
        if len(self._records) >= SHARD_RECORDS or time.monotonic() - self._since > self._seconds:
            yield from self._commit()

    def finish_bundle(self):
        yield from map(GlobalWindows.windowed_value_at_end_of_window, self._commit())

    def _commit(self) -> list[Record]:
        records, self._records, self._since = self._records, [], time.monotonic()
        manifest.commit(self._settings.output, self._settings.run, records)
        for record in records:
            _count(record)
        return records


_counter = functools.lru_cache(functools.partial(Metrics.counter, NAMESPACE))
_distribution = functools.lru_cache(functools.partial(Metrics.distribution, NAMESPACE))


def _count(record: Record) -> None:
    """Counts a durable record in Beam's metrics, which every runner shows, and logs a failed one."""
    _counter(str(record.outcome)).inc()
    if record.reason:
        _counter(f"reason_{record.reason}").inc()
    if record.outcome == Outcome.COLORIZED:
        _distribution("milliseconds").update(record.milliseconds)
        _distribution("source_bytes").update(max(0, record.source_bytes))
        _distribution("derivative_bytes").update(record.derivative_bytes)
        _distribution("confidence_percent").update(round(100 * (record.confidence or 0)))
        _distribution("colorfulness").update(round(record.colorfulness or 0))
    elif record.outcome == Outcome.FAILED:
        names = ("source", "key", "reason", "detail", "run")
        _LOGGER.warning("%s", json.dumps({name: str(getattr(record, name)) for name in names}))


@contextlib.contextmanager
def _timed(stage: str) -> Iterator[None]:
    """Adds the duration of the block to the metrics, in milliseconds."""
    started = time.monotonic()
    yield
    _distribution(f"{stage}_milliseconds").update(round(1000 * (time.monotonic() - started)))


def _failed(record: Record) -> bool:
    return record.outcome == Outcome.FAILED


class _SummaryFn(beam.CombineFn):
    def __init__(self, run: str):
        self._run = run

    def create_accumulator(self) -> Summary:
        return Summary()

    def add_input(self, summary: Summary, record: Record) -> Summary:
        return summary.add(record, self._run)

    def merge_accumulators(self, summaries) -> Summary:
        return Summary().merge(summaries)

    def extract_output(self, summary: Summary) -> Summary:
        return summary


def _first(records: Iterable[Record]) -> list[Record]:
    return heapq.nsmallest(DEAD_LETTERS, records, key=lambda record: (record.key, record.source))


class _LettersFn(beam.CombineFn):
    """The first `DEAD_LETTERS` records by key, so that no worker holds more."""

    def create_accumulator(self) -> list[Record]:
        return []

    def add_input(self, letters: list[Record], record: Record) -> list[Record]:
        letters.append(record)
        return _first(letters) if len(letters) >= 2 * DEAD_LETTERS else letters

    def merge_accumulators(self, accumulators) -> list[Record]:
        return _first(itertools.chain.from_iterable(accumulators))

    def extract_output(self, letters: list[Record]) -> list[Record]:
        return _first(letters)


class _SampleFn(beam.CombineFn):
    def __init__(self, size: int):
        self._size = size

    def create_accumulator(self) -> Sample:
        return Sample(self._size)

    def add_input(self, sample: Sample, record: Record) -> Sample:
        return sample.add(record)

    def merge_accumulators(self, samples) -> Sample:
        return Sample(self._size).merge(samples)

    def extract_output(self, sample: Sample) -> Sample:
        return sample


# Joined values are packed as bytes, which are much smaller than objects; a runner may hold all of them.


def packed_item(item: Item, output: str, format: str) -> tuple[bytes, bytes]:
    values = [item.key, item.source, item.size, item.version, item.reason, item.detail, item.digests]
    if item.group:
        values += [item.group, item.neighbors, item.neighbors_sha256]
    return derivative_name(output, item.key, format), json.dumps(values, default=dataclasses.astuple).encode()


def packed_record(record: Record, output: str, format: str) -> tuple[bytes, bytes]:
    return derivative_name(output, record.key, format), json.dumps(record.values()).encode()


def _listed_hints(folder: str) -> Iterator[tuple[bytes, bytes]]:
    return ((os.fsencode(key), os.fsencode(uri)) for key, uri in hint_files.listing(folder))


def _packed_hint(listed: tuple[bytes, bytes], output: str, format: str) -> tuple[bytes, bytes]:
    key, uri = map(os.fsdecode, listed)
    hint = hint_files.identified(uri)
    values = keys.split(key)[1], *dataclasses.astuple(hint)
    return derivative_name(output, key, format), json.dumps(values).encode()


def _plan(joined: tuple[bytes, dict], settings: Settings, on_existing: str) -> Iterator[Task]:
    """Yields the tasks of one file. Hints files without a scan go to a side output."""
    found = joined[1]
    items = []
    for packed in found["items"]:
        key, source, size, version, reason, detail, digests, *together = json.loads(packed)
        group, others, sha256 = together or ("", (), "")
        items.append(
            Item(
                key,
                source,
                size,
                version,
                reason=reason,
                detail=detail,
                digests=digests,
                group=group,
                neighbors=tuple(Neighbor(*other) for other in others),
                neighbors_sha256=sha256,
            )
        )
    records = (Record(*json.loads(packed)) for packed in found["records"])
    hints: dict[int, list[Hint]] = defaultdict(list)
    for packed in found.get("hints", ()):
        page, *values = json.loads(packed)
        hints[page].append(Hint(*values))
    if not items:
        unused = (hint for some in hints.values() for hint in some)
        yield from (beam.pvalue.TaggedOutput(UNUSED, os.fsencode(hint.uri)) for hint in unused)
    yield from plan(items, records, dict(found["derivatives"]), settings, on_existing, hints)


@functools.lru_cache(maxsize=4)
def _stop(file: str, run: str) -> Stop:
    return Stop(file)


def _stopped(settings: Settings) -> bool:
    return _stop(settings.stop_file, settings.run).is_requested()


# The codecs of this process by number, so that `PaintScans` finds the one that holds a scan.
_GUARDS: dict[int, Guard] = {}
_NUMBERS = itertools.count(1)


def _lend(guard: Guard) -> int:
    number = next(_NUMBERS) * 1_000_003 + os.getpid()  # unique over processes
    _GUARDS[number] = guard
    return number


def _return(number: int) -> None:
    _GUARDS.pop(number, None)
