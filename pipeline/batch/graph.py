"""The batch job as a Beam graph.

    items, records, derivatives, hints -> CoGroupByKey -> plan -> open -> RunInference -> paint -> commit -> report
    worklist's file -> Reshuffle -----------------------^

On a cluster the plan is made in the graph, on this machine before it (see `pipeline.worklist`). The join, or the
reshuffle, redistributes paths only. From there to `commit` everything runs in one fused stage, where elements
pass by reference: a scan is decoded once, and its pixels never leave the codec process that decoded it.
"""

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.transforms.combiners import TupleCombineFn
from apache_beam.transforms.window import GlobalWindows

from pipeline import collections, gallery, hints, manifest, storage, worklist
from pipeline.codec import refused
from pipeline.collections import Item, JobError, derivative_name
from pipeline.guard import Guard
from pipeline.hints import Hint
from pipeline.inference import ColorizationHandler, Opened, Prediction
from pipeline.plan import Action, Task, derivatives, plan
from pipeline.record import Outcome, Reason, Record, Refusal
from pipeline.settings import Settings
from pipeline.summary import FILE, Sample, Summary

SHARD_RECORDS = 500
SHARD_SECONDS = {True: 2.0, False: 30.0}  # between commits; a local run's progress is read from them

KEPT, RECORDS, UNUSED = "kept", "records", "unused"


def planned(
    root: beam.Pipeline,
    source: str,
    settings: Settings,
    *,
    hints_folder: str | None = None,
    on_existing: str = "stale",
    since: str = "",
) -> tuple[beam.PCollection, beam.PCollection]:
    """The tasks of a run, and the URIs, as bytes, of hints files that are no scan's; planned by the workers.

    Args:
      since: as for `plan.derivatives`.
    """
    # Paths are arguments, or bytes, never elements: Beam's coder of text refuses names that are not UTF-8.
    once = root | "Input" >> beam.Create([None])
    join = settings.output, settings.format
    inputs = {
        "items": once
        | "Expand" >> beam.FlatMap(lambda _: collections.expand(source))
        | "PackItem" >> beam.Map(_packed_item, *join),
        "records": once
        | "Shards" >> beam.FlatMap(lambda _: map(os.fsencode, manifest.shards(settings.output)))
        | "Spread" >> beam.Reshuffle()
        | "ReadRecords" >> beam.FlatMap(lambda shard: manifest.read_shard(os.fsdecode(shard)))
        | "PackRecord" >> beam.Map(_packed_record, *join),
        "derivatives": once
        | "Derivatives"
        >> beam.FlatMap(lambda _: derivatives(*join, since)).with_output_types(tuple[bytes, int]),
    }
    if hints_folder:
        inputs["hints"] = (
            once
            | "ListHints" >> beam.FlatMap(lambda _: _listed_hints(hints_folder))
            | "SpreadHints" >> beam.Reshuffle()
            | "PackHint" >> beam.MapTuple(_packed_hint, *join)
        )
    joined = inputs | "Join" >> beam.CoGroupByKey()
    planned = joined | "Plan" >> beam.FlatMap(_plan, settings, on_existing).with_outputs(UNUSED, main="tasks")
    return planned.tasks, planned[UNUSED]


