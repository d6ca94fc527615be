"""What is to be done about a scan, given what an earlier run left of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from pipeline import hints, manifest, storage
from pipeline.codec import refused
from pipeline.collections import (
    EXTENSIONS,
    IMAGE_EXTENSIONS,
    SUFFIX,
    Item,
    JobError,
    below,
    check_key,
    derivative_uri,
)
from pipeline.hints import Hint
from pipeline.record import Outcome, Reason, Record, Refusal
from pipeline.settings import Settings


class Action(StrEnum):
    COLORIZE = "colorize"
    ADOPT = "adopt"  # a derivative without a record: check it, or colourise
    VERIFY = "verify"  # the file was touched: hash it, and colourise if its bytes changed
    KEEP = "keep"  # its record is current
    REFUSE = "refuse"  # nothing to open


@dataclass(frozen=True, slots=True)
class Task:
    action: Action
    item: Item
    why: str  # words for a person
    record: Record | None = None  # what counts so far, or the refusal itself


def plan(
    items: Iterable[Item],
    records: Iterable[Record],
    derivative_bytes: int | None,
    settings: Settings,
    on_existing: str,
    given: Iterable[Hint] = (),
) -> Iterator[Task]:
    """The tasks of one key.

    Args:
      items: what the input has under the key; more than one source is a mistake in a manifest.
      records: what the manifest has under it, in any order.
      derivative_bytes: size of the derivative that is there, or None.
      on_existing: "skip" keeps whatever has a result, "stale" what is current, "replace" nothing.
      given: hints files for the key.
    """
    by_source = {item.source: item for item in items}
    if not by_source:
        return  # recorded once, no longer in the input
    first, *others = (by_source[source] for source in sorted(by_source))
    for other in others:
        detail = f"{first.source} has the same key {first.key!r}"
        yield _refuse(
            Item(other.source, other.source, other.size, other.version),
            Reason.DUPLICATE_KEY,
            detail,
            settings,
        )
    if given := tuple(given):
        first = hints.given(first, given)
    record = None
    for candidate in records:
        record = candidate if record is None else manifest.later(record, candidate)
    yield _task(first, record, derivative_bytes, settings, on_existing)


def derivatives(output: str, format: str, since: str = "") -> Iterator[tuple[bytes, int]]:
    """Name (see `collections.derivative_name`) and size in bytes of every derivative of a format that is there.

    Args:
      since: a version of a file in the output. Temporary files that a killed job left before it are removed on the
        way; with "" they are left alone.

    Raises:
      JobError: the output cannot be listed, or such a file not removed.
    """
    ending = SUFFIX + EXTENSIONS[format]
    try:
        for info in storage.list_files(output, hidden=True):
            if info.uri.endswith(ending):
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
            if not stale and record.source == item.source and record.source_version == item.version:
                return Task(Action.KEEP, item, "current", record)
            if not stale and record.source_sha256:
                return Task(Action.VERIFY, item, "touched since", record)
        elif derivative_bytes is not None:
            return Task(Action.ADOPT, item, "has a derivative without a record")
    try:
        check_key(item.key)
        if not storage.can_be_named(derivative_uri(settings.output, item.key, settings.format)):
            raise Refusal(Reason.BAD_KEY, "names in Cloud Storage are UTF-8, and this key is not")
        if storage.is_gcs(item.source) == storage.is_gcs(settings.output) and PurePosixPath(
            item.source
        ).is_relative_to(settings.output):
            raise Refusal(Reason.BAD_KEY, "the source lies in the output: it is no master")
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


def _stale(record: Record, item: Item, settings: Settings) -> str:
    """Which of the things that make a result stale has changed, in words; empty if none."""
    if record.reason == Reason.NOT_AN_IMAGE:
        return ""
    if record.model_sha256 != settings.model_sha256:
        return "the model has changed"
    if record.options_sha256 != settings.options_sha256:
        return "the options have changed"
    if record.hints_sha256 != item.hints_sha256:
        if record.hints_sha256 and item.hints:
            return "its hints have changed"
        return "it has hints now" if item.hints else "its hints are gone"
    return ""


def _why(record: Record | None, item: Item, settings: Settings, on_existing: str) -> str:
    if record is None:
        return "new"
    if on_existing == "replace":
        return "replaced as told"
    if record.outcome == Outcome.FAILED:
        return f"failed before: {record.reason}"
    return _stale(record, item, settings) or "its derivative is missing or altered"


def _refuse(item: Item, reason: Reason, detail: str, settings: Settings) -> Task:
    return Task(Action.REFUSE, item, detail, refused(item, Refusal(reason, detail), settings))
