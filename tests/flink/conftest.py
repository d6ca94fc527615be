"""A Flink cluster, and collections that are large enough to be interrupted."""

import os
import sys
from pathlib import Path

import pytest

from infra.flink.cluster import Cluster
from tests.pipeline.conftest import ROOT, jpeg, model, picture  # noqa: F401 (model is a fixture)

PICTURES = 20  # different ones


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Function that makes a folder of so many scans of two megapixels."""
    pictures = [jpeg(picture(seed, 1600, 1200)) for seed in range(PICTURES)]

    def make(count: int) -> Path:
        folder = tmp_path_factory.mktemp("scans")
        for number in range(count):
            file = folder / f"box{number // 20}" / f"scan{number:04}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(pictures[number % PICTURES])
        return folder

    return make


@pytest.fixture(scope="session")
def worker(tmp_path_factory) -> Path:
    """The command `archive-colorize worker` of this checkout in one word, as runners want it."""
    script = tmp_path_factory.mktemp("bin") / "worker"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline.colorize worker "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def cluster():
    # A worker takes one of two cores, as in production.
    env = os.environ | {"PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    with Cluster(env=env) as running:
        yield running
        for name, text in running.logs().items():  # pytest shows them if the test failed
            print(f"--- {name}\n{text[-20_000:]}")