def listed(root: beam.Pipeline, file: str) -> beam.PCollection:
    """The tasks of a worklist's file, on this machine."""
    return (
        root
        | "Worklist" >> beam.Create([None])
        | "ReadTasks" >> beam.FlatMap(lambda _: worklist.read(file))
        | "SpreadTasks" >> beam.Reshuffle()
        | "UnpackTask" >> beam.Map(worklist.unpacked)
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
    started: float | None = None,
) -> None:
    """Builds the job.

    Args:
      tasks: from `planned` or `listed`.
      kept, sample: an account of scans that are not among the tasks.
      unused_hints: URIs, or as `planned` gives them.
    """
    root = tasks.pipeline
    opened = tasks | "Open" >> beam.ParDo(OpenScans(settings)).with_outputs(KEPT, RECORDS, main="opened")
    handler = ColorizationHandler(
        settings.model_uri,
        settings.side,
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        threads=threads,
    )
    paint_scans = PaintScans(settings, gallery_size)
    painted = opened.opened | "Infer" >> RunInference(handler) | "Paint" >> beam.ParDo(paint_scans)
    # No Flatten before the commits: a runner may write out all it merges, and records would wait for the last scan.
    records = {
        "Painted": painted | "CommitPainted" >> beam.ParDo(CommitRecords(settings)),
        "Unpainted": opened[RECORDS] | "CommitUnpainted" >> beam.ParDo(CommitRecords(settings)),
        "Kept": opened[KEPT],
    }
    account = TupleCombineFn(_SummaryFn(settings.run), _SampleFn(gallery_size)).with_common_input()
    accounts = [some | f"Account{name}" >> beam.CombineGlobally(account) for name, some in records.items()]
    failures = [some | f"Failures{name}" >> beam.Filter(_failed) for name, some in records.items()]
    (
        root
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.FlatMap(
            report,
            beam.pvalue.AsList(accounts | "Accounts" >> beam.Flatten()),
            beam.pvalue.AsIter(failures | "Failures" >> beam.Flatten()),
            beam.pvalue.AsIter(unused_hints) if isinstance(unused_hints, beam.PCollection) else unused_hints,
            settings,
            (kept or Summary(), sample or Sample(gallery_size)),
            gallery_size,
            started if started is not None else time.time(),
        )
    )


def report(
    _,
    accounts: Sequence[tuple[Summary, Sample]],
    failures: Iterable[Record],
    unused_hints: Iterable[str | bytes],
    settings: Settings,
    kept: tuple[Summary, Sample],
    gallery_size: int,
    started: float,
) -> Iterator[None]:
    """Writes the dead letters, the gallery and, last, `summary.json`. Raises JobError where one cannot be written."""
    try:
        _report([*accounts, kept], failures, unused_hints, settings, gallery_size, started)
    except OSError as error:
        raise JobError(manifest.unwritable(settings.output, error)) from error
    return iter(())


def _report(
    accounts: Sequence[tuple[Summary, Sample]],
    failures: Iterable[Record],
    unused_hints: Iterable[str | bytes],
    settings: Settings,
    gallery_size: int,
    started: float,
) -> None:
    summaries, samples = zip(*accounts, strict=True)
    summary = Summary().merge(summaries)
    letters = "".join(record.to_json() + "\n" for record in failures)
    storage.write(storage.join(settings.output, manifest.DEAD_LETTERS), letters.encode())
    more = {
        "run": settings.run,
        "model": settings.model,
        "model_version": settings.model_version,
        "model_sha256": settings.model_sha256,
        "model_uri": settings.model_uri,
        "output": settings.output,
        "manifest": manifest.folder(settings.output),
        "dead_letters": storage.join(settings.output, manifest.DEAD_LETTERS),
        "gallery": None,
        "unused_hints": sorted(map(os.fsdecode, unused_hints)),
        "stopped": _stopped(settings),
    }
    chosen = Sample(gallery_size).merge(samples).records()
    if chosen:
        guard = Guard(settings)
        try:
            more["gallery"] = gallery.write_gallery(
                settings.output, chosen, summary.to_dict() | more, guard.thumbnail
            )
        finally:
            guard.close()
    seconds = time.time() - started
    more |= {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 1),
        "pictures_per_second": round((summary.records - summary.kept) / max(seconds, 1e-9), 3),
    }
    storage.write(storage.join(settings.output, FILE), summary.to_json(**more).encode())


