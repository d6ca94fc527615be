"""The pictures in a TIFF file: which directories they are, and each of them as a file of its own.

A directory that shows a picture again in another size is a copy of it: a level of a pyramid, or a thumbnail. The
largest is the picture. Every other directory is a picture, which people call a page. Only the directories of a file
are read here, and the data of one page at a time, so that memory does not grow with the number of pages.
Specifications: TIFF 6.0, section 2; BigTIFF.
"""

import dataclasses
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline.decoding.errors import refusing
from pipeline.metadata import ifd
from pipeline.metadata.containers import C2PA_TAG
from pipeline.records import keys
from pipeline.records.record import Reason, Refusal

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _COMPRESSION = 254, 255, 256, 257, 259
_REDUCED, _MASK = 0b001, 0b100  # bits of NewSubfileType
_OFFSETS = ((273, 279), (324, 325))  # places and sizes of strips, of tiles
_OLD_JPEG, _OLD_JPEG_PLACE = 6, 513  # its tables are in other places of the file
_SUB_DIRECTORIES, _EXIF, _MAKER_NOTE = 330, 34665, 0x927C
_ENTRY_BYTES = 12
_SMALL = 32  # pixels; size at which two directories are compared
_ALIKE, _FLAT, _CORRELATED = 12.0, 6.0, 0.8  # mean difference and contrast in 8-bit levels; correlation

Data = bytes | mmap.mmap
Check = Callable[[int, int], None]
Opener = Callable[[bytes], Image.Image]


@dataclass(slots=True)
class Pictures:
    """The pictures of a file."""

    places: list[int] = field(default_factory=list)  # offset of the directory of each
    directories: int = 0
    copies: int = 0
    store: ifd.Directory = field(default_factory=dict)  # a C2PA manifest in a directory of its own
    notes: list[str] = field(default_factory=list)  # remarks for people


@dataclass(frozen=True, slots=True)
class _Directory:
    at: int  # offset
    width: int
    height: int
    is_other: bool  # marked as a reduced copy or a mask


def find(data: Data, check: Check, opener: Opener) -> Pictures:
    """Finds the pictures of a TIFF. There are none if its first directory is damaged.

    Args:
      data: the file.
      check: raises Refusal for a width and height that are not allowed.
      opener: opens a file with one directory. It is called only for two neighbours with the same proportions, to see
        whether they are copies, and may raise Refusal.

    Raises:
      Refusal: a picture and its copies are too large to be compared, or the directories are hostile.
    """
    found, full, first = Pictures(), list[_Directory](), None
    for directory in _chain(data, found):
        first = first or directory
        if directory.is_other:
            continue
        if full and (larger := _larger_of_copies(data, full[-1], directory, check, opener)):
            full[-1] = larger
            found.copies += 1
        else:
            full.append(directory)
        if len(full) > keys.LARGEST:
            raise Refusal(Reason.MULTIPAGE, f"it has more than {keys.LARGEST} pages")
    found.places = [one.at for one in full] or ([first.at] if first else [])
    return found


def extract(data: Data, place: int, store: "ifd.Directory | None" = None) -> bytes:
    """Makes a file of one directory of a TIFF, with its values, its pixels, and its EXIF and GPS directories.

    Offsets change, and bytes do not. Directories with other pictures (SubIFDs) and a MakerNote, which has offsets of
    its own, are left out.

    Args:
      data: the file.
      place: offset of the directory, from `find`.
      store: entries to be added, from `find`.
    """
    reader = ifd.Reader(memoryview(data))
    directory, _ = reader.read(place)
    segments = _segments(reader, directory, len(data))
    if segments is None:
        return _repointed(data, reader, place)
    tree = reader.tree(directory) | (store or {})
    tree.pop(_SUB_DIRECTORIES, None)
    ifd.below(tree, _EXIF).pop(_MAKER_NOTE, None)
    offsets, spans = segments
    start = 16 if reader.big else 8
    # The size of the directory does not depend on the numbers in it.
    tree[offsets] = _long(reader, [0] * len(spans))
    at = start + len(_encoded(tree, reader, start))
    end = at + sum(size for place, size in spans if place + size <= len(data))
    moved, parts = [], []
    for place, size in spans:
        if not place or place + size > len(data):
            moved.append(end if place else 0)  # still missing
            continue
        moved.append(at)
        parts.append(data[place : place + size])
        at += size
    tree[offsets] = _long(reader, moved)
    return b"".join((_header(reader, start), _encoded(tree, reader, start), *parts))


def _chain(data: Data, found: Pictures) -> Iterator[_Directory]:
    """Yields the directories that describe a picture, up to the end of the chain or to damage."""
    try:
        reader = ifd.Reader(memoryview(data))
    except ifd.Damaged:
        return
    at, seen, entries = reader.first, set[int](), 0
    while at:
        try:
            if at in seen:
                raise ifd.Damaged("circular")
            directory, following = reader.read(at)
            is_store = _WIDTH not in directory and C2PA_TAG in directory
            described = None if is_store else _described(reader, at, directory)
        except ifd.Damaged:
            if found.directories:
                found.notes.append(
                    f"the link behind directory {found.directories} is broken; only the directories before it were read"
                )
            return
        seen.add(at)
        entries += _entries(data, reader, at)
        if entries * _ENTRY_BYTES > len(data):  # a hostile file: they lie over each other
            raise Refusal(Reason.UNREADABLE, "its directories overlap")
        if described is None:
            entry = directory[C2PA_TAG]
            found.store = {C2PA_TAG: dataclasses.replace(entry, value=bytes(entry.value))}
        else:
            found.directories += 1
            yield described
        at = following


