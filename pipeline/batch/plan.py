"""Decides what to do with a scan, from the results of earlier runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from pipeline import storage
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.inputs import hint_files
from pipeline.inputs.collection import (
    EXTENSIONS,
    IMAGE_EXTENSIONS,
    SAME,
    SUFFIX,
    Item,
    below,
    check_key,
    derivative_uri,
)
from pipeline.inputs.hint_files import Hint
from pipeline.records import manifest
from pipeline.records.record import Outcome, Reason, Record, Refusal


class Action(StrEnum):
    COLORIZE = "colorize"
    ADOPT = "adopt"  # there is a derivative without a complete record: check it, or colourise
    VERIFY = "verify"  # the time of the file has changed: hash it, and colourise if the bytes have changed
    KEEP = "keep"  # its record is up to date
    REFUSE = "refuse"  # it cannot be opened


@dataclass(frozen=True, slots=True)
class Task:
    action: Action
    item: Item
    why: str  # for people
    record: Record | None = None  # the latest record, or the refusal


def plan(
    items: Iterable[Item],
    records: Iterable[Record],
    derivative_bytes: int | None,
    settings: Settings,
    on_existing: str,
    hints: Iterable[Hint] = (),
) -> Iterator[Task]:
    """Yields the tasks of one key.

    Args:
      items: scans with this key. A manifest with several sources for one key is wrong.
      records: with this key, in any order.
      derivative_bytes: size of the existing derivative, or None.
      settings: of the job.
      on_existing: "skip" keeps all results, "stale" those that are up to date, "replace" none.
      hints: hints files for the key.
    """
    by_source = {item.source: item for item in items}
    if not by_source:
        return  # it has a record, but is no longer in the input
    first, *others = (by_source[source] for source in sorted(by_source))
    for other in others:
        detail = f"{first.source} has the same key {first.key!r}"
        yield _refuse(
            Item(other.source, other.source, other.size, other.version),
            Reason.DUPLICATE_KEY,
            detail,
            settings,
        )
    if hints := tuple(hints):
        first = hint_files.with_hints(first, hints)
    record = None
    for candidate in records:
        record = candidate if record is None else manifest.later(record, candidate)
    yield _task(first, record, derivative_bytes, settings, on_existing)


def derivatives(output: str, format: str, since: str = "") -> Iterator[tuple[bytes, int]]:
    """Yields name (see `collection.derivative_name`) and size in bytes of all existing derivatives of a format.

    Args:
      output: of the job.
      format: of the derivatives; all formats for "same".
      since: version of a file in the output. Older temporary files of killed jobs are removed; with "" they stay.

    Raises:
      JobError: the output cannot be listed, or a temporary file cannot be removed.
    """
    extensions = EXTENSIONS.values() if format == SAME else (EXTENSIONS[format],)
    endings = tuple(SUFFIX + extension for extension in extensions)
    try:
        for info in storage.list_files(output, hidden=True):
            if info.uri.endswith(endings):
                yield below(output, info.uri), info.size
            elif since and storage.is_leftover(info, since):
                storage.delete(info.uri)
    except OSError as error:
        raise JobError(f"cannot list {error.filename or output}: {error.strerror or error}") from error


def _task(
    item: Item, record: Record | None, derivative_bytes: int | None, settings: Settings, on_existing: str
) -> Task:
    if item.reason:
        return _refuse(item, Reason(item.reason), item.detail, settings)
    if on_existing != "replace":
        if record is not None and _has_result(record, derivative_bytes):
            if on_existing == "skip":
                return Task(Action.KEEP, item, "has a result", record)
            stale = _stale(record, item, settings)
            if not stale and not _has_digests(record, settings):
                return Task(Action.ADOPT, item, "its record lacks digests")
            if not stale and record.source == item.source and record.source_version == item.version:
                return Task(Action.KEEP, item, "up to date", record)
            if not stale and record.source_sha256:
                return Task(Action.VERIFY, item, "its time has changed", record)
        elif derivative_bytes is not None:
            return Task(Action.ADOPT, item, "has a derivative without a record")
    try:
        check_key(item.key)
        if not storage.can_be_named(derivative_uri(settings.output, item.key, settings.format)):
            raise Refusal(Reason.BAD_KEY, "the key is not UTF-8, as names in an object store must be")
        if settings.bag and not storage.is_unicode(item.key):
            raise Refusal(Reason.BAD_KEY, "the key is not UTF-8, as names in a bag must be")
        if storage.scheme(item.source) == storage.scheme(settings.output) and PurePosixPath(
            item.source
        ).is_relative_to(settings.output):
            raise Refusal(Reason.BAD_KEY, "the source is in the output folder, so it is not a master")
        extension = PurePosixPath(item.key).suffix.lower()
        if extension and extension not in IMAGE_EXTENSIONS:
            raise Refusal(Reason.NOT_AN_IMAGE, f"files that end in {extension} are not opened")
    except Refusal as refusal:
        return _refuse(item, refusal.reason, refusal.detail, settings)
    return Task(Action.COLORIZE, item, _why(record, item, settings, on_existing), record)


def _has_result(record: Record, derivative_bytes: int | None) -> bool:
    if record.outcome == Outcome.COLORIZED:
        return derivative_bytes == record.derivative_bytes
    return record.outcome == Outcome.SKIPPED


def _has_digests(record: Record, settings: Settings) -> bool:
    files = ("source", "derivative") if record.outcome == Outcome.COLORIZED else ()
    return all(record.fixity(file).keys() >= set(settings.digests) for file in files)


def _stale(record: Record, item: Item, settings: Settings) -> str:
    """Why a result is stale, in words; empty if it is up to date."""
    if record.reason == Reason.NOT_AN_IMAGE:
        return ""
    if record.model_sha256 != settings.model_sha256:
        return "the model has changed"
    if record.options_sha256 != settings.options_sha256:
        return "the options have changed"
    if record.hints_sha256 != item.hints_sha256:
        if record.hints_sha256 and item.hints:
            return "its hints have changed"
        return "it has hints now" if item.hints else "its hints were deleted"
    return ""


def _why(record: Record | None, item: Item, settings: Settings, on_existing: str) -> str:
    if record is None:
        return "new"
    if on_existing == "replace":
        return "--on_existing replace"
    if record.outcome == Outcome.FAILED:
        return f"failed before: {record.reason}"
    return _stale(record, item, settings) or "its derivative is missing or altered"


def _refuse(item: Item, reason: Reason, detail: str, settings: Settings) -> Task:
    return Task(Action.REFUSE, item, detail, settings.record(item).refuse(Refusal(reason, detail)))
