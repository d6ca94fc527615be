"""Decides what to do with a scan, from the results of earlier runs."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import PurePosixPath

from pipeline import storage
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.inputs import hint_files
from pipeline.inputs.hint_files import Hint
from pipeline.inputs.item import (
    EXTENSIONS,
    IMAGE_EXTENSIONS,
    MANIFEST_STORE,
    SAME,
    SUFFIX,
    Item,
    below,
    check_key,
    derivative_uri,
    format_of,
    page_of,
)
from pipeline.metadata import signing
from pipeline.records import keys, manifest
from pipeline.records.record import Outcome, Reason, Record, Refusal


class Action(StrEnum):
    COLORIZE = "colorize"
    ADOPT = "adopt"  # there is a derivative without a complete record: check it, or colourise
    VERIFY = "verify"  # the time of the file has changed: hash it, and colourise if the bytes have changed
    KEEP = "keep"  # its record is up to date
    REFUSE = "refuse"  # it cannot be opened


_SIDECAR = f"{SUFFIX}.{MANIFEST_STORE}"  # end of the name of a signed manifest
_AGAIN = {Action.KEEP: Action.VERIFY}


@dataclass(frozen=True, slots=True)
class Task:
    action: Action
    item: Item
    why: str  # for people
    record: Record | None = None  # the latest record, or the refusal
    pages: tuple["Task", ...] = ()  # what is known about pages of the file, if it has several pictures


def plan(
    items: Iterable[Item],
    records: Iterable[Record],
    sizes: Mapping[int, int],
    settings: Settings,
    on_existing: str,
    hints: Mapping[int, Sequence[Hint]] | None = None,
) -> Iterator[Task]:
    """Yields the tasks of one file.

    How many pictures a file has is known only when a worker has opened it. Then each page gets a record, which says
    how many there are. So a file whose pages are all up to date is not opened again. If not all are, there is one
    task for the file, with what is known of its pages.

    Args:
      items: with the key of the file, or with those of its pages, as in a manifest that names them. A manifest with
        several sources for one key is wrong.
      records: of the file and its pages, in any order.
      sizes: bytes of the existing derivatives, by page; that of the file itself has the number 0. The signed manifest
        beside the derivative of a page has the number ~page.
      settings: of the job.
      on_existing: "skip" keeps all results, "stale" those that are up to date, "replace" none.
      hints: hints files, by page.
    """
    sources: dict[int, dict[str, Item]] = {}
    # A wrong manifest may name a scan in several groups: the last one counts, whatever the order of the items.
    for item in sorted(items, key=attrgetter("group")):
        sources.setdefault(keys.split(item.key)[1], {})[item.source] = item
    latest: dict[int, Record] = {}
    for record in records:
        page = keys.split(record.key)[1]
        latest[page] = manifest.later(latest[page], record) if page in latest else record
    hints = hints or {}

    def task(item: Item, page: int) -> Task:
        if page in hints:
            item = hint_files.with_hints(item, hints[page])
        return _task(item, latest.get(page), sizes.get(page), ~page in sizes, settings, on_existing)

    whole: Item | None = None
    for page, by_source in sorted(sources.items()):
        chosen = whole or by_source[min(by_source)]
        for source in sorted(by_source.keys() - {chosen.source}):
            yield _duplicate(by_source[source], chosen, settings)
        if page and whole is None:
            yield task(chosen, page)
        elif not page:
            whole = chosen
            known = {number for number in (*latest, *sizes, *hints) if number > 0}
            yield from _file(whole, _number(latest), known, task)


def _number(latest: Mapping[int, Record]) -> int:
    """Number of pages of a file, by the newest of its records; 0 if it had one picture then."""
    newest = max(latest, key=lambda page: manifest.rank(latest[page]), default=0)
    return latest[newest].pages if newest else 0


def _file(item: Item, number: int, known: Iterable[int], task: Callable[[Item, int], Task]) -> Iterator[Task]:
    """Yields the task of a file, or those of all its pages if nothing has to be done."""
    numbers = sorted({*range(1, number + 1), *known})
    pages = [task(page_of(item, page, number), page) for page in numbers]
    if number and all(page.action == Action.KEEP for page in pages[:number]):
        yield from pages[:number]
        return
    if not number:  # a new record of a page must tell that those of pages count, and not that of the file
        pages = [dataclasses.replace(page, action=_AGAIN.get(page.action, page.action)) for page in pages]
    own = task(item, 0)
    if number and own.action not in (Action.COLORIZE, Action.REFUSE):  # of the time when it had one picture
        own = Task(Action.COLORIZE, own.item, "")
    if not number and own.action != Action.REFUSE and any(page.item.hints for page in pages):
        own = Task(Action.COLORIZE, own.item, "it has hints for a page", own.record)
    if number and own.action == Action.COLORIZE:
        todo = [page.why for page in pages[:number] if page.action != Action.KEEP]
        own = dataclasses.replace(own, why=f"{len(todo)} of {number} pages: {todo[0]}")
    told = tuple(
        page for page in pages if page.action != Action.COLORIZE or page.item.hints or _has_sidecar(page)
    )
    yield dataclasses.replace(own, pages=told)


def _has_sidecar(task: Task) -> bool:
    return task.record is not None and bool(task.record.sidecar_sha256)


def _duplicate(item: Item, first: Item, settings: Settings) -> Task:
    named = Item(item.source, item.source, item.size, item.version)
    words = f"{first.source} has the same key {item.key!r}"
    return _refuse(named, Reason.DUPLICATE_KEY, words, settings)


def derivatives(output: str, format: str, since: str = "") -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields all existing derivatives of a format, and the signed manifests beside them.

    Each has the name of its file's derivative (see `item.derivative_name`), the number of its page or 0 (~page for a
    signed manifest), and its size in bytes. Names of manifests that were shortened are not recognised.

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
                ending = next(ending for ending in endings if info.uri.endswith(ending))
                name, page = keys.split_name(below(output, info.uri), ending.encode())
                yield name, (page, info.size)
            elif info.uri.endswith(_SIDECAR):
                name, page = keys.split_name(below(output, info.uri), _SIDECAR.encode())
                file = name.removesuffix(_SIDECAR.encode())
                extension = SUFFIX + EXTENSIONS[format_of(os.fsdecode(file), format)]
                yield file + extension.encode(), (~page, info.size)
            elif since and storage.is_leftover(info, since):
                storage.delete(info.uri)
    except OSError as error:
        raise JobError(f"cannot list {error.filename or output}: {error.strerror or error}") from error


def _task(
    item: Item,
    record: Record | None,
    derivative_bytes: int | None,
    has_sidecar: bool,
    settings: Settings,
    on_existing: str,
) -> Task:
    if item.reason:
        return _refuse(item, Reason(item.reason), item.detail, settings)
    if on_existing != "replace":
        if record is not None and _has_result(record, derivative_bytes, has_sidecar, settings):
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
            why = "its result is not complete" if record else "has a derivative without a record"
            return Task(Action.ADOPT, item, why)
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
        if settings.c2pa and format_of(item.key, settings.format) not in signing.FORMATS:
            raise Refusal(
                Reason.SIGN_ERROR, "its derivative, a JPEG 2000, cannot be signed: choose another --format"
            )
        extension = PurePosixPath(keys.split(item.key)[0]).suffix.lower()
        if extension and extension not in IMAGE_EXTENSIONS:
            raise Refusal(Reason.NOT_AN_IMAGE, f"files that end in {extension} are not opened")
    except Refusal as refusal:
        return _refuse(item, refusal.reason, refusal.detail, settings)
    return Task(Action.COLORIZE, item, _why(record, item, settings, on_existing), record)


def _has_result(record: Record, derivative_bytes: int | None, has_sidecar: bool, settings: Settings) -> bool:
    if record.outcome != Outcome.COLORIZED:
        return record.outcome == Outcome.SKIPPED
    if derivative_bytes != record.derivative_bytes:
        return False
    if has_sidecar or not record.sidecar_sha256:
        return True
    sidecar = derivative_uri(settings.output, record.key, MANIFEST_STORE)  # its name may be shortened
    try:
        return storage.stat(sidecar) is not None
    except OSError as error:
        raise JobError(f"cannot read {sidecar}: {error.strerror or error}") from error


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
    if record.neighbors_sha256 != item.neighbors_sha256:
        if record.neighbors_sha256 and item.neighbors:
            return "its neighbours have changed"
        return "it has neighbours now" if item.neighbors else "it has no neighbours any more"
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
