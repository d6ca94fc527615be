"""The trial of the serving gate: the real batch job on canary scans, in the environment of the worker."""

import sys

import numpy as np
import pytest
from PIL import Image

from model import default_model
from tests.tfx_pipeline.conftest import WORKER, picture
from tfx_pipeline import canary

pytestmark = pytest.mark.timeout(3600)

PATIENCE = 1500  # seconds; the machine may be busy
PICTURES = [picture(seed) for seed in range(3)]
PYTHON = str(WORKER if WORKER.exists() else sys.executable)


def test_canary_scans_have_odd_sizes_and_depths(tmp_path):
    keys = canary.write_scans(PICTURES, str(tmp_path))
    found = {}
    for key in keys:
        with Image.open(tmp_path / key) as image:
            found[key.split("/")[0]] = (image.mode, image.size)
    assert {mode for mode, _ in found.values()} >= {"L", "RGB", "CMYK", "1", "P", "LA", "I;16"}
    sizes = [size for _, size in found.values()]
    assert min(map(min, sizes)) == 16 and max(map(max, sizes)) > 3000
    assert any(width % 2 and height % 2 for width, height in sizes)


def test_the_shipped_model_passes():
    trial = canary.try_job(default_model(), PICTURES, PYTHON, PATIENCE, 4000)
    assert trial.findings == []
    assert trial.scans == len(canary._KINDS) and trial.seconds > 0 and trial.memory_mb > 100


@pytest.mark.parametrize(
    ("seconds", "memory", "words"),
    [(2, 4000, "the job took more than 2 s"), (PATIENCE, 150, "MB of memory; at most 150 are allowed")],
)
def test_a_job_over_its_limit_of_time_or_memory_is_ended(seconds, memory, words):
    trial = canary.try_job(default_model(), PICTURES, PYTHON, seconds, memory)
    assert len(trial.findings) == 1 and words in trial.findings[0]


def test_a_folder_without_a_model_is_a_finding(tmp_path):
    [finding] = canary.try_job(str(tmp_path), PICTURES, PYTHON, PATIENCE, 4000).findings
    assert finding.startswith("the job ended with exit code 2") and "not a SavedModel" in finding


def test_few_pictures_are_repeated(tmp_path):
    keys = canary.write_scans([np.zeros((40, 50, 3), np.uint8)], str(tmp_path))
    assert len(keys) == len(set(keys)) == len(canary._KINDS)
