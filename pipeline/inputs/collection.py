"""The input of a job: a folder, a bag, a glob, a gs:// prefix or a manifest, which is expanded to scans one by one."""

import codecs
import contextlib
import dataclasses
import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline import storage
from pipeline.errors import JobError, words
from pipeline.inputs import bags
from pipeline.records import keys, record
from pipeline.records.record import Reason, Record, Refusal

SUFFIX = "_color"
MANIFEST = ".jsonl"  # extension of a manifest
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
_WILDCARD = re.compile(r"[*?\[]")
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


@dataclass(frozen=True, slots=True)
class Neighbor:
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
    neighbors: tuple[Neighbor, ...] = ()  # in its group
    neighbors_sha256: str = ""  # of what the listing says of them

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


def page_of(item: Item, page: int, pages: int = 0) -> Item:
    """A page of a file, without the hints and the neighbours of the file."""
    none: dict = dict(hints=(), hints_sha256="", neighbors=(), neighbors_sha256="")
    return dataclasses.replace(item, key=keys.of_page(item.key, page), pages=pages, **none)


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


def base_folder(source: str) -> str | None:
    """Folder of an input, or None for a manifest, whose masters can be anywhere."""
    if _is_bag(source):
        return storage.normalize(source).rpartition("/")[0]
    if source.endswith(MANIFEST):
        return None
    source = storage.normalize(source)
    wildcard = _WILDCARD.search(source)
    if wildcard is None or not _is_glob(source):
        return source
    return source[: wildcard.start()].rpartition("/")[0] or "/"


def resolved(source: str) -> str:
    """The input as the other functions of this module take it: a bag is named by its file `bagit.txt`.

    Raises:
      JobError: there may be a bag, and it cannot be read.
    """
    check_reachable(source)
    folder = storage.normalize(source)
    try:
        there = not _WILDCARD.search(source) and not source.endswith(MANIFEST) and bags.is_bag(folder)
    except OSError as error:
        raise JobError(f"cannot read {source}: {words(error)}") from error
    return storage.join(folder, bags.DECLARATION) if there else source


def _is_bag(source: str) -> bool:
    return source.endswith(f"/{bags.DECLARATION}")


def check_input(source: str) -> None:
    """Raises JobError if the input does not exist, or is a bag that is damaged.

    An empty input is found when it is expanded, and damaged files of a bag when they are read.
    """
    check_reachable(source)
    uri = storage.normalize(source)
    if _is_bag(source):
        return bags.check(uri.rpartition("/")[0])
    if storage.is_cloud(uri):
        bucket, name = storage.split(uri)
        if _WILDCARD.search(bucket) or (source.endswith(MANIFEST) and not name):
            raise JobError(f"{source} names no bucket: write {storage.scheme(uri)}BUCKET/FOLDER")
        return
    if source.endswith(MANIFEST):
        if not os.path.isfile(uri) and not (_is_glob(uri) and _manifests(uri)):
            raise JobError(f"no such manifest: {source}")
    elif not _is_glob(uri) and not os.path.isdir(uri):
        there = os.path.exists(uri)
        hint = "give its folder, a glob, or a manifest that names it" if there else "check the path"
        raise JobError(f"no such folder: {source} ({hint})")


def check_reachable(uri: str) -> None:
    """Raises JobError for a URI that is neither a local path nor in a bucket, or that cannot be a name."""
    if scheme := storage.foreign_scheme(uri):
        raise JobError(f"{scheme}:// is not supported: {uri} (use a local path, gs:// or s3://)")
    if start := re.match(r"(gs|s3):(?!//[^/])", uri):
        raise JobError(f"{uri} names no bucket: write {start[1]}://BUCKET/FOLDER")
    if missing := storage.missing_client(uri):
        raise JobError(f"cannot use {uri}: {missing}")
    if not storage.can_be_named(uri):
        raise JobError(f"no folder or file can have the name {uri!r}")


