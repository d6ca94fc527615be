"""Warm starts: a run starts with the function of an exported model. A resumed run keeps its own weights."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from model import default_model, release, serving
from model.card import CardError
from model.data.bins import BINS, read_bins
from model.data.photos import Photo, Photos
from model.training import checkpoints, fit, run_folder, warm_start
from model.training.options import Options
from tests.model.conftest import landscape

pytestmark = pytest.mark.usefixtures("eagerly")  # the runs are short

LAYERS = {"stem": 8, "stages": ((8, 1),) * 4, "fused": 8, "decoder": ((8, 1), (8, 1))}
OPTIONS = Options(layers=LAYERS, epochs=2, steps=60, batch=8, sizes=(32,), size=32, rate=0.02, uniform=0.3)
ALBUM = [Photo(f"{seed}.png", "coast", f"{seed:064x}", landscape(seed)) for seed in range(12)]
PHOTOS = Photos(train=ALBUM, validation=[], test=[], grey={}, broken={})


class KilledBeforeItsFirstStep(keras.callbacks.Callback):
    """Saves a checkpoint to `state` before the first step and ends the run."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def on_train_begin(self, logs=None):
        checkpoint = checkpoints.Checkpoint(self.state, seconds=0, step=0)
        checkpoint.set_model(self.model)
        checkpoint.on_epoch_end(0)
        raise InterruptedError


def start(run, state, photos=PHOTOS, **settings) -> None:
    """Start a run and end it before its first step. The checkpoint is saved to `state`."""
    with pytest.raises(InterruptedError):
        fit.train(photos, OPTIONS, run, (KilledBeforeItsFirstStep(state),), **settings)


def stem(state) -> np.ndarray:
    """Kernel of the first convolution, read directly from a checkpoint file."""
    with h5py.File(state) as file:
        return file["layers/conv2d/vars/0"][()]


def exported(run, options=OPTIONS) -> str:
    release.release(PHOTOS, options, run, name="tiny", version="1", command="none", terms="none")
    return str(run / release.MODEL)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An exported model after a short training."""
    run = tmp_path_factory.mktemp("base")
    fit.train(PHOTOS, OPTIONS, run)
    return exported(run)


@pytest.fixture(scope="module")
def warm(base, tmp_path_factory):
    """The folder of a run of one short epoch that started from `base`."""
    run = tmp_path_factory.mktemp("warm")
    tf.config.run_functions_eagerly(True)
    fit.train(PHOTOS, dataclasses.replace(OPTIONS, epochs=1, steps=4, rate=0.001), run, warm=base)
    tf.config.run_functions_eagerly(False)
    return run


def losses(run) -> list[float]:
    return [epoch["loss"] for epoch in json.loads((run / run_folder.HISTORY).read_text())]


def test_a_model_that_is_only_started_from_is_exported_as_it_was(base, tmp_path):
    start(tmp_path, tmp_path / run_folder.STATE, warm=base)
    lightness = np.random.default_rng(0).uniform(0, 100, (4, 32, 32, 1)).astype(np.float32)
    before, after = (serving.load(model)(lightness)[0] for model in (base, exported(tmp_path)))
    assert np.abs(before).max() > 5
    # Bins are counted again, by nearest centre and with one added to each. That changes their weights by about 0.0001.
    np.testing.assert_allclose(after, before, atol=0.05)


def test_a_warm_start_learns_from_where_the_model_ended(base, warm):
    cold, ended = losses(Path(base).parent)
    (begun,) = losses(warm)
    assert ended < 0.7 * cold
    assert begun < 0.7 * cold


def test_bins_keep_their_centres_and_are_counted_anew(base, tmp_path):
    skies = [dataclasses.replace(photo, pixels=photo.pixels[:12]) for photo in ALBUM]
    start(tmp_path, tmp_path / "start.weights.h5", dataclasses.replace(PHOTOS, train=skies), warm=base)
    old, new = read_bins(base), read_bins(tmp_path)
    assert new["centres"] == old["centres"]
    assert sum(new["shares"]) == pytest.approx(1)
    assert np.abs(np.subtract(new["shares"], old["shares"])).max() > 0.2


def test_a_run_that_goes_on_has_its_own_weights(base, warm, tmp_path):
    start(warm, tmp_path / "resumed.weights.h5", warm=base)
    start(tmp_path, tmp_path / "fresh.weights.h5", warm=base)
    own = stem(warm / run_folder.STATE)
    np.testing.assert_array_equal(stem(tmp_path / "resumed.weights.h5"), own)
    assert np.abs(stem(tmp_path / "fresh.weights.h5") - own).max() > 1e-4


def test_the_shipped_model_can_be_started_from():
    shipped = warm_start.read(default_model())
    assert shipped.weights["logits/bias"].shape == (len(shipped.centres),)
    assert shipped.bin_weights.shape == (len(shipped.centres),)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({**LAYERS, "stem": 16}, r"convolution_0/kernel is \(3, 3, 1, 8\) there, \(3, 3, 1, 16\) here"),
        ({**LAYERS, "decoder": ((8, 1), (8, 2))}, r"convolution_14/kernel is missing there"),
    ],
)
def test_a_model_of_another_architecture_is_refused_in_one_line(base, tmp_path, layers, words):
    with pytest.raises(warm_start.WarmStartError, match=words) as refused:
        fit.train(PHOTOS, dataclasses.replace(OPTIONS, layers=layers), tmp_path, warm=base)
    assert "\n" not in str(refused.value)


def test_a_model_whose_bins_are_not_recorded_is_refused(base, tmp_path):
    model = shutil.copytree(base, tmp_path / "model")
    bins = read_bins(model)
    del bins["uniform"]
    (model / BINS).write_text(json.dumps(bins))
    with pytest.raises(warm_start.WarmStartError, match="uniform"):
        warm_start.read(model)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CardError, match="no such model"):
        fit.train(PHOTOS, OPTIONS, tmp_path, warm=str(tmp_path / "none"))


def test_a_network_whose_layers_keras_numbers_can_be_started_from(tmp_path):
    options = Options(network="alpha", epochs=1, steps=2, batch=4, sizes=(32,), size=32, seed=5)
    fit.train(PHOTOS, options, tmp_path / "first")
    release.release(PHOTOS, options, tmp_path / "first", name="a", version="1", command="none", terms="none")
    model = tmp_path / "first" / release.MODEL
    second = tmp_path / "second"
    with pytest.raises(InterruptedError):
        fit.train(PHOTOS, options, second, (KilledBeforeItsFirstStep(second / run_folder.STATE),), warm=model)
    lightness = np.full((1, 32, 32, 1), 50, np.float32)
    again = np.asarray(fit.trained(second, options)[0](lightness))
    np.testing.assert_allclose(again, serving.load(model)(lightness)[0], atol=1e-3)
