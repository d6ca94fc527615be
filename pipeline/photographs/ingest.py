"""Collections of photographs as clean training material: read, judged, deduplicated and split, on Beam.

    manifests -> examine -> one of each sha256 -> candidates by key -> edges -> groups -> decide -> read the kept ones

What travels until it is decided which pictures stay is small, some 7 KB each, most of it keys; pixels are read
again then. Every line of a manifest ends as one Photograph or as one Quarantined.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from model.photos import SHARES, part_of
from pipeline import groups, snapshot
from pipeline.codec import Examined
from pipeline.groups import Groups, Seen
from pipeline.guard import Guard
from pipeline.record import Reason, Record, Refusal
from pipeline.settings import Settings
from pipeline.snapshot import Entry


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Settings: pictures' shorter sides in pixels as stored and at least, and the shares of the parts, of sum 1."""

    side: int = 256
    min_side: int = 128
    max_pixels: int = 250_000_000
    shares: tuple[float, float, float] = SHARES
    codec_timeout: float = 120.0  # seconds for a picture, plus one a megapixel


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


def ingest(
    root: beam.Pipeline, manifests: Sequence[str], settings: Ingestion
) -> tuple[beam.PCollection[Photograph], beam.PCollection[Quarantined]]:
    """Builds the graph.

    Near-duplicates are joined into groups of which one worker holds the edges: about 300 bytes for each picture
    that has a near-duplicate.

    Args:
      manifests: as `pipeline.snapshot` writes them.
    """
    examined = (
        root
        | "Manifests" >> beam.Create(list(manifests))
        | "Lines" >> beam.FlatMap(snapshot.read)
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
    together = groups.find(root, seen, unique)
    decided = first | "Decide" >> beam.ParDo(
        Decide(settings), beam.pvalue.AsSingleton(together)
    ).with_outputs("dropped", main="kept")
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

    def process(self, first: tuple[Seen, str | None], together: Groups):
        seen, original = first
        sha256 = seen.found.sha256
        part = part_of(together.roots.get(sha256, sha256), self._shares)
        near = together.originals.get(sha256)
        if original is not None:
            refusal = Refusal(Reason.DUPLICATE, f"the same file as {original}")
        elif near is not None:
            refusal = Refusal(Reason.NEAR_DUPLICATE, f"a copy of {near}")
        else:
            yield seen, part
            return
        left = Quarantined(_refused(seen, refusal), seen.entry.collection, seen.entry.era, part)
        yield beam.pvalue.TaggedOutput("dropped", left)


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
