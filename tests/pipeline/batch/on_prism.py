"""The job on Prism, Beam's portable runner for one machine.

`make test-prism` builds Prism and runs this file. Pytest does not find it by itself.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.benchmarks import clips, flicker
from tests.pipeline.conftest import WAIT, Run, make_archive, start


@pytest.fixture(scope="module")
def prism() -> list[str]:
    """Options for Prism. The file is named by the environment variable PRISM."""
    file = os.environ.get("PRISM", "")
    assert os.access(file, os.X_OK), "set PRISM to the program, or use make test-prism"
    return ["--runner=PrismRunner", f"--prism_location={file}"]


def digests(output: Path) -> dict[str, str]:
    files = output.rglob("*_color.jpg")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_prism_gives_the_same_derivatives_as_the_local_runner(model, colorize, prism, tmp_path):
    archive = make_archive(tmp_path / "in", 60, 400, 300)
    (archive / "broken.jpg").write_bytes(b"no picture")
    local, there = colorize(archive, tmp_path / "local"), tmp_path / "prism"
    process = start("--input", archive, "--output", there, "--model", model, *prism)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    run = Run(0, out, err, there)
    assert run.summary["outcomes"] == local.summary["outcomes"]
    assert digests(there) == digests(tmp_path / "local") and len(digests(there)) == 60
    assert "1  unreadable" in out and run.summary["stages"]["open"]["scans"] == 61
    again = start("--input", archive, "--output", there, "--model", model, *prism)
    out, err = again.communicate(timeout=WAIT)
    assert again.returncode == 0 and "60  of these were up to date already" in out, err


def test_prism_finds_the_same_neighbours(model, colorize, prism, tmp_path):
    film = tmp_path / "in"
    flicker.write(list(clips.frames(8, clips.SHOTS[:3])), film / "reel")
    options = ("--group_by", "folder", "--date", "2026-11-28", "--layout", "whole")
    local, there = colorize(film, tmp_path / "local", *options), tmp_path / "prism"
    process = start("--input", film, "--output", there, "--model", model, *options, *prism)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    found = Run(0, out, err, there).records
    assert {key: record.neighbors for key, record in found.items()} == {
        key: record.neighbors for key, record in local.records.items()
    }
    assert sum(len(record.neighbors) for record in found.values()) > 24
    assert digests(there) == digests(tmp_path / "local") and len(digests(there)) == 24


def test_a_signal_lets_prism_finish_what_it_has_begun(model, colorize, prism, tmp_path):
    archive, output = make_archive(tmp_path / "in", 300, 400, 300), tmp_path / "out"
    process = start("--input", archive, "--output", output, "--model", model, "--gallery_size", "0", *prism)
    deadline = time.monotonic() + WAIT
    while len(digests(output)) < 20 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130, err
    run = Run(130, out, err, output)
    assert "Traceback" not in err and "stopped by SIGINT" in out
    assert len(run.records) == len(digests(output)) < 300
    assert colorize(archive, output).summary["outcomes"]["colorized"] == 300
