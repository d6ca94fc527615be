"""Pusher: a candidate that has passed every gate becomes the next version; any other stops the run here."""

import json
import os
import shutil
import tempfile

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import (
    Examples,
    ExampleStatistics,
    InfraBlessing,
    Model,
    ModelBlessing,
    ModelEvaluation,
    PushedModel,
)

from pipeline import registry, storage
from tfx_pipeline import evaluation as quality
from tfx_pipeline import folders
from tfx_pipeline import thresholds as limits
from tfx_pipeline.artifacts import PASSED, GateClosed, GateVerdict, Verdict
from tfx_pipeline.components.example_gen import COUNTS
from tfx_pipeline.components.resolver import SERVING, STATISTICS


@component
def Pusher(
    model: InputArtifact[Model],
    model_blessing: InputArtifact[ModelBlessing],
    infra_blessing: InputArtifact[InfraBlessing],
    evaluation: InputArtifact[ModelEvaluation],
    examples: InputArtifact[Examples],
    statistics: InputArtifact[ExampleStatistics],
    data: InputArtifact[GateVerdict],
    serving: InputArtifact[GateVerdict],
    pushed_model: OutputArtifact[PushedModel],
    pushed_root: Parameter[str],
    command: Parameter[str],
    thresholds: Parameter[str],
):
    """Pushes into `pushed_root`, as `pipeline.registry` keeps it, or raises GateClosed.

    What is pushed beside the model: its card with the gates' verdicts and the data's fingerprint, and the
    statistics of its data, which the next span is compared with.
    """
    chosen = limits.parse(thresholds)
    with folders.here(evaluation.uri) as local:
        judged = quality.verdict(local, chosen)
    blessings = (
        (model_blessing.get_int_custom_property("blessed"), judged),
        (
            infra_blessing.get_int_custom_property("blessed"),
            Verdict.read(serving.uri),
        ),
    )
    pushed_model.set_int_custom_property("pushed", 0)
    for blessed, verdict in blessings:
        if blessed != 1 or verdict.verdict != PASSED:
            raise GateClosed(verdict)
    gates = [
        {"gate": verdict.gate, "verdict": verdict.verdict, **_brief(verdict)}
        for verdict in (Verdict.read(data.uri), *(verdict for _, verdict in blessings))
    ]
    counts = json.loads(storage.read(os.path.join(examples.uri, COUNTS)))
    with tempfile.TemporaryDirectory(prefix="push-") as scratch:
        folder = os.path.join(scratch, "model")
        with folders.here(os.path.join(model.uri, SERVING)) as local:
            shutil.copytree(local, folder)
        folders.copy(statistics.uri, os.path.join(folder, STATISTICS))
        pushed = registry.push(folder, pushed_root, gates=gates, data=counts, command=command)
    pushed_model.set_int_custom_property("pushed", int(pushed.new))
    pushed_model.set_string_custom_property("pushed_destination", pushed.uri)
    pushed_model.set_string_custom_property("pushed_version", pushed.version)


def _brief(verdict: Verdict) -> dict:
    """What of a verdict's figures goes into a model's card."""
    return {} if verdict.gate == "data" else {"figures": verdict.figures}
