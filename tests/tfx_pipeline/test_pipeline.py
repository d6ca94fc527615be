"""The complete pipeline on this machine, in the order of events that an archive would see."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from model.card import read_card
from model.data.features import COLLECTION, ERA, LAB, LABELS
from model.data.records import decode_lab
from pipeline.batch import registry
from pipeline.records.record import Record
from tests.tfx_pipeline.conftest import (
    PUSHED,
    QUALITY,
    ROOT,
    SHORT,
    Pipeline,
    environment,
)
from tfx_pipeline.components.resolver import STATISTICS

pytestmark = pytest.mark.timeout(3600)  # takes minutes, or hours on a busy machine


def quarantine(root: Path) -> dict[str, str]:
    """Reasons of the quarantined pictures by key."""
    files = sorted(root.glob("artifacts/CollectionExampleGen/examples/*/quarantine/*.jsonl.gz"))
    lines = [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    records = map(Record.from_json, lines)
    return {record.key: record.reason for record in records}


def test_a_good_run_is_pushed(pipeline, good):
    model = registry.resolve(str(pipeline.root / "pushed"))
    card = read_card(model)
    assert (good.latest, card.version, card.name) == ("1", "1", "tiny")
    assert [gate["verdict"] for gate in card.gates] == ["passed"] * 3
    assert "pushed: version 1 of tiny is the current model" in good.out
    # The statistics, which the next span is compared with, are pushed together with the model.
    assert Path(model, STATISTICS, "Split-train", "FeatureStats.pb").is_file()


def test_the_pushed_model_colourises_an_archive_in_the_same_run(pipeline, good):
    shards = (pipeline.root.parent / "colorized" / "manifest").glob("*.jsonl")
    [record] = [Record.from_json(line) for shard in shards for line in shard.read_text().splitlines()]
    assert (record.outcome, record.model, record.model_version) == ("colorized", "tiny", "1")


def test_the_card_of_a_pushed_model_says_what_it_was_trained_on_and_by(pipeline, good):
    card = read_card(registry.resolve(str(pipeline.root / "pushed")))
    assert card.data["kept"] == sum(card.data["parts"].values()) > 100
    assert set(card.data["manifests"].values()) and all(len(d) == 64 for d in card.data["manifests"].values())
    assert card.git_revision and "--epochs 4" in card.command


def test_broken_grey_and_duplicate_pictures_are_left_out_with_a_reason_each(pipeline, good):
    reasons = quarantine(pipeline.root)
    assert len(reasons) == 8
    for key, reason in reasons.items():
        if key != "duplicate_of_another.png":  # "0.png" is quarantined instead: the smaller key is kept
            assert key.startswith(reason), (key, reason)
    assert "duplicate" in reasons.values()


def test_lab_records_are_of_the_training_size_and_carry_collection_era_and_labels(pipeline, good):
    shards = pipeline.root.glob("artifacts/Transform/transformed_examples/*/Split-test/*.gz")
    serialized = tf.data.TFRecordDataset(list(map(str, shards)), "GZIP").as_numpy_iterator()
    examples = [tf.train.Example.FromString(one).features.feature for one in serialized]
    found = {
        tuple(one[name].bytes_list.value[0].decode() for name in (COLLECTION, ERA, LABELS))
        for one in examples
    }
    assert found == {("harbour", "1960s", "held=north"), ("mill", "1900s", "held=north")}
    assert {decode_lab(one[LAB].bytes_list.value[0]).shape for one in examples} == {(64, 64, 3)}


def test_the_report_shows_data_curves_figures_and_twelve_pictures(good):
    assert good.report.count("<figcaption>") == 12
    for words in ("near_duplicate", "1900s", "rmse over grey", "val", "serving: passed", "harbour"):
        assert words in good.report


def test_tensorboard_has_the_curves(pipeline, good):
    assert list(pipeline.root.glob("artifacts/Trainer/model_run/*/train/events.*"))


def test_a_second_identical_run_does_nothing(pipeline, in_use):
    pipeline.call(*SHORT)  # an earlier test may have run with other options
    artifacts = sorted(pipeline.root.glob("artifacts/*/*/*"))
    result = pipeline.run(*SHORT)
    assert result.code == PUSHED
    assert f"nothing has changed: version {in_use} stays current" in result.out
    assert sorted(pipeline.root.glob("artifacts/*/*/*")) == artifacts


def test_new_thresholds_cause_no_training_and_the_same_model_is_not_pushed_again(pipeline, in_use, tmp_path):
    wider = replace(pipeline, thresholds=tmp_path / "thresholds.yaml")
    wider.thresholds.write_text(pipeline.thresholds.read_text().replace("at_most: 0.9}", "at_most: 0.91}"))
    result = wider.call(*SHORT)
    assert result.code == PUSHED, result.out + result.err
    assert (result.nodes["Trainer"], result.nodes["Transform"]) == ("as before", "as before")
    assert result.nodes["Evaluator"] != "as before"
    assert (
        f"nothing new to push: the model is version 1 already; version {in_use} stays current" in result.out
    )


def test_changed_source_code_reruns_only_the_components_that_use_it(pipeline, good, tmp_path):
    for package in ("model", "pipeline", "tfx_pipeline"):
        shutil.copytree(ROOT / package, tmp_path / package)
    losses = tmp_path / "model" / "training" / "losses.py"
    losses.write_text(losses.read_text() + "\n# changed\n")
    result = pipeline.run(*SHORT, source=tmp_path)
    assert result.code == PUSHED, result.out + result.err
    assert result.nodes["CollectionExampleGen"] == "as before"
    assert result.nodes["Trainer"] != "as before"


def test_a_killed_run_goes_on_where_it_was(pipeline, good):
    options = ("--epochs", "6", "--steps", "15", "--seed", "7")
    command = [sys.executable, "-m", "tfx_pipeline.local_runner", *pipeline.options(*options)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(_epochs(pipeline)) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = _epochs(pipeline)
    assert 2 <= len(before) < 6
    result = pipeline.call(*options)
    assert result.code in (PUSHED, QUALITY), result.out + result.err
    runs = pipeline.root.glob("artifacts/Trainer/model_run/*/history.json")
    newest = max(runs, key=lambda file: file.stat().st_mtime)
    history = json.loads(newest.read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[:2] == before[:2]


def _epochs(pipeline: Pipeline) -> list[dict]:
    files = list(pipeline.root.glob("checkpoints/*/history.json"))
    return json.loads(files[0].read_text()) if files else []


def test_a_second_run_in_the_same_root_is_refused(pipeline, good):
    import fcntl

    with open(pipeline.root / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = pipeline.run(*SHORT)
    assert (result.code, result.err.strip()) == (
        2,
        f"local_runner: another run is active in {pipeline.root}",
    )
