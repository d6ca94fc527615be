"""The batch job as a Beam graph.

    items, records, derivatives, hints -> CoGroupByKey -> plan -> open -> RunInference -> paint -> commit -> report

The join redistributes paths only. From `plan` to `commit` everything runs in one fused stage, where elements
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

from pipeline import collections, hints, manifest, storage
from pipeline.codec import refused
from pipeline.collections import Item
from pipeline.guard import Guard
from pipeline.hints import Hint
from pipeline.inference import ColorizationHandler, Opened, Prediction
from pipeline.plan import Action, Task, derivative_key, plan
from pipeline.record import Outcome, Reason, Record, Refusal
from pipeline.settings import Settings
from pipeline.summary import FILE, Sample, Summary

SHARD_RECORDS = 500
SHARD_SECONDS = {True: 2.0, False: 30.0}  # between commits; a local run's progress is read from them

KEPT, RECORDS, UNUSED = "kept", "records", "unused"


def colorize(
    root: beam.Pipeline,
    source: str,
    settings: Settings,
    *,
    batch_size: int,
    max_batch_pixels: int,
    threads: int = 0,
    hints_folder: str | None = None,
    on_existing: str = "stale",
    gallery_size: int = 240,
    started: float | None = None,
) -> None:
    """Builds the job."""
    inputs = {
        "items": root
        | "Source" >> beam.Create([source])
        | "Expand" >> beam.FlatMap(collections.expand)
        | "PackItem" >> beam.Map(_packed_item),
        "records": root
        | "Manifest" >> beam.Create([settings.output])
        | "Shards" >> beam.FlatMap(manifest.shards)
        | "Spread" >> beam.Reshuffle()
        | "ReadRecords" >> beam.FlatMap(manifest.read_shard)
        | "PackRecord" >> beam.Map(_packed_record),
        "derivatives": root
        | "Output" >> beam.Create([settings.output])
        | "Derivatives" >> beam.FlatMap(list_derivatives, settings.format),
    }
    if hints_folder:
        inputs["hints"] = (
            root
            | "Hints" >> beam.Create([hints_folder])
            | "ListHints" >> beam.FlatMap(hints.listing)
            | "SpreadHints" >> beam.Reshuffle()
            | "PackHint" >> beam.MapTuple(_packed_hint)
        )
    joined = inputs | "Join" >> beam.CoGroupByKey()
    planned = joined | "Plan" >> beam.FlatMap(_plan, settings, on_existing).with_outputs(UNUSED, main="tasks")
    opened = planned.tasks | "Open" >> beam.ParDo(OpenScans(settings)).with_outputs(
        KEPT, RECORDS, main="opened"
    )
    handler = ColorizationHandler(
        settings.model_uri,
        settings.side,
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        threads=threads,
    )
    painted = opened.opened | "Infer" >> RunInference(handler) | "Paint" >> beam.ParDo(PaintScans(settings))
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
            beam.pvalue.AsIter(planned[UNUSED]),
            settings,
            gallery_size,
            started if started is not None else time.time(),
        )
    )


def list_derivatives(output: str, format: str) -> Iterator[tuple[bytes, int]]:
    """Key and size in bytes of every derivative of a format that is there."""
    for info in storage.list_files(output):
        key = derivative_key(info.uri[len(output) :].lstrip("/"), format)
        if key is not None:
            yield os.fsencode(key), info.size


def report(
    _,
    accounts: Sequence[tuple[Summary, Sample]],
    failures: Iterable[Record],
    unused_hints: Iterable[str],
    settings: Settings,
    gallery_size: int,
    started: float,
) -> Iterator[None]:
    """Writes the dead letters, the gallery and, last, `summary.json`."""
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
        "unused_hints": sorted(unused_hints),
        "stopped": _stopped(settings),
    }
    chosen = Sample(gallery_size).merge(samples).records()
    if chosen:
        from pipeline import gallery

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
    return iter(())


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
    """Predictions -> records, their derivatives written."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._own = None

    def process(self, prediction: Prediction):
        # Should a runner have carried the scan to another process, it is opened again here.
        guard = _GUARDS.get(prediction.opened.codec) or self._spare()
        yield paint(guard, prediction, self._settings)

    def _spare(self) -> Guard:
        self._own = self._own or Guard(self._settings)
        return self._own

    def teardown(self):
        if self._own is not None:
            self._own.close()


def paint(guard: Guard, prediction: Prediction, settings: Settings) -> Record:
    """The record of a scan that the network has seen."""
    item = prediction.opened.item
    if prediction.chroma is None:
        guard.drop(item)
        return refused(item, Refusal(Reason.MODEL_ERROR, prediction.error), settings)
    return guard.paint(
        item, prediction.chroma, prediction.confidence, prediction.seconds, prediction.opened.view.pixels
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


def _packed_item(item: Item) -> tuple[bytes, bytes]:
    return os.fsencode(item.key), json.dumps([item.source, item.size, item.version]).encode()


def _packed_record(record: Record) -> tuple[bytes, bytes]:
    return os.fsencode(record.key), record.to_json().encode()


def _packed_hint(key: str, uri: str) -> tuple[bytes, bytes]:
    return os.fsencode(key), json.dumps(dataclasses.astuple(hints.identified(uri))).encode()


def _plan(joined: tuple[bytes, dict], settings: Settings, on_existing: str) -> Iterator[Task]:
    """The tasks of one key; hints files that are no scan's go to a side output."""
    key, found = joined
    items = [Item(os.fsdecode(key), *json.loads(packed)) for packed in found["items"]]
    records = map(Record.from_json, found["records"])
    derivative_bytes = next(iter(found["derivatives"]), None)
    given = [Hint(*json.loads(packed)) for packed in found.get("hints", ())]
    if not items:
        yield from (beam.pvalue.TaggedOutput(UNUSED, hint.uri) for hint in given)
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
