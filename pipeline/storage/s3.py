"""Objects in S3 and compatible stores, such as MinIO and Ceph: listing, reading, and atomic writing.

Credentials, region and endpoint come from the usual places of AWS, such as `AWS_PROFILE` and `AWS_ENDPOINT_URL_S3`.
Calls are repeated with growing pauses while the service is busy or cannot be reached. The client is loaded by the
first call; the extra `s3` installs it. Conditional writes need a store that knows `If-Match` and `If-None-Match`.
"""

import base64
import contextlib
import functools
import hashlib
import importlib.util
import io
import mimetypes
import mmap
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.storage import failures
from pipeline.storage.names import S3, FileInfo, split

MISSING = "the client of S3 is not installed: pip install boto3 (the extra s3)"

_ATTEMPTS = 10  # of a call, with pauses of up to 20 s: about two minutes
_CHUNK = 8 << 20  # bytes of an object per request
_MISSING_CODES = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_CONDITION_CODES = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_FORBIDDEN_CODES = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


def is_installed() -> bool:
    """Whether the client is installed."""
    try:
        return importlib.util.find_spec("boto3") is not None
    except ValueError:  # it is known to be missing
        return False


def stat(uri: str) -> FileInfo | None:
    bucket, name = split(uri)
    try:
        with _errors(uri):
            found = _client().head_object(Bucket=bucket, Key=name)
    except FileNotFoundError:
        return None
    return _info(bucket, name, found["ContentLength"], found["ETag"])


def list_files(folder: str, hidden: bool, prefix: str, below: bool) -> Iterator[FileInfo]:
    """Lists objects; without `below`, only those directly in the folder."""
    bucket, base = _base(folder)
    with _errors(folder):
        for page in _pages(bucket, base + prefix, "" if below else "/"):
            for entry in page.get("Contents", ()):
                name = entry["Key"]
                if not name.endswith("/") and (hidden or "/." not in f"/{name[len(base) :]}"):
                    yield _info(bucket, name, entry["Size"], entry["ETag"])


def list_folders(folder: str) -> Iterator[str]:
    bucket, base = _base(folder)
    with _errors(folder):
        for page in _pages(bucket, base, "/"):
            for entry in page.get("CommonPrefixes", ()):
                if not entry["Prefix"][len(base) :].startswith("."):
                    yield f"{S3}{bucket}/{entry['Prefix'].rstrip('/')}"


def read(uri: str) -> bytes:
    bucket, name = split(uri)
    with _errors(uri):
        return _body(Bucket=bucket, Key=name)


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """Opens the present version of an object for reading in parts of a few megabytes."""
    bucket, name = split(uri)
    with _errors(uri):
        found = _client().head_object(Bucket=bucket, Key=name)
        parts = _Parts(found["ContentLength"], Bucket=bucket, Key=name, IfMatch=found["ETag"])
        with io.BufferedReader(parts, _CHUNK) as file:
            yield file


def write(uri: str, data: bytes | mmap.mmap, keep_existing: bool, over: str | None) -> None:
    """Writes an object; `over` is the entity tag that it may replace."""
    bucket, name = split(uri)
    condition = {}
    if over:
        condition = {"IfMatch": f'"{over}"'}
    elif over == "" or keep_existing:
        condition = {"IfNoneMatch": "*"}
    try:
        with _errors(uri):
            _client().put_object(
                Bucket=bucket,
                Key=name,
                Body=data,
                ContentType=mimetypes.guess_type(uri)[0] or "application/octet-stream",
                ContentMD5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
                **condition,
            )
    except FileExistsError:
        # An earlier attempt of this call, or for records of the same bundle, may have written it.
        if not keep_existing and read(uri) != data[:]:
            raise


def delete(uri: str) -> None:
    """Removes an object, if it exists."""
    bucket, name = split(uri)
    with _errors(uri):
        _client().delete_object(Bucket=bucket, Key=name)


def _base(folder: str) -> tuple[str, str]:
    bucket, name = split(folder)
    return bucket, f"{name}/" if name else ""


def _pages(bucket: str, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
    pages = _client().get_paginator("list_objects_v2")
    return iter(pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter=delimiter))


def _info(bucket: str, name: str, size: int, tag: str) -> FileInfo:
    return FileInfo(f"{S3}{bucket}/{name}", size, tag.strip('"'))


def _body(**request) -> bytes:
    """The bytes of an object or of a part of it. The client does not repeat a connection that breaks in the body."""
    from botocore import exceptions

    broken = (
        exceptions.IncompleteReadError,
        exceptions.ReadTimeoutError,
        exceptions.ResponseStreamingError,
    )
    pause = 0.5
    while True:
        try:
            return _client().get_object(**request)["Body"].read()
        except broken:
            if pause > 60:
                raise
            time.sleep(pause)
            pause *= 2


class _Parts(io.RawIOBase):
    """An object as a file that is read in parts."""

    def __init__(self, size: int, **request):
        self._size, self._at, self._request = size, 0, request

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = _body(Range=f"bytes={self._at}-{self._at + length - 1}", **self._request)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Converts errors of the store and of the network to OSErrors, as for local files."""
    if not is_installed():
        raise failures.not_installed(MISSING, uri)
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _MISSING_CODES:
            raise failures.not_found(uri) from error
        if code in _CONDITION_CODES:
            raise failures.exists(uri) from error
        if code in _FORBIDDEN_CODES:
            raise failures.forbidden(error, uri) from error
        raise failures.other(error, uri) from error
    except NoCredentialsError as error:
        words = "no credentials for S3 were found (AWS_PROFILE, AWS_ACCESS_KEY_ID or a role)"
        raise failures.forbidden(words, uri) from error
    except UnicodeEncodeError as error:
        raise failures.unnameable(uri) from error
    except (BotoCoreError, HTTPClientError) as error:
        raise failures.other(error, uri) from error


@functools.cache
def _client() -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.session.Session()
    config = Config(
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        # Compatible stores may not know the newer checksums. `write` sends a digest that all of them check.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=64,
    )
    client = session.client("s3", config=config)
    if "amazonaws.com" not in client.meta.endpoint_url:  # other stores have no host name for each bucket
        client = session.client("s3", config=config.merge(Config(s3={"addressing_style": "path"})))
    return client
