"""Objects in Google Cloud Storage: listing, reading, and atomic writing.

Calls are repeated with growing pauses for up to `RETRY_SECONDS`, while the service is busy or cannot be reached.
Repeating an upload or a deletion is harmless, because objects are written atomically. The client is loaded by the
first call; the extra `gcp` installs it.
"""

import contextlib
import errno
import functools
import importlib.util
import mimetypes
import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.storage import failures
from pipeline.storage.names import GCS, FileInfo, split

RETRY_SECONDS = 120
MISSING = "the client of Google Cloud Storage is not installed: pip install 'google-cloud-storage<3'"

_CHUNK = 8 << 20  # bytes of an object per request


def is_installed() -> bool:
    """Whether the client is installed."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:  # no google.cloud
        return False


def stat(uri: str) -> FileInfo | None:
    bucket, name = split(uri)
    with _errors(uri):
        blob = _client().bucket(bucket).get_blob(name, retry=_retry())
    return _info(blob, bucket) if blob else None


def list_files(folder: str, hidden: bool, prefix: str, below: bool) -> Iterator[FileInfo]:
    """Lists objects; without `below`, only those directly in the folder."""
    bucket, name = split(folder)
    base = f"{name}/" if name else ""
    fields, delimiter = "items(name,size,generation),nextPageToken", None if below else "/"
    with _errors(folder):
        blobs = _client().list_blobs(
            bucket, prefix=base + prefix, fields=fields, delimiter=delimiter, retry=_retry()
        )
        for blob in blobs:
            if not blob.name.endswith("/") and (hidden or "/." not in f"/{blob.name[len(base) :]}"):
                yield _info(blob, bucket)


def list_folders(folder: str) -> Iterator[str]:
    bucket, name = split(folder)
    base = f"{name}/" if name else ""
    with _errors(folder):
        pages = (
            _client()
            .list_blobs(bucket, prefix=base, fields="prefixes,nextPageToken", delimiter="/", retry=_retry())
            .pages
        )
        for page in pages:
            for prefix in sorted(page.prefixes):
                if not prefix[len(base) :].startswith("."):
                    yield f"{GCS}{bucket}/{prefix.rstrip('/')}"


def read(uri: str) -> bytes:
    bucket, name = split(uri)
    with _errors(uri):
        return _client().bucket(bucket).blob(name).download_as_bytes(retry=_retry())


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """Opens the present version of an object for reading in parts of a few megabytes."""
    bucket, name = split(uri)
    with _errors(uri):
        blob = _client().bucket(bucket).get_blob(name, retry=_retry())
        if blob is None:
            raise FileNotFoundError(errno.ENOENT, "no such object or bucket", uri)
        version = _client().bucket(bucket).blob(name, generation=blob.generation)
        with version.open("rb", chunk_size=_CHUNK, retry=_retry()) as file:
            yield file


def write(uri: str, data: bytes | mmap.mmap, keep_existing: bool, over: str | None) -> None:
    """Writes an object; `over` is the generation that it may replace."""
    bucket, name = split(uri)
    condition = {} if over is None and not keep_existing else {"if_generation_match": int(over or 0)}
    try:
        with _errors(uri):
            blob = _client().bucket(bucket).blob(name)
            content_type = mimetypes.guess_type(uri)[0] or "application/octet-stream"
            more = {"retry": _retry(), **condition}
            if isinstance(data, bytes):
                blob.upload_from_string(data, content_type, **more)
            else:
                blob.upload_from_file(data, rewind=True, size=len(data), content_type=content_type, **more)
    except FileExistsError:
        # An earlier attempt of this call, or for records of the same bundle, may have written it.
        if not keep_existing and read(uri) != data[:]:
            raise


def delete(uri: str) -> None:
    """Raises FileNotFoundError if there is no such object."""
    bucket, name = split(uri)
    with _errors(uri):
        _client().bucket(bucket).blob(name).delete(retry=_retry())


def _info(blob, bucket: str) -> FileInfo:
    return FileInfo(f"{GCS}{bucket}/{blob.name}", blob.size, str(blob.generation))


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Converts errors of Cloud Storage and of the network to OSErrors, as for local files."""
    if not is_installed():
        raise failures.not_installed(MISSING, uri)
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media import DataCorruption
    from requests import RequestException

    try:
        yield
    except exceptions.NotFound as error:
        raise failures.not_found(uri) from error
    except exceptions.PreconditionFailed as error:
        raise failures.exists(uri) from error
    except exceptions.Forbidden as error:
        raise failures.forbidden(error, uri) from error
    except UnicodeEncodeError as error:
        raise failures.unnameable(uri) from error
    except (exceptions.GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        raise failures.other(error, uri) from error


@functools.cache
def _retry():
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=16, multiplier=2).with_timeout(RETRY_SECONDS)


@functools.cache
def _client():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):  # searching for credentials would take 25 s
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    return storage.Client()
