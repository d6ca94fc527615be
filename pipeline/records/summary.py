"""Counts of records, for the end of a run, for `summary.json` and for `status`."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.records.distribution import Distribution
from pipeline.records.record import Outcome, Record

FILE = "summary.json"
COLLECTIONS = 200  # largest number of collections that are told apart
OTHERS = "(others)"
RANGED = ("confidence", "colorfulness")
FIGURES = (*RANGED, "faded", "milliseconds", "source_bytes", "derivative_bytes")


@dataclass
class Summary:
    """Counts of records. Summaries can be merged in any order."""

    outcomes: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    models: Counter = field(default_factory=Counter)
    kept: int = 0  # records of earlier runs
    pixels: int = 0  # colourised in this run
    derivative_bytes: int = 0
    figures: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution() for name in FIGURES}
    )  # of the scans that were colourised in this run
    collections: dict[str, dict[str, Distribution]] = field(default_factory=dict)  # the same, by first folder

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
            for name, figure in self.figures.items():
                if (value := getattr(record, name)) is not None:
                    figure.add(max(0, value))
            for name, figure in self._collection(record.key.rpartition("/")[0].partition("/")[0]).items():
                if (value := getattr(record, name)) is not None:
                    figure.add(value)
        return self

    def _collection(self, name: str) -> dict[str, Distribution]:
        if name not in self.collections and len(self.collections) >= COLLECTIONS:
            name = OTHERS
        return self.collections.setdefault(name, {name: Distribution() for name in RANGED})

    def merge(self, others: Iterable["Summary"]) -> "Summary":
        for other in others:
            for name in ("outcomes", "reasons", "models"):
                getattr(self, name).update(getattr(other, name))
            for name in ("kept", "pixels", "derivative_bytes"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
            for name, figure in self.figures.items():
                figure.merge([other.figures[name]])
            for collection, figures in other.collections.items():
                for name, figure in self._collection(collection).items():
                    figure.merge([figures[name]])
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
            "figures": {name: figure.to_dict() for name, figure in self.figures.items() if figure.counts},
            "collections": {
                collection: {name: figure.to_dict() for name, figure in figures.items()}
                for collection, figures in sorted(self.collections.items())
            },
        }

    def to_json(self, **more) -> str:
        return json.dumps(self.to_dict() | more, indent=2) + "\n"


def describe(summary: dict) -> str:
    """Describes a summary in words."""
    counts = summary["outcomes"]
    lines = [
        f"{summary['records']:,} scan{'s' * (summary['records'] != 1)}: "
        + ", ".join(f"{n:,} {outcome}" for outcome, n in counts.items())
    ]
    lines += [f"  {n:>9,}  {reason.replace('_', ' ')}" for reason, n in summary["reasons"].items()]
    lines += [f"  {n:>9,}  coloured by {model}" for model, n in summary["models"].items()]
    return "\n".join(lines)


def describe_unused(uris: list[str]) -> str:
    """Describes hints files without a scan."""
    some = ", ".join(uris[:3]) + (", ..." if len(uris) > 3 else "")
    are = "hints file matches" if len(uris) == 1 else "hints files match"
    return f"{len(uris):,} {are} no scan (they must be named KEY.txt or KEY.png): {some}"
