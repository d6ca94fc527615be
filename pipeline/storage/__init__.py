"""Files on local disks, in Google Cloud Storage (gs://) and in S3 (s3://): one set of functions for all."""

import contextlib
import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from pipeline.storage import gcs, local, s3
from pipeline.storage.local import is_leftover
from pipeline.storage.names import (
    GCS,
    S3,
    FileInfo,
    as_bytes,
    can_be_named,
    contains,
    foreign_scheme,
    is_cloud,
    is_gcs,
    is_unicode,
    join,
    normalize,
    scheme,
    split,
    web_uri,
)

__all__ = [
    "GCS",
    "S3",
    "FileInfo",
    "as_bytes",
    "can_be_named",
    "contains",
    "delete",
    "digests",
    "foreign_scheme",
    "is_cloud",
    "is_folder",
    "is_gcs",
    "is_leftover",
    "is_unicode",
    "join",
    "lines",
    "list_files",
    "list_folders",
    "missing_client",
    "normalize",
    "opened",
    "read",
    "scheme",
    "split",
    "stat",
    "web_uri",
    "write",
]

_PART = 1 << 20  # bytes of a file in memory
LONGEST_LINE = 16 << 20  # bytes; longer lines, as in binary files, are cut
_CLOUDS: dict[str, Any] = {GCS: gcs, S3: s3}  # modules with the same functions


def _module(uri: str) -> Any:
    """The module for the object store of a URI, or `local`."""
    return _CLOUDS.get(scheme(uri), local)


def missing_client(uri: str) -> str:
    """What to install before this object store can be used; empty if it is installed, or for a local file."""
    module = _CLOUDS.get(scheme(uri))
    return "" if module is None or module.is_installed() else module.MISSING


def stat(uri: str) -> FileInfo | None:
    """Information about a file, or None if it does not exist. Raises OSError if this is unknown."""
    return _module(uri).stat(uri)


def is_folder(uri: str) -> bool:
    """Whether a folder exists; in an object store, whether there is an object below `uri/`."""
    return next(list_files(uri), None) is not None if is_cloud(uri) else local.is_folder(uri)


def list_files(
    folder: str,
    enter: Callable[[str], bool] = lambda folder: True,
    *,
    hidden: bool = False,
    prefix: str = "",
    below: bool = True,
    root: str = "",
) -> Iterator[FileInfo]:
    """Yields all regular files below `folder` in a fixed order, with one directory in memory at a time.

    Links to folders are followed, unless they lead back to a folder above them. A folder that does not exist has no
    files.

    Args:
      folder: local, gs:// or s3://.
      enter: whether to list a local folder, by its path.
      hidden: list names that begin with a dot, too.
      prefix: list only files whose first name below `folder` begins with it.
      below: list files in folders below, too.
      root: a folder above `folder`. Links to the folders from there on are not followed.

    Raises:
      OSError: a folder could not be listed, or is something else.
    """
    if is_cloud(folder):
        return _module(folder).list_files(folder, hidden, prefix, below)
    return local.list_files(folder, enter if below else lambda folder: False, hidden, prefix, root)


def list_folders(folder: str, *, root: str = "") -> Iterator[str]:
    """Yields the folders directly in `folder`, in a fixed order, without those that begin with a dot.

    Args:
      folder: local, gs:// or s3://.
      root: as for `list_files`.

    Raises:
      OSError: the folder could not be listed.
    """
    return _module(folder).list_folders(folder) if is_cloud(folder) else local.list_folders(folder, root)


def read(uri: str) -> bytes:
    """Reads a whole file.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read, or is a device, a pipe or a folder. Errors of object stores are converted, too.
    """
    return _module(uri).read(uri)


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """Opens a file for reading, in an object store in parts of a few megabytes.

    Raises:
      OSError: as `read`.
    """
    with _module(uri).opened(uri) as file:
        yield file


def digests(uri: str, names: Iterable[str] = ("sha256",)) -> dict[str, str]:
    """Digests of a file, hexadecimal, by the names of `hashlib`. A part of the file is in memory at a time.

    Raises:
      OSError: as `read`.
    """
    found = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with opened(uri) as file:
        while part := file.read(_PART):
            for digest in found.values():
                digest.update(part)
    return {name: digest.hexdigest() for name, digest in found.items()}


def lines(uri: str) -> Iterator[bytes]:
    """Yields the lines of a file, one in memory at a time. Lines are cut at `LONGEST_LINE`.

    Raises:
      OSError: as `read`.
    """
    with opened(uri) as file:
        yield from _lines(file)


def write(uri: str, data: bytes | mmap.mmap, *, keep_existing: bool = False, over: str | None = None) -> None:
    """Writes a file atomically, with durable content.

    Args:
      uri: of the file.
      data: its content; that of a large file can be mapped into memory.
      keep_existing: for records: an existing file is kept, because its name stands for its content; and the name is
        made durable, too. (Other names that a power cut removes are noticed by the next run.)
      over: version of the file that may be replaced; "" if there must be no file. If several writers replace the same
        version at the same time, only one succeeds, except on file systems without locks.

    Raises:
      FileExistsError: there is another version than `over`.
      OSError: the file could not be written; nothing is left behind.
    """
    _module(uri).write(uri, data, keep_existing, over)


def delete(uri: str) -> None:
    """Removes a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        _module(uri).delete(uri)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
