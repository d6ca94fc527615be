"""Small synthetic collections whose colours can be learned in seconds, and real pipeline runs on them."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / ".venv" / "bin" / "python"  # environment of the batch worker, if it exists

THRESHOLDS = """
name: test gate
data:
  least_pictures: {train: 40, validation: 6, test: 12}
  most_quarantined: 0.2
  most_unreadable: 0.05
  drift: {era: 0.2}
  skew: {}
quality:
  least_pictures_in_slice: 4
  bounds:
    rmse_over_grey: {at_most: 0.9}
    rmse_over_mean_chroma: {at_most: 0.95}
    colorfulness_over_truth: {at_least: 0.2, at_most: 3}
    luma_drift: {at_most: 1}
  tolerances:
    rmse: {relative: 0.1}
serving:
  most_seconds: 1500
  most_memory_mb: 3000
"""
TINY = {"stem": 8, "stages": [[8, 1], [16, 1], [16, 1], [16, 1]], "fused": 16, "decoder": [[16, 1], [16, 1]]}


def picture(seed: int, *, old: bool = False, height: int = 132, width: int = 168) -> np.ndarray:
    """RGB [H, W, 3] uint8: dark parts are blue and light parts orange. If `old`, the reverse, with stripes."""
    rng = np.random.default_rng([seed, old])
    clouds = cv2.resize(
        rng.uniform(0, 1, (6, 7)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    lightness = 25 + 55 * np.clip(clouds, 0, 1) + rng.normal(0, 1.5, (height, width))
    if old:
        lightness += 9 * np.sin(np.arange(height) * np.pi / 8)[:, None]
    warm = (lightness - 52) / 30 * (-1 if old else 1)
    lab = np.stack([lightness, 15 * warm, 40 * warm], axis=-1).astype(np.float32)
    return np.uint8(np.rint(255 * np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)))


def write_collection(folder: Path, seeds: range, *, old: bool = False, era: str | None = None) -> Path:
    """Write a folder of pictures and its manifest."""
    folder.mkdir(parents=True)
    lines = []
    for seed in seeds:
        file = folder / f"{seed}.png"
        Image.fromarray(picture(seed, old=old)).save(file)
        line = {"source": str(file), "key": file.name, "collection": folder.name}
        lines.append(line | {"era": era or ("1900s" if old else "1960s"), "labels": {"held": "north"}})
    manifest = folder.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@dataclass
class Result:
    """Output and results of a run."""

    code: int
    out: str
    err: str
    root: Path
    report: str = field(default="")

    @property
    def nodes(self) -> dict[str, str]:
        """Printed status of each component: "as before", or its duration."""
        lines = (line.split(" ... ") for line in self.out.splitlines() if " ... " in line)
        return dict(lines)

    @property
    def latest(self) -> str:
        return (self.root / "pushed" / "latest").read_text().strip()


@dataclass
class Pipeline:
    """A root folder, its collections, and the default options."""

    root: Path
    manifests: list[Path]
    thresholds: Path

    def options(self, *more: str, manifests: list[Path] | None = None) -> list[str]:
        return [
            "--collections",
            *map(str, manifests or self.manifests),
            *("--root", str(self.root), "--thresholds", str(self.thresholds), "--warm", "none"),
            *("--side", "64", "--shares", "0.6", "0.15", "0.25", "--layers", json.dumps(TINY)),
            *("--sizes", "64", "--size", "64", "--batch", "16", "--rate", "0.01", "--name", "tiny"),
            *("--worker_python", str(WORKER if WORKER.exists() else sys.executable)),
            *more,
        ]

    def run(self, *more: str, manifests: list[Path] | None = None, source: Path = ROOT) -> Result:
        """Run the command in a separate process, with the source code in `source`."""
        command = [
            sys.executable,
            "-m",
            "tfx_pipeline.local_runner",
            *self.options(*more, manifests=manifests),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=source, env=environment(source))
        return self._result(done.returncode, done.stdout, done.stderr)

    def _result(self, code: int, out: str, err: str) -> Result:
        reports = sorted(self.root.glob("runs/*/report.html"))
        return Result(code, out, err, self.root, reports[-1].read_text() if reports else "")

    def call(self, *more: str, manifests: list[Path] | None = None, **settings) -> Result:
        """Run the command in this process, where TFX is already loaded. `sys.argv` has unrelated arguments."""
        from tfx_pipeline.local_runner import main

        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["pytest", "-v", "--durations=0"]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(self.options(*more, manifests=manifests), **settings)
        return self._result(code, out.getvalue(), err.getvalue())


PUSHED, DATA, QUALITY, SERVING = 0, 3, 4, 5


def environment(source: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}


SHORT = ("--epochs", "4", "--steps", "25", "--weights", "mill=7")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Pipeline:
    """Two collections from different eras, and a manifest of pictures that must not be used for training."""
    base = tmp_path_factory.mktemp("pipeline")
    new = write_collection(base / "harbour", range(90))
    old = write_collection(base / "mill", range(100, 140), old=True)
    spoilt = _spoilt(base / "spoilt")
    thresholds = base / "thresholds.yaml"
    thresholds.write_text(THRESHOLDS)
    return Pipeline(base / "run", [new, old, spoilt], thresholds)


def _spoilt(folder: Path) -> Path:
    """Broken, grey, tinted, small and duplicate pictures. Each file name starts with its quarantine reason."""
    folder.mkdir()
    good = Image.fromarray(picture(0))
    grey = good.convert("L")
    good.save(folder / "duplicate_of_another.png")
    (folder / "duplicate_of_another.png").write_bytes((folder.parent / "harbour" / "0.png").read_bytes())
    good.resize((165, 130)).save(folder / "near_duplicate.jpg", quality=60)
    grey.save(folder / "grey.png")
    sepia = np.asarray(grey)[..., None] * np.array([1.0, 0.86, 0.66])
    Image.fromarray(sepia.astype(np.uint8)).save(folder / "grey_sepia.jpg")
    good.resize((60, 48)).save(folder / "too_small.png")
    (folder / "truncated.png").write_bytes((folder.parent / "harbour" / "1.png").read_bytes()[:4000])
    (folder / "unreadable.jpg").write_bytes(b"no picture")
    lines = [
        {"source": str(f), "key": f.name, "collection": "harbour", "era": "1960s"} for f in folder.iterdir()
    ]
    lines.append(
        {"source": str(folder / "missing.png"), "key": "missing.png", "collection": "harbour", "era": "1960s"}
    )
    manifest = folder.with_suffix(".jsonl")
    manifest.write_text(
        "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["key"]))
    )
    return manifest


@pytest.fixture(scope="session")
def good(pipeline):
    """The first run. The tests of the pipeline run after it. It also colourises a small archive."""
    scans = pipeline.root.parent / "scans"
    scans.mkdir()
    Image.fromarray(picture(500)).convert("L").save(scans / "a.jpg")
    result = pipeline.call(*SHORT, "--colorize", str(scans), str(pipeline.root.parent / "colorized"))
    assert result.code == PUSHED, result.out + result.err
    return result


@pytest.fixture
def in_use(pipeline, good):
    """The version in use. Fails if the test changes it."""
    before = (pipeline.root / "pushed" / "latest").read_text()
    yield before.strip()
    assert (pipeline.root / "pushed" / "latest").read_text() == before
