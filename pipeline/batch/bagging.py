"""Writes the output of a job as a bag (BagIt, RFC 8493), whose payload is what the job writes without `--bag`.

    OUTPUT/bagit.txt, bag-info.txt, manifest-sha256.txt, tagmanifest-sha256.txt
    OUTPUT/data/        derivatives, records, gallery, summary

While a job writes to it, the bag has no manifests and is not valid. They are written at the end, from the digests in
the records, so a file that has changed on the disk since it was written is found.
"""

import contextlib
import hashlib
import itertools
import json
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.batch import verification
from pipeline.errors import JobError
from pipeline.inputs import bags
from pipeline.metadata.provenance import TOOL, tool_version
from pipeline.records import manifest
from pipeline.records.manifest import unwritable
from pipeline.storage import scratch

_BEING_WRITTEN = "/.archive-colorize-"  # in the names of the lease, of stop files and of unfinished files
_BATCH = 256  # files whose names are in memory
_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def check(output: str, bag: bool, premis: bool, waits: bool) -> None:
    """Checks that an output is a bag if, and only if, it shall be one, and in no other bag.

    Args:
      output: of the job, as the user names it.
      bag: whether it shall be a bag.
      premis: whether PREMIS shall be written at the end.
      waits: whether the launcher waits for the end of the job.

    Raises:
      JobError: it is not, or nobody would write what is written at the end.
    """
    if (bag or premis) and not waits:
        option = "--bag" if bag else "--premis"
        raise JobError(f"{option} needs a command that waits for the end: leave out --no_wait_until_finish")
    try:
        there = bags.is_bag(output)
        if there and not bag:
            raise JobError(f"the output {output} is a bag: add --bag, or choose another output")
        if bag and not there and next(storage.list_files(output), None) is not None:
            raise JobError(
                f"the output {output} has files and is not a bag: choose another output, or leave out --bag"
            )
        if around := bags.around(output):
            raise JobError(
                f"the output {output} is in the bag {around}, which would not be valid any more: "
                f"choose another output, or continue that bag with --output {around} --bag"
            )
    except OSError as error:
        raise JobError(f"cannot list {output}: {error.strerror or error}") from error


def begin(output: str) -> None:
    """Declares a bag and removes its manifests, for its payload is about to change. Raises JobError."""
    try:
        storage.write(storage.join(output, bags.DECLARATION), _DECLARATION)
        for algorithm in bags.ALGORITHMS:
            for kind in ("tag", ""):
                storage.delete(storage.join(output, kind + bags.manifest_name(algorithm)))
    except OSError as error:
        raise JobError(f"cannot write to the output {output}: {error.strerror or error}") from error


def complete(output: str, date: str, digests: Sequence[str] = ()) -> None:
    """Writes the tag files of a bag. Memory does not grow with the number of its files.

    Args:
      output: the bag.
      date: of the bag, ISO 8601.
      digests: further algorithms of manifests, besides SHA-256.

    Raises:
      JobError: a file cannot be read or written, or its name cannot be in a bag.
    """
    names = sorted({"sha256", *digests})
    try:
        with scratch.folder() as folder:
            paths = {name: os.path.join(folder, bags.manifest_name(name)) for name in names}
            with contextlib.ExitStack() as stack:
                lists = {
                    name: stack.enter_context(open(paths[name], "w", encoding="utf-8")) for name in names
                }
                number = size = 0
                for path, length, found in _payload(output, names):
                    number, size = number + 1, size + length
                    for name in names:
                        lists[name].write(f"{found[name]}  {bags.encoded(path)}\n")
            info = f"Bag-Software-Agent: {TOOL} {tool_version()}\nBagging-Date: {date}\nPayload-Oxum: {size}.{number}\n"
            tags = {bags.DECLARATION: _DECLARATION, bags.INFO: info.encode()}
            listed = {
                tag: {name: hashlib.new(name, data).hexdigest() for name in names}
                for tag, data in tags.items()
            }
            storage.write(storage.join(output, bags.INFO), tags[bags.INFO])
            for path in paths.values():
                listed[os.path.basename(path)] = storage.digests(path, names)
                with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    storage.write(storage.join(output, os.path.basename(path)), data)
            for name in names:
                lines = "".join(f"{found[name]}  {tag}\n" for tag, found in sorted(listed.items()))
                storage.write(storage.join(output, "tag" + bags.manifest_name(name)), lines.encode())
    except UnicodeEncodeError as error:
        raise JobError(
            f"a name in {output} is not UTF-8, as names in a bag must be: {error.object!r}"
        ) from error
    except OSError as error:
        raise JobError(unwritable(output, error)) from error


def _payload(output: str, names: Sequence[str]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Yields path (`data/...`), bytes and digests of all files of the payload."""
    data = storage.join(output, bags.DATA)
    with (
        manifest.Latest(data) as records,
        scratch.database() as known,
        ThreadPoolExecutor(verification.READERS) as pool,
    ):
        known.execute("CREATE TABLE files (uri BLOB PRIMARY KEY, digests TEXT) WITHOUT ROWID")
        known.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?)",
            (
                (storage.as_bytes(uri), json.dumps(found))
                for record in records
                for uri, found in verification.files(data, record)
            ),
        )

        def digested(info: storage.FileInfo) -> dict[str, str]:
            return storage.digests(info.uri, names)

        found = (info for info in storage.list_files(data, hidden=True) if _BEING_WRITTEN not in info.uri)
        while batch := list(itertools.islice(found, _BATCH)):
            digests: dict[str, dict[str, str]] = {}
            for info in batch:
                row = known.execute(
                    "SELECT digests FROM files WHERE uri = ?", (storage.as_bytes(info.uri),)
                ).fetchone()
                if row and (recorded := json.loads(row[0])).keys() >= set(names):
                    digests[info.uri] = recorded
            rest = [info for info in batch if info.uri not in digests]
            digests |= zip((info.uri for info in rest), pool.map(digested, rest), strict=True)
            for info in batch:
                yield info.uri[len(output) + 1 :], info.size, digests[info.uri]
