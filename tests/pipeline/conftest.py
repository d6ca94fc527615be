"""A tiny model with the real interface, and small archives of real files."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.card import ModelCard, weights_sha256, write_card
from pipeline.records.record import Record

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32


def export_model(
    folder: Path,
    *,
    version: str = "1",
    side: int = SIDE,
    outputs=("chroma", "confidence"),
    broken: bool = False,
    calm: float | None = None,
) -> Path:
    """Export a SavedModel whose chroma follows from lightness: dark parts are blue and light parts orange.

    Its confidence follows from the contrast, and its certainty, if it is among the `outputs`, from the lightness. It
    fails on a picture that is white everywhere, like a faulty kernel. If `broken`, it fails on any picture.
    """
    import tensorflow as tf

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, side, side, 1], tf.float32, name="lightness")])
        def __call__(self, lightness):
            with tf.control_dependencies(
                [tf.debugging.assert_less(tf.reduce_min(lightness, (1, 2, 3)), -1.0 if broken else 99.9)]
            ):
                warm = (lightness - 50) / 50
            chroma = tf.concat([12 * warm, 30 * warm + float(version)], -1)
            confidence = tf.clip_by_value(tf.math.reduce_std(lightness, (1, 2, 3)) / 30, 0.0, 1.0)
            certainty = lightness[..., 0] / 100
            answers = {"chroma": chroma, "confidence": confidence, "certainty": certainty}
            return {name: answers[name] for name in outputs}

    module = Tiny()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    blank = {str: "", int: 0, float: 1.0, float | None: calm, dict: {}, list: [], list[str]: []}
    entries = {entry.name: blank[entry.type] for entry in dataclasses.fields(ModelCard)}
    entries |= {"name": "tiny", "version": version, "size": side, "weights_sha256": weights_sha256(folder)}
    card = ModelCard(**entries)
    write_card(folder, card)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return export_model(tmp_path_factory.mktemp("model") / "tiny")


WAIT = 600  # seconds to wait for a command on a busy machine

_PROGRESS = re.compile(r"^[\d,]+ of [\d,]+ scans, .*\n", re.MULTILINE)


def told(err: str) -> str:
    """The stderr of a command without progress lines, which appear on slow machines."""
    return _PROGRESS.sub("", err)


@dataclass
class Run:
    """Results of a run of the command line."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def records(self) -> dict[str, Record]:
        """Records by key. Fails if a key has two records."""
        records = {}
        for line in self.lines:
            record = Record.from_json(line)
            assert record.key not in records, f"{record.key} is recorded twice"
            records[record.key] = record
        return records

    @property
    def lines(self) -> list[str]:
        shards = sorted(self.output.glob("manifest/*.jsonl"))
        return [line for shard in shards for line in shard.read_text().splitlines()]

    @property
    def latest(self) -> dict[str, Record]:
        records = sorted(map(Record.from_json, self.lines), key=lambda record: record.finished)
        return {record.key: record for record in records}

    @property
    def summary(self) -> dict:
        return json.loads((self.output / "summary.json").read_text())


def assert_one_line(run: Run, *words: str, code: int = 2) -> None:
    """Assert that a run said one line with these words, and left no file."""
    assert run.code == code, run.out + run.err
    assert run.err.count("\n") == 1, run.err
    for word in words:
        assert word in run.err
    assert not list(run.output.rglob("*"))


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | more


def start(*arguments: object, **options) -> subprocess.Popen:
    """Start the command in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.colorize", *map(str, arguments)],
        **{
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": environment(),
            **options,
        },
    )


@pytest.fixture
def colorize(model, capsys):
    """Run the command line, here or (with `process=True`) in a separate process. By default without a gallery."""
    from pipeline.colorize import main

    def run(source: object, output: Path, *arguments: object, process: bool = False, **options) -> Run:
        given = ["--input", str(source), "--output", str(output), *map(str, arguments)]
        for name, value in {"--model": str(model), "--gallery_size": "0"}.items():
            if name not in given:
                given += [name, value]
        if not process:
            capsys.readouterr()
            code, (out, err) = main(given), capsys.readouterr()
            return Run(code, out, told(err), output)
        started = start(*given, **options)
        out, err = started.communicate(timeout=WAIT)
        return Run(started.returncode, out, told(err), output)

    return run


def picture(seed: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Luma uint8 [H, W] with soft shapes, edges and grain. Each seed gives a different picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    luma = 110 + 60 * np.sin(6 * x * rng.uniform(0.5, 2) + rng.uniform(0, 6)) * np.cos(
        5 * y * rng.uniform(0.5, 2)
    )
    luma += np.where((x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2 < 0.08, 45, 0)
    return np.uint8(np.clip(luma + rng.normal(0, 4, luma.shape), 0, 254))


def jpeg(luma: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(luma).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def make_archive(folder: Path, count: int, width: int = 96, height: int = 64) -> Path:
    """Write `count` grey JPEGs in sub-folders of ten."""
    for number in range(count):
        file = folder / f"box{number // 10}" / f"scan{number:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(picture(number, width, height)))
    return folder


def make_output(folder: Path, model: Path, count: int) -> Path:
    """Write an archive of `count` scans and a broken one to `in`, and its output to `out`. Returns the folder."""
    from pipeline.colorize import main

    (make_archive(folder / "in", count) / "broken.jpg").write_bytes(b"no picture")
    assert main(["--input", f"{folder}/in", "--output", f"{folder}/out", "--model", str(model)]) == 0
    return folder
