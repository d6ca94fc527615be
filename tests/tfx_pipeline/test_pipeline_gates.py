"""The gates of the complete pipeline: bad collections and bad models stop at them, and nothing is pushed."""

from dataclasses import replace
from pathlib import Path

import pytest

from model.card import read_card
from pipeline.batch import registry
from tests.tfx_pipeline.conftest import DATA, QUALITY, SERVING, SHORT, Pipeline, write_collection

pytestmark = pytest.mark.timeout(3600)  # takes minutes, or hours on a busy machine


def quality(pipeline: Pipeline, value: str) -> dict:
    """Figures of candidate and baseline for a slice, from the newest evaluation."""
    from tfx_pipeline import evaluation

    newest = max(pipeline.root.glob("artifacts/Evaluator/evaluation/*"), key=lambda folder: int(folder.name))
    return next(figures for _, found, figures in evaluation.read_figures(str(newest)) if found == value)


def test_an_undertrained_model_of_another_network_stops_at_the_quality_gate(pipeline, in_use, capfd):
    options = ("--network", "alpha", "--layers", "{}", "--space", "yuv", "--rate", "0.00001")
    result = pipeline.call(capfd, *options, "--epochs", "1", "--steps", "1")
    assert result.code == QUALITY, result.out + result.err
    assert "stopped by the quality gate" in result.out
    assert "rmse_over_grey" in result.out and "at most 0.9" in result.out


def test_a_model_that_is_better_overall_but_worse_on_one_era_stops_at_the_quality_gate(
    pipeline, in_use, capfd
):
    result = pipeline.call(capfd, "--epochs", "5", "--steps", "80", "--weights", "mill=0")
    assert result.code == QUALITY, result.out + result.err
    figures = quality(pipeline, "")
    assert figures["candidate"]["rmse"] < figures["baseline"]["rmse"]
    failed = [line for line in result.out.splitlines() if line.startswith("rmse ")]
    assert failed and all("1900s" in line or "mill" in line for line in failed)
    assert "10% worse" in failed[0]


@pytest.mark.parametrize("fault", ["without_confidence", "greedy"])
def test_a_model_that_the_batch_job_cannot_run_stops_at_the_serving_gate(
    pipeline, in_use, capfd, fault, tmp_path
):
    lenient = past_the_quality_gate(pipeline, tmp_path)
    lenient.thresholds.write_text(lenient.thresholds.read_text().replace("3000", "1500"))
    result = lenient.call(capfd, *SHORT, trainer=f"tests.tfx_pipeline.trainers.{fault}")
    assert result.code == SERVING, result.out + result.err
    words = {"without_confidence": "signature", "greedy": "MB of memory; at most 1500 are allowed"}
    assert words[fault] in result.out


def test_a_collection_that_the_schema_does_not_know_stops_at_the_data_gate(pipeline, in_use, capfd, tmp_path):
    stranger = write_collection(tmp_path / "stranger", range(200, 240), era="the good old days")
    result = pipeline.call(capfd, *SHORT, manifests=[*pipeline.manifests, stranger])
    assert result.code == DATA, result.out + result.err
    assert "stopped by the data gate" in result.out
    assert "era" in result.out and "the good old days" in result.out


def test_a_model_that_failed_the_serving_gate_is_not_the_next_baseline(pipeline, in_use, capfd, tmp_path):
    fault = "tests.tfx_pipeline.trainers.without_confidence"
    lenient = past_the_quality_gate(pipeline, tmp_path)
    result = lenient.call(capfd, *SHORT, "--seed", "11", trainer=fault)  # a new seed bypasses the cache
    assert result.code == SERVING, result.out + result.err
    candidate = read_card(newest(pipeline, "Trainer/model")).weights_sha256
    result = pipeline.call(capfd, "--epochs", "1", "--steps", "1", "--rate", "0.00001")
    assert result.code == QUALITY, result.out + result.err
    baseline = read_card(newest(pipeline, "Resolver/model")).weights_sha256
    in_use_digest = read_card(registry.resolve(str(pipeline.root / "pushed"))).weights_sha256
    assert baseline == in_use_digest != candidate


def past_the_quality_gate(pipeline: Pipeline, folder: Path) -> Pipeline:
    """The pipeline with a quality gate that passes every model, whichever model is in use."""
    lenient = replace(pipeline, thresholds=folder / "thresholds.yaml")
    words = pipeline.thresholds.read_text()
    for bound in ("at_most: 0.9}", "at_most: 0.95}", "relative: 0.1}"):
        assert bound in words
        words = words.replace(bound, bound.split(":")[0] + ": 100}")
    lenient.thresholds.write_text(words)
    return lenient


def newest(pipeline: Pipeline, kind: str) -> Path:
    """The exported model of the newest execution."""
    folders = pipeline.root.glob(f"artifacts/{kind}/*/Format-Serving")
    return max(folders, key=lambda folder: int(folder.parent.name))
