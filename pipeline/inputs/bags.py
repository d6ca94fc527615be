"""Bags (BagIt, RFC 8493): a folder whose files in `data` are listed, with their digests, in manifests beside it."""

import re

from pipeline import storage

DECLARATION, INFO, DATA = "bagit.txt", "bag-info.txt", "data"
ALGORITHMS = ("sha512", "sha256", "sha1", "md5")  # of manifests, the strongest first


def is_bag(folder: str) -> bool:
    """Whether a folder says that it is a bag. Raises OSError if this is unknown."""
    return storage.stat(storage.join(folder, DECLARATION)) is not None


def payload(folder: str) -> str:
    """The folder of the files themselves: `FOLDER/data` of a bag, otherwise FOLDER. Raises OSError like `is_bag`."""
    return storage.join(folder, DATA) if is_bag(folder) else folder


def manifest_name(algorithm: str) -> str:
    return f"manifest-{algorithm}.txt"


def encoded(path: str) -> str:
    """A path in a manifest (RFC 8493, 2.1.3): line breaks and the percent sign are written as in a URI."""
    return re.sub("[%\r\n]", lambda found: f"%{ord(found[0]):02X}", path)
