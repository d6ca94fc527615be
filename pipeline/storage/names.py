"""Names of files, local and in Cloud Storage."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

GCS = "gs://"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class FileInfo:
    uri: str
    size: int  # bytes
    version: str  # changes with the content: modification time in ns, or generation of the object


def is_gcs(uri: str) -> bool:
    return uri.startswith(GCS)


def normalize(uri: str) -> str:
    """Makes a local path absolute; removes trailing slashes of a gs:// URI."""
    if is_gcs(uri):
        return GCS + uri.removeprefix(GCS).rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def foreign_scheme(uri: str) -> str:
    """Scheme of a URI that is not supported, such as `https` or `s3`; empty for other URIs."""
    scheme = _SCHEME.match(uri)
    return "" if scheme is None or uri.startswith((GCS, "file://")) else scheme[1]


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
    """Whether a file can have this name. In Cloud Storage it must be valid Unicode."""
    try:
        uri.encode() if is_gcs(uri) else os.fsencode(uri)
    except UnicodeEncodeError:
        return False
    return "\0" not in uri


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def contains(folder: str, uri: str) -> bool:
    """Whether `uri` is `folder` or is in it, after resolving symbolic links."""
    if is_gcs(folder) != is_gcs(uri):
        return False
    if not is_gcs(folder):
        folder, uri = os.path.realpath(folder), os.path.realpath(uri)
    return PurePosixPath(uri).is_relative_to(PurePosixPath(folder))
