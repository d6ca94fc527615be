"""Packs the output of a job for repositories: an OCFL 1.1 storage root, with an object for each scan in colour.

    ROOT/0=ocfl_1.1, ocfl_layout.json, extensions/
    ROOT/fe5/d30/49f/file%3a%2f%2f%2fscans%2f%23a%2etif_color/
        0=ocfl_object_1.1, inventory.json, inventory.json.sha512
        v1/content/derivative.tif, v1/content/record.json, v1/inventory.json, v1/inventory.json.sha512
        v2/...

Content has plain names. The inventory says what the files are called. It is written last: before that, a version does
not exist, and the same command writes it anew after a kill.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import mmap
import posixpath
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote

from pipeline import clock, storage
from pipeline.batch import lease, stopping, verification
from pipeline.batch.verification import Finding
from pipeline.errors import JobError
from pipeline.inputs.item import SUFFIX
from pipeline.metadata.provenance import TOOL, tool_version
from pipeline.records import keys, manifest
from pipeline.records.record import Outcome, Record
from pipeline.storage import scratch

DAMAGED = "damaged object"  # a problem, as those of `verification`
LAYOUT = "0003-hash-and-id-n-tuple-storage-layout"  # an extension of OCFL
DECLARATION, OBJECT_DECLARATION = "0=ocfl_1.1", "0=ocfl_object_1.1"
INVENTORY, RECORD = "inventory.json", "record.json"
TYPE = "https://ocfl.io/1.1/spec/#inventory"
DIGEST = "sha512"  # by which content is addressed
_CONFIG = {"extensionName": LAYOUT, "digestAlgorithm": "sha256", "tupleSize": 3, "numberOfTuples": 3}
_LONGEST_NAME = 100  # of the folder of an object, before a digest is put in its place
_BATCH = 256  # records in memory
_PART = 1 << 20  # bytes of a file in memory


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of a record."""

    version: int = 0  # of its object that was written; 0 if none was
    findings: tuple[Finding, ...] = ()  # why none could be written


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a version."""

    content: str  # name below `content`
    logical: str  # name that the inventory gives it
    data: bytes | mmap.mmap
    digest: str
    fixity: dict[str, str] = field(default_factory=dict)  # further digests, by algorithm


def object_id(record: Record) -> str:
    """The URI of a derivative's object: that of the collection, and the key as a fragment.

    `file:///scans/#box/a.tif_color` is that of /scans/box/a.tif with the key `box/a.tif`. A key that is not how the
    master ends, as manifests may give, follows the whole master: `file:///scans/box/a.tif#b.tif_color`. The URI is the
    same for all models, options, formats and outputs.
    """
    file, base = keys.split(record.key)[0], record.source
    if base.endswith(f"/{file}"):
        base = base[: -len(file)]
    return f"{storage.web_uri(base)}#{quote(storage.as_bytes(record.key + SUFFIX))}"


def object_path(identity: str) -> str:
    """The folder of an object below the root, by the extension 0003 with its default values."""
    digest = hashlib.sha256(identity.encode()).hexdigest()
    name = re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"%%%02x" % ord(found[0]), identity.encode()).decode()
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{digest}"
    return "/".join([digest[:3], digest[3:6], digest[6:9], name])


def check(output: str, root: str) -> None:
    """Checks that a root may be written to: it is apart from the output, and empty or a root that was made here.

    Raises:
      JobError: it is not.
      OSError: this is unknown.
    """
    if storage.contains(output, root) or storage.contains(root, output):
        raise JobError(f"the storage root {root} and the output {output} must be apart")
    layout, config, declaration = _root_files(root)
    if storage.stat(declaration) is None:
        others = (info.uri for info in storage.list_files(root) if info.uri not in (layout, config))
        if found := next(others, None):
            raise JobError(
                f"{root} is not an OCFL 1.1 storage root and has other files ({found}): choose an empty folder"
            )
        return
    try:
        same = (
            json.loads(storage.read(layout))["extension"] == LAYOUT
            and json.loads(storage.read(config)) == _CONFIG
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise JobError(
            f"the storage root {root} does not have the layout {LAYOUT} with its default values, the only one that is "
            "written: choose an empty folder"
        )


def export(
    output: str, root: str, done: Callable[[int, int], None] = lambda number, total: None
) -> Iterator[Packed]:
    """Makes or updates a storage root, and says of each scan in colour what became of it.

    An object gets a new version if the record of its scan has changed. Files are compared with the digests in their
    record while they are copied; an object gets all files of a record, or none. Memory does not grow with the number
    of records.

    Args:
      output: of one or more runs; the payload, if it is a bag.
      root: passes `check`.
      done: called with the number of scans that are done, and of all.

    Raises:
      JobError: another process writes to the root; it was stopped; the manifest cannot be read; or there is no room
        for temporary files.
      OSError: the root cannot be read or written.
    """
    run = f"ocfl-{clock.label(clock.now())}-{secrets.token_hex(3)}"
    stop = stopping.Stop(stopping.file(root, run))
    with (
        lease.held(root, run, stop.request) as hold,
        manifest.Latest(output) as records,
        scratch.folder() as folder,
        ThreadPoolExecutor(verification.READERS) as pool,
    ):
        try:
            _declare(root)
            pack = functools.partial(_pack, output, root, hold.since, folder)
            total = sum(1 for _ in _colorized(records))
            every, number = _colorized(records), 0
            while batch := list(itertools.islice(every, _BATCH)):
                for packed in pool.map(pack, batch):
                    yield packed
                    done(number := number + 1, total)
                    if stop.is_requested():
                        raise JobError(hold.lost or "stopped; run the same command again to go on")
        finally:
            with contextlib.suppress(OSError):
                storage.delete(stop.file)


def _root_files(root: str) -> dict[str, bytes]:
    """The files that make a folder a storage root, by URI. The last one is the declaration."""
    layout = {
        "extension": LAYOUT,
        "description": "Three folders by the SHA-256 of the id, and the encoded id",
    }
    files = {
        "ocfl_layout.json": _json(layout),
        f"extensions/{LAYOUT}/config.json": _json(_CONFIG),
        DECLARATION: b"ocfl_1.1\n",
    }
    return {storage.join(root, name): data for name, data in files.items()}


def _declare(root: str) -> None:
    for uri, data in _root_files(root).items():
        if storage.stat(uri) is None:
            storage.write(uri, data)


def _colorized(records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if record.outcome == Outcome.COLORIZED)


def _pack(output: str, root: str, since: str, folder: str, record: Record) -> Packed:
    """Writes the version of an object that a record stands for, unless it is there.

    Args:
      since: version of the lease; temporary files that are older come from a killed process.
      folder: for temporary files.
    """
    identity = object_id(record)
    place = storage.join(root, object_path(identity))
    line = f"{record.to_json()}\n".encode()
    last = _File(RECORD, RECORD, line, hashlib.new(DIGEST, line).hexdigest())
    try:
        inventory = _inventory(place, identity, last.digest)
        if inventory is None:
            return Packed()
        _clear(place, len(inventory["versions"]) + 1, since)
    except ValueError as error:
        words = f"{error}; restore the object from a copy, or remove it"
        return Packed(findings=(Finding(DAMAGED, place, words),))
    with contextlib.ExitStack() as stack:
        files, findings = [], []
        for uri, fixity in verification.files(output, record):
            copy = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            digests: dict[str, str] = {}
            if finding := verification.check(uri, fixity, functools.partial(_copy, copy, digests)):
                findings.append(finding)
                continue
            data = stack.enter_context(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ))
            digest, name = digests.pop(DIGEST), posixpath.basename(uri)
            logical = name if storage.is_unicode(name) else quote(storage.as_bytes(name))
            files.append(_File(f"derivative{posixpath.splitext(name)[1]}", logical, data, digest, digests))
        if findings:
            return Packed(findings=tuple(findings))
        return Packed(_write(place, inventory, record, [*files, last]))


def _write(place: str, inventory: dict[str, Any], record: Record, files: Iterable[_File]) -> int:
    """Writes the next version of an object, its inventory last. Returns its number."""
    number = len(inventory["versions"]) + 1
    head = f"v{number}"
    if number == 1:
        storage.write(storage.join(place, OBJECT_DECLARATION), b"ocfl_object_1.1\n")
    state: dict[str, list[str]] = {}
    for file in files:
        state.setdefault(file.digest, []).append(file.logical)
        if file.digest not in inventory["manifest"]:
            path = f"{head}/content/{file.content}"
            storage.write(storage.join(place, path), file.data)
            inventory["manifest"][file.digest] = [path]
            for algorithm, digest in file.fixity.items():
                inventory["fixity"].setdefault(algorithm, {})[digest] = [path]
    inventory["head"] = head
    inventory["versions"][head] = {
        "created": record.finished,
        "message": f"Colourised by {record.model} {record.model_version}".strip(),
        "user": {"name": f"{TOOL} {tool_version()}"},
        "state": state,
    }
    data = _json(inventory)
    sidecar = f"{hashlib.new(DIGEST, data).hexdigest()} {INVENTORY}\n".encode()
    for folder in (storage.join(place, head), place):
        storage.write(storage.join(folder, f"{INVENTORY}.{DIGEST}"), sidecar)
        storage.write(storage.join(folder, INVENTORY), data)
    return number


def _inventory(place: str, identity: str, wanted: str) -> dict[str, Any] | None:
    """The inventory of an object, without versions if there is none; None if its last version has a wanted file.

    Raises:
      ValueError: it is damaged.
    """
    try:
        data = storage.read(storage.join(place, INVENTORY))
    except FileNotFoundError:
        blank = {"id": identity, "type": TYPE, "digestAlgorithm": DIGEST, "head": ""}
        return blank | {"manifest": {}, "versions": {}, "fixity": {}}
    try:
        inventory = json.loads(data)
        if inventory["id"] == identity and wanted in inventory["versions"][inventory["head"]]["state"]:
            return None
        whole = inventory["id"] == identity and data == storage.read(
            storage.join(place, inventory["head"], INVENTORY)
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"its {INVENTORY} is not that of its last version")
    return inventory


def _clear(place: str, number: int, since: str) -> None:
    """Removes what a killed process has left of a version. Raises ValueError if there are later versions."""
    left = []
    for info in storage.list_files(place, hidden=True):
        found = re.match(r"v(\d+)/", info.uri[len(place) + 1 :])
        if found and int(found[1]) > number:
            raise ValueError(f"its {INVENTORY} does not know {info.uri}")
        if (found and int(found[1]) == number) or storage.is_leftover(info, since):
            left.append(info.uri)
    for uri in left:
        storage.delete(uri)


def _copy(copy: BinaryIO, digests: dict[str, str], uri: str, names: Iterable[str]) -> dict[str, str]:
    """Copies a file, and fills `digests` with those in `names` and that of OCFL. Raises OSError as `storage.read`."""
    found = {name: hashlib.new(name, usedforsecurity=False) for name in {*names, DIGEST}}
    with storage.opened(uri) as source:
        while part := source.read(_PART):
            for digest in found.values():
                digest.update(part)
            try:
                copy.write(part)
                copy.flush()
            except OSError as error:
                raise JobError(scratch.no_room(error)) from error
    digests |= {name: digest.hexdigest() for name, digest in found.items()}
    return digests


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