def check_output(source: str, output: str) -> None:
    """Raises JobError if input and output overlap, because masters must never be written."""
    base = base_folder(source)
    if base is None:
        return
    output = storage.normalize(output)
    if storage.contains(base, output) or storage.contains(output, base):
        raise JobError(f"the output {output} overlaps the input {base}; choose a folder beside it")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an input that can be listed by itself: a manifest, or a folder with or without those below it."""

    uri: str
    below: bool = True


def expand(source: str) -> Iterator[Item]:
    """Yields all scans of the input in a fixed order, with bounded memory.

    Raises:
      JobError: a folder cannot be listed, or a manifest is not one.
    """
    for part in parts(source):
        yield from expand_part(source, part)


def parts(source: str) -> list[Part]:
    """The manifests of an input, or its base folder. Raises JobError like `expand`."""
    base = base_folder(source)
    if base is not None:
        return [Part(base)]
    uri = storage.normalize(source)
    return [Part(manifest) for manifest in _manifests(uri)] if _is_glob(uri) else [Part(uri)]


def split(source: str, part: Part) -> Iterator[Part]:
    """Yields a folder without those below it, and each folder in it. Other parts stay as they are.

    Raises:
      JobError: the folder cannot be listed.
    """
    base = base_folder(source)
    if base is None or not part.below or _is_bag(source):
        yield part
        return
    yield Part(part.uri, below=False)
    with _listing(source):
        yield from map(Part, storage.list_folders(part.uri, root=base))


def expand_part(source: str, part: Part) -> Iterator[Item]:
    """Yields the scans of a part of the input. Raises JobError like `expand`."""
    base = base_folder(source)
    with _listing(source):
        if base is None:
            yield from (item for item, _ in manifest_lines(part.uri))
        elif _is_bag(source):
            yield from map(_of_bag, bags.files(base))
        else:
            yield from _listed(storage.normalize(source), base, part)


@contextlib.contextmanager
def _listing(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(f"cannot list {error.filename or source}: {error.strerror or error}") from error


def check_key(key: str) -> None:
    """Raises Refusal if a key is not a path below the output."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise Refusal(Reason.BAD_KEY, f"the key {key!r} is not a relative path below the output")
    if not storage.can_be_named(key):
        raise Refusal(Reason.BAD_KEY, f"no file can have the key {key!r}, because it is not valid Unicode")


def _manifests(pattern: str) -> list[str]:
    """URIs of the manifests that match a glob, in order."""
    base = re.split(_WILDCARD, pattern, maxsplit=1)[0].rpartition("/")[0] or "/"
    names = pattern[len(base) :].strip("/").split("/")

    def relative(uri: str) -> list[str]:
        return uri[len(base) :].strip("/").split("/")

    with _listing(pattern):
        found = storage.list_files(base, lambda folder: _may_lead_to(relative(folder), names))
        return [info.uri for info in found if _matches(relative(info.uri), names)]


def _listed(source: str, base: str, part: Part) -> Iterator[Item]:
    pattern = source[len(base) :].strip("/").split("/") if _is_glob(source) else ["**"]

    def relative(uri: str) -> str:
        return uri[len(base) :].lstrip("/")

    def enter(folder: str) -> bool:
        return _may_lead_to(relative(folder).split("/"), pattern)

    for info in storage.list_files(part.uri, enter, below=part.below, root=base):
        key = relative(info.uri)
        if _matches(key.split("/"), pattern):
            yield _listed_item(key, info)


def _listed_item(key: str, info: storage.FileInfo) -> Item:
    return _not_a_page(info) if keys.split(key)[1] else Item(key, info.uri, info.size, info.version)


def _not_a_page(info: storage.FileInfo) -> Item:
    words = f"names of files must not end like this, because {keys.PAGE}N is the name of a page"
    return Item(info.uri, info.uri, info.size, info.version, reason=Reason.BAD_KEY, detail=words)


def _of_bag(file: bags.Payload) -> Item:
    info = file.info
    if keys.split(file.path)[1]:
        return _not_a_page(info)
    if file.digests:
        return Item(file.path, info.uri, info.size, info.version, digests=file.digests)
    detail = "no manifest of its bag lists it"
    return Item(file.path, info.uri, info.size, info.version, reason=Reason.FIXITY, detail=detail)


