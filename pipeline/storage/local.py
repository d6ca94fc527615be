"""Files on local disks and network mounts: listing, reading, and atomic writing."""

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import re
import secrets
import stat as stat_module
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.storage.names import FileInfo, is_cloud

_TEMPORARY = ".archive-colorize-"  # prefix of files that are being written
_LEFTOVER = re.compile(re.escape(_TEMPORARY) + "[0-9a-f]{16}")


def stat(path: str) -> FileInfo | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileInfo(path, status.st_size, str(status.st_mtime_ns))


def is_folder(path: str) -> bool:
    return os.path.isdir(path)


def list_files(
    folder: str, enter: Callable[[str], bool], hidden: bool, prefix: str, root: str
) -> Iterator[FileInfo]:
    if os.path.isdir(folder):
        yield from _walk(folder, enter, hidden, _identities_above(folder, root), prefix)
    elif os.path.lexists(folder):
        raise _not_a_folder(folder)


def list_folders(folder: str, root: str) -> Iterator[str]:
    above = _identities_above(folder, root) | {_identity(folder)}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path) and _identity(path) not in above:
            yield path


def read(path: str) -> bytes:
    with opened(path) as file:
        return file.read()


def opened(path: str) -> BinaryIO:
    """Opens a regular file for reading. Reading a device or a pipe might never end, or never begin."""
    mode = os.stat(path).st_mode
    if stat_module.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a regular file", path)
    if not stat_module.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a regular file", path)
    return open(path, "rb")


def write(path: str, data: bytes | mmap.mmap, keep_existing: bool, over: str | None) -> None:
    _write(path, data, keep_existing) if over is None else _write_over(path, data, over)


def delete(path: str) -> None:
    """Raises FileNotFoundError if there is no such file."""
    os.unlink(path)


def is_leftover(info: FileInfo, since: str) -> bool:
    """Whether a file is a temporary file of a killed process, older than a version of another file."""
    name = info.uri.rpartition("/")[2]
    return not is_cloud(info.uri) and bool(_LEFTOVER.fullmatch(name)) and int(info.version or 0) < int(since)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _identities_above(folder: str, root: str) -> frozenset[tuple[int, int]]:
    """Identities of the folders from `root` to above `folder`. A link to one of them must not be followed."""
    found = set()
    while root and folder != root and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        found.add(_identity(folder))
    return frozenset(found)


def _walk(
    folder: str, enter: Callable[[str], bool], hidden: bool, above: frozenset, prefix: str = ""
) -> Iterator[FileInfo]:
    status = os.stat(folder)
    above = above | {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.startswith(prefix) and (hidden or not entry.name.startswith("."))
        )
    for name in names:
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError:  # a broken link, or deleted meanwhile; reading it gives the reason
            yield FileInfo(path, -1, "")
            continue
        if stat_module.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in above and enter(path):
                yield from _walk(path, enter, hidden, above)
        elif stat_module.S_ISREG(status.st_mode):
            yield FileInfo(path, status.st_size, str(status.st_mtime_ns))


def _write(path: str, data: bytes | mmap.mmap, keep_existing: bool) -> None:
    """Writes and syncs a file without a name, and then links it, so that no partial file ever has a name."""
    folder = os.path.dirname(path)
    _make_folder(folder)
    named = None
    try:
        fd = os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        named = _spare_name(path)  # a file system without unnamed files, such as NFS
        fd = os.open(named, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(fd, "wb", buffering=0) as file:
            at = 0
            while at < len(data):
                with memoryview(data) as view, view[at:] as rest:
                    at += file.write(rest)
            os.fsync(fd)
            if named is None:
                # With src_dir_fd, Python calls linkat(AT_SYMLINK_FOLLOW), which /proc/self/fd needs.
                link = functools.partial(os.link, f"/proc/self/fd/{fd}", src_dir_fd=fd)
                try:
                    link(path)
                    return _sync_folder(folder) if keep_existing else None
                except FileExistsError:
                    if keep_existing:
                        return None
                spare = _spare_name(path)
                link(spare)
                named = spare
        if keep_existing:
            try:
                os.link(named, path)
                return _sync_folder(folder)
            except FileExistsError:
                return None
            except OSError:  # a file system without links
                if os.path.exists(path):
                    return None
        os.replace(named, path)
        named = None
        return _sync_folder(folder) if keep_existing else None
    finally:
        if named is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(named)


def _write_over(path: str, data: bytes | mmap.mmap, version: str) -> None:
    folder = os.path.dirname(path)
    _make_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        found = stat(path)
        if (found.version if found else "") != version:
            raise FileExistsError(errno.EEXIST, "there is another version", path)
        _write(path, data, keep_existing=False)
    finally:
        os.close(fd)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # `write` raises FileExistsError only for the file itself
        raise _not_a_folder(folder) from error


def _not_a_folder(path: str) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, "it is not a folder", path)


def _spare_name(path: str) -> str:
    return os.path.join(os.path.dirname(path), f"{_TEMPORARY}{secrets.token_hex(8)}")


def _sync_folder(folder: str) -> None:
    """Makes the names in a folder durable, if the file system supports this."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
