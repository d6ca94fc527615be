"""Pusher: makes a candidate that passed all gates the next version. Any other candidate stops the run."""

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

from pipeline import storage
from pipeline.batch import registry
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
    """Pushes into `pushed_root`, a folder of `pipeline.batch.registry`, or raises GateClosed.

    Beside the model, it pushes the card with the verdicts of the gates and the fingerprint of the data, and the
    statistics of the data for the comparison with the next run.
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
    """The figures of a verdict for the model card."""
    return {} if verdict.gate == "data" else {"figures": verdict.figures}
