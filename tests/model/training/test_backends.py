"""Training on another Keras backend, with export by TensorFlow."""

import json
import os
import subprocess
import sys

import cv2
import pytest

from model.training import run_folder
from tests.model.conftest import landscape
from tests.model.training.test_distillation import LAYERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with enough photographs for all three parts of the split."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "photos" / "coast").mkdir(parents=True)
    for seed in range(30):
        cv2.imwrite(str(folder / "photos" / "coast" / f"{seed}.png"), landscape(seed)[..., ::-1])
    return folder


def trained(folder, backend: str, output: str, *words: str) -> str:
    """Train a small network on a backend. Returns the output of the command."""
    command = [sys.executable, "-m", "model.train", "--photos", "photos", "--output", output]
    command += ["--batch", "4", "--steps", "2", "--sizes", "64", "32", "--size", "32", *words]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jax_trains_with_a_teacher_and_tensorflow_exports(folder):
    network = ["--layers", json.dumps(LAYERS), "--average", "0.5"]
    said = trained(folder, "jax", "teacher", *network, "--epochs", "1")
    assert "--average 0.5 keeps 25% of the initial weights in the exported model" in said
    trained(folder, "tensorflow", "teacher", *network, "--epochs", "1")
    taught = [*network, "--teacher", "teacher"]
    said = trained(folder, "jax", "run", *taught, "--epochs", "1")
    assert "run the same command with KERAS_BACKEND=tensorflow" in said
    said = trained(folder, "tensorflow", "run", *taught, "--epochs", "2")
    assert "epoch 2/2" in said and "epoch 1/2" not in said
    assert (folder / "run" / run_folder.MODEL / "model_card.json").is_file()
