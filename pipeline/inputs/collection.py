"""The input of a job: a folder, a bag, a glob, a gs:// prefix or a manifest, which is expanded to scans one by one."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline import storage
from pipeline.errors import JobError, words
from pipeline.inputs import bags, manifests
from pipeline.inputs.item import Item, not_a_page
from pipeline.records import keys
from pipeline.records.record import Reason

_WILDCARD = re.compile(r"[*?\[]")


def base_folder(source: str) -> str | None:
    """Folder of an input, or None for a manifest, whose masters can be anywhere."""
    if _is_bag(source):
        return storage.normalize(source).rpartition("/")[0]
    if source.endswith(manifests.EXTENSION):
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
        there = (
            not _WILDCARD.search(source) and not source.endswith(manifests.EXTENSION) and bags.is_bag(folder)
        )
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
        if _WILDCARD.search(bucket) or (source.endswith(manifests.EXTENSION) and not name):
            raise JobError(f"{source} names no bucket: write {storage.scheme(uri)}BUCKET/FOLDER")
        return
    if source.endswith(manifests.EXTENSION):
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
            yield from (item for item, _ in manifests.lines(part.uri))
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
    return not_a_page(info) if keys.split(key)[1] else Item(key, info.uri, info.size, info.version)


def _of_bag(file: bags.Payload) -> Item:
    info = file.info
    if keys.split(file.path)[1]:
        return not_a_page(info)
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
