"""The report on an output: one page for the file, without pictures, which prints well.

It follows from the records alone, and from `summary.json` of the last run, so the same records give the same page.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline import storage
from pipeline.gallery.pages import template
from pipeline.gallery.pictures import REPORT as FILE
from pipeline.records.manifest import FOLDER as MANIFEST
from pipeline.records.record import SKIPS, Outcome, Record
from pipeline.records.summary import FILE as SUMMARY
from pipeline.records.summary import OTHERS, Summary

NAMED = 1_000  # scans without a derivative that the page names; the manifest has all
MOST = 100  # runs, models or collections on the page


@dataclass
class _Group:
    """Records with something in common."""

    outcomes: dict[str, int] = field(default_factory=lambda: {str(outcome): 0 for outcome in Outcome})
    first: str = ""  # time of the first and of the last record, UTC, ISO 8601
    last: str = ""

    def add(self, record: Record) -> None:
        self.outcomes[record.outcome] = self.outcomes.get(record.outcome, 0) + 1
        self.first = min(filter(None, (self.first, record.finished)), default="")
        self.last = max(self.last, record.finished)

    @property
    def scans(self) -> int:
        return sum(self.outcomes.values())


@dataclass
class _Findings:
    """What the page says, in bounded memory."""

    summary: Summary = field(default_factory=Summary)
    everything: _Group = field(default_factory=_Group)
    runs: dict[str, _Group] = field(default_factory=dict)
    models: dict[tuple[str, str, str], _Group] = field(default_factory=dict)
    collections: dict[str, _Group] = field(default_factory=dict)
    options: dict[str, _Group] = field(default_factory=dict)
    refused: list[Record] = field(default_factory=list)
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    source_bytes: int = 0
    remarks: int = 0  # derivatives with a remark

    def add(self, record: Record) -> None:
        self.digest.update(record.to_json().encode() + b"\n")
        self.summary.add(record)
        self.everything.add(record)
        self.source_bytes += max(0, record.source_bytes)
        _group(self.runs, record.run).add(record)
        _group(self.collections, record.key.rpartition("/")[0].partition("/")[0]).add(record)
        if record.outcome != Outcome.COLORIZED:
            if len(self.refused) < NAMED:
                self.refused.append(record)
            return
        self.remarks += bool(record.detail)
        _group(self.models, (record.model, record.model_version, record.model_sha256)).add(record)
        _group(self.options, record.options_sha256).add(record)


def _group(groups: dict, name) -> _Group:
    if name not in groups and len(groups) >= MOST:
        name = (OTHERS, "", "") if isinstance(name, tuple) else OTHERS
    return groups.setdefault(name, _Group())


def write_report(output: str, records: Iterable[Record], folder: str = "") -> str:
    """Writes `report.html`.

    Args:
      output: folder, gs:// or s3:// prefix of the derivatives.
      folder: for the page: the output (default), or one around it. A bag has it beside its payload, which stays as
        it is.
      records: the latest record of each scan, by key. Memory does not grow with their number.

    Returns:
      The URI of the page.

    Raises:
      OSError: it could not be written.
    """
    findings = _Findings()
    for record in records:
        findings.add(record)
    folder = folder or output
    page = template("report.html").render(
        manifest=storage.join(output, MANIFEST)[len(folder) :].lstrip("/"),
        found=findings,
        figures=findings.summary.to_dict()["figures"],
        options=_options(output),
        reasons=sorted(findings.summary.reasons.items(), key=lambda item: (-item[1], item[0])),
        skips={str(reason) for reason in SKIPS},
        left_out=findings.everything.scans
        - findings.everything.outcomes["colorized"]
        - len(findings.refused),
    )
    uri = storage.join(folder, FILE)
    storage.write(uri, page.encode())
    return uri


def _options(output: str) -> dict[str, dict]:
    """The options of the last run by their digest; empty if it was killed, or did not tell them."""
    try:
        found = json.loads(storage.read(storage.join(output, SUMMARY)))
        return {found["options_sha256"]: dict(found["options"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
