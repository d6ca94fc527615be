"""TIFF directories, as TIFF files and EXIF blocks have them; every value stays the bytes that it is.

Specifications: TIFF 6.0, section 2; BigTIFF; Exif 3.0 (CIPA DC-008), section 4.6.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from PIL import ExifTags

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF8 = 1, 2, 3, 4, 5, 7, 129
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_BIG_SIZES = _SIZES | {16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of unsigned whole numbers
_ENDIAN = {"<": "little", ">": "big"}
_MAKER_NOTE = 0x927C
_POINTERS = {ExifTags.IFD.Exif: {ExifTags.IFD.Interop: {}}, ExifTags.IFD.GPSInfo: {}}


class Damaged(ValueError):
    """No TIFF structure, or one whose directory lies outside of it."""


class Entry(NamedTuple):
    type: int
    count: int
    value: bytes | memoryview  # count × the type's size, in the structure's byte order
    at: int = -1  # where it was read from


Directory: TypeAlias = "dict[int, Entry | Directory]"  # by tag; a directory in the place of a pointer to it


def name(tag: int) -> str:
    """What people call a tag."""
    return ExifTags.TAGS.get(tag, f"tag 0x{tag:04X}")


class Reader:
    """Reads the directories of a TIFF structure, big or small, of either byte order.

    Attributes:
      order: "<" or ">", as for `struct`.
      broken: tags whose type is unknown or whose value lies outside of the structure, of the main directory that was
        read last and of those below it.
    """

    def __init__(self, data: bytes | memoryview):
        """Raises Damaged if `data` does not begin with a TIFF header."""
        self.data = memoryview(data)
        self.broken: list[int] = []
        self.order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]), "")
        magic = int.from_bytes(data[2:4], _ENDIAN[self.order]) if self.order else 0
        if magic not in (42, 43) or len(data) < (16 if magic == 43 else 8):
            raise Damaged("no TIFF header")
        self.big = magic == 43
        self.first = self._unpack("Q", 8)[0] if self.big else self._unpack("I", 4)[0]

    def directories(self) -> Iterator[dict[int, Entry]]:
        """The main directory and those that are linked to it. Raises Damaged if the main one is."""
        at, seen = self.first, set()
        while at and at not in seen:
            seen.add(at)
            self.broken = []
            try:
                directory, following = self._read(at)
            except Damaged:
                if at == self.first:
                    raise
                return  # damage that does not concern the directories before it
            yield directory
            at = following

    def tree(self, directory: dict[int, Entry], pointers: dict = _POINTERS) -> Directory:
        """A main directory with those of Exif, Interoperability and GPS in the place of the pointers to them.

        A pointer that leads nowhere is left out, and its tag noted in `broken`.
        """
        whole: Directory = dict(directory)
        for tag, below in pointers.items():
            if tag in whole:
                try:
                    whole[tag] = self.tree(self._read(self._pointer(whole.pop(tag)))[0], below)
                except Damaged:
                    self.broken.append(tag)
        return whole

    def _pointer(self, entry: Entry) -> int:
        at = number(entry, self.order)
        if not at:
            raise Damaged("no pointer to a directory")
        return at

    def _unpack(self, layout: str, at: int) -> tuple:
        try:
            return struct.unpack_from(self.order + layout, self.data, at)
        except (struct.error, OverflowError) as error:
            raise Damaged("a directory lies outside of the file") from error

    def _read(self, at: int) -> tuple[dict[int, Entry], int]:
        """A directory and the offset of the next one, 0 where there is none (or where it would be is none)."""
        (count,) = self._unpack("Q" if self.big else "H", at)
        at += 8 if self.big else 2
        layout, inline, step = ("HHQ", 8, 20) if self.big else ("HHI", 4, 12)
        directory: dict[int, Entry] = {}
        for start in range(at, min(at + count * step, len(self.data) - step + 1), step):
            tag, kind, number = self._unpack(layout, start)
            size = number * _BIG_SIZES.get(kind, 0)
            place = start + step - inline
            if size > inline:
                (place,) = self._unpack("Q" if self.big else "I", place)
            if kind not in _BIG_SIZES or place + size > len(self.data):
                self.broken.append(tag)
            elif tag not in directory:
                directory[tag] = Entry(kind, number, self.data[place : place + size], place)
        if at + count * step > len(self.data):
            raise Damaged("a directory goes on behind the end")
        try:
            return directory, self._unpack("Q" if self.big else "I", at + count * step)[0]
        except Damaged:
            return directory, 0


def numbers(entry: "Entry | Directory | None", order: str) -> tuple[int, ...]:
    """An entry's unsigned whole numbers, none where it has another type."""
    if not isinstance(entry, Entry) or entry.type not in _WHOLE:
        return ()
    return struct.unpack(f"{order}{entry.count}{_WHOLE[entry.type]}", entry.value)


def number(entry: "Entry | Directory | None", order: str) -> int | None:
    """The first of an entry's whole numbers, None where it has none."""
    return next(iter(numbers(entry, order)), None)


