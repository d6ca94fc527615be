"""Collections of photographs as clean training material: read, judged, deduplicated and split, on Beam.

    manifests -> examine -> one of each sha256 -> candidates by key -> edges -> groups -> decide -> load the kept ones

Only about 7 KB travel for each picture until the graph has decided which pictures stay; most of that is keys. The
pixels of those pictures are then read again. Every line of a manifest becomes one Photograph or one Quarantined.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from pipeline.codec.settings import Settings
from pipeline.inputs import snapshot
from pipeline.inputs.snapshot import Entry
from pipeline.photographs import groups
from pipeline.photographs.examiner import Examined, GuardedExaminer
from pipeline.photographs.groups import Groups, Seen
from pipeline.photographs.settings import Ingestion
from pipeline.photographs.splits import part_of
from pipeline.records.record import Reason, Record, Refusal


@dataclass(frozen=True, slots=True)
class Photograph:
    """A colour photograph for the part of the data set that `part` names."""

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
    mode: str  # Pillow's mode of the original
    colorfulness: float
    image: bytes  # PNG, RGB, upright sRGB, reduced


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A picture that is left out: its record, with the reason, and the part that its copies belong to."""

    record: Record
    collection: str
    era: str
    part: str = ""  # empty if the picture could not be examined

    def to_json(self) -> str:
        """One line of JSON. `Record.from_json` can read it."""
        more = {"collection": self.collection, "era": self.era, "part": self.part}
        return json.dumps(json.loads(self.record.to_json()) | more, separators=(",", ":"))


def ingest(
    root: beam.Pipeline, manifests: Sequence[str], settings: Ingestion
) -> tuple[beam.PCollection[Photograph], beam.PCollection[Quarantined]]:
    """Builds the graph.

    One worker holds the edges between near-duplicates: about 300 bytes for each picture that has one.

    Args:
      root: the pipeline.
      manifests: places of the manifests that `pipeline.inputs.snapshot` writes.
      settings: settings of the ingestion.

    Returns:
      The photographs to keep, and the pictures that are left out.
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
    """Counts the pictures.

    Returns:
      A collection of one dictionary, ready for JSON: `pictures` examined, `kept`, the kept ones by `parts`,
      `collections` and `eras`, `quarantined` by reason, and `quarantined_by_collection`.
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
        tables: dict[str, dict[str, int]] = {name: {} for name in self.NAMES}
        for (name, value), number in sorted(found.items()):
            tables[name][value] = number
        kept, left = sum(tables["parts"].values()), sum(tables["quarantined"].values())
        return {"pictures": kept + left, "kept": kept, **tables}


class _Guarded(beam.DoFn):
    """Examines pictures in a process of its own, which a bad picture may end."""

    def __init__(self, settings: Ingestion):
        self._settings = settings

    def setup(self):
        chosen = self._settings
        self._examiner = GuardedExaminer(
            Settings(output="", run="", max_pixels=chosen.max_pixels, codec_timeout=chosen.codec_timeout)
        )

    def teardown(self):
        self._examiner.close()

    def _examine(self, entry: Entry, keep: bool) -> Examined | Record:
        return self._examiner.examine(entry.item, self._settings.min_side, self._settings.side, keep)


class Examine(_Guarded):
    """Turns an Entry into a Seen, or into a Quarantined for the output `refused`."""

    def process(self, entry: Entry):
        found = self._examine(entry, keep=False)
        if isinstance(found, Record):
            yield beam.pvalue.TaggedOutput("refused", Quarantined(found, entry.collection, entry.era))
        else:
            yield Seen(entry, found)


class Load(_Guarded):
    """Turns a kept picture and its part into a Photograph, or into a Quarantined for the output `changed`."""

    def process(self, kept: tuple[Seen, str]):
        seen, part = kept
        entry, found = seen.entry, self._examine(seen.entry, keep=True)
        if isinstance(found, Examined) and found.sha256 != seen.found.sha256:
            words = "the file changed during ingestion"
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
    """Decides what is kept.

    The input is a picture, and the key of the first identical file if there is one. The outputs are the kept pictures
    with their parts, and the others as Quarantined in `dropped`.
    """

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
    """Yields the identical file with the smallest key, and each of the others with that key."""
    first, *others = sorted(
        alike[1], key=lambda one: (one.entry.item.key, one.entry.item.source, one.entry.line)
    )
    yield first, None
    yield from ((other, first.entry.item.key) for other in others)


def _refused(seen: Seen, refusal: Refusal) -> Record:
    found = seen.found
    record = seen.entry.item.record(source_sha256=found.sha256, width=found.width, height=found.height)
    record = record.replace(source_bytes=found.file_bytes)
    return record.finish(outcome=refusal.outcome, reason=refusal.reason, detail=refusal.detail)
