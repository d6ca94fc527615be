"""Three nights on one machine, with the commands of the schedules: train, pass the gates, colour what is new."""

import json
import os
import subprocess
import sys

from PIL import Image

from model.card import is_blessed, read_card
from pipeline.records import manifest
from tests.tfx_pipeline.conftest import (
    PUSHED,
    QUALITY,
    ROOT,
    SHORT,
    THRESHOLDS,
    Pipeline,
    environment,
    picture,
    write_collection,
)

# Python runs it at the start of each process, workers included.
CLOCK = """
import datetime, os
from pipeline import clock

now = clock.now
clock.now = lambda: now() + datetime.timedelta(days=int(os.environ["NIGHT"]))
"""


class Machine:
    """A machine with a clock of its own, a collection of photographs, an archive of scans, and two commands."""

    def __init__(self, folder):
        self.night = 0
        self.folder, self.photographs = folder, []
        (folder / "sitecustomize.py").write_text(CLOCK)
        thresholds = folder / "thresholds.yaml"
        thresholds.write_text(THRESHOLDS)
        self.pipeline = Pipeline(folder / "run", [], thresholds)
        self.pushed = str(self.pipeline.root / "pushed")
        self.output = str(folder / "colour")
        (folder / "scans").mkdir()

    def arrive(self, photographs: range, scan: int) -> None:
        """New photographs for training, and a new scan."""
        name = f"harbour{photographs.start}"
        self.pipeline.manifests.append(write_collection(self.folder / name, photographs))
        Image.fromarray(picture(scan)).convert("L").save(self.folder / "scans" / f"{scan}.jpg")

    def run(self, *arguments: object) -> subprocess.CompletedProcess:
        env = environment(ROOT) | {"NIGHT": str(self.night)}
        env["PYTHONPATH"] = os.pathsep.join([str(self.folder), env["PYTHONPATH"]])  # has the clock
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)

    def train(self, *more: str) -> int:
        done = self.run("tfx_pipeline.local_runner", *self.pipeline.options(*more))
        assert "Traceback" not in done.stderr
        return done.returncode

    def colour(self) -> dict:
        """Colours what is new. Returns the summary."""
        scans = ("--input", self.folder / "scans", "--output", self.output, "--gallery_size", 0)
        done = self.run("pipeline.colorize", *scans, "--model", self.pushed)
        assert done.returncode == 0, done.stderr
        with open(f"{self.output}/summary.json") as file:
            return json.load(file)


def test_three_nights(tmp_path):
    machine = Machine(tmp_path)
    machine.arrive(range(90), scan=500)
    assert machine.train(*SHORT[:4]) == PUSHED
    first = machine.colour()
    assert (first["kept"], first["model_version"]) == (0, "1")
    assert first["model_why"] == f"the current version in {machine.pushed}; passed: data, quality, serving"

    machine.night = 1  # the candidate has learned almost nothing
    machine.arrive(range(200, 220), scan=501)
    assert machine.train("--epochs", "1", "--steps", "1") == QUALITY
    second = machine.colour()
    assert (second["kept"], second["model_version"], second["model_why"]) == (1, "1", first["model_why"])

    machine.night = 2  # the candidate is pushed; an archivist does not like it
    assert machine.train(*SHORT[:4], "--seed", "2") == PUSHED
    assert read_card(f"{machine.pushed}/2").version == "2"
    assert machine.run("pipeline.colorize", "rollback", machine.pushed).returncode == 0
    machine.arrive(range(300, 303), scan=502)
    third = machine.colour()
    assert (third["kept"], third["model_version"]) == (2, "1")
    why = f"the current version in {machine.pushed}, after a rollback from version 2; passed: data, quality, serving"
    assert third["model_why"] == why

    nights = [summary["started"][:10] for summary in (first, second, third)]
    assert nights == sorted(set(nights)), "each night has its date"
    blessed = {card.weights_sha256 for n in (1, 2) if is_blessed(card := read_card(f"{machine.pushed}/{n}"))}
    assert {record.model_sha256 for record in manifest.latest(machine.output)} <= blessed
    assert len(blessed) == 2
