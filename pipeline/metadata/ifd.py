"""TIFF directories in TIFF files and EXIF blocks. Values are kept byte for byte.

Specifications: TIFF 6.0, section 2; BigTIFF; Exif 3.0 (CIPA DC-008), section 4.6.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from PIL import ExifTags

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF8 = 1, 2, 3, 4, 5, 7, 129
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_BIG_SIZES = _SIZES | {16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of unsigned whole numbers
_ENDIAN: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_MAKER_NOTE = 0x927C
_Pointers: TypeAlias = "dict[int, _Pointers]"
_POINTERS: _Pointers = {ExifTags.IFD.Exif: {ExifTags.IFD.Interop: {}}, ExifTags.IFD.GPSInfo: {}}


class Damaged(ValueError):
    """The data are not a TIFF structure, or its directory is outside of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    type: int
    count: int
    value: bytes | memoryview  # count × size of the type, in the byte order of the structure
    at: int = -1  # offset from which it was read


Directory: TypeAlias = "dict[int, Entry | Directory]"  # by tag; a directory replaces the pointer to it


def name(tag: int) -> str:
    """Name of a tag for people."""
    return ExifTags.TAGS.get(tag, f"tag 0x{tag:04X}")


class Reader:
    """Reads the directories of a classic or big TIFF structure in either byte order.

    Attributes:
      order: "<" or ">", as for `struct`.
      broken: tags of unknown types, or with values outside of the structure, in the main directory that was read
        last and in the directories below it.
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
        """Yields the main directory and those that are linked to it.

        Raises Damaged if the main directory is damaged.
        """
        at, seen = self.first, set()
        while at and at not in seen:
            seen.add(at)
            self.broken = []
            try:
                directory, following = self.read(at)
            except Damaged:
                if at == self.first:
                    raise
                return  # the directories before it are not affected
            yield directory
            at = following

    def tree(self, directory: dict[int, Entry], pointers: _Pointers = _POINTERS) -> Directory:
        """A main directory in which the pointers to Exif, Interoperability and GPS are replaced by these directories.

        Invalid pointers are left out, and their tags are noted in `broken`.
        """
        whole: Directory = dict(directory)
        for tag, below in pointers.items():
            if tag in whole:
                try:
                    whole[tag] = self.tree(self.read(self._pointer(whole.pop(tag)))[0], below)
                except Damaged:
                    self.broken.append(tag)
        return whole

    def _pointer(self, entry: "Entry | Directory") -> int:
        at = number(entry, self.order)
        if not at:
            raise Damaged("no pointer to a directory")
        return at

    def _unpack(self, layout: str, at: int) -> tuple:
        try:
            return struct.unpack_from(self.order + layout, self.data, at)
        except (struct.error, OverflowError) as error:
            raise Damaged("a directory lies outside of the file") from error

    def read(self, at: int) -> tuple[dict[int, Entry], int]:
        """A directory and the offset of the next; 0 if there is none, or its offset is missing.

        Raises Damaged if it goes on behind the end.
        """
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
    """Unsigned whole numbers of an entry; empty for other types."""
    if not isinstance(entry, Entry) or entry.type not in _WHOLE:
        return ()
    return struct.unpack(f"{order}{entry.count}{_WHOLE[entry.type]}", entry.value)


def number(entry: "Entry | Directory | None", order: str) -> int | None:
    """First whole number of an entry, or None."""
    return next(iter(numbers(entry, order)), None)


def ratio(entry: "Entry | Directory | None", order: str) -> float | None:
    """First positive rational number of an entry, or None."""
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
    """Bytes as an entry of 4-byte numbers, as for IPTC-IIM in TIFFs, padded with zeros."""
    value += bytes(-len(value) % 4)
    return Entry(LONG, len(value) // 4, value)


def undefined(value: bytes) -> Entry:
    return Entry(UNDEFINED, len(value), value)


def is_classic(entry: Entry) -> bool:
    """Whether a classic TIFF structure can have the type of this entry."""
    return entry.type in _SIZES


def encode(directory: Directory, order: str) -> bytes:
    """Encodes a classic TIFF structure: header, main directory, values, and the directories below with their values.

    A MakerNote stays at its offset, because most of them contain offsets from the beginning of the structure.

    Raises:
      ValueError: the MakerNote cannot stay at its offset. `fitted` leaves it out.
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
        entries = sorted(
            (tag, entry) for tag, entry in directory.items() if entry
        )  # empty directories are not allowed
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
    """Encodes a structure of at most `limit` bytes.

    Returns it, and the names of the largest values that were left out.

    A MakerNote that cannot stay at its offset is left out, too. The main directory may later get `room` more entries.
    `directory` is changed.
    """
    dropped = []
    note = maker_note(directory)
    if note and not (_can_pin(directory, note, room) and note.at + len(note.value) <= limit):
        dropped.append(_without_maker_note(directory))
    values = sorted(_values(directory), key=lambda found: found[2])
    size = 64 + sum(14 + length for _, _, length in values)
    while size > limit and values:
        where, tag, length = values.pop()
        del where[tag]
        size -= 14 + length
        dropped.append(name(tag))
    data = encode(directory, order)
    if len(data) > limit and maker_note(directory):  # the gap before it is too large
        dropped.append(_without_maker_note(directory))
        data = encode(directory, order)
    return data, dropped


def below(directory: Directory, tag: int) -> Directory:
    """The directory in the value of a tag; empty if there is none."""
    found = directory.get(tag)
    return found if isinstance(found, dict) else {}


def maker_note(directory: Directory) -> Entry | None:
    note = below(directory, ExifTags.IFD.Exif).get(_MAKER_NOTE)
    return note if isinstance(note, Entry) else None


def _without_maker_note(directory: Directory) -> str:
    del below(directory, ExifTags.IFD.Exif)[_MAKER_NOTE]
    return name(_MAKER_NOTE)


def _can_pin(directory: Directory, note: Entry, room: int) -> bool:
    """Whether the main directory, which comes first, leaves the place of the MakerNote free."""
    return len(note.value) <= 4 or note.at >= 8 + 2 + 12 * (len(directory) + room) + 4


def _values(directory: Directory) -> Iterator[tuple[Directory, int, int]]:
    """Yields the directory, the tag and the number of bytes of each value."""
    for tag, entry in directory.items():
        if isinstance(entry, dict):
            yield from _values(entry)
        else:
            yield directory, tag, len(entry.value)
