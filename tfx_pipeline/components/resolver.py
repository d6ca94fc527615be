"""Resolver: the model in use, which a candidate has to measure up to."""

import os

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model

from model import default_model
from pipeline import registry, storage
from tfx_pipeline import folders
from tfx_pipeline.artifacts import Baseline

STATISTICS = "statistics"  # in a pushed version: of the data it was trained on
SERVING = "Format-Serving"  # where TFX looks for a model in its artifact


@component
def Resolver(
    model: OutputArtifact[Model],
    statistics: OutputArtifact[Baseline],
    pushed_root: Parameter[str],
    state: Parameter[str],
):
    """What `latest` points to in the pushed models' folder, or the model that ships while nothing was pushed.

    TFX's own strategy takes the latest model that the Evaluator blessed, though the serving gate may have
    stopped it or somebody may have rolled it back. The pushed folder knows better, on every orchestrator.

    Args:
        state: anything that changes when the pushed folder does, so that a cached answer is not an old one.
    """
    del state
    folder = default_model()
    if storage.is_folder(pushed_root) and registry.versions(pushed_root):
        folder = registry.resolve(pushed_root)
    folders.copy(folder, os.path.join(model.uri, SERVING))
    folders.copy(os.path.join(folder, STATISTICS), statistics.uri)
