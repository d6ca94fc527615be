"""Folders of artifacts, which lie on this machine or in Cloud Storage."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from pipeline import storage


def copy(source: str, target: str) -> None:
    """Copies every file below a folder; each appears whole or not at all."""
    for info in storage.list_files(source):
        storage.write(storage.join(target, info.uri[len(source) :].strip("/")), storage.read(info.uri))


@contextlib.contextmanager
def here(folder: str) -> Iterator[str]:
    """The folder on this machine: itself, or a copy that is gone afterwards."""
    if not storage.is_gcs(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-") as local:
        copy(folder, local)
        yield local


@contextlib.contextmanager
def filled(folder: str) -> Iterator[str]:
    """A folder on this machine to write into, whose files lie in `folder` afterwards."""
    if not storage.is_gcs(folder):
        os.makedirs(folder, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-") as local:
        yield local
        copy(local, folder)
