"""A scan of the input, and the names of its derivatives."""

import contextlib
import dataclasses
import hashlib
import operator
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline import storage
from pipeline.errors import words
from pipeline.records import keys
from pipeline.records.record import Reason, Record, Refusal

SUFFIX = "_color"
EXTENSIONS = {  # of derivatives, by their format
    "jpeg": ".jpg",
    "png": ".png",
    "tiff": ".tif",
    "webp": ".webp",
    "jp2": ".jp2",
    "ptif": ".ptif",
}
MANIFEST_STORE = "c2pa"  # format and extension of the signed manifests beside derivatives
SAME = "same"  # --format: that of the master, by the extension of its key; PNG for those not named here
_SAME = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".ptif", ".ptiff"), "ptif"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), "jp2"),
    ".webp": "webp",
}
_LONGEST_NAME = 255  # bytes in the name of a file
_SHORTENED = re.compile(rb".*~[0-9a-f]{32}", re.DOTALL)

# Files with other extensions are recorded as `not_an_image` and not opened. Files without an extension are opened.
_EXTENSIONS = """
    .jpg .jpeg .jpe .jfif .jls .jp2 .j2k .j2c .jpc .jph .jhc .jpf .jpx .mpo .png .tif .tiff
    .ptif .ptiff .gif .bmp .dib .webp
    .avif .ppm .pgm .pbm .pnm
    .tga .pcx .psd .ico .icns .sgi .ras .im .dds
"""
IMAGE_EXTENSIONS = frozenset(_EXTENSIONS.split())


class Neighbor(NamedTuple):
    """A scan near another one in its group; see `pipeline.inputs.neighbors`."""

    away: int  # how many scans after it; negative before it
    key: str
    source: str  # URI
    size: int
    version: str
    digests: str = ""

    @property
    def item(self) -> "Item":
        return Item(self.key, self.source, self.size, self.version, digests=self.digests)


@dataclass(frozen=True, slots=True)
class Item:
    """A scan of the input."""

    key: str  # path relative to the collection, with `/`
    source: str  # URI
    size: int = -1  # bytes; -1 if it is not known
    version: str = ""
    hints: tuple[str, ...] = ()  # URIs of its hints files; see `pipeline.imaging.hints`
    hints_sha256: str = ""
    reason: str = ""  # why a line of a manifest names no scan
    detail: str = ""  # the same in words
    pages: int = 0  # of its file, if this is one of several, and their number is known
    digests: str = ""  # what its bag says; see `bags.Payload`
    group: str = ""  # scans with the same group belong together
    alone: bool = False  # it is in no group, because the input does not name those beside it
    neighbors: tuple[Neighbor, ...] = ()  # in its group
    neighbors_sha256: str = ""  # of what the listing says of them

    def values(self) -> tuple:
        """The values of all fields, in their order."""
        return _values(self)

    @classmethod
    def from_values(cls, values: Iterable) -> "Item":
        """Makes an item from its `values`, also after JSON."""
        fields = dict(zip(cls.__slots__, values, strict=True))
        others = tuple(Neighbor(*other) for other in fields["neighbors"])
        return cls(**fields | {"hints": tuple(fields["hints"]), "neighbors": others})

    def record(self, **fields) -> Record:
        return Record(
            source=self.source,
            key=self.key,
            source_bytes=self.size,
            source_version=self.version,
            hints_sha256=self.hints_sha256,
            pages=self.pages,
            group=self.group,
            neighbors_sha256=self.neighbors_sha256,
            **fields,
        )


_values = operator.attrgetter(*Item.__slots__)


def page_of(item: Item, page: int, pages: int = 0) -> Item:
    """A page of a file, without the hints and the neighbours of the file."""
    none: dict = dict(hints=(), hints_sha256="", neighbors=(), neighbors_sha256="")
    return dataclasses.replace(item, key=keys.of_page(item.key, page), pages=pages, **none)


def not_a_page(info: storage.FileInfo) -> Item:
    """A file that is refused, because its name is that of a page."""
    detail = f"names of files must not end like this, because {keys.PAGE}N is the name of a page"
    return Item(info.uri, info.uri, info.size, info.version, reason=Reason.BAD_KEY, detail=detail)


def check_key(key: str) -> None:
    """Raises Refusal if a key is not a path below the output."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\0" in key or any(part in ("", ".", "..") for part in parts):
        words = f"the key {key!r} is not a relative path below the output; name another one in the manifest"
        raise Refusal(Reason.BAD_KEY, words)
    if not storage.can_be_named(key):
        raise Refusal(Reason.BAD_KEY, f"no file can have the key {key!r}, because it is not valid Unicode")


def read(item: Item) -> bytes:
    """Reads a master. Raises Refusal if it cannot be read."""
    with reading():
        return storage.read(item.source)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Converts the exceptions of reading a master to Refusals."""
    try:
        yield
    except FileNotFoundError as error:
        raise Refusal(Reason.MISSING, "the file does not exist (any more)") from error
    except OSError as error:
        raise Refusal(Reason.READ_ERROR, words(error)) from error
    except ValueError as error:
        raise Refusal(Reason.READ_ERROR, "no file can have this name") from error


def format_of(key: str, format: str) -> str:
    """Format of the derivative of a key: a key of `EXTENSIONS`. `format` may be `SAME`."""
    return _SAME.get(PurePosixPath(keys.split(key)[0]).suffix.lower(), "png") if format == SAME else format


def derivative_uri(output: str, key: str, format: str) -> str:
    """URI of a derivative: `OUTPUT/box/a.tif_color.jpg` for the key `box/a.tif`. Different keys have different URIs.

    With the format `MANIFEST_STORE`, it is that of its signed manifest: `OUTPUT/box/a.tif_color.c2pa`. Pages have files
    of their own: `OUTPUT/box/a.tif#page=2_color.jpg`. A local name of more than 255 bytes, with room for the number of
    a page, is cut and ends with a digest.
    """
    file, page = keys.split(key)
    suffix = SUFFIX + EXTENSIONS.get(format_of(file, format), f".{MANIFEST_STORE}")
    ending = (key[len(file) :] if page else "") + suffix
    if storage.is_cloud(output):
        return storage.join(output, file + ending)
    *folders, name = file.split("/")
    room = _LONGEST_NAME - keys.LONGEST - len(suffix)
    return storage.join(output, *map(_fitting, folders), _fitting(name, room) + ending)


def derivative_name(output: str, key: str, format: str) -> bytes:
    """Path of the derivative of a file below the output, as bytes. Everything about a file is joined by this name."""
    return below(output, derivative_uri(output, keys.split(key)[0], format))


def below(folder: str, uri: str) -> bytes:
    """Path of a file relative to a folder, as bytes."""
    return storage.as_bytes(uri[len(folder.rstrip("/")) + 1 :])


def _fitting(name: str, room: int = _LONGEST_NAME) -> str:
    """A part of a path, shortened if it has more than `room` bytes.

    A name that looks shortened is shortened, too, so that no two names give the same result.
    """
    data = storage.as_bytes(name)
    if len(data) <= room and not (len(data) > room - 4 and _SHORTENED.fullmatch(data)):
        return name
    stop = least = room - 33
    while stop > least - 3 and data[stop] & 0xC0 == 0x80:  # do not cut a character
        stop -= 1
    return f"{os.fsdecode(data[:stop])}~{hashlib.sha256(data).hexdigest()[:32]}"
