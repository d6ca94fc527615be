"""Training on another Keras backend, with export by TensorFlow."""

import json
import os
import subprocess
import sys

import cv2
import pytest

from model import train
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


NETWORK = ["--layers", json.dumps(LAYERS), "--average", "0.5"]
SHORT = ["--batch", "4", "--steps", "2", "--sizes", "32", "--size", "32"]


def trained(folder, backend: str, *words: str) -> str:
    """Train a small network on a backend. Returns the output of the command."""
    command = [sys.executable, "-m", "model.train", "--photos", "photos", "--output", "run", *NETWORK, *SHORT]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([*command, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("eagerly")
def test_jax_trains_with_a_teacher_and_tensorflow_exports(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert train.main(["--photos", "photos", "--output", "teacher", *NETWORK, *SHORT, "--epochs", "1"]) == 0
    said = trained(folder, "jax", "--teacher", "teacher", "--epochs", "1")
    assert "--average 0.5 keeps 25% of the initial weights in the exported model" in said
    assert "run the same command with KERAS_BACKEND=tensorflow" in said
    said = trained(folder, "tensorflow", "--teacher", "teacher", "--epochs", "2")
    assert "epoch 2/2" in said and "epoch 1/2" not in said
    assert (folder / "run" / run_folder.MODEL / "model_card.json").is_file()
