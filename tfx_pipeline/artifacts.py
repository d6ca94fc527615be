"""Artifact types of this pipeline, and the verdicts that gates write into them."""

import json
import os
from dataclasses import asdict, dataclass, field

from tfx.types import artifact

from pipeline import storage

PASSED, FAILED, PENDING = "passed", "failed", "pending"
_FILE = "verdict.json"


class GateVerdict(artifact.Artifact):
    """The decision of a gate, in a `verdict.json`; see `Verdict`."""

    TYPE_NAME = "colorization.GateVerdict"


class Baseline(artifact.Artifact):
    """Statistics of the data of the current model, in a folder for each split; empty if there are none."""

    TYPE_NAME = "colorization.BaselineStatistics"


@dataclass(frozen=True)
class Verdict:
    """A gate's verdict.

    Attributes:
        gate: "data", "quality" or "serving".
        verdict: `PASSED` or `FAILED`.
        findings: rows of a table that list what is wrong; empty if the gate was passed.
        figures: all measurements, for the report and the model card.
    """

    gate: str
    verdict: str
    findings: list[dict] = field(default_factory=list)
    figures: dict = field(default_factory=dict)

    def write(self, folder: str) -> None:
        storage.write(os.path.join(folder, _FILE), json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: str) -> "Verdict":
        return cls(**json.loads(storage.read(os.path.join(folder, _FILE))))


class GateClosed(Exception):
    """A gate stops the run; its verdict says why."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict)
        self.verdict = verdict

    def __str__(self) -> str:
        return f"the {self.verdict.gate} gate is closed:\n{table(self.verdict.findings)}"


def table(rows: list[dict]) -> str:
    """Formats rows with equal keys as lines of text with aligned columns."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)
