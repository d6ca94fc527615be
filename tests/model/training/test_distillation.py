"""Distillation: a run learns from the network of another run and keeps none of its weights."""

import dataclasses
import json
import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from model import release, train
from model.card import read_card
from model.data import batches
from model.data.bins import BINS, read_bins
from model.data.photos import HELD_OUT, Photo, Photos
from model.networks import efficientnet_lite, fusion_small
from model.training import fit, objectives, run_folder, teaching
from model.training.options import Options
from tests.model.conftest import landscape
from tests.model.networks.test_networks import CENTRES, lightness, random_norms

LAYERS = {"stem": 8, "stages": ((8, 1),) * 4, "fused": 8, "decoder": ((8, 1), (8, 1))}
SHORT = Options(layers=LAYERS, epochs=2, steps=2, batch=4, sizes=(32,), size=32)
LONG = dataclasses.replace(SHORT, steps=60, batch=8, rate=0.02, average=0.9)


def pictures(channels: tuple[int, int, int] = (0, 1, 2)) -> Photos:
    """Landscapes. A different order of channels swaps their colours."""
    some = [
        Photo(f"{seed}.png", "coast", f"{seed:064x}", np.ascontiguousarray(landscape(seed)[..., channels]))
        for seed in range(12)
    ]
    return Photos(train=some, validation=[], test=[], grey={}, broken={})


def weights(state) -> set[str]:
    """Names of the data sets in a checkpoint."""
    found = set()
    with h5py.File(state) as file:
        file.visititems(lambda name, item: found.add(name) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run with orange skies and blue grass. Its bins cover these colours and the original ones."""
    both = tmp_path_factory.mktemp("both")
    mixed = Photos(
        train=pictures().train + pictures((2, 1, 0)).train, validation=[], test=[], grey={}, broken={}
    )
    tf.config.run_functions_eagerly(True)
    fit.train(mixed, SHORT, both)
    tf.config.run_functions_eagerly(False)
    run = tmp_path_factory.mktemp("teacher")
    fit.train(pictures((2, 1, 0)), LONG, run, like=both)
    return run


def colors(run) -> np.ndarray:
    """Mean chroma [2] that the network of a run gives the sky of a landscape."""
    network, _ = fit.trained(str(run), LONG)
    view = np.full((1, 32, 32, 1), 35, np.float32)
    view[:, :14] = 70
    return ops.convert_to_numpy(network(view))[0, 2:10].mean(axis=(0, 1))


@pytest.fixture(scope="module")
def told(teacher, tmp_path_factory):
    """A run that learns the colours of its teacher, and nothing from the teacher's features."""
    return taught(teacher, tmp_path_factory.mktemp("told"), share=1.0, hint=0.0)


@pytest.fixture(scope="module")
def shown(teacher, tmp_path_factory):
    """A run that learns the colours of its own photographs, and to see what its teacher sees."""
    return taught(teacher, tmp_path_factory.mktemp("shown"), share=0.0, hint=100.0)


def taught(teacher, run, share: float, hint: float):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "_TAUGHT", share)
        patch.setattr(teaching, "_HINT", hint)
        fit.train(pictures(), dataclasses.replace(LONG, teacher=str(teacher), steps=160), run)
    return run


def test_the_share_of_the_teacher_determines_what_is_learned(teacher, told, shown):
    assert colors(teacher)[1] > 10  # positive b*: an orange sky
    assert colors(told)[1] > 10
    assert colors(shown)[1] < -10


def test_a_learner_comes_to_see_what_its_teacher_sees(teacher, told, shown):
    assert unexplained(shown, teacher) < 0.8 * unexplained(told, teacher)


@pytest.mark.usefixtures("eagerly")
def test_a_run_holds_no_weights_of_its_teacher(teacher, tmp_path):
    fit.train(pictures(), SHORT, tmp_path / "alone", like=teacher)
    fit.train(pictures(), dataclasses.replace(SHORT, teacher=str(teacher)), tmp_path / "taught")
    alone, taught = (weights(tmp_path / run / run_folder.STATE) for run in ("alone", "taught"))
    assert alone < taught and all(name.startswith("layers/hint") for name in taught - alone)
    bins = [read_bins(tmp_path / run)["centres"] for run in ("alone", "taught")]
    assert bins[0] == bins[1] == read_bins(teacher)["centres"]


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_stopped_goes_on_with_its_teacher(teacher, tmp_path):
    options = dataclasses.replace(SHORT, teacher=str(teacher))
    fit.train(pictures(), options, tmp_path / "whole")
    fit.train(pictures(), options, tmp_path / "stopped", (StoppedAfterOne(),))
    fit.train(pictures(), options, tmp_path / "stopped")
    histories = [
        json.loads((tmp_path / run / run_folder.HISTORY).read_text()) for run in ("whole", "stopped")
    ]
    assert len(histories[0]) == 2
    assert histories[1][1]["loss"] == pytest.approx(histories[0][1]["loss"], rel=1e-4)
    with pytest.raises(run_folder.RunError, match=r"--teacher was .*, not "):
        fit.train(pictures(), SHORT, tmp_path / "stopped", like=teacher)


