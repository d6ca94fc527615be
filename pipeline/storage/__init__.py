"""Files, local or in Google Cloud Storage: listed, read, and written whole or not at all.

Calls of Cloud Storage are tried again, with growing pauses, while it is busy or cannot be reached, for up to
`RETRY_SECONDS`. To repeat an upload or a deletion does no harm: an object is written whole or not at all.
"""

import contextlib
import errno
import fcntl
import functools
import mimetypes
import os
import re
import secrets
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

GCS = "gs://"
RETRY_SECONDS = 120
LONGEST_LINE = 16 << 20  # bytes; of a file that is no text, the rest of a line is passed over

_TEMPORARY = ".archive-colorize-"  # begins the names of files that are being written
_LEFTOVER = re.compile(re.escape(_TEMPORARY) + "[0-9a-f]{16}")
_CHUNK = 8 << 20  # bytes of an object that is read bit by bit
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class FileInfo:
    uri: str
    size: int  # bytes
    version: str  # changes when the content may have changed: mtime in ns, or the object's generation


def is_gcs(uri: str) -> bool:
    return uri.startswith(GCS)


def normalize(uri: str) -> str:
    """An absolute local path, or a gs:// URI without a trailing slash. Relative paths are the caller's."""
    if is_gcs(uri):
        return GCS + uri.removeprefix(GCS).rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def foreign_scheme(uri: str) -> str:
    """`https` of https://..., `s3` of s3://...: a place that this program cannot reach; empty for all others."""
    scheme = _SCHEME.match(uri)
    return "" if scheme is None or uri.startswith((GCS, "file://")) else scheme[1]


def as_bytes(name: str) -> bytes:
    """A path as bytes, another for every path.

    A local name that is not UTF-8 gives the bytes that the file system has. A text that cannot be a name, such as
    one with half of a surrogate pair, gives bytes that begin with NUL, as no name does.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return b"\0" + name.encode("utf-8", "surrogatepass")


def can_be_named(uri: str) -> bool:
    """Whether a file can have this name: its text has bytes there, and for Cloud Storage they are UTF-8."""
    try:
        uri.encode() if is_gcs(uri) else os.fsencode(uri)
    except UnicodeEncodeError:
        return False
    return "\0" not in uri


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def contains(folder: str, uri: str) -> bool:
    """Whether `uri` is `folder` or lies in it, symbolic links resolved."""
    if is_gcs(folder) != is_gcs(uri):
        return False
    if not is_gcs(folder):
        folder, uri = os.path.realpath(folder), os.path.realpath(uri)
    return PurePosixPath(uri).is_relative_to(PurePosixPath(folder))


def stat(uri: str) -> FileInfo | None:
    """None where there is no such file. Raises OSError where that cannot be told."""
    if is_gcs(uri):
        bucket, name = _split(uri)
        with _cloud_errors(uri):
            blob = _client().bucket(bucket).get_blob(name, retry=_retry())
        return _blob_info(blob, bucket) if blob else None
    try:
        status = os.stat(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileInfo(uri, status.st_size, str(status.st_mtime_ns))


def is_folder(uri: str) -> bool:
    """In Cloud Storage: whether any object lies under `uri/`."""
    if is_gcs(uri):
        return next(list_files(uri), None) is not None
    return os.path.isdir(uri)


def list_files(
    folder: str, enter: Callable[[str], bool] = lambda folder: True, *, hidden: bool = False, prefix: str = ""
) -> Iterator[FileInfo]:
    """Every regular file below `folder`, in a fixed order, one directory in memory at a time.

    Names that begin with a dot are left out, unless `hidden` is set. Links to folders are followed, unless they
    lead back to a folder that they are in. A folder that is not there has no files.

    Args:
      enter: whether to look into a local folder, by its path.
      prefix: how the first name below `folder` begins; others are not looked at.

    Raises:
      OSError: a folder could not be listed, or is something else.
    """
    if is_gcs(folder):
        bucket, name = _split(folder)
        base = f"{name}/" if name else ""
        fields = "items(name,size,generation),nextPageToken"
        with _cloud_errors(folder):
            blobs = _client().list_blobs(bucket, prefix=base + prefix, fields=fields, retry=_retry())
            for blob in blobs:
                if not blob.name.endswith("/") and (hidden or "/." not in f"/{blob.name[len(base) :]}"):
                    yield _blob_info(blob, bucket)
    elif os.path.isdir(folder):
        yield from _walk(folder, enter, hidden, frozenset(), prefix)
    elif os.path.lexists(folder):
        raise _no_folder(folder)


def read(uri: str) -> bytes:
    """The whole file.

    Raises:
      FileNotFoundError, OSError: also for Cloud Storage, whose own errors are wrapped, and for a device, a pipe or
        a folder.
    """
    if not is_gcs(uri):
        with _opened(uri) as file:
            return file.read()
    bucket, name = _split(uri)
    with _cloud_errors(uri):
        return _client().bucket(bucket).blob(name).download_as_bytes(retry=_retry())


def lines(uri: str) -> Iterator[bytes]:
    """The lines of a file, one in memory at a time; of one longer than `LONGEST_LINE`, its beginning.

    Raises:
      OSError: as `read`.
    """
    if not is_gcs(uri):
        with _opened(uri) as file:
            yield from _lines(file)
        return
    bucket, name = _split(uri)
    with _cloud_errors(uri):
        blob = _client().bucket(bucket).get_blob(name, retry=_retry())
        if blob is None:
            raise FileNotFoundError(errno.ENOENT, "no such object or bucket", uri)
        version = _client().bucket(bucket).blob(name, generation=blob.generation)
        with version.open("rb", chunk_size=_CHUNK, retry=_retry()) as file:
            yield from _lines(file)


def write(uri: str, data: bytes, *, keep_existing: bool = False, over: str | None = None) -> None:
    """Writes a file that is there whole, its content durable, or not at all.

    Args:
      keep_existing: for records: a file that is already there stays as it is (its name stands for its content),
        and the name is made durable, too. Another name that a power cut takes back is missed by the next run.
      over: the version of the file that may be replaced, "" where there must be none. Of several that write over
        the same version at once, one does; on file systems without locks that is not certain.

    Raises:
      FileExistsError: there is another version than `over`.
      OSError: the file could not be written; nothing is left behind.
    """
    if not is_gcs(uri):
        return _write_local(uri, data, keep_existing) if over is None else _write_over(uri, data, over)
    bucket, name = _split(uri)
    generation = {"if_generation_match": 0} if keep_existing else {}
    if over is not None:
        generation = {"if_generation_match": int(over or 0)}
    try:
        with _cloud_errors(uri):
            blob = _client().bucket(bucket).blob(name)
            blob.upload_from_string(data, _content_type(uri), retry=_retry(), **generation)
    except FileExistsError:
        # An earlier try of the same call or, of a record, of the same bundle may have written it.
        if not keep_existing and read(uri) != data:
            raise


def delete(uri: str) -> None:
    """Removes a file of ours; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        if not is_gcs(uri):
            return os.unlink(uri)
        bucket, name = _split(uri)
        with _cloud_errors(uri):
            _client().bucket(bucket).blob(name).delete(retry=_retry())


