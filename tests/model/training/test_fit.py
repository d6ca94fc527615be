"""Training runs: a run survives a kill and exports a model with its card. User errors give a message of one line."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model import card, networks, release, serving, train
from model.data import bins, photos
from model.training import curves, fit, losses, objectives, run_folder
from model.training.options import NETWORKS, Options, OptionsError, check, defaults
from tests.model.conftest import landscape

pytestmark = pytest.mark.usefixtures("eagerly")  # the runs are short

SMALL = '{"stem": 8, "stages": [[8, 1], [8, 1], [8, 1], [8, 1]], "fused": 8, "decoder": [[8, 1], [8, 1]]}'
TINY = [
    *["--layers", SMALL],
    *["--steps", "2", "--batch", "2", "--sizes", "32", "--size", "32"],
    *["--weights", "hills=2", "--aging", "0.25"],
]
ROOT = Path(__file__).parents[3]


def steps_done(run: Path) -> int:
    """Number of steps in the newest checkpoint, read directly from the file."""
    with h5py.File(run / run_folder.STATE) as state:
        return int(state["step"][()])


@pytest.fixture(scope="module")
def run(album, tmp_path_factory):
    """A run that was killed after its first epochs and then resumed until its end, both without graphs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--photos", str(album), "--output", str(folder), *TINY]
    code = "import sys, tensorflow as tf; from model import train; tf.config.run_functions_eagerly(True); train.main()"
    endless = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--epochs", "100000"], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (folder / run_folder.STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(endless.pid, signal.SIGKILL)
    endless.wait()
    killed_at = steps_done(folder)
    epochs = killed_at // 2 + 2
    tf.config.run_functions_eagerly(True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert train.main([*arguments, "--epochs", str(epochs)]) == 0
    tf.config.run_functions_eagerly(False)
    return folder, killed_at, epochs, printed.getvalue()


def test_a_killed_run_goes_on_where_its_last_epoch_ended(run):
    folder, killed_at, epochs, printed = run
    assert killed_at > 0
    assert steps_done(folder) == 2 * epochs
    assert f"epoch {epochs - 1}/{epochs}" in printed
    assert f"epoch {epochs}/{epochs}" in printed
    assert f"epoch {epochs - 2}/{epochs}" not in printed


def test_the_run_leaves_its_options_its_bins_and_nothing_half_written(run):
    folder = run[0]
    assert json.loads((folder / run_folder.OPTIONS).read_text())["weights"] == {"hills": 2}
    assert np.sum(bins.read_bins(folder)["shares"]) == pytest.approx(1)
    assert sorted(file.name for file in folder.iterdir() if "partial" in file.name) == []


def test_the_run_ends_in_a_model_with_a_checked_card(run):
    folder = run[0]
    model = folder / release.MODEL
    read = card.read_card(model)
    assert read.size == 32
    assert read.training["left_out_as_grey"] == {"coast": 1}
    words = read.command.split()
    assert words[:3] == ["python", "-m", "model.train"] and words[5:8] == ["--output", "run", "--layers"]
    assert str(folder.parent) not in (model / card.CARD).read_text()
    assert read.limits[0] == release.GUESSES
    assert read.limits[-1] == release.AGED.format(0.25) and "25%" in read.limits[-1]
    assert (model / release.LICENSE).is_file()
    chroma, confidence = serving.load(model)(np.full((2, 32, 32, 1), 50, np.float32))
    assert chroma.shape == (2, 32, 32, 2)
    assert confidence.shape == (2,)


def test_the_curve_has_every_epoch_once_also_of_a_killed_run(run):
    folder, _, epochs, _ = run
    history = json.loads((folder / run_folder.HISTORY).read_text())
    assert [entry["epoch"] for entry in history] == list(range(1, epochs + 1))
    assert all(
        set(entry) == {"epoch", "loss", "chroma_error", "val_loss", "val_chroma_error"} for entry in history
    )


OPTIONS = Options(network="alpha", epochs=2, steps=4, batch=2, sizes=(32, 64), size=32, rate=0.01, seed=3)
ALBUM = photos.Photos(
    train=[photos.Photo(f"{n}", "coast", f"{n:064}", landscape(n)) for n in range(8)],
    validation=[],
    test=[],
    grey={},
    broken={},
)


class Killed(keras.callbacks.Callback):
    """Ends a run in the middle of an epoch, like a kill."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise InterruptedError


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "network": "gan",
            "layers": {"generator": "beta", "generator_config": {"width": 0.05}, "width": 0.05},
        },
    ],
    ids=["network", "gan"],
)
def test_a_killed_run_goes_on_at_its_step_with_the_batches_that_are_left(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SAVED_EVERY", 0)
    options = dataclasses.replace(OPTIONS, **changes)
    with pytest.raises(InterruptedError):
        fit.train(ALBUM, options, tmp_path, (Killed(),))
    begun, ended = [], []

    def batches(views, start):
        begun.append(start)
        return iter(fit.TrainingBatches(ALBUM.train, np.full(8, 1 / 8), views, start))

    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ended.append(batch))
    fit.train(ALBUM, options, tmp_path, (count,), batches=batches)
    assert begun[0] == 3
    assert len(ended) == 2 * 4 - 3
    assert [row["epoch"] for row in json.loads((tmp_path / run_folder.HISTORY).read_text())] == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [{}, {"network": "gan", "layers": {"generator": "alpha", "width": 0.05}}],
    ids=["network", "gan"],
)
def test_a_callback_finds_the_state_of_its_own_epoch(changes, tmp_path):
    """A callback that copies the folder after an epoch must not copy the state of the previous epoch."""
    options = dataclasses.replace(OPTIONS, **changes)
    state = tmp_path / (run_folder.ADVERSARY if changes else run_folder.STATE)
    steps = []

    def look(epoch, logs):
        if changes:
            steps.append(int(np.load(state)["steps/0"]))
        else:
            with h5py.File(state) as file:
                steps.append(int(file["step"][()]))

    fit.train(ALBUM, options, tmp_path, (keras.callbacks.LambdaCallback(on_epoch_end=look),))
    assert steps == [options.steps, 2 * options.steps]


@pytest.mark.parametrize("network", ["alpha", "fusion_small"])
def test_the_perceptual_loss_is_added_by_its_weight(network):
    plain = dataclasses.replace(OPTIONS, network=network, layers={})
    centres = np.float32([[0, 0], [30, 40], [-40, 10]])
    weights = np.ones(3, np.float32)
    pixels = landscape(3, 64, 64)
    found = {}
    for share in (0.0, 0.5, 1.0):
        one = objectives.objective(dataclasses.replace(plain, perceptual=share), centres, weights)
        target = one.target(pixels)[None]
        output = np.zeros((1, 64, 64, 3 if one.layer == "logits" else 2), np.float32)
        found[share] = float(one.loss(target, output)[0])
        assert np.isfinite(float(one.metric(target, output)[0]))
    assert found[0.5] > found[0.0]
    assert found[1.0] - found[0.0] == pytest.approx(2 * (found[0.5] - found[0.0]), rel=1e-4)


def test_a_network_learns_with_the_perceptual_loss_and_is_used_without_its_classifier(tmp_path):
    options = dataclasses.replace(OPTIONS, perceptual=1.0)
    fit.train(ALBUM, options, tmp_path)
    rows = json.loads((tmp_path / run_folder.HISTORY).read_text())
    assert rows[-1]["loss"] < rows[0]["loss"]
    network, _ = fit.trained(tmp_path, options)
    assert np.isfinite(np.asarray(network(np.full((1, 32, 32, 1), 50.0)))).all()


SMALL_UNET = {"depth": 5, "width": 0.1}


@pytest.mark.parametrize(
    "changes",
    [{"average": 0.9}, {"network": "unet", "layers": SMALL_UNET}],
    ids=["average", "dropout"],
)
def test_a_killed_run_ends_with_the_same_weights_as_an_uninterrupted_one(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SAVED_EVERY", 0)
    options = dataclasses.replace(OPTIONS, **changes)
    fit.train(ALBUM, options, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit.train(ALBUM, options, tmp_path / "killed", (Killed(),))
    fit.train(ALBUM, options, tmp_path / "killed")
    whole, killed = (fit.trained(tmp_path / run, options)[0].get_weights() for run in ("whole", "killed"))
    for one, other in zip(whole, killed, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_average_of_the_weights_is_what_is_exported(precision, tmp_path):
    options = dataclasses.replace(OPTIONS, average=0.9, precision=precision)
    fit.train(ALBUM, options, tmp_path)
    with h5py.File(tmp_path / run_folder.STATE) as state:
        last = state["layers/conv2d/vars/0"][()]
    averaged = fit.trained(tmp_path, options)[0].get_weights()[0]
    assert 0 < np.abs(averaged - last).max() < np.abs(last).max() / 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"space": "hsv"}, "--space was lab, not hsv"), ({"network": "beta"}, "--network was alpha, not beta")],
)
def test_a_run_does_not_go_on_with_other_options(changes, words, tmp_path):
    fit.train(ALBUM, dataclasses.replace(OPTIONS, epochs=1, steps=1), tmp_path)
    saved = (tmp_path / run_folder.OPTIONS).read_text()
    with pytest.raises(run_folder.RunError, match=words):
        fit.train(ALBUM, dataclasses.replace(OPTIONS, epochs=1, steps=1, **changes), tmp_path)
    assert (tmp_path / run_folder.OPTIONS).read_text() == saved


def test_a_run_of_an_earlier_version_is_not_resumed(tmp_path):
    options = dataclasses.replace(OPTIONS, epochs=1, steps=1)
    fit.train(ALBUM, options, tmp_path)
    with h5py.File(tmp_path / run_folder.STATE, "a") as state:
        del state["step"]
    with pytest.raises(run_folder.RunError, match="does not belong to a run of this version"):
        fit.train(ALBUM, options, tmp_path)


def test_a_model_trained_in_mixed_precision_is_exported_in_single(tmp_path):
    options = dataclasses.replace(OPTIONS, precision="mixed_bfloat16")
    seen = set()

    class Precision(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.update(layer.compute_dtype for layer in self.model.layers if "conv" in layer.name)

    fit.train(ALBUM, options, tmp_path, (Precision(),))
    assert seen == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"
    network, _ = fit.trained(tmp_path, options)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert np.isfinite(np.asarray(network(np.full((1, 32, 32, 1), 50.0)))).all()


@pytest.mark.parametrize(
    "changes",
    [{}, {"network": "gan", "layers": {"generator": "alpha", "width": 0.05}}],
    ids=["network", "gan"],
)
def test_a_step_that_loss_scaling_skips_is_counted(changes, tmp_path, monkeypatch):
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=1e30)
    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", scaled)
    options = dataclasses.replace(OPTIONS, precision="mixed_float16", **changes)
    begun = []

    def batches(views, start):
        begun.append(start)
        return iter(fit.TrainingBatches(ALBUM.train, np.full(8, 1 / 8), views, start))

    for epochs in (1, 2):
        fit.train(ALBUM, dataclasses.replace(options, epochs=epochs), tmp_path, batches=batches)
    assert begun == [0, 4]


def test_several_devices_train_one_network_but_for_an_adversary(tmp_path):
    code = f"""
import dataclasses
import keras
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from tests.model.training.test_fit import ALBUM, OPTIONS, fit
devices = fit._devices
fit._devices = lambda: devices("CPU")
class Replicas(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        print("replicas", tf.distribute.get_strategy().num_replicas_in_sync)
for network, layers in (("alpha", dict()), ("gan", dict(generator="alpha", width=0.05))):
    options = dataclasses.replace(OPTIONS, network=network, layers=layers, sizes=(32,))
    fit.train(ALBUM, options, {str(tmp_path)!r} + "/" + network, (Replicas(),))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("replicas 2\nreplicas 1\n"), done.stderr[-2000:]
    for network in ("alpha", "gan"):
        assert (tmp_path / network / run_folder.HISTORY).is_file()


def test_the_learning_curve_is_a_picture(run):
    with Image.open(run[0] / curves.CURVES) as picture:
        assert picture.width > 600


def test_rebalancing_is_taken_back_in_the_logits(run):
    folder = run[0]
    saved = json.loads((folder / run_folder.OPTIONS).read_text())
    options = Options(**{**saved, "sizes": tuple(saved["sizes"])})
    picture = np.full((1, 32, 32, 1), 50, np.float32)
    logits = []
    for debias in (0.0, 1.0):
        network, _ = fit.trained(folder, dataclasses.replace(options, debias=debias))
        classifier = keras.Model(network.input, network.get_layer("logits").output)
        logits.append(np.asarray(classifier(picture))[0, 0, 0])
    weights = losses.rebalancing_weights(np.array(bins.read_bins(folder)["shares"]))
    np.testing.assert_allclose(logits[0] - logits[1], np.log(weights), atol=1e-4)


def test_the_report_contains_three_controls(run):
    report = json.loads((run[0] / release.REPORT).read_text())
    assert set(report["controls"]) == {"grey", "mean_chroma", "lightness_table"}
    for by_collection in (report["model"], *report["controls"].values()):
        for figures in by_collection.values():
            mean, low, high = figures["rmse_over_grey"]
            assert low <= mean <= high
    assert all(figures["rmse_over_grey"] == [1, 1, 1] for figures in report["controls"]["grey"].values())
    assert "lightness_table" in run[3]


def test_a_folder_with_a_run_on_other_photographs_is_not_continued(run, tmp_path, capsys):
    (tmp_path / "hills").mkdir()
    Image.fromarray(255 - landscape(1)).save(tmp_path / "hills" / "inverted.png")
    assert train.main(["--photos", str(tmp_path), "--output", str(run[0]), *TINY]) == 2
    assert "other photographs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--photos", "nowhere"], "no such folder"),
        (["--epochs", "0"], "--epochs must be positive"),
        (["--sizes", "100"], "multiples of 32"),
        (["--sizes", "32", "32"], "32 must not follow 32"),
        (["--network", "unet", "--layers", '{"depth": 5}', "--sizes", "48"], "multiples of 32"),
        (["--uniform", "1.5"], "between 0 and 1"),
        (["--average", "1"], "--average must be 0 or more and less than 1"),
        (["--perceptual", "-1"], "--perceptual must not be negative"),
        (["--network", "beta", "--space", "yuv", "--perceptual", "1"], "--perceptual needs --space lab"),
        (["--network", "gan", "--perceptual", "1"], "--perceptual has no effect with --network gan"),
        (["--layers", '{"stories": 3}'], "--layers does not fit"),
        (["--weights", "valley=2"], "has no collection valley"),
        (["--weights", "hills=-1"], "must not be negative"),
        (["--terms", "nowhere.txt"], "cannot read --terms"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--network", "beta", "--layers", '{"width": "x"}'], "width must be a number"),
        (["--network", "alpha", "--temperature", "0.5"], "--temperature has no effect with --network alpha"),
        (["--network", "gan", "--average", "0.9"], "--average has no effect with --network gan"),
        (["--network", "gan", "--layers", '{"generator_config": {"space": "cmyk"}}'], "space must be one of"),
        (["--warm", "nowhere"], "nowhere has no chroma bins"),
        (["--like", "nowhere"], "nowhere has no chroma bins"),
        (["--teacher", "nowhere"], "nowhere/options.json does not belong to a run"),
        (["--network", "beta", "--teacher", "run"], "--teacher has no effect with --network beta"),
        (["--layers", '{"extractor": "vgg16"}'], "there is no vgg16"),
        (["--output", __file__], "cannot be used as the output folder"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(album, tmp_path, capsys, arguments, words):
    assert train.main(["--photos", str(album), "--output", str(tmp_path), *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("value", ["hills", "hills=much"])
def test_a_weight_without_a_number_is_a_usage_error(value, capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--photos", "p", "--output", "o", "--weights", value])
    assert exit_.value.code == 2
    assert "expected NAME=NUMBER" in capsys.readouterr().err


def test_help_is_quick_because_it_loads_neither_keras_nor_tensorflow():
    code = (
        "import sys, model.train\n"
        "try: model.train.main(['--help'])\n"
        "except SystemExit: print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert printed.startswith("usage: python -m model.train")
    assert printed.endswith("[]\n")


def test_training_loads_nothing_that_needs_tensorflow():
    code = "import sys, model.train; from model.training import curves, fit, objectives, progress; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "model.training.fit" in loaded and not loaded & {
        "model.serving",
        "model.release",
        "model.measuring.evaluation",
    }


def test_every_option_can_be_given_on_the_command_line():
    arguments = vars(train.parser().parse_args(["--photos", "p", "--output", "o"]))
    assert {field.name for field in dataclasses.fields(Options)} <= set(arguments)


def test_the_command_that_is_published_names_no_folder_of_weights():
    inner = {"extractor": "resnet50", "weights": "/disk/resnet50.weights.h5"}
    for layers in (inner, {"generator": "fusion", "generator_config": inner}):
        argv = ["--photos", "/disk/p", "--output", "/disk/o", "--layers", json.dumps(layers)]
        command = train._command(train.parser().parse_args(argv))
        assert "disk" not in command and '"weights": "resnet50.weights.h5"' in command


def test_a_run_with_its_own_weights_does_not_load_those_of_a_classifier():
    inner = {"extractor": "resnet50", "weights": "imagenet"}
    own = objectives.without_pretrained(networks.NETWORKS["fusion"].Config(**inner))
    generator = networks.NETWORKS["gan"].Config(generator="fusion", generator_config=inner)
    assert own.weights == objectives.without_pretrained(generator).network_config.weights == "random"
    assert own.extractor == objectives.without_pretrained(generator).network_config.extractor == "resnet50"
    plain = networks.NETWORKS["gan"].Config(generator="beta")
    assert objectives.without_pretrained(plain) == plain


@pytest.mark.parametrize("network", NETWORKS)
def test_the_default_options_of_every_network_are_valid(network):
    objectives.check(defaults(network))


def test_no_photograph_to_learn_from_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("model.data.photos.split", lambda digests, *_: ["test"] * len(digests))
    (tmp_path / "photos").mkdir()
    Image.fromarray(landscape(1)).save(tmp_path / "photos" / "only.png")
    argv = ["--photos", str(tmp_path / "photos"), "--output", str(tmp_path / "run"), *TINY[:-4]]
    assert train.main(argv) == 2
    assert "none is left for training" in capsys.readouterr().err


def test_a_learning_rate_of_nan_is_refused():
    with pytest.raises(OptionsError):
        check(Options(rate=float("nan")), stride=32)