def _described(reader: ifd.Reader, at: int, directory: dict[int, ifd.Entry]) -> _Directory:
    """Raises Damaged for a directory without the size or the place of pixels."""

    def number(tag: int) -> int:
        return ifd.number(directory.get(tag), reader.order) or 0

    width, height = number(_WIDTH), number(_HEIGHT)
    if not (width and height and any(tag in directory for tag in (_OLD_JPEG_PLACE, *dict(_OFFSETS)))):
        raise ifd.Damaged("no picture")
    other = bool(number(_SUBFILE_TYPE) & (_REDUCED | _MASK)) or number(_OLD_SUBFILE_TYPE) == 2
    return _Directory(at, width, height, other)


def _larger_of_copies(
    data: Data, one: _Directory, other: _Directory, check: Check, opener: Opener
) -> _Directory | None:
    """The larger of two directories, if they show one picture in two sizes."""
    small, large = sorted((one, other), key=lambda directory: directory.width * directory.height)
    if 2 * max(small.width, small.height) > max(large.width, large.height) + 1:
        return None
    # The shorter side may be rounded up or down.
    if abs(small.height * large.width / large.height - small.width) > 1 + small.width / small.height:
        return None
    try:
        check(large.width, large.height)
        first, second = (_small(opener, extract(data, directory.at)) for directory in (large, small))
    except Refusal as refusal:
        if refusal.reason == Reason.TOO_LARGE:
            raise
        return None  # one of them is damaged or very small; each is told of by itself
    contrast = min(first.std(), second.std())
    alike = np.abs(first - second).mean() <= _ALIKE
    alike &= contrast < _FLAT or np.corrcoef(first.ravel(), second.ravel())[0, 1] >= _CORRELATED
    return large if alike else None


def _small(opener: Opener, data: bytes) -> np.ndarray:
    with refusing(data), opener(data) as image:
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.asarray(image.convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX), np.float32)


def _segments(
    reader: ifd.Reader, directory: dict[int, ifd.Entry], size: int
) -> tuple[int, list[tuple[int, int]]] | None:
    """The tag of the offsets of strips or tiles, with the place and the size of each; None if they are unusual."""
    if ifd.number(directory.get(_COMPRESSION), reader.order) == _OLD_JPEG:
        return None
    for offsets, sizes in _OFFSETS:
        places, counts = (ifd.numbers(directory.get(tag), reader.order) for tag in (offsets, sizes))
        if places and len(places) == len(counts) and all(counts) and sum(counts) <= 2 * size:
            return offsets, list(zip(places, counts, strict=True))
    return None


def _repointed(data: Data, reader: ifd.Reader, place: int) -> bytes:
    """A copy of the whole file whose only directory is the one at `place`."""
    head = struct.pack(f"{reader.order}{'Q' if reader.big else 'I'}", place)
    start = 8 if reader.big else 4
    count = _entries(data, reader, place)
    link = place + (8 + 20 * count if reader.big else 2 + 12 * count)
    copy = bytearray(data)
    copy[start : start + len(head)] = head
    copy[link : link + len(head)] = bytes(len(copy[link : link + len(head)]))
    return bytes(copy)


def _entries(data: Data, reader: ifd.Reader, at: int) -> int:
    """Number of entries that a directory states."""
    return struct.unpack_from(f"{reader.order}{'Q' if reader.big else 'H'}", data, at)[0]


def _header(reader: ifd.Reader, start: int) -> bytes:
    mark = b"II" if reader.order == "<" else b"MM"
    layout, values = ("HHHQ", (43, 8, 0, start)) if reader.big else ("HI", (42, start))
    return mark + struct.pack(reader.order + layout, *values)


def _long(reader: ifd.Reader, values: list[int]) -> ifd.Entry:
    kind, letter = (16, "Q") if reader.big else (ifd.LONG, "I")
    return ifd.Entry(kind, len(values), struct.pack(f"{reader.order}{len(values)}{letter}", *values))


def _encoded(directory: ifd.Directory, reader: ifd.Reader, at: int) -> bytes:
    """A directory that begins at the offset `at`, followed by its values and the directories below it."""
    number, layout, pointer, inline = ("Q", "HHQ", "Q", 8) if reader.big else ("H", "HHI", "I", 4)
    sizes = [struct.calcsize(f"={part}") for part in (number, layout)]
    behind = at + sizes[0] + len(directory) * (sizes[1] + inline) + inline
    head, values = [struct.pack(reader.order + number, len(directory))], bytearray()
    for tag, entry in sorted(directory.items()):
        if isinstance(entry, dict):
            kind, count, value, is_below = ifd.LONG, 1, _encoded(entry, reader, behind + len(values)), True
        else:
            kind, count, value, is_below = entry.type, entry.count, bytes(entry.value), False
        place = value.ljust(inline, b"\0")
        if is_below or len(value) > inline:
            place = struct.pack(reader.order + pointer, behind + len(values))
            if is_below and reader.big:
                kind = 16
            values += value + bytes(len(value) % 2)
        head.append(struct.pack(reader.order + layout, tag, kind, count) + place)
    return b"".join((*head, bytes(inline), values))
