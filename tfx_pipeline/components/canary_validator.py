"""CanaryValidator: tests whether the real batch job works with a candidate, within limits of time and memory."""

import os

import cv2
import numpy as np
import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model, ModelBlessing
from tfx.utils import io_utils

from model.data import features
from pipeline import storage
from tfx_pipeline import canary, folders
from tfx_pipeline import thresholds as limits
from tfx_pipeline.artifacts import FAILED, PASSED, PENDING, GateVerdict, Verdict
from tfx_pipeline.components.resolver import SERVING

_PICTURES = 8
# Files of TFX's InfraValidator.
_BLESSED, _NOT_BLESSED = "INFRA_BLESSED", "INFRA_NOT_BLESSED"


@component
def CanaryValidator(
    model: InputArtifact[Model],
    model_blessing: InputArtifact[ModelBlessing],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    verdict: OutputArtifact[GateVerdict],
    thresholds: Parameter[str],
    worker_python: Parameter[str],
    sources: Parameter[str],
):
    """Runs the batch job in the environment of the worker, on scans made from test pictures.

    A model that did not pass the quality gate is neither tried nor blessed.

    Args:
        examples: raw examples.
        thresholds: text of the file of thresholds.
        worker_python: interpreter in the environment of the worker; empty for this one.
        sources: digest of the code; if it changes, the model is tried again.
    """
    del sources
    chosen = limits.parse(thresholds)
    found = Verdict("serving", PENDING)
    if model_blessing.get_int_custom_property("blessed") == 1:
        with folders.here(os.path.join(model.uri, SERVING)) as local:
            pictures = _pictures(os.path.join(examples.uri, "Split-test"))
            trial = canary.try_job(local, pictures, worker_python, chosen.most_seconds, chosen.most_memory_mb)
        rows = [{"canary job": finding} for finding in trial.findings]
        figures = {"seconds": trial.seconds, "memory_mb": trial.memory_mb, "scans": trial.scans}
        found = Verdict("serving", FAILED if rows else PASSED, rows, figures)
    found.write(verdict.uri)
    blessed = found.verdict == PASSED
    io_utils.write_string_file(os.path.join(blessing.uri, _BLESSED if blessed else _NOT_BLESSED), "")
    blessing.set_int_custom_property("blessed", int(blessed))


def _pictures(folder: str) -> list[np.ndarray]:
    """Some RGB pictures [H, W, 3] uint8 of a split of raw examples."""
    files = sorted(info.uri for info in storage.list_files(folder))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").take(_PICTURES).as_numpy_iterator()
    parsed = (tf.train.Example.FromString(record).features.feature for record in records)
    encoded = (feature[features.IMAGE].bytes_list.value[0] for feature in parsed)
    return [
        cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        for data in encoded
    ]
