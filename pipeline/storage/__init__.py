"""Files on local disks and in Google Cloud Storage (gs://): one set of functions for both."""

import contextlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.storage import cloud, local
from pipeline.storage.local import is_leftover
from pipeline.storage.names import (
    GCS,
    FileInfo,
    as_bytes,
    can_be_named,
    contains,
    foreign_scheme,
    is_gcs,
    join,
    normalize,
)

__all__ = [
    "GCS",
    "FileInfo",
    "as_bytes",
    "can_be_named",
    "contains",
    "delete",
    "foreign_scheme",
    "is_folder",
    "is_gcs",
    "is_leftover",
    "join",
    "lines",
    "list_files",
    "list_folders",
    "normalize",
    "read",
    "stat",
    "write",
]

LONGEST_LINE = 16 << 20  # bytes; longer lines, as in binary files, are cut


def stat(uri: str) -> FileInfo | None:
    """Information about a file, or None if it does not exist. Raises OSError if this is unknown."""
    return cloud.stat(uri) if is_gcs(uri) else local.stat(uri)


def is_folder(uri: str) -> bool:
    """Whether a folder exists; in Cloud Storage, whether there is an object below `uri/`."""
    return next(list_files(uri), None) is not None if is_gcs(uri) else local.is_folder(uri)


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
      folder: local or gs://.
      enter: whether to list a local folder, by its path.
      hidden: list names that begin with a dot, too.
      prefix: list only files whose first name below `folder` begins with it.
      below: list files in folders below, too.
      root: a folder above `folder`. Links to the folders from there on are not followed.

    Raises:
      OSError: a folder could not be listed, or is something else.
    """
    if is_gcs(folder):
        return cloud.list_files(folder, hidden, prefix, below)
    return local.list_files(folder, enter if below else lambda folder: False, hidden, prefix, root)


def list_folders(folder: str, *, root: str = "") -> Iterator[str]:
    """Yields the folders directly in `folder`, in a fixed order, without those that begin with a dot.

    Args:
      folder: local or gs://.
      root: as for `list_files`.

    Raises:
      OSError: the folder could not be listed.
    """
    return cloud.list_folders(folder) if is_gcs(folder) else local.list_folders(folder, root)


def read(uri: str) -> bytes:
    """Reads a whole file.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read, or is a device, a pipe or a folder. Errors of Cloud Storage are converted, too.
    """
    return cloud.read(uri) if is_gcs(uri) else local.read(uri)


def lines(uri: str) -> Iterator[bytes]:
    """Yields the lines of a file, one in memory at a time. Lines are cut at `LONGEST_LINE`.

    Raises:
      OSError: as `read`.
    """
    with cloud.opened(uri) if is_gcs(uri) else local.open_regular(uri) as file:
        yield from _lines(file)


def write(uri: str, data: bytes, *, keep_existing: bool = False, over: str | None = None) -> None:
    """Writes a file atomically, with durable content.

    Args:
      uri: of the file.
      data: its content.
      keep_existing: for records: an existing file is kept, because its name stands for its content; and the name is
        made durable, too. (Other names that a power cut removes are noticed by the next run.)
      over: version of the file that may be replaced; "" if there must be no file. If several writers replace the same
        version at the same time, only one succeeds, except on file systems without locks.

    Raises:
      FileExistsError: there is another version than `over`.
      OSError: the file could not be written; nothing is left behind.
    """
    (cloud if is_gcs(uri) else local).write(uri, data, keep_existing, over)


def delete(uri: str) -> None:
    """Removes a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        cloud.delete(uri) if is_gcs(uri) else local.delete(uri)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
