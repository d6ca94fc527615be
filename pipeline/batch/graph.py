"""The batch job as a Beam graph.

    items, records, derivatives, hints -> CoGroupByKey -> plan -> open -> RunInference -> paint -> commit -> report
    worklist's file -> Reshuffle -----------------------^

On a cluster `pipeline.batch.joining` makes the plan, on one machine `pipeline.batch.worklist` before. The join, or
the reshuffle, moves only paths. From there to `commit` everything runs in one fused stage, where elements are passed
by reference: a scan is decoded once, and its pixels never leave the codec process.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RunInference
from apache_beam.transforms.combiners import TupleCombineFn
from apache_beam.transforms.window import GlobalWindows

from pipeline import clock, storage
from pipeline.batch import accounts, stopping, worklist
from pipeline.batch.inference import ColorizationHandler, Opened, Prediction
from pipeline.batch.plan import Action, Task
from pipeline.codec.codec import View
from pipeline.codec.guard import Guard
from pipeline.codec.masters import Several
from pipeline.codec.settings import Settings
from pipeline.gallery.pictures import Shown
from pipeline.inputs.item import MANIFEST_STORE, derivative_uri, page_of
from pipeline.records import keys, manifest
from pipeline.records.record import SIDECAR, Outcome, Reason, Record, Refusal
from pipeline.records.sample import Sample
from pipeline.records.summary import Summary

NAMESPACE = "colorize"  # of the metrics
SHARD_RECORDS = 500
SHARD_SECONDS = {True: 2.0, False: 30.0}  # between commits; shorter in local runs

_LOGGER = logging.getLogger(__name__)

KEPT, RECORDS = "kept", "records"
NOT_STARTED = "not_started"  # counter of scans that were left because of a request to stop


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
    account = TupleCombineFn(
        accounts.SummaryFn(settings.run), accounts.SampleFn(gallery_size)
    ).with_common_input()
    counted = [some | f"Account{name}" >> beam.CombineGlobally(account) for name, some in records.items()]
    letters = [
        some
        | f"Failures{name}" >> beam.Filter(_failed)
        | f"Letters{name}" >> beam.CombineGlobally(accounts.LettersFn())
        for name, some in records.items()
    ]
    (
        root
        | "Once" >> beam.Create([None])
        | "Report"
        >> beam.FlatMap(
            accounts.report,
            beam.pvalue.AsList(counted | "Accounts" >> beam.Flatten()),
            beam.pvalue.AsIter(letters | "Letters" >> beam.Flatten()),
            beam.pvalue.AsIter(unused_hints) if isinstance(unused_hints, beam.PCollection) else unused_hints,
            settings,
            (kept or Summary(), sample or Sample(gallery_size)),
            gallery_size,
            started or clock.now(),
        )
    )


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
        elif stopping.is_requested(self._settings.stop_file):
            _counter(NOT_STARTED).inc()  # it gets no record, and the next run finds it
        elif task.action == Action.REFUSE:
            yield beam.pvalue.TaggedOutput(RECORDS, task.record)
        else:
            answer = self._answer(task)
            if isinstance(answer, Several):
                yield from self._open_pages(task, answer.pages)
            elif isinstance(answer, Record):
                yield beam.pvalue.TaggedOutput(RECORDS, answer)
            elif any(page.item.hints for page in task.pages):
                self._guard.drop(task.item)
                words = f"the file has one picture; name its hints {task.item.key}.txt"
                yield self._refused(task, Refusal(Reason.BAD_HINTS, words))
            else:
                self._forget_sidecar(task)
                yield Opened(task.item, answer, self._number)

    def _refused(self, task: Task, refusal: Refusal) -> beam.pvalue.TaggedOutput:
        return beam.pvalue.TaggedOutput(RECORDS, self._settings.record(task.item).refuse(refusal))

    def _forget_sidecar(self, task: Task) -> None:
        """Deletes the sidecar of an earlier derivative, if the new one gets none: it would call it altered."""
        settings = self._settings
        if task.record and task.record.sidecar_sha256 and settings.c2pa != SIDECAR:
            with contextlib.suppress(OSError):  # then `verify` names it
                storage.delete(derivative_uri(settings.output, task.item.key, MANIFEST_STORE))

    def _open_pages(self, task: Task, number: int):
        """Does the tasks of the pages of a file, one after the other."""
        if task.item.hints:
            words = f"the file has {number} pictures; name the hints of each {task.item.key}{keys.PAGE}1.txt and so on"
            yield self._refused(task, Refusal(Reason.BAD_HINTS, words))
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


# The codecs of this process by number, so that `PaintScans` finds the one that holds a scan.
_GUARDS: dict[int, Guard] = {}
_NUMBERS = itertools.count(1)


def _lend(guard: Guard) -> int:
    number = next(_NUMBERS) * 1_000_003 + os.getpid()  # unique over processes
    _GUARDS[number] = guard
    return number


def _return(number: int) -> None:
    _GUARDS.pop(number, None)
