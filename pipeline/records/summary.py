"""What became of a collection, counted: for the end of a run, for `summary.json` and for `status`."""

import heapq
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.record import Outcome, Record

FILE = "summary.json"


@dataclass
class Summary:
    """Counts of records; two of them add up, in any order."""

    outcomes: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    models: Counter = field(default_factory=Counter)
    kept: int = 0  # of the records, those that an earlier run made
    pixels: int = 0  # colourised in this run
    derivative_bytes: int = 0

    def add(self, record: Record, run: str = "") -> "Summary":
        self.outcomes[str(record.outcome)] += 1
        if record.reason:
            self.reasons[str(record.reason)] += 1
        if record.outcome == Outcome.COLORIZED:
            self.models[f"{record.model} {record.model_version}"] += 1
            self.derivative_bytes += record.derivative_bytes
        if run and record.run != run:
            self.kept += 1
        elif record.outcome == Outcome.COLORIZED:
            self.pixels += record.width * record.height
        return self

    def merge(self, others: Iterable["Summary"]) -> "Summary":
        for other in others:
            for name in ("outcomes", "reasons", "models"):
                getattr(self, name).update(getattr(other, name))
            for name in ("kept", "pixels", "derivative_bytes"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    @property
    def records(self) -> int:
        return self.outcomes.total()

    def to_dict(self) -> dict:
        return {
            "records": self.records,
            "outcomes": {str(outcome): self.outcomes[outcome] for outcome in Outcome},
            "reasons": dict(sorted(self.reasons.items())),
            "models": dict(sorted(self.models.items())),
            "kept": self.kept,
            "pixels": self.pixels,
            "derivative_bytes": self.derivative_bytes,
        }

    def to_json(self, **more) -> str:
        return json.dumps(self.to_dict() | more, indent=2) + "\n"


def describe(summary: dict) -> str:
    """A summary in words: what became of the scans, and why."""
    counts = summary["outcomes"]
    lines = [
        f"{summary['records']:,} scans: " + ", ".join(f"{n:,} {outcome}" for outcome, n in counts.items())
    ]
    lines += [f"  {n:>9,}  {reason.replace('_', ' ')}" for reason, n in summary["reasons"].items()]
    lines += [f"  {n:>9,}  coloured by {model}" for model, n in summary["models"].items()]
    return "\n".join(lines)


def describe_unused(uris: list[str]) -> str:
    """In words: hints files that belong to no scan of the input."""
    some = ", ".join(uris[:3]) + (", ..." if len(uris) > 3 else "")
    are = "hints file matches" if len(uris) == 1 else "hints files match"
    return f"{len(uris):,} {are} no scan (KEY.txt or KEY.png is wanted): {some}"


class Sample:
    """A bounded choice of records for people to look at: of every outcome some, the least sure first."""

    def __init__(self, size: int):
        self.size = size
        self._heaps: dict[str, list] = {}

    def add(self, record: Record) -> "Sample":
        """Keeps the `size` records of each outcome that come first: lowest confidence, then key."""
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
        """At most `size` in all: failures and skips at most a quarter each, while there are enough others."""
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
    """Orders a heap so that the record to give up first is on top."""

    __slots__ = ("record",)

    def __init__(self, record: Record):
        self.record = record

    def __lt__(self, other: "_Worst") -> bool:
        return _rank(self.record) > _rank(other.record)