class OpenScans(beam.DoFn):
    """Tasks -> opened scans; records of those that need no network go to side outputs."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def setup(self):
        self._guard = Guard(self._settings)
        self._number = _lend(self._guard)

    def process(self, task: Task):
        if task.action == Action.KEEP:
            yield beam.pvalue.TaggedOutput(KEPT, task.record)
        elif _stopped(self._settings):
            return  # not begun: it has no record, and the next run finds it
        elif task.action == Action.REFUSE:
            yield beam.pvalue.TaggedOutput(RECORDS, task.record)
        else:
            yield self._open(task)

    def _open(self, task: Task):
        record = None
        if task.action == Action.ADOPT:
            record = self._guard.adopt(task.item)
        elif task.action == Action.VERIFY and self._guard.sha256(task.item) == task.record.source_sha256:
            item = task.item
            record = task.record.finish(
                source=item.source, source_version=item.version, run=self._settings.run
            )
        answer = record or self._guard.open(task.item)
        if isinstance(answer, Record):
            return beam.pvalue.TaggedOutput(RECORDS, answer)
        return Opened(task.item, answer, self._number)

    def teardown(self):
        _return(self._number)
        self._guard.close()


class PaintScans(beam.DoFn):
    """Predictions -> records, their derivatives written, and the gallery's pictures of the least sure.

    On a cluster the report makes all of the gallery's pictures: too many workers would each have their own.
    """

    def __init__(self, settings: Settings, gallery_size: int = 0):
        self._settings = settings
        self._gallery_size = gallery_size if settings.stop_file else 0
        self._own = None

    def setup(self):
        self._shown = gallery.Shown(self._settings.output, self._gallery_size)

    def process(self, prediction: Prediction):
        # Should a runner have carried the scan to another process, it is opened again here.
        guard = _GUARDS.get(prediction.opened.codec) or self._spare()
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
    """The record of a scan that the network has seen; `show` as for `Codec.paint`."""
    item = prediction.opened.item
    if prediction.chroma is None:
        guard.drop(item)
        return refused(item, Refusal(Reason.MODEL_ERROR, prediction.error), settings)
    return guard.paint(
        item,
        prediction.chroma,
        prediction.confidence,
        prediction.seconds,
        prediction.opened.view.pixels,
        show,
    )


class CommitRecords(beam.DoFn):
    """Makes records durable, a shard at a time, and passes them on once they are."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._seconds = SHARD_SECONDS[bool(settings.stop_file)]

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
        return records


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


# What is joined is packed: a runner may hold all of it, and bytes are a fraction of the objects.


def _packed_item(item: Item, output: str, format: str) -> tuple[bytes, bytes]:
    values = [item.key, item.source, item.size, item.version, item.reason, item.detail]
    return derivative_name(output, item.key, format), json.dumps(values).encode()


def _packed_record(record: Record, output: str, format: str) -> tuple[bytes, bytes]:
    return derivative_name(output, record.key, format), record.to_json().encode()


def _listed_hints(folder: str) -> Iterator[tuple[bytes, bytes]]:
    return ((os.fsencode(key), os.fsencode(uri)) for key, uri in hints.listing(folder))


def _packed_hint(key: bytes, uri: bytes, output: str, format: str) -> tuple[bytes, bytes]:
    hint = hints.identified(os.fsdecode(uri))
    name = derivative_name(output, os.fsdecode(key), format)
    return name, json.dumps(dataclasses.astuple(hint)).encode()


def _plan(joined: tuple[bytes, dict], settings: Settings, on_existing: str) -> Iterator[Task]:
    """The tasks of one key; hints files that are no scan's go to a side output."""
    found = joined[1]
    items = []
    for packed in found["items"]:
        key, source, size, version, reason, detail = json.loads(packed)
        items.append(Item(key, source, size, version, reason=reason, detail=detail))
    records = map(Record.from_json, found["records"])
    derivative_bytes = next(iter(found["derivatives"]), None)
    given = [Hint(*json.loads(packed)) for packed in found.get("hints", ())]
    if not items:
        yield from (beam.pvalue.TaggedOutput(UNUSED, os.fsencode(hint.uri)) for hint in given)
    yield from plan(items, records, derivative_bytes, settings, on_existing, given)


def _stopped(settings: Settings) -> bool:
    return bool(settings.stop_file) and os.path.exists(settings.stop_file)


# Codecs of this process by number, so that `PaintScans` finds the one that holds a scan.
_GUARDS: dict[int, Guard] = {}
_NUMBERS = itertools.count(1)


def _lend(guard: Guard) -> int:
    number = next(_NUMBERS) * 1_000_003 + os.getpid()  # told apart from another process's
    _GUARDS[number] = guard
    return number


def _return(number: int) -> None:
    _GUARDS.pop(number, None)
