"""What the records of a run add up to, and its report at the end: summary, gallery and dead letters."""

import heapq
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import apache_beam as beam

from pipeline import clock, storage
from pipeline.batch import stopping
from pipeline.codec.guard import Guard
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.gallery import pages
from pipeline.records import manifest
from pipeline.records.record import Outcome, Record
from pipeline.records.sample import Sample
from pipeline.records.summary import FILE, Summary

DEAD_LETTERS = 100_000  # largest number of records in the file of failed scans; the manifest has all


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
        "stopped": stopping.is_requested(settings.stop_file),
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


class SummaryFn(beam.CombineFn):
    """Counts of records, for `summary.json`."""

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


class LettersFn(beam.CombineFn):
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


class SampleFn(beam.CombineFn):
    """A sample of the records, for the gallery."""

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
