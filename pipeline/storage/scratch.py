"""Temporary folders and databases of this process. If it is killed, the next process removes them.

A folder is locked while its process runs. The kernel releases the lock when the process ends for any reason, so a
folder without a lock can be removed.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from pipeline.errors import JobError

PREFIX = "archive-colorize-"

_locks: dict[str, int] = {}  # folders of this process, with the descriptors of their locks


def make() -> str:
    """Makes a folder, which exists until `remove` or the end of this process.

    Raises:
      JobError: there is no folder for temporary files, or it is full.
    """
    try:
        _clear(tempfile.gettempdir())
        while True:
            folder = tempfile.mkdtemp(prefix=PREFIX)
            try:
                fd = _lock(folder)
            except FileNotFoundError:
                continue  # another process has just removed it
            if fd is not None and os.path.isdir(folder):
                break  # otherwise another process is removing it or has just removed it
            if fd is not None:
                os.close(fd)
    except OSError as error:
        raise JobError(no_room(error)) from error
    _locks[folder] = fd
    return folder


def remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    fd = _locks.pop(folder, None)
    if fd is not None:
        os.close(fd)


def remove_all() -> None:
    for folder in list(_locks):
        remove(folder)


atexit.register(remove_all)


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Yields a folder that exists within the block. Raises JobError like `make`."""
    made = make()
    try:
        yield made
    finally:
        remove(made)


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """Yields an empty database in a file, which exists within the block, for data that are too large for memory.

    Raises:
      JobError: there is no room for it, or for data that the block writes.
    """
    with folder() as made:
        try:
            with contextlib.closing(
                sqlite3.connect(os.path.join(made, "records.db"), isolation_level=None)
            ) as connection:
                for pragma in ("page_size=16384", "cache_size=-32000", "journal_mode=OFF", "synchronous=OFF"):
                    connection.execute(f"PRAGMA {pragma}")
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as error:
            raise JobError(no_room(error)) from error


def no_room(error: Exception) -> str:
    """Describes that temporary files cannot be written."""
    where = f"in {tempfile.tempdir}" if tempfile.tempdir else "anywhere"
    words = getattr(error, "strerror", None) or str(error)
    return f"cannot write temporary files {where}: {words}; set TMPDIR to a folder with room for them"


def _clear(parent: str) -> None:
    """Removes folders of this user that no process has locked."""
    names = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in names:
        with contextlib.suppress(OSError):  # of another user, or deleted
            if os.stat(path, follow_symlinks=False).st_uid != os.getuid() or path in _locks:
                continue
            fd = _lock(path)
            if fd is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)


def _lock(folder: str) -> int | None:
    """Locks a folder. Returns the descriptor, or None if another process holds the lock."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd
