"""The exported model: its signature is the one that the batch job expects, and its card is validated."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import card, serving
from model.color import fading
from model.networks import fusion_small
from tests.model.networks.test_networks import CENTRES, SMALL, lightness

ROOT = Path(__file__).parents[2]
CARD = card.ModelCard(
    name="tiny",
    version="1",
    size=64,
    weights_sha256="",
    default_strength=0.8,
    strength_reason="by eye",
    operating_strength=0.6,
    temperature=1.0,
    debias=0.5,
    gain=1.0,
    training={"train": {"coast": 1}},
    metrics={},
    controls={},
    git_revision="",
    command="python -m model.train",
    terms="research use",
    confidence="",
    limits=[],
)


@pytest.fixture(scope="module")
def network():
    return fusion_small.build(fusion_small.Config(centres=CENTRES, folded=True, **SMALL))


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    serving.export(network, np.array(CENTRES), np.linspace(10, 40, 5), 64, folder)
    card.write_card(folder, dataclasses.replace(CARD, weights_sha256=card.weights_sha256(folder)))
    return folder


def test_the_signature_takes_any_number_of_pictures_of_one_size(exported):
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    (name, spec), *others = signature.structured_input_signature[1].items()
    assert (name, spec.shape.as_list(), spec.dtype, others) == (
        "lightness",
        [None, 64, 64, 1],
        tf.float32,
        [],
    )
    outputs = {
        name: (spec.shape.as_list(), spec.dtype) for name, spec in signature.structured_outputs.items()
    }
    assert outputs == {
        "chroma": ([None, 64, 64, 2], tf.float32),
        "confidence": ([None], tf.float32),
        "certainty": ([None, 64, 64], tf.float32),
    }


@pytest.mark.parametrize("count", [1, 3])
def test_the_export_gives_the_colors_of_the_network(exported, network, count):
    batch = lightness(count, 64, 64)
    chroma, confidence = serving.load(exported)(batch)
    np.testing.assert_allclose(chroma, np.asarray(network(batch)), atol=0.02)  # Lab units; half precision
    assert confidence.shape == (count,)
    assert np.all((confidence >= 0) & (confidence <= 1))


def test_the_spread_of_one_bin_is_zero_and_of_two_half_their_distance():
    centres = np.array([(0, 0), (30, 40)], np.float32)
    sure, torn = np.array([50.0, 0]), np.array([0.0, 0])
    logits = np.stack([np.broadcast_to(row, (2, 2, 2)) for row in (sure, torn)]).astype(np.float32)
    np.testing.assert_allclose(np.asarray(serving.spread(logits, centres)), [0, 25], atol=1e-3)


def test_kernels_are_stored_in_half_precision_and_read_in_single(exported, network):
    loaded = tf.saved_model.load(str(exported))
    graph = loaded.signatures["serving_default"].graph
    stored = {variable.name: variable for variable in graph.variables}
    assert stored["logits/kernel:0"].dtype == tf.float16
    assert stored["logits/bias:0"].dtype == tf.float32
    read = serving.weights(exported)["logits/kernel"]
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, network.get_layer("logits").get_weights()[0], rtol=1e-3)


def test_a_kernel_too_large_for_half_precision_stays_in_single():
    wide = keras.Variable(np.full((2, 2), 1e5, np.float32))
    assert serving._stored(wide).dtype == tf.float32


def test_certainty_is_the_share_of_the_squared_chroma_that_the_mean_has():
    centres = np.array([(0, 0), (30, 40), (-30, -40)], np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[1, 0, 0], [0, 1, 0], [0.3, 0.7, 0], [0, 0.5, 0.5]], np.float32))
    found = np.asarray(serving.certainty(np.maximum(logits, -50)[None, :, None], centres))[0, :, 0]
    np.testing.assert_allclose(found, [1, 1, 0.7, 0], atol=1e-3)


def test_chroma_fades_in_proportion_where_the_certainty_is_below_calm(exported):
    batch = lightness(2, 64, 64)
    full, _ = serving.load(exported)(batch)
    loaded = tf.saved_model.load(str(exported))
    found = loaded.signatures["serving_default"](lightness=tf.constant(batch))
    certainty, calm = found["certainty"].numpy(), float(np.median(found["certainty"]))
    left, _ = serving.load(exported, calm)(batch)
    np.testing.assert_array_equal(left[certainty >= calm], full[certainty >= calm])
    np.testing.assert_allclose(left, full * np.minimum(certainty / calm, 1)[..., None], rtol=1e-4, atol=1e-5)
    assert np.all(fading.share(full, left) > 0)
    assert fading.share(full, full) == pytest.approx(0, abs=1e-6)
    assert fading.share(full, 0.25 * full) == pytest.approx(0.75)


def test_confidence_is_the_share_of_validation_pictures_that_were_less_sure():
    spreads = np.random.default_rng(0).gamma(5, 3, 1000)
    knots = serving.quantiles(spreads)
    for probe in (5.0, 12.0, 30.0):
        found = float(np.asarray(serving.confidence(np.array([probe], np.float32), knots))[0])
        assert found == pytest.approx(np.mean(spreads > probe), abs=0.02)
    ends = np.asarray(serving.confidence(np.array([0.0, 1e3], np.float32), knots))
    np.testing.assert_allclose(ends, [1, 0], atol=1e-6)


def test_knots_of_equal_spreads_still_increase():
    assert np.all(np.diff(serving.quantiles(np.full(10, 7.0))) > 0)


def test_a_card_is_read_back_as_it_was_written(exported):
    read = card.read_card(exported)
    assert dataclasses.replace(read, weights_sha256="") == CARD


def test_the_hash_is_that_of_graph_and_variables_one_after_the_other(exported):
    files = [exported / "saved_model.pb", *sorted((exported / "variables").iterdir())]
    assert (
        card.weights_sha256(exported)
        == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    )


def _copied(exported, tmp_path, **changes):
    folder = tmp_path / "copy"
    (folder / "variables").mkdir(parents=True)
    for file in exported.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(exported)).write_bytes(file.read_bytes())
    entries = json.loads((folder / card.CARD).read_text()) | changes
    entries = {name: value for name, value in entries.items() if value != "remove"}
    (folder / card.CARD).write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": "remove"}, "lacks size"),
        ({"size": 0}, "invalid values of size"),
        ({"name": ""}, "invalid values of name"),
        ({"name": "a\ud800"}, "invalid values of name"),
        ({"version": "1\x01"}, "invalid values of version"),
        ({"default_strength": "strong"}, "invalid values of default_strength"),
        ({"weights_sha256": "0" * 64}, "other weights"),
        ({"gates": ["quality"]}, "invalid values of gates"),
        ({"ranges": {"confidence": [0.9, 0.5, 0.1]}}, "invalid values of ranges"),
        ({"data": []}, "invalid values of data"),
    ],
)
def test_a_card_with_a_fault_is_refused_with_one_line(exported, tmp_path, changes, words):
    with pytest.raises(card.CardError, match=words) as error:
        card.read_card(_copied(exported, tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_missing_model_a_missing_card_and_a_broken_card_are_told_apart(exported, tmp_path):
    with pytest.raises(card.CardError, match="no such model"):
        card.read_card(tmp_path / "nowhere")
    with pytest.raises(card.CardError, match="not a SavedModel"):
        card.read_card(tmp_path)
    folder = _copied(exported, tmp_path)
    (folder / card.CARD).write_text("{")
    with pytest.raises(card.CardError, match="unreadable"):
        card.read_card(folder)
    (folder / card.CARD).unlink()
    with pytest.raises(card.CardError, match="has no model_card"):
        card.read_card(folder)


def test_reading_a_card_loads_neither_tensorflow_nor_keras_nor_numpy():
    code = "import sys, model.card; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