def ratio(entry: "Entry | Directory | None", order: str) -> float | None:
    """The first of an entry's positive rational numbers, None where it has none."""
    if not isinstance(entry, Entry) or entry.type != RATIONAL or not entry.count:
        return None
    above, below = struct.unpack(f"{order}II", entry.value[:8])
    return above / below if above and below else None


def text(value: str) -> Entry:
    data = value.encode() + b"\0"
    return Entry(ASCII, len(data), data)


def short(order: str, *numbers: int) -> Entry:
    return Entry(SHORT, len(numbers), struct.pack(f"{order}{len(numbers)}H", *numbers))


def long(order: str, *numbers: int) -> Entry:
    return Entry(LONG, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers))


def rational(order: str, number: float) -> Entry:
    ratio = Fraction(number).limit_denominator(10_000)
    return Entry(RATIONAL, 1, struct.pack(f"{order}II", ratio.numerator, ratio.denominator))


def octets(value: bytes) -> Entry:
    return Entry(BYTE, len(value), value)


def words(value: bytes) -> Entry:
    """Bytes in the guise of numbers of four, as IPTC-IIM lies in TIFFs; filled up with zeros."""
    value += bytes(-len(value) % 4)
    return Entry(LONG, len(value) // 4, value)


def undefined(value: bytes) -> Entry:
    return Entry(UNDEFINED, len(value), value)


def is_classic(entry: Entry) -> bool:
    """Whether the entry's type is one that a TIFF structure of 32 bits has."""
    return entry.type in _SIZES


def encode(directory: Directory, order: str) -> bytes:
    """A TIFF structure of 32 bits: header, main directory, values, and the directories below with theirs.

    A MakerNote stays at the offset that it was read from, for most makers' notes hold offsets of their own from
    the structure's beginning.

    Raises:
      ValueError: it cannot stay there. `fitted` leaves it out then.
    """
    note = maker_note(directory)
    pinned = (note.at, note.at + len(note.value)) if note and len(note.value) > 4 else (0, 0)
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8))

    def reserve(size: int) -> int:
        start = len(out) + len(out) % 2
        if start < pinned[1] and start + size > pinned[0]:
            start = pinned[1] + pinned[1] % 2
        out.extend(bytes(start + size - len(out)))
        return start

    def put(directory: Directory, main: bool = False) -> int:
        entries = sorted((tag, entry) for tag, entry in directory.items() if entry)  # no directory is empty
        at = reserve(2 + 12 * len(entries) + 4)
        if main and at != 8:
            raise ValueError("the MakerNote lies where the main directory has to begin")
        struct.pack_into(f"{order}H", out, at, len(entries))
        for place, (tag, entry) in enumerate(entries):
            place = at + 2 + 12 * place
            if isinstance(entry, dict):
                struct.pack_into(f"{order}HHII", out, place, tag, LONG, 1, put(entry))
                continue
            struct.pack_into(f"{order}HHI", out, place, tag, entry.type, entry.count)
            if len(entry.value) <= 4:
                out[place + 8 : place + 8 + len(entry.value)] = entry.value
                continue
            start = pinned[0] if entry is note else reserve(len(entry.value))
            if entry is note:
                out.extend(bytes(max(0, pinned[1] - len(out))))
            out[start : start + len(entry.value)] = entry.value
            struct.pack_into(f"{order}I", out, place + 8, start)
        return at

    put(directory, main=True)
    return bytes(out)


def fitted(directory: Directory, order: str, *, limit: int, room: int) -> tuple[bytes, list[str]]:
    """The structure in at most `limit` bytes, and the names of the largest values, which it had to leave out.

    A MakerNote that cannot stay at its offset is one of these: the main directory may still get `room` entries.
    `directory` is taken over.
    """
    dropped = []
    note = maker_note(directory)
    if note and not (_can_pin(directory, note, room) and note.at + len(note.value) <= limit):
        dropped.append(_without_maker_note(directory))
    values = sorted(_values(directory), key=lambda found: len(found[0][found[1]].value))
    size = 64 + sum(14 + len(where[tag].value) for where, tag in values)
    while size > limit and values:
        where, tag = values.pop()
        size -= 14 + len(where.pop(tag).value)
        dropped.append(name(tag))
    data = encode(directory, order)
    if len(data) > limit and maker_note(directory):  # the gap before it takes too much
        dropped.append(_without_maker_note(directory))
        data = encode(directory, order)
    return data, dropped


def maker_note(directory: Directory) -> Entry | None:
    below = directory.get(ExifTags.IFD.Exif)
    note = below.get(_MAKER_NOTE) if isinstance(below, dict) else None
    return note if isinstance(note, Entry) else None


def _without_maker_note(directory: Directory) -> str:
    del directory[ExifTags.IFD.Exif][_MAKER_NOTE]
    return name(_MAKER_NOTE)


def _can_pin(directory: Directory, note: Entry, room: int) -> bool:
    """Whether the MakerNote's place is not needed by the main directory, which comes first."""
    return len(note.value) <= 4 or note.at >= 8 + 2 + 12 * (len(directory) + room) + 4


def _values(directory: Directory) -> Iterator[tuple[Directory, int]]:
    for tag, entry in directory.items():
        if isinstance(entry, dict):
            yield from _values(entry)
        else:
            yield directory, tag
