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


@pytest.fixture(scope="module")
def unusable(pipeline, good, tmp_path_factory):
    """A run with a model that the batch job cannot run, and the digest of its weights."""
    lenient = past_the_quality_gate(pipeline, tmp_path_factory.mktemp("lenient"))
    result = lenient.call(*SHORT, trainer="tests.tfx_pipeline.trainers.without_confidence")
    return result, read_card(newest(pipeline, "Trainer/model")).weights_sha256


@pytest.fixture(scope="module")
def undertrained(pipeline, unusable):
    """The run after `unusable`: with another network, which is hardly trained."""
    options = ("--network", "alpha", "--layers", "{}", "--space", "yuv", "--rate", "0.00001")
    return pipeline.call(*options, "--epochs", "1", "--steps", "1")


def test_a_model_that_the_batch_job_cannot_run_stops_at_the_serving_gate(in_use, unusable):
    result, _ = unusable
    assert result.code == SERVING, result.out + result.err
    assert "signature" in result.out


def test_an_undertrained_model_of_another_network_stops_at_the_quality_gate(in_use, undertrained):
    assert undertrained.code == QUALITY, undertrained.out + undertrained.err
    assert "stopped by the quality gate" in undertrained.out
    assert "rmse_over_grey" in undertrained.out and "at most 0.9" in undertrained.out


def test_a_model_that_failed_the_serving_gate_is_not_the_next_baseline(pipeline, unusable, undertrained):
    _, candidate = unusable
    baseline = read_card(newest(pipeline, "Resolver/model")).weights_sha256
    in_use_digest = read_card(registry.resolve(str(pipeline.root / "pushed"))).weights_sha256
    assert baseline == in_use_digest != candidate


def test_a_model_that_is_better_overall_but_worse_on_one_era_stops_at_the_quality_gate(pipeline, in_use):
    result = pipeline.call("--epochs", "5", "--steps", "80", "--weights", "mill=0")
    assert result.code == QUALITY, result.out + result.err
    figures = quality(pipeline, "")
    assert figures["candidate"]["rmse"] < figures["baseline"]["rmse"]
    failed = [line for line in result.out.splitlines() if line.startswith("rmse ")]
    assert failed and all("1900s" in line or "mill" in line for line in failed)
    assert "10% worse" in failed[0]


def test_a_model_that_takes_more_memory_than_the_thresholds_allow_stops_at_the_serving_gate(
    pipeline, in_use, tmp_path
):
    strict = replace(pipeline, thresholds=tmp_path / "thresholds.yaml")
    strict.thresholds.write_text(pipeline.thresholds.read_text().replace("3000", "150"))
    result = strict.call(*SHORT)
    assert result.code == SERVING, result.out + result.err
    assert result.nodes["Trainer"] == "as before"
    assert "MB of memory; at most 150 are allowed" in result.out


def test_a_collection_that_the_schema_does_not_know_stops_at_the_data_gate(pipeline, in_use, tmp_path):
    stranger = write_collection(tmp_path / "stranger", range(200, 240), era="the good old days")
    result = pipeline.call(*SHORT, manifests=[*pipeline.manifests, stranger])
    assert result.code == DATA, result.out + result.err
    assert "stopped by the data gate" in result.out
    assert "era" in result.out and "the good old days" in result.out


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
