"""Temporary folders and databases of this process, which the next one clears away should this one be killed.

A folder is locked while its process lives. One that is not locked belongs to nobody any more, whatever ended its
process: the kernel takes a lock back.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from pipeline.collections import JobError

PREFIX = "archive-colorize-"

_locks: dict[str, int] = {}  # of this process's folders: descriptors that hold a lock each


def make() -> str:
    """A new folder, which stays until `remove` or this process's end.

    Raises:
      JobError: there is no place for temporary files, or no room in it.
    """
    try:
        _clear(tempfile.gettempdir())
        while True:
            folder = tempfile.mkdtemp(prefix=PREFIX)
            fd = _lock(folder)
            if fd is not None and os.path.isdir(folder):
                break  # else another process has just taken it for a leftover
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
    """A folder for as long as the block lasts. Raises JobError as `make` does."""
    made = make()
    try:
        yield made
    finally:
        remove(made)


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """An empty database in a file, for as long as the block lasts: what is too large for memory.

    Raises:
      JobError: there is no room for it, also for what the block writes to it.
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
    """In words: temporary files cannot be written."""
    where = f"in {tempfile.tempdir}" if tempfile.tempdir else "anywhere"
    words = getattr(error, "strerror", None) or str(error)
    return f"cannot write temporary files {where}: {words}; set TMPDIR to a folder with room for them"


def _clear(parent: str) -> None:
    """Removes this user's folders that no process holds."""
    names = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in names:
        with contextlib.suppress(OSError):  # another's, or gone
            if os.stat(path, follow_symlinks=False).st_uid != os.getuid() or path in _locks:
                continue
            fd = _lock(path)
            if fd is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)


def _lock(folder: str) -> int | None:
    """A descriptor that holds the folder's lock, or None where another process has it."""
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
