"""Groups of pictures that belong in one split: near-duplicates, and the groups that a manifest names; on Beam."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from pipeline.inputs.snapshot import Entry
from pipeline.photographs import duplicates
from pipeline.photographs.examiner import Examined


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that is fit for training."""

    entry: Entry
    found: Examined  # without pixels

    @property
    def rank(self) -> tuple:
        """Sort key of copies: the copy with the most pixels comes first and is kept. Names do not matter."""
        return -self.found.width * self.found.height, self.found.sha256


@dataclass(frozen=True, slots=True)
class Groups:
    """Relations between pictures, by sha256.

    Attributes:
      roots: for each picture that is not alone in its group, the smallest sha256 of the group.
      originals: for each copy, the key of the picture that is kept in its place.
    """

    roots: dict[str, str]
    originals: dict[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """Two pictures of one group: `Seen.rank` and key of each, and whether one is a copy of the other."""

    one: tuple
    other: tuple
    copy: bool


def find(
    root: beam.Pipeline, seen: beam.PCollection[Seen], unique: beam.PCollection[Seen]
) -> beam.PCollection[Groups]:
    """Finds the groups of near-duplicates and those that the manifests name. One worker holds all edges.

    Args:
      root: the pipeline.
      seen: all pictures.
      unique: one picture for each sha256.

    Returns:
      A collection of exactly one `Groups`.
    """
    edges = (_near_duplicates(unique), _labelled(seen)) | "Edges" >> beam.Flatten()
    return (
        root
        | "Once" >> beam.Create([None])  # one Groups, even without any edge
        | "Groups" >> beam.Map(_joined, beam.pvalue.AsIter(edges))
    )


def _joined(_, edges: Iterable[Edge]) -> Groups:
    related: list[tuple] = []
    copies: list[tuple] = []
    names: dict[tuple, str] = {}
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


def _near_duplicates(unique: beam.PCollection[Seen]) -> beam.PCollection[Edge]:
    """Edges between near-duplicates. Pictures that share a key are compared, each pair once."""
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
    member = duplicates.color_order(signature), seen.found.sha256
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