def test_the_hint_loss_is_the_unexplained_share_of_the_teachers_features():
    rng = np.random.default_rng(0)
    own = rng.normal(3, 2, (8, 4, 4, 6)).astype("float32")
    noise = rng.normal(0, 1, (8, 4, 4, 3))
    its = (own @ rng.normal(0, 1, (6, 3)) * [0, 0.3, 3] + noise).astype("float32")
    flat = np.concatenate([own.reshape(-1, 6), np.ones((128, 1))], axis=1)
    expected = np.linalg.lstsq(flat, its.reshape(-1, 3), rcond=None)[1] / 128 / its.reshape(-1, 3).var(axis=0)
    assert expected[0] > 0.9 and 0.1 < expected[1] < 0.9 and expected[2] < 0.1
    hint = teaching.Hint()
    logits = np.ones((8, 16, 16, 5), np.float32)
    for factor in (1, 1, 100):
        np.testing.assert_array_equal(hint(logits, own, factor * its, training=True), logits)
    (found,) = hint.losses
    assert float(found) == pytest.approx(teaching._HINT * expected.mean(), rel=0.01)
    kept = [ops.convert_to_numpy(weight) for weight in hint.weights]
    hint(logits, own, its, training=False)
    assert not hint.losses
    for before, after in zip(kept, hint.weights, strict=True):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(after))


def unexplained(run, teacher) -> float:
    """Share of variance in the features of a teacher that a linear map from the features of a run does not explain."""
    views = np.concatenate(
        [lightness(1, 32, 32)] + [batches.lightness(landscape(seed))[None, :32, :32] for seed in range(20)]
    )
    own, its = (
        ops.convert_to_numpy(
            keras.Model(network.input, network.get_layer(teaching.FEATURES[0]).output)(views)
        ).reshape(-1, 8)
        for network, _ in (fit.trained(str(folder), LONG) for folder in (run, teacher))
    )
    its = its[:, its.std(axis=0) > 1e-3]
    own = np.concatenate([own, np.ones((len(own), 1))], axis=1)
    left = its - own @ np.linalg.lstsq(own, its, rcond=None)[0]
    return float((left.var(axis=0) / its.var(axis=0)).mean())


@pytest.mark.usefixtures("eagerly")
def test_a_teacher_in_single_precision_teaches_in_mixed(teacher, tmp_path, monkeypatch):
    heard = []
    taught = teaching.taught

    def listened(part, network, weights):
        heard.append(network)
        return taught(part, network, weights)

    monkeypatch.setattr(teaching, "taught", listened)
    mixed = dataclasses.replace(SHORT, teacher=str(teacher), precision="mixed_float16")
    fit.train(pictures(), mixed, tmp_path)
    itself, _ = fit.trained(teacher, dataclasses.replace(LONG, debias=1.0))
    view = lightness(2, 32, 32)
    there, here = (
        ops.convert_to_numpy(network(view)) for network in (heard[0], objectives.trained_part(itself))
    )
    np.testing.assert_allclose(there, here, atol=0.1)
    assert np.ptp(here) > 1