def is_leftover(info: FileInfo, since: str) -> bool:
    """Whether a file is one that `write` was at and a killed process left, last touched before a version of a file."""
    name = info.uri.rpartition("/")[2]
    return not is_gcs(info.uri) and bool(_LEFTOVER.fullmatch(name)) and int(info.version or 0) < int(since)


def _opened(path: str):
    """A regular file, for reading. Of devices and pipes there may be no end, or no beginning."""
    mode = os.stat(path).st_mode
    if stat_module.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, no regular file", path)
    if not stat_module.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, no regular file", path)
    return open(path, "rb")


def _lines(file) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)


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
        except OSError:  # a dangling link, or gone since: reading it gives the record its reason
            yield FileInfo(path, -1, "")
            continue
        if stat_module.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in above and enter(path):
                yield from _walk(path, enter, hidden, above)
        elif stat_module.S_ISREG(status.st_mode):
            yield FileInfo(path, status.st_size, str(status.st_mtime_ns))


def _write_local(path: str, data: bytes, keep_existing: bool) -> None:
    """An unnamed file, filled and synced, then linked into place: no half file has a name at any moment."""
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
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
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


def _write_over(path: str, data: bytes, version: str) -> None:
    folder = os.path.dirname(path)
    _make_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        there = stat(path)
        if (there.version if there else "") != version:
            raise FileExistsError(errno.EEXIST, "there is another version", path)
        _write_local(path, data, keep_existing=False)
    finally:
        os.close(fd)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # which `write` says of the file itself alone
        raise _no_folder(folder) from error


def _no_folder(path: str) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, "it is no folder", path)


def _spare_name(path: str) -> str:
    return os.path.join(os.path.dirname(path), f"{_TEMPORARY}{secrets.token_hex(8)}")


def _sync_folder(folder: str) -> None:
    """Makes the names in a folder durable, where its file system has that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _content_type(uri: str) -> str:
    return mimetypes.guess_type(uri)[0] or "application/octet-stream"


def _split(uri: str) -> tuple[str, str]:
    bucket, _, name = uri[len(GCS) :].partition("/")
    return bucket, name


def _blob_info(blob, bucket: str) -> FileInfo:
    return FileInfo(f"{GCS}{bucket}/{blob.name}", blob.size, str(blob.generation))


@contextlib.contextmanager
def _cloud_errors(uri: str) -> Iterator[None]:
    """Cloud Storage's errors as the OSError that a local file would give, which those of the network are."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media import DataCorruption
    from requests import RequestException

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", uri) from error
    except exceptions.PreconditionFailed as error:
        raise FileExistsError(errno.EEXIST, "there is such an object already", uri) from error
    except exceptions.Forbidden as error:
        raise PermissionError(errno.EACCES, _line(error), uri) from error
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "no object can have this name", uri) from error
    except (exceptions.GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        raise OSError(errno.EIO, _line(error), uri) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@functools.cache
def _retry():
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=16, multiplier=2).with_timeout(RETRY_SECONDS)


@functools.cache
def _client():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):  # looking for credentials would cost 25 s
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    return storage.Client()
