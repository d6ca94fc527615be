"""Names of files, local and in object stores."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

GCS, S3 = "gs://", "s3://"
CLOUDS = (GCS, S3)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class FileInfo:
    uri: str
    size: int  # bytes
    version: str  # changes with the content: modification time in ns, generation or entity tag


def is_gcs(uri: str) -> bool:
    return uri.startswith(GCS)


def is_cloud(uri: str) -> bool:
    """Whether a URI is in an object store."""
    return uri.startswith(CLOUDS)


def split(uri: str) -> tuple[str, str]:
    """Bucket and name of an object."""
    bucket, _, name = uri[len(scheme(uri)) :].partition("/")
    return bucket, name


def scheme(uri: str) -> str:
    """`gs://`, `s3://`, or an empty text for a local file."""
    return uri[:5] if is_cloud(uri) else ""


def normalize(uri: str) -> str:
    """Makes a local path absolute; removes trailing slashes of a URI in an object store."""
    if is_cloud(uri):
        return uri[:5] + uri[5:].rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def foreign_scheme(uri: str) -> str:
    """Scheme of a URI that is not supported, such as `https`; empty for other URIs."""
    found = _SCHEME.match(uri)
    return "" if found is None or uri.startswith((*CLOUDS, "file://")) else found[1]


def as_bytes(name: str) -> bytes:
    """A path as bytes; different paths have different bytes.

    A local name that is not UTF-8 has the bytes of the file system. A text that cannot be a name, such as half of a
    surrogate pair, has bytes that begin with NUL, with which no name begins.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return b"\0" + name.encode("utf-8", "surrogatepass")


def can_be_named(uri: str) -> bool:
    """Whether a file can have this name. In an object store it must be valid Unicode."""
    try:
        uri.encode() if is_cloud(uri) else os.fsencode(uri)
    except UnicodeEncodeError:
        return False
    return "\0" not in uri


def is_unicode(name: str) -> bool:
    """Whether a name is valid Unicode, and not that of a local file whose bytes are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def web_uri(uri: str) -> str:
    """The URI of RFC 3986 for a file: `file:///scans/a%20b.tif`, `gs://bucket/a%20b.tif`.

    The bytes of a local name that is not UTF-8 stay as they are.
    """
    start = scheme(uri)
    return (start or "file://") + quote(as_bytes(uri[len(start) :]))


def contains(folder: str, uri: str) -> bool:
    """Whether `uri` is `folder` or is in it, after resolving symbolic links."""
    if scheme(folder) != scheme(uri):
        return False
    if not is_cloud(folder):
        folder, uri = os.path.realpath(folder), os.path.realpath(uri)
    return PurePosixPath(uri).is_relative_to(PurePosixPath(folder))
