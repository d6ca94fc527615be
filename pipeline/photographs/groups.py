"""Groups of pictures that no split must tell apart: near-duplicates, and what a manifest calls a group, on Beam."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from model import duplicates
from pipeline.codec import Examined
from pipeline.snapshot import Entry


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that may be trained on."""

    entry: Entry
    found: Examined  # without pixels

    @property
    def rank(self) -> tuple:
        """The first of several copies stays: the one of most pixels, whatever their names."""
        return -self.found.width * self.found.height, self.found.sha256


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


def find(
    root: beam.Pipeline, seen: beam.PCollection[Seen], unique: beam.PCollection[Seen]
) -> beam.PCollection[Groups]:
    """One Groups, of near-duplicates and of the manifests' own groups. One worker holds all edges.

    Args:
      seen: all pictures. unique: one of each sha256.
    """
    edges = (_near_duplicates(unique), _labelled(seen)) | "Edges" >> beam.Flatten()
    return (
        root
        | "Once" >> beam.Create([None])  # without edges, too, there is one Groups
        | "Groups" >> beam.Map(_joined, beam.pvalue.AsIter(edges))
    )


def _joined(_, edges: Iterable[Edge]) -> Groups:
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


def _near_duplicates(unique: beam.PCollection[Seen]) -> beam.PCollection[Edge]:
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
