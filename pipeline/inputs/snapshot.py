"""Snapshots of collections: manifests that list all pictures with everything that is known about them."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs import collection, manifests
from pipeline.inputs.item import IMAGE_EXTENSIONS, Item
from pipeline.storage import scratch

UNKNOWN = "unknown"  # era


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a manifest."""

    line: str  # manifest and number
    item: Item
    collection: str
    era: str
    group: str  # pictures with the same name belong together
    labels: tuple[str, ...]  # "name=value"


def write(sources: Sequence[str], folder: str) -> list[str]:
    """Writes a manifest for each source to a folder. Returns the manifests.

    A manifest that would not change is not written, so that its time does not change either. Manifests of sources
    that are no longer given are removed. A manifest is in memory while it is written, about 300 bytes for each
    picture.

    Args:
      sources: manifests (JSON lines with "source" and optionally "key", "collection", "era", "group", and "labels",
        an object of texts), folders, globs, gs://... or s3://... The default of the collection is the first folder
        of the key, or the name of the source.
      folder: local, gs:// or s3://.

    Raises:
      JobError: a source does not exist, cannot be read, or is empty.
    """
    written = []
    for source in sources:
        digest = hashlib.sha256(storage.as_bytes(storage.normalize(source))).hexdigest()[:8]
        target = storage.join(folder, f"{_name(source)}-{digest}{manifests.EXTENSION}")
        with scratch.folder() as made:
            new = os.path.join(made, "manifest")
            with open(new, "w", encoding="ascii") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in _entries(source))
            if not os.path.getsize(new):
                raise JobError(f"nothing to train on: there are no pictures in {source}")
            data = storage.read(new)
            if storage.stat(target) is None or storage.read(target) != data:
                storage.write(target, data)
        written.append(target)
    for info in list(storage.list_files(folder)):
        if info.uri.endswith(manifests.EXTENSION) and info.uri not in written:
            storage.delete(info.uri)
    return written


def _entries(source: str) -> Iterator[dict]:
    """Yields the normalised lines of a source."""
    collection.check_input(source)
    name = _name(source)
    if source.endswith(manifests.EXTENSION):
        lines = _sound_lines(storage.normalize(source))
    else:  # other files in a folder are ignored
        lines = ((item, {}) for item in collection.expand(source) if _is_picture(item.key))
    for item, said in lines:
        first, _, rest = item.key.partition("/")
        defaults = {"collection": first if rest else name, "era": UNKNOWN, "group": ""}
        texts = {key: said.get(key) or default for key, default in defaults.items()}
        labels = said.get("labels") or {}
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(labels, dict):
            raise JobError(
                f"{source}: collection, era and group of {item.source} must be texts; labels must be an object"
            )
        yield {
            "source": item.source,
            "key": item.key,
            "source_bytes": item.size,
            "source_version": item.version,
            **texts,
            "labels": {str(label): str(value) for label, value in sorted(labels.items())},
        }


def _sound_lines(manifest: str) -> Iterator[tuple[Item, dict]]:
    """Yields the lines of a manifest. A bad line is an error, because a training has no records to report it."""
    try:
        for item, said in manifests.lines(manifest):
            if item.reason:
                raise JobError(f"{manifest}, {item.detail}")
            yield item, said
    except OSError as error:
        raise JobError(f"cannot read {manifest}: {error.strerror or error}") from error


def _is_picture(key: str) -> bool:
    return os.path.splitext(key)[1].lower() in IMAGE_EXTENSIONS


def _name(source: str) -> str:
    """Name of a source, for the name of a file."""
    base = collection.base_folder(source) or storage.normalize(source).removesuffix(manifests.EXTENSION)
    return re.sub(r"[^\w.-]+", "_", base.rstrip("/").rpartition("/")[2]) or "collection"


def read(uri: str) -> Iterator[Entry]:
    """Yields the lines of a manifest of `write`."""
    for number, line in enumerate(storage.lines(uri), 1):
        said = json.loads(line)
        labels = tuple(f"{name}={value}" for name, value in said["labels"].items())
        item = Item(said["key"], said["source"], said["source_bytes"], said["source_version"])
        yield Entry(f"{uri}:{number}", item, said["collection"], said["era"], said["group"], labels)