def _is_glob(uri: str) -> bool:
    """Whether a URI has wildcards. The name of an existing local file may have such characters, too."""
    return bool(_WILDCARD.search(uri)) and (storage.is_cloud(uri) or not os.path.exists(uri))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path match a glob. `**` stands for any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skipped:], pattern[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _may_lead_to(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether paths in this folder can match."""
    if not names or pattern[:1] == ["**"]:
        return True
    return bool(pattern[1:]) and fnmatchcase(names[0], pattern[0]) and _may_lead_to(names[1:], pattern[1:])


def manifest_lines(uri: str) -> Iterator[tuple[Item, dict]]:
    """Yields the scan and all fields of each line of a manifest.

    For a line that names no scan, the item has a reason, and MANIFEST:LINE as source and key. Relative sources are
    relative to the folder of the manifest.

    Raises:
      JobError: the manifest is not UTF-8 text, or no line names a scan.
      OSError: it cannot be read.
    """
    fault, good = None, False
    for number, line in enumerate(_text_lines(uri), 1):
        if not line.strip():
            continue
        try:
            values = record.fields(line)
            known = Record.from_fields(values)
        except ValueError as error:
            words = f"line {number}: {error}"
            fault = fault or words
            place = f"{uri}:{number}"
            yield Item(place, place, reason=Reason.BAD_LINE, detail=words), {}
            continue
        good = True
        yield _item(known, uri), values
    if fault and not good:
        raise JobError(f"{uri} is not a manifest: {fault}")


def _item(line: Record, manifest: str) -> Item:
    """The scan in a line of a manifest."""
    if line.reason == Reason.BAD_LINE:  # a line of the dead letters
        return Item(line.key, line.source, reason=line.reason, detail=line.detail)
    if scheme := storage.foreign_scheme(line.source):
        words = f"{scheme}:// is not supported: download the file, and name the copy"
        key = line.key or line.source.partition("://")[2]
        return Item(key, line.source, reason=Reason.UNSUPPORTED_SOURCE, detail=words)
    source = _located(line.source, manifest)
    info = _look_up(source)
    key = line.key or source.removeprefix(storage.scheme(source)).lstrip("/")
    if keys.split(key)[1] and not line.key:
        return _not_a_page(info)
    return Item(_as_listed(key), source, info.size, info.version, group=line.group)


def _located(source: str, manifest: str) -> str:
    """URI of a source. A relative source is relative to the folder of the manifest."""
    if storage.is_cloud(source) or source.startswith(("/", "~", "file://")):
        return _as_listed(storage.normalize(source))
    folder = manifest.rpartition("/")[0]
    if storage.is_cloud(manifest):
        start = storage.scheme(manifest)
        return start + posixpath.normpath(f"{folder.removeprefix(start)}/{source}")
    return _as_listed(os.path.normpath(os.path.join(folder, source)))


def _as_listed(name: str) -> str:
    """A name as a listing gives it: escaped bytes of a local name that are valid UTF-8 become text."""
    try:
        return name if storage.is_cloud(name) else os.fsdecode(os.fsencode(name))
    except UnicodeEncodeError:
        return name


def _look_up(source: str) -> storage.FileInfo:
    """Information about a file. For an inaccessible file it is empty; reading the file gives the reason."""
    try:
        info = storage.stat(source)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        info = None
    return info or storage.FileInfo(source, -1, "")


def _text_lines(uri: str) -> Iterator[bytes]:
    """Yields the lines of a manifest. Raises JobError if it is not UTF-8 text."""
    lines = storage.lines(uri)
    first = next(lines, b"")
    encoding = ""
    if first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    elif b"\0" in first:
        head = first[:4096]
        in_turn = max(head[0::2].count(0), head[1::2].count(0)) > 0.4 * len(head) / 2
        if not in_turn:
            raise JobError(f"{uri} is not a manifest: it is a binary file")
        encoding = "UTF-16"
    if encoding:
        raise JobError(f"{uri} is not a manifest: it is {encoding}; save it as UTF-8")
    return itertools.chain([first.removeprefix(codecs.BOM_UTF8)], lines)


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
