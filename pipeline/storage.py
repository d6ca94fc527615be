"""Files, local or in Google Cloud Storage: listed, read, and written whole or not at all."""

import contextlib
import errno
import functools
import mimetypes
import os
import secrets
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

GCS = "gs://"


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
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


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
            blob = _client().bucket(bucket).get_blob(name)
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


def list_files(folder: str, enter: Callable[[str], bool] = lambda folder: True) -> Iterator[FileInfo]:
    """Every regular file below `folder`, in a fixed order, one directory in memory at a time.

    Names that begin with a dot are left out. Links to folders are followed, unless they lead back to a
    folder that they are in. A folder that is not there has no files.

    Args:
      enter: whether to look into a local folder, by its path.

    Raises:
      OSError: a folder could not be listed.
    """
    if is_gcs(folder):
        bucket, name = _split(folder)
        prefix = f"{name}/" if name else ""
        fields = "items(name,size,generation),nextPageToken"
        with _cloud_errors(folder):
            for blob in _client().list_blobs(bucket, prefix=prefix, fields=fields):
                if not blob.name.endswith("/") and "/." not in f"/{blob.name[len(prefix) :]}":
                    yield _blob_info(blob, bucket)
    elif os.path.isdir(folder):
        yield from _walk(folder, enter, frozenset())


def read(uri: str) -> bytes:
    """The whole file.

    Raises:
      FileNotFoundError, OSError: also for Cloud Storage, whose own errors are wrapped.
    """
    if not is_gcs(uri):
        with open(uri, "rb") as file:
            return file.read()
    bucket, name = _split(uri)
    with _cloud_errors(uri):
        return _client().bucket(bucket).blob(name).download_as_bytes()


def write(uri: str, data: bytes, *, keep_existing: bool = False) -> None:
    """Writes a file that is there whole, its content durable, or not at all.

    Args:
      keep_existing: for records: a file that is already there stays as it is (its name stands for its content),
        and the name is made durable, too. Another name that a power cut takes back is missed by the next run.

    Raises:
      OSError: the file could not be written; nothing is left behind.
    """
    if not is_gcs(uri):
        return _write_local(uri, data, keep_existing)
    bucket, name = _split(uri)
    generation = {"if_generation_match": 0} if keep_existing else {}
    # An earlier try of the same bundle may have written it.
    with contextlib.suppress(FileExistsError), _cloud_errors(uri):
        _client().bucket(bucket).blob(name).upload_from_string(data, _content_type(uri), **generation)


def delete(uri: str) -> None:
    """Removes a file of ours; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        if not is_gcs(uri):
            return os.unlink(uri)
        bucket, name = _split(uri)
        with _cloud_errors(uri):
            _client().bucket(bucket).blob(name).delete()


def _walk(folder: str, enter: Callable[[str], bool], above: frozenset) -> Iterator[FileInfo]:
    status = os.stat(folder)
    above = above | {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in names:
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError:  # a dangling link, or gone since: reading it gives the record its reason
            yield FileInfo(path, -1, "")
            continue
        if stat_module.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in above and enter(path):
                yield from _walk(path, enter, above)
        elif stat_module.S_ISREG(status.st_mode):
            yield FileInfo(path, status.st_size, str(status.st_mtime_ns))


def _write_local(path: str, data: bytes, keep_existing: bool) -> None:
    """An unnamed file, filled and synced, then linked into place: no half file has a name at any moment."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
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
        if keep_existing and os.path.exists(path):
            return None
        os.replace(named, path)
        named = None
        return _sync_folder(folder) if keep_existing else None
    finally:
        if named is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(named)


def _spare_name(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".archive-colorize-{secrets.token_hex(8)}")


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

    try:
        yield
    except exceptions.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", uri) from error
    except exceptions.PreconditionFailed as error:
        raise FileExistsError(errno.EEXIST, "there is such an object already", uri) from error
    except exceptions.Forbidden as error:
        raise PermissionError(errno.EACCES, str(error), uri) from error
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        raise OSError(errno.EIO, str(error), uri) from error


@functools.cache
def _client():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):  # looking for credentials would cost 25 s
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    return storage.Client()
