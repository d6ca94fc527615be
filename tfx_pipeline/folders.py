"""Folders of artifacts, on this machine or in an object store."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from pipeline import storage


def copy(source: str, target: str) -> None:
    """Copies all files below a folder. Each file is written atomically."""
    for info in storage.list_files(source):
        storage.write(storage.join(target, info.uri[len(source) :].strip("/")), storage.read(info.uri))


@contextlib.contextmanager
def here(folder: str) -> Iterator[str]:
    """Yields a folder on this machine: the folder itself, or a temporary copy."""
    if not storage.is_cloud(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-") as local:
        copy(folder, local)
        yield local


@contextlib.contextmanager
def filled(folder: str) -> Iterator[str]:
    """Yields a folder on this machine to write into. Afterwards its files are in `folder`."""
    if not storage.is_cloud(folder):
        os.makedirs(folder, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-") as local:
        yield local
        copy(local, folder)
