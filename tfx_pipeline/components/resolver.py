"""Resolver: the current model, with which a candidate is compared."""

import os

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model

from model import default_model
from pipeline import storage
from pipeline.batch import registry
from tfx_pipeline import folders
from tfx_pipeline.artifacts import Baseline

STATISTICS = "statistics"  # in a pushed version: statistics of its training data
SERVING = "Format-Serving"  # folder of the model in an artifact of TFX


@component
def Resolver(
    model: OutputArtifact[Model],
    statistics: OutputArtifact[Baseline],
    pushed_root: Parameter[str],
    state: Parameter[str],
):
    """Copies the model that `latest` names in the folder of pushed models, or the shipped model if there is none.

    TFX's own strategy takes the latest model that the Evaluator blessed. The serving gate may have stopped this
    model, or somebody may have rolled it back, so the folder of pushed models is asked instead.

    Args:
        state: changes with the folder of pushed models, so that no outdated result is taken from the cache.
    """
    del state
    folder = default_model()
    if storage.is_folder(pushed_root) and registry.versions(pushed_root):
        folder = registry.resolve(pushed_root)
    folders.copy(folder, os.path.join(model.uri, SERVING))
    folders.copy(os.path.join(folder, STATISTICS), statistics.uri)
