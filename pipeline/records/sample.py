"""A bounded choice of records for people to look at."""

import heapq
from collections.abc import Iterable

from pipeline.records.record import Outcome, Record


class Sample:
    """A bounded choice of records of all outcomes, those with the lowest confidence first."""

    def __init__(self, size: int):
        self.size = size
        self._heaps: dict[str, list] = {}

    def add(self, record: Record) -> "Sample":
        """Adds a record. For each outcome, the `size` records with the lowest confidence (then key) are kept."""
        heap = self._heaps.setdefault(str(record.outcome), [])
        entry = _Worst(record)
        if len(heap) < self.size:
            heapq.heappush(heap, entry)
        elif self.size and heap[0] < entry:
            heapq.heapreplace(heap, entry)
        return self

    def merge(self, others: Iterable["Sample"]) -> "Sample":
        for other in others:
            for heap in other._heaps.values():
                for entry in heap:
                    self.add(entry.record)
        return self

    def records(self) -> list[Record]:
        """At most `size` records. Failures and skips are at most a quarter each, if there are enough others."""
        chosen = {name: sorted((e.record for e in heap), key=_rank) for name, heap in self._heaps.items()}
        quota = dict.fromkeys(chosen, 0)
        for share in (self.size // 4, self.size):
            for name in (Outcome.FAILED, Outcome.SKIPPED, Outcome.COLORIZED):
                if name in chosen:
                    free = self.size - sum(quota.values())
                    limit = self.size if name == Outcome.COLORIZED else share
                    quota[name] += max(0, min(free, limit - quota[name], len(chosen[name]) - quota[name]))
        return [
            r
            for name in (Outcome.COLORIZED, Outcome.FAILED, Outcome.SKIPPED)
            if name in chosen
            for r in chosen[name][: quota[name]]
        ]


def _rank(record: Record) -> tuple:
    return (record.confidence if record.confidence is not None else 2.0, record.key)


class _Worst:
    """Heap order with the record on top that is dropped first."""

    __slots__ = ("record",)

    def __init__(self, record: Record):
        self.record = record

    def __lt__(self, other: "_Worst") -> bool:
        return _rank(self.record) > _rank(other.record)