class StoppedAfterOne(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.usefixtures("eagerly")
def test_an_unsuitable_teacher_is_refused_before_anything_is_written(teacher, tmp_path):
    other = tmp_path / "other"
    fit.train(pictures(), SHORT, other)
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(teacher / BINS, bare)
    regressing = tmp_path / "regressing"
    fit.train(
        pictures(), Options(network="alpha", epochs=1, steps=1, batch=2, sizes=(32,), size=32), regressing
    )
    unfinished = tmp_path / "unfinished"
    shutil.copytree(teacher, unfinished)
    (unfinished / run_folder.STATE).unlink()
    for folder, like, words in (
        (other, teacher, "other chroma bins"),
        (empty, None, "options.json does not belong to a run"),
        (bare, None, "options.json does not belong to a run"),
        (regressing, None, "cannot be the teacher"),
        (unfinished, None, "cannot be the teacher"),
        (teacher, empty, "no chroma bins"),
    ):
        options = dataclasses.replace(SHORT, teacher=str(folder))
        with pytest.raises(run_folder.RunError, match=words):
            fit.train(pictures(), options, tmp_path / "run", like=like)
    assert not (tmp_path / "run").exists()


def test_a_size_that_the_teacher_cannot_take_is_refused(teacher, tmp_path):
    options = Options(network="classification", layers={"width": 0.1}, sizes=(40,), teacher=str(teacher))
    with pytest.raises(run_folder.RunError, match="--sizes must be multiples of 32"):
        fit.train(pictures(), options, tmp_path)


@pytest.mark.usefixtures("eagerly")
def test_networks_of_other_kinds_teach_each_other(teacher, tmp_path):
    """The older network has another architecture and another temperature for decoding bins."""
    older = dataclasses.replace(SHORT, network="classification", layers={"width": 0.1}, temperature=0.38)
    fit.train(pictures(), dataclasses.replace(older, teacher=str(teacher)), tmp_path / "older")
    fit.train(pictures(), dataclasses.replace(SHORT, teacher=str(tmp_path / "older")), tmp_path / "younger")
    assert len(json.loads((tmp_path / "younger" / run_folder.HISTORY).read_text())) == SHORT.epochs


@pytest.mark.usefixtures("eagerly")
def test_the_command_holds_out_only_photographs_unseen_by_the_teacher(album, tmp_path, capsys):
    layers = ["--layers", json.dumps(LAYERS)]
    short = [*layers, "--epochs", "1", "--steps", "2", "--batch", "2", "--sizes", "32", "--size", "32"]
    assert train.main(["--photos", str(album), "--output", str(tmp_path / "teacher"), *short]) == 0
    held_out = tmp_path / "teacher" / release.MODEL / HELD_OUT
    parts = json.loads(held_out.read_text())
    moved = {"validation": parts["validation"][1:], "test": parts["test"]}
    assert parts["validation"]
    held_out.write_text(json.dumps(moved))
    command = [
        "--photos",
        str(album),
        "--output",
        str(tmp_path / "run"),
        "--teacher",
        str(tmp_path / "teacher"),
    ]
    assert train.main([*command, *short]) == 0
    assert json.loads((tmp_path / "run" / release.MODEL / HELD_OUT).read_text()) == moved
    card = json.loads((tmp_path / "run" / release.MODEL / "model_card.json").read_text())
    assert "--teacher teacher" in card["command"] and str(tmp_path) not in card["command"]
    its = read_card(tmp_path / "teacher" / release.MODEL)
    assert card["training"]["teacher"] == {
        "name": "fusion-small",
        "version": "1",
        "weights_sha256": its.weights_sha256,
        "command": its.command,
    }
    like = ["--photos", str(album), "--output", str(tmp_path / "like"), *short]
    assert train.main([*like, "--like", str(tmp_path / "teacher" / release.MODEL)]) == 0
    assert json.loads((tmp_path / "like" / release.MODEL / HELD_OUT).read_text()) == moved
    assert read_bins(tmp_path / "like") | {"shares": 0} == read_bins(tmp_path / "teacher") | {"shares": 0}
    capsys.readouterr()
    held_out.unlink()
    assert train.main([*command[:3], str(tmp_path / "late"), *command[4:], *short]) == 2
    error = capsys.readouterr().err
    assert "of an exported run" in error and error.count("\n") == 1


@pytest.mark.usefixtures("eagerly")
def test_a_network_on_a_classifiers_features_teaches_and_is_started_from(teacher, tmp_path, monkeypatch):
    layers = {"extractor": "efficientnet_lite0", "fused": 8, "decoder": ((8, 1), (8, 1))}
    once = dataclasses.replace(SHORT, epochs=1, steps=1)
    large = dataclasses.replace(once, layers=layers)
    fit.train(pictures(), large, tmp_path / "large", like=teacher)
    # From here on the weights must come from the folder of the run.
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package")
    release.release(
        pictures(), large, tmp_path / "large", name="large", version="1", command="none", terms="none"
    )
    fit.train(pictures(), dataclasses.replace(once, teacher=str(tmp_path / "large")), tmp_path / "small")
    network, _ = fit.trained(tmp_path / "large", large)
    monkeypatch.undo()
    still = dataclasses.replace(large, rate=1e-9)
    fit.train(pictures(), still, tmp_path / "warm", warm=tmp_path / "large" / release.MODEL)
    warm, _ = fit.trained(tmp_path / "warm", still)
    view = lightness(2, 32, 32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(warm(view)), ops.convert_to_numpy(network(view)), atol=0.5
    )


def test_a_network_on_a_classifiers_features_can_be_folded():
    config = fusion_small.Config(
        centres=CENTRES,
        extractor="efficientnet_lite0",
        weights="random",
        fused=16,
        decoder=((16, 1), (16, 1)),
    )
    model = fusion_small.build(config)
    random_norms(model)
    picture = lightness(2, 64, 32)
    folded = fusion_small.fold(model, config)
    np.testing.assert_allclose(
        ops.convert_to_numpy(folded(picture)), ops.convert_to_numpy(model(picture)), atol=1e-3
    )
    assert folded.count_params() < model.count_params()
