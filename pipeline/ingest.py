"""Collections of photographs as clean training material: read, judged, deduplicated and split, on Beam.

    manifests -> examine -> one of each sha256 -> candidates by key -> edges -> groups -> decide -> read the kept ones

What travels until it is decided which pictures stay is small, some 7 KB each, most of it keys; pixels are read
again then. Every line of a manifest ends as one Photograph or as one Quarantined.
"""

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from model import duplicates
from model.photos import SHARES, part_of
from pipeline import collections, storage
from pipeline.codec import Examined
from pipeline.collections import Item, JobError
from pipeline.guard import Guard
from pipeline.record import Reason, Record, Refusal
from pipeline.settings import Settings

UNKNOWN = "unknown"  # era


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Settings: pictures' shorter sides in pixels as stored and at least, and the shares of the parts, of sum 1."""

    side: int = 256
    min_side: int = 128
    max_pixels: int = 250_000_000
    shares: tuple[float, float, float] = SHARES
    codec_timeout: float = 120.0  # seconds for a picture, plus one a megapixel


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a manifest: a picture to look at."""

    line: str  # manifest and number
    item: Item
    collection: str
    era: str
    group: str  # pictures with the same name belong together
    labels: tuple[str, ...]  # "name=value"


@dataclass(frozen=True, slots=True)
class Photograph:
    """A colour photograph to train on, validate or test with, as `part` says."""

    key: str
    source: str
    sha256: str
    collection: str
    era: str
    labels: tuple[str, ...]
    group: str
    part: str
    width: int  # of the upright original, pixels
    height: int
    mode: str  # of the original's pixels, in Pillow's words
    colorfulness: float
    image: bytes  # PNG, RGB, upright sRGB, reduced


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A picture that is not trained on: its record, with the reason, and the part that its copies fall into."""

    record: Record
    collection: str
    era: str
    part: str = ""  # empty where it could not be looked at

    def to_json(self) -> str:
        """One line that `Record.from_json` reads, too."""
        more = {"collection": self.collection, "era": self.era, "part": self.part}
        return json.dumps(json.loads(self.record.to_json()) | more, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that may be trained on."""

    entry: Entry
    found: Examined  # without pixels

    @property
    def rank(self) -> tuple:
        """The first of several copies stays: the one of most pixels, whatever their names."""
        return -self.found.width * self.found.height, self.found.sha256


def snapshot(sources: Sequence[str], folder: str) -> list[str]:
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
        digest = hashlib.sha256(storage.normalize(source).encode()).hexdigest()[:8]
        target = storage.join(folder, f"{_name(source)}-{digest}{collections.MANIFEST}")
        with tempfile.TemporaryDirectory(prefix="snapshot-") as scratch:
            new = os.path.join(scratch, "manifest")
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
        lines = collections.manifest_lines(storage.normalize(source))
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


def _is_picture(key: str) -> bool:
    return os.path.splitext(key)[1].lower() in collections.IMAGE_EXTENSIONS


def _name(source: str) -> str:
    """A source's own name, as a file name can have it."""
    base = collections.base_folder(source) or storage.normalize(source).removesuffix(collections.MANIFEST)
    return re.sub(r"[^\w.-]+", "_", base.rstrip("/").rpartition("/")[2]) or "collection"


def ingest(
    root: beam.Pipeline, manifests: Sequence[str], settings: Ingestion
) -> tuple[beam.PCollection[Photograph], beam.PCollection[Quarantined]]:
    """Builds the graph.

    Near-duplicates are joined into groups of which one worker holds the edges: about 300 bytes for each picture
    that has a near-duplicate.

    Args:
      manifests: as `snapshot` writes them.
    """
    examined = (
        root
        | "Manifests" >> beam.Create(list(manifests))
        | "Lines" >> beam.FlatMap(_read_manifest)
        | "SpreadLines" >> beam.Reshuffle()
        | "Examine" >> beam.ParDo(Examine(settings)).with_outputs("refused", main="seen")
    )
    seen = examined.seen
    first = (
        seen
        | "BySha256" >> beam.Map(lambda one: (one.found.sha256, one))
        | "Alike" >> beam.GroupByKey()
        | "First" >> beam.FlatMap(_first)
    )
    unique = first | "Unique" >> beam.Filter(lambda pair: pair[1] is None) | "Only" >> beam.Keys()
    groups = (
        root
        | "Once" >> beam.Create([None])
        | "Groups"
        >> beam.Map(
            _groups, beam.pvalue.AsIter((_edges(unique), _labelled(seen)) | "Edges" >> beam.Flatten())
        )
    )
    decided = first | "Decide" >> beam.ParDo(Decide(settings), beam.pvalue.AsSingleton(groups)).with_outputs(
        "dropped", main="kept"
    )
    loaded = (
        decided.kept
        | "SpreadKept" >> beam.Reshuffle()
        | "Load" >> beam.ParDo(Load(settings)).with_outputs("changed", main="photographs")
    )
    quarantined = (examined.refused, decided.dropped, loaded.changed) | "Quarantined" >> beam.Flatten()
    return loaded.photographs, quarantined


def counts(
    photographs: beam.PCollection[Photograph], quarantined: beam.PCollection[Quarantined]
) -> beam.PCollection[dict]:
    """One dictionary, ready for JSON.

    `pictures` looked at, `kept`, kept by `parts`, `collections` and `eras`, `quarantined` by reason, and
    `quarantined_by_collection`.
    """
    kept = photographs | "CountKept" >> beam.Map(
        lambda one: [("parts", one.part), ("collections", one.collection), ("eras", one.era)]
    )
    left = quarantined | "CountLeft" >> beam.Map(
        lambda one: [
            ("quarantined", str(one.record.reason)),
            ("quarantined_by_collection", one.collection),
        ]
    )
    return (kept, left) | "Both" >> beam.Flatten() | "Count" >> beam.CombineGlobally(_CountFn())


class _CountFn(beam.CombineFn):
    NAMES = ("parts", "collections", "eras", "quarantined", "quarantined_by_collection")

    def create_accumulator(self) -> Counter:
        return Counter()

    def add_input(self, found: Counter, names: list[tuple[str, str]]) -> Counter:
        found.update(names)
        return found

    def merge_accumulators(self, accumulators) -> Counter:
        return sum(accumulators, Counter())

    def extract_output(self, found: Counter) -> dict:
        tables = {name: {} for name in self.NAMES}
        for (name, value), number in sorted(found.items()):
            tables[name][value] = number
        kept, left = sum(tables["parts"].values()), sum(tables["quarantined"].values())
        return {"pictures": kept + left, "kept": kept, **tables}


def _read_manifest(uri: str) -> Iterator[Entry]:
    for number, line in enumerate(collections.lines(uri), 1):
        said = json.loads(line)
        labels = tuple(f"{name}={value}" for name, value in said["labels"].items())
        item = Item(said["key"], said["source"], said["source_bytes"], said["source_version"])
        yield Entry(f"{uri}:{number}", item, said["collection"], said["era"], said["group"], labels)


class _Guarded(beam.DoFn):
    """Looks at pictures in a process that may die of them."""

    def __init__(self, settings: Ingestion):
        self._settings = settings

    def setup(self):
        chosen = self._settings
        self._guard = Guard(
            Settings(output="", run="", max_pixels=chosen.max_pixels, codec_timeout=chosen.codec_timeout)
        )

    def teardown(self):
        self._guard.close()

    def _examine(self, entry: Entry, keep: bool) -> Examined | Record:
        return self._guard.examine(entry.item, self._settings.min_side, self._settings.side, keep)


class Examine(_Guarded):
    """Entries -> Seen, or Quarantined to the output `refused`."""

    def process(self, entry: Entry):
        found = self._examine(entry, keep=False)
        if isinstance(found, Record):
            yield beam.pvalue.TaggedOutput("refused", Quarantined(found, entry.collection, entry.era))
        else:
            yield Seen(entry, found)


class Load(_Guarded):
    """Kept pictures and their parts -> Photographs, or Quarantined to the output `changed`."""

    def process(self, kept: tuple[Seen, str]):
        seen, part = kept
        entry, found = seen.entry, self._examine(seen.entry, keep=True)
        if isinstance(found, Examined) and found.sha256 != seen.found.sha256:
            words = "the file has changed while it was being ingested"
            found = _refused(seen, Refusal(Reason.READ_ERROR, words))
        if isinstance(found, Record):
            left = Quarantined(found, entry.collection, entry.era, part)
            yield beam.pvalue.TaggedOutput("changed", left)
            return
        yield Photograph(
            key=entry.item.key,
            source=entry.item.source,
            sha256=found.sha256,
            collection=entry.collection,
            era=entry.era,
            labels=entry.labels,
            group=entry.group,
            part=part,
            width=found.width,
            height=found.height,
            mode=found.mode,
            colorfulness=found.colorfulness,
            image=found.image,
        )


class Decide(beam.DoFn):
    """What is first of its sha256, or the first's key -> kept pictures with their parts, others to `dropped`."""

    def __init__(self, settings: Ingestion):
        self._shares = settings.shares

    def process(self, first: tuple[Seen, str | None], groups: "Groups"):
        seen, original = first
        sha256 = seen.found.sha256
        part = part_of(groups.roots.get(sha256, sha256), self._shares)
        near = groups.originals.get(sha256)
        if original is not None:
            refusal = Refusal(Reason.DUPLICATE, f"the same file as {original}")
        elif near is not None:
            refusal = Refusal(Reason.NEAR_DUPLICATE, f"a copy of {near}")
        else:
            yield seen, part
            return
        left = Quarantined(_refused(seen, refusal), seen.entry.collection, seen.entry.era, part)
        yield beam.pvalue.TaggedOutput("dropped", left)


@dataclass(frozen=True, slots=True)
class Groups:
    """What pictures have to do with one another, by sha256.

    Attributes:
      roots: the smallest sha256 of the group, of those who are not alone.
      originals: key of the picture that is kept instead, of those who are copies.
    """

    roots: dict[str, str]
    originals: dict[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """Two pictures that must not be told apart: `Seen.rank` and key of each; whether one is a copy of the other."""

    one: tuple
    other: tuple
    copy: bool


def _groups(_, edges: Iterable[Edge]) -> Groups:
    related, copies, names = [], [], {}
    for edge in edges:
        pair = tuple(rank[1] for rank in (edge.one, edge.other))
        related.append(pair)
        if edge.copy:
            copies.append((edge.one[:2], edge.other[:2]))
            names |= {edge.one[:2]: edge.one[2], edge.other[:2]: edge.other[2]}
    kept = duplicates.components(copies)
    originals = {rank[1]: names[first] for rank, first in kept.items() if rank != first}
    return Groups(duplicates.components(related), originals)


def _labelled(seen: beam.PCollection[Seen]) -> beam.PCollection[Edge]:
    """Edges between pictures with the same group name."""
    return (
        seen
        | "Labelled" >> beam.Filter(lambda one: bool(one.entry.group))
        | "ByLabel" >> beam.Map(lambda one: ((one.entry.collection, one.entry.group), _end(one)))
        | "SameLabel" >> beam.GroupByKey()
        | "Star" >> beam.FlatMap(_star)
    )


def _star(labelled: tuple[tuple, Iterable[tuple]]) -> Iterator[Edge]:
    ends = sorted(set(labelled[1]))
    return (Edge(ends[0], end, False) for end in ends[1:])


def _edges(unique: beam.PCollection[Seen]) -> beam.PCollection[Edge]:
    """Edges between near-duplicates: candidates share a key, and are compared once."""
    signed = unique | "Signed" >> beam.Map(lambda one: (one.found.sha256, (one.found.signature, _end(one))))
    pairs = (
        unique
        | "Keys" >> beam.FlatMap(_keyed)
        | "SameKey" >> beam.GroupByKey()
        | "Pairs" >> beam.FlatMap(_pairs)
        | "Distinct" >> beam.Distinct()
    )
    halves = (
        {"signed": signed, "others": pairs} | "JoinOne" >> beam.CoGroupByKey() | "Half" >> beam.FlatMap(_half)
    )
    return (
        {"signed": signed, "others": halves}
        | "JoinOther" >> beam.CoGroupByKey()
        | "Compare" >> beam.FlatMap(_compare)
    )


def _keyed(seen: Seen) -> Iterator[tuple[bytes, tuple[int, str]]]:
    signature = seen.found.signature
    member = duplicates.warmth(signature), seen.found.sha256
    return ((key, member) for key in duplicates.keys(signature))


def _pairs(keyed: tuple[bytes, Iterable[tuple[int, str]]]) -> Iterator[tuple[str, str]]:
    return duplicates.pairs([sha256 for _, sha256 in sorted(keyed[1])])


def _half(joined: tuple[str, dict]) -> Iterator[tuple[str, tuple]]:
    _, found = joined
    [one] = found["signed"]
    return ((other, one) for other in found["others"])


def _compare(joined: tuple[str, dict]) -> Iterator[Edge]:
    _, found = joined
    [(signature, end)] = found["signed"]
    for other_signature, other_end in found["others"]:
        alike = duplicates.similarity(signature, other_signature)
        if alike >= duplicates.RELATED:
            yield Edge(end, other_end, alike >= duplicates.COPY)


def _end(seen: Seen) -> tuple:
    return (*seen.rank, seen.entry.item.key)


def _first(alike: tuple[str, Iterable[Seen]]) -> Iterator[tuple[Seen, str | None]]:
    """Of identical files the one with the smallest key, and the others with that key."""
    first, *others = sorted(
        alike[1], key=lambda one: (one.entry.item.key, one.entry.item.source, one.entry.line)
    )
    yield first, None
    yield from ((other, first.entry.item.key) for other in others)


def _refused(seen: Seen, refusal: Refusal) -> Record:
    found = seen.found
    record = seen.entry.item.record(source_sha256=found.sha256, width=found.width, height=found.height)
    record = record.replace(source_bytes=found.bytes)
    return record.finish(outcome=refusal.outcome, reason=refusal.reason, detail=refusal.detail)
