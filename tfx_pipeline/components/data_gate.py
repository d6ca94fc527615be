"""DataGate: stops the run if ingestion or validation found problems in the data."""

import json
import os
from collections.abc import Iterator

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics, Schema
from tfx.utils import io_utils

from pipeline import storage
from pipeline.photographs.splits import PARTS
from pipeline.records.record import Reason
from tfx_pipeline import folders
from tfx_pipeline import thresholds as limits
from tfx_pipeline.artifacts import FAILED, PASSED, Baseline, GateClosed, GateVerdict, Verdict
from tfx_pipeline.components.example_gen import COUNTS

_STATISTICS, _ANOMALIES = "FeatureStats.pb", "SchemaDiff.pb"
_UNREADABLE = (Reason.UNREADABLE, Reason.TRUNCATED, Reason.MISSING, Reason.READ_ERROR)


@component
def DataGate(
    examples: InputArtifact[Examples],
    statistics: InputArtifact[ExampleStatistics],
    schema: InputArtifact[Schema],
    anomalies: InputArtifact[ExampleAnomalies],
    baseline: InputArtifact[Baseline],
    verdict: OutputArtifact[GateVerdict],
    thresholds: Parameter[str],
    sources: Parameter[str],
):
    """Raises GateClosed with a table of the problems, or lets the run continue.

    Args:
        baseline: statistics of the data of the current model, for the comparison.
        thresholds: text of the file of thresholds.
        sources: digest of the code; if it changes, the data are checked again.
    """
    del sources
    chosen = limits.parse(thresholds)
    counts = json.loads(storage.read(os.path.join(examples.uri, COUNTS)))
    wanted = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema.uri))
    with folders.here(statistics.uri) as now, folders.here(baseline.uri) as before:
        findings = [
            *of_ingestion(counts, chosen),
            *of_validation(anomalies.uri, counts),
            *of_distributions(_read(now), _read(before), wanted, chosen, counts),
        ]
    found = Verdict("data", FAILED if findings else PASSED, findings, counts)
    found.write(verdict.uri)
    if findings:
        raise GateClosed(found)


def of_ingestion(counts: dict, thresholds: limits.Thresholds) -> Iterator[dict]:
    """Problems of the ingestion: too few pictures in a split, too many quarantined."""
    for part, least in thresholds.least_pictures.items():
        pictures = counts["parts"].get(part, 0)
        if pictures < least:
            yield _row("too few pictures", part, f"{pictures}; at least {least} are needed", pictures)
    quarantined = counts["quarantined"]
    for name, reasons, most in (
        ("quarantined", quarantined, thresholds.most_quarantined),
        ("unreadable", [r for r in quarantined if r in _UNREADABLE], thresholds.most_unreadable),
    ):
        number = sum(quarantined[reason] for reason in reasons)
        if counts["pictures"] and number / counts["pictures"] > most:
            words = ", ".join(f"{quarantined[r]} {r}" for r in sorted(reasons, key=quarantined.get)[::-1])
            share = f"{number / counts['pictures']:.0%} of all; at most {most:.0%} are allowed"
            yield _row(f"too many {name}", "all", f"{share}: {words}", number)


def of_validation(folder: str, counts: dict) -> Iterator[dict]:
    """Problems that ExampleValidator found in each split, compared with the curated schema."""
    for part in PARTS:
        file = os.path.join(folder, f"Split-{part}", _ANOMALIES)
        found = anomalies_pb2.Anomalies.FromString(storage.read(file))
        yield from _rows(found, part, counts["parts"].get(part, 0))


def of_distributions(
    now: dict, before: dict, schema: schema_pb2.Schema, thresholds: limits.Thresholds, counts: dict
) -> Iterator[dict]:
    """Features whose distribution differs too much from the data before (drift) or between splits (skew)."""
    comparisons = (
        ("drift", "drift_comparator", thresholds.drift, before.get("train"), "previous_statistics"),
        ("skew", "skew_comparator", thresholds.skew, now.get("test"), "serving_statistics"),
    )
    for name, comparator, bounds, other, argument in comparisons:
        if not bounds or other is None or not _pictures(other) or not _pictures(now["train"]):
            continue
        compared = schema_pb2.Schema()
        for feature in schema.feature:
            if feature.name in bounds:
                copy = compared.feature.add(name=feature.name, type=feature.type)
                bound = getattr(copy, comparator).jensen_shannon_divergence
                bound.threshold = bounds[feature.name]
        found = tfdv.validate_statistics(now["train"], compared, **{argument: other})
        yield from _rows(found, f"train: {name}", counts["parts"].get("train", 0), only=bounds)


def _rows(found: anomalies_pb2.Anomalies, split: str, pictures: int, only=None) -> Iterator[dict]:
    if found.HasField("dataset_anomaly_info"):
        yield _row("data set", split, found.dataset_anomaly_info.description, pictures)
    for name, anomaly in sorted(found.anomaly_info.items()):
        feature = ".".join(anomaly.path.step) or name
        if only is None or feature in only:
            yield _row(f"{feature}: {anomaly.short_description}", split, anomaly.description, pictures)


def _row(what: str, where: str, found: str, pictures: int) -> dict:
    return {"what": what, "split": where, "pictures": pictures, "found": " ".join(found.split())}


def _pictures(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> int:
    return statistics.datasets[0].num_examples if statistics.datasets else 0


def _read(folder: str) -> dict[str, statistics_pb2.DatasetFeatureStatisticsList]:
    """Reads statistics by split; an empty folder has none."""
    files = {part: os.path.join(folder, f"Split-{part}", _STATISTICS) for part in PARTS}
    return {part: tfdv.load_stats_binary(file) for part, file in files.items() if os.path.isfile(file)}
