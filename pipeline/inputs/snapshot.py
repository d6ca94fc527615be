"""What collections hold at a time, as manifests that say of every picture all that is known of it."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline import collections, scratch, storage
from pipeline.collections import Item, JobError

UNKNOWN = "unknown"  # era


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a manifest: a picture to look at."""

    line: str  # manifest and number
    item: Item
    collection: str
    era: str
    group: str  # pictures with the same name belong together
    labels: tuple[str, ...]  # "name=value"


def write(sources: Sequence[str], folder: str) -> list[str]:
    """Writes what the sources hold now to a folder, a manifest each; returns the manifests.

    A manifest that would not change is left alone, so that its time stands for its content; those of sources
    that are not named any more are removed. A manifest is in memory while it is written: about 300 bytes a picture.

    Args:
      sources: manifests (JSON lines with "source", and where wanted "key", "collection", "era", "group", and
        "labels", an object of texts), folders, globs or gs://... The collection defaults to the first folder of
        the key, else to the source's own name.
      folder: local or gs://.

    Raises:
      JobError: a source is not there, cannot be read, or is empty.
    """
    written = []
    for source in sources:
        digest = hashlib.sha256(storage.as_bytes(storage.normalize(source))).hexdigest()[:8]
        target = storage.join(folder, f"{_name(source)}-{digest}{collections.MANIFEST}")
        with scratch.folder() as made:
            new = os.path.join(made, "manifest")
            with open(new, "w", encoding="ascii") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in _entries(source))
            if not os.path.getsize(new):
                raise JobError(f"nothing to train on: no pictures in {source}")
            data = storage.read(new)
            if storage.stat(target) is None or storage.read(target) != data:
                storage.write(target, data)
        written.append(target)
    for info in list(storage.list_files(folder)):
        if info.uri.endswith(collections.MANIFEST) and info.uri not in written:
            storage.delete(info.uri)
    return written


def _entries(source: str) -> Iterator[dict]:
    """Normalised lines of a source."""
    collections.check_input(source)
    name = _name(source)
    if source.endswith(collections.MANIFEST):
        lines = _sound_lines(storage.normalize(source))
    else:  # a folder's odds and ends are no pictures
        lines = ((item, {}) for item in collections.expand(source) if _is_picture(item.key))
    for item, said in lines:
        first, _, rest = item.key.partition("/")
        defaults = {"collection": first if rest else name, "era": UNKNOWN, "group": ""}
        texts = {key: said.get(key) or default for key, default in defaults.items()}
        labels = said.get("labels") or {}
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(labels, dict):
            raise JobError(
                f"{source}: collection, era and group of {item.source} must be texts, labels an object"
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
    """Of a manifest, which must have no line that names no picture to read: nobody reads the records of a training."""
    try:
        for item, said in collections.manifest_lines(manifest):
            if item.reason:
                raise JobError(f"{manifest}, {item.detail}")
            yield item, said
    except OSError as error:
        raise JobError(f"cannot read {manifest}: {error.strerror or error}") from error


def _is_picture(key: str) -> bool:
    return os.path.splitext(key)[1].lower() in collections.IMAGE_EXTENSIONS


def _name(source: str) -> str:
    """A source's own name, as a file name can have it."""
    base = collections.base_folder(source) or storage.normalize(source).removesuffix(collections.MANIFEST)
    return re.sub(r"[^\w.-]+", "_", base.rstrip("/").rpartition("/")[2]) or "collection"


def read(uri: str) -> Iterator[Entry]:
    """The lines of a manifest that `write` wrote."""
    for number, line in enumerate(storage.lines(uri), 1):
        said = json.loads(line)
        labels = tuple(f"{name}={value}" for name, value in said["labels"].items())
        item = Item(said["key"], said["source"], said["source_bytes"], said["source_version"])
        yield Entry(f"{uri}:{number}", item, said["collection"], said["era"], said["group"], labels)
