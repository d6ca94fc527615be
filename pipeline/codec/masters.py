"""Reads masters. Of a TIFF with several pictures only one page is read at a time, so that memory does not grow."""

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline import storage
from pipeline.decoding import pages, tiff
from pipeline.decoding.errors import refusing
from pipeline.decoding.pages import Check, Data
from pipeline.decoding.pillow import unlimited
from pipeline.errors import JobError
from pipeline.inputs import bags
from pipeline.inputs.item import Item, reading
from pipeline.records import keys
from pipeline.records.record import Reason, Refusal, digests
from pipeline.storage import scratch

_BYTES_PER_PIXEL = 20  # a slow disk reads 20 MB in the second that is allowed for a megapixel
_IN_MEMORY = 64 << 20  # bytes of an object that is read as a whole


@dataclass(frozen=True, slots=True)
class Several:
    """The answer instead of a scan, if a file has several pictures and none was asked for."""

    pages: int


@dataclass(frozen=True, slots=True)
class Master:
    """The bytes of a picture, and what its record says of the file."""

    data: bytes  # the file, or a page as a file of its own
    size: int  # bytes of the file
    digests: dict[str, str]  # of the file, hexadecimal, by algorithm
    pages: int = 0  # of the file, if it has several pictures
    notes: tuple[str, ...] = ()  # remarks for people


@dataclass(frozen=True, slots=True)
class _Known:
    """A file with several pictures that was read before."""

    identity: tuple[object, ...]
    found: pages.Pictures
    digests: dict[str, str]


class Masters:
    """Reads masters, and remembers where the pages of the last file with several pictures are."""

    def __init__(self, names: Sequence[str] = (), announce: Callable[[int], None] = lambda pixels: None):
        """Makes digests by these names, beside SHA-256."""
        self._names = names
        self._announce = announce  # called with the number of pixels that take as long as reading a file
        self._known: _Known | None = None
        self._copy: tuple[tuple[object, ...], str | bytes] = (
            (),
            b"",
        )  # of the last object with several pictures

    def read(self, item: Item, check: Check) -> Master | Several:
        """Reads a master, or one of its pages.

        Args:
          item: a file, or a page of it.
          check: raises Refusal for a width and height that are not allowed.

        Raises:
          Refusal: it cannot be read, or has no such page.
        """
        page = keys.split(item.key)[1]
        with reading(), self._opened(item) as (data, identity):
            known = self._find(item, data, identity, check) if tiff.is_tiff(data) else None
            if known and not page:
                return Several(len(known.found.places))
            pictures = len(known.found.places) if known else 1
            if page > pictures:
                words = f"the file has {pictures} picture{'s' * (pictures > 1)}, and no page {page}"
                raise Refusal(Reason.MISSING, words)
            if known:
                return self._page(data, known, page)
            whole = bytes(data)
            _check_fixity(whole, item)
        return Master(whole, len(whole), digests(whole, self._names))

    @contextlib.contextmanager
    def whole(self, item: Item) -> Iterator[Data]:
        """The bytes of a file with all its pages. Raises Refusal if it cannot be read."""
        with reading(), self._opened(item) as (data, _):
            yield data

    def digests(self, item: Item) -> dict[str, str]:
        """Digests of a file. Raises Refusal if it cannot be read."""
        with reading():
            if self._known and self._known.identity == _identity(item):
                return self._known.digests
            return storage.digests(item.source, ("sha256", *self._names))

    def _find(self, item: Item, data: Data, identity: tuple[object, ...], check: Check) -> _Known | None:
        """The pictures of a TIFF; None if there is only one."""
        if self._known is None or self._known.identity != identity:
            with refusing(), unlimited:
                found = tiff.find(data, check)
            if len(found.places) < 2:
                return None
            self._announce(len(data) // _BYTES_PER_PIXEL)
            _check_fixity(data, item)
            self._known = _Known(identity, found, digests(data, self._names))
        return self._known

    def _page(self, data: Data, known: _Known, page: int) -> Master:
        found, notes = known.found, known.found.notes
        with refusing():
            one = pages.extract(data, found.places[page - 1], found.store)
        if found.copies:
            notes = [*notes, f"{found.copies} reduced copies of pages in the file were left out"]
        return Master(one, len(data), known.digests, len(found.places), tuple(notes))

    @contextlib.contextmanager
    def _opened(self, item: Item) -> Iterator[tuple[Data, tuple[object, ...]]]:
        """Yields the bytes of a file, and what identifies them. A TIFF is mapped into memory, and read where needed."""
        identity = _identity(item)
        if not storage.is_cloud(item.source):
            with storage.opened(item.source) as file:
                yield from _mapped(file, identity)
            return
        if self._copy[0] != identity:
            self._forget()
            copy = _copied(item)
            if isinstance(copy, bytes) and not tiff.is_tiff(copy):
                yield copy, identity
                return
            self._copy = identity, copy
        if isinstance(self._copy[1], bytes):
            yield self._copy[1], identity
        else:
            with open(self._copy[1], "rb") as file:
                yield from _mapped(file, identity)
        if (
            self._known is None or self._known.identity != identity
        ):  # there is one picture, which is read once
            self._forget()

    def _forget(self) -> None:
        if isinstance(self._copy[1], str):
            scratch.remove(os.path.dirname(self._copy[1]))
        self._copy = (), b""


def _check_fixity(data: Data, item: Item) -> None:
    """Raises Refusal if a file is not as its bag says."""
    if wrong := bags.wrong_digest(data, item.digests):
        raise Refusal(Reason.FIXITY, wrong)


def _identity(item: Item) -> tuple[object, ...]:
    """What changes with the content of a file."""
    if storage.is_cloud(item.source):
        return item.source, item.version, item.size
    state = os.stat(item.source)
    return item.source, state.st_mtime_ns, state.st_size, state.st_ino


def _mapped(file: BinaryIO, identity: tuple[object, ...]) -> Iterator[tuple[Data, tuple[object, ...]]]:
    if not tiff.is_tiff(file.read(4)):
        file.seek(0)
        yield file.read(), identity
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data, identity


def _copied(item: Item) -> str | bytes:
    """The bytes of an object, or the path of a copy if it is a large TIFF. Raises OSError."""
    if item.size <= _IN_MEMORY or PurePosixPath(item.source).suffix.lower() not in tiff.EXTENSIONS:
        return storage.read(item.source)
    try:
        path = os.path.join(scratch.make(), "master")
    except JobError as error:
        raise OSError(str(error)) from error
    with storage.opened(item.source) as source, open(path, "wb") as copy:
        shutil.copyfileobj(source, copy, 8 << 20)
    return path
