"""Frozen classifiers: their input matches their training, and their weight files are validated."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import applications, ops

from model import release, serving, train
from model.color import conversion
from model.networks import extractors, fusion
from model.networks.extractors import EXTRACTORS, ExtractorError, Seen
from tests.model.networks.test_networks import lightness

ROOT = Path(__file__).resolve().parents[3]
NAME = "mobilenet_v2"  # the fastest


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    """A classifier with random weights. `files` saves it like a pretrained one."""
    keras.utils.set_random_seed(0)
    model = applications.MobileNetV2(weights=None, classifier_activation=None)
    # Initial batch norm statistics suppress almost all activations. Use the statistics of one batch instead.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)), training=True)
    return model


@pytest.fixture(scope="module")
def files(classifier, tmp_path_factory):
    """Files of the classifier in each format, by suffix."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {suffix: folder / f"classifier{suffix}" for suffix in (".weights.h5", ".keras", ".h5")}
    classifier.save_weights(paths[".weights.h5"])
    classifier.save(paths[".keras"])
    classifier.save(paths[".h5"])
    return paths


def embedded(weights: object, picture: np.ndarray, embedding: str = "logits") -> np.ndarray:
    return ops.convert_to_numpy(extractors.build(NAME, str(weights), embedding)(picture))


# Published preprocessing of each classifier. The means of ResNet50 are those of ImageNet in BGR order.
@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("inception_resnet_v2", (-1, -1, -1), (1, 1, 1)),
        ("resnet50", (-103.939, -116.779, -123.68), (151.061, 138.221, 131.32)),
        ("mobilenet_v2", (-1, -1, -1), (1, 1, 1)),
        ("mobilenet_v3", (0, 0, 0), (255, 255, 255)),
        ("efficientnet_lite0", (-0.992, -0.992, -0.992), (1, 1, 1)),
        ("efficientnet_lite2", (-0.992, -0.992, -0.992), (1, 1, 1)),
    ],
)
def test_a_classifier_sees_the_range_that_it_was_trained_on(name, black, white):
    chosen = EXTRACTORS[name]
    seen = Seen(chosen.size, chosen.scale)
    for level, expected in ((0, black), (100, white)):
        found = ops.convert_to_numpy(seen(np.full((1, 40, 64, 1), level, np.float32)))
        assert found.shape == (1, chosen.size, chosen.size, 3)
        np.testing.assert_allclose(found[0, 100, 100], expected, atol=0.05)


def test_mobilenet_v3_scales_its_input_itself():
    made = EXTRACTORS["mobilenet_v3"].build(weights=None)
    assert any(isinstance(layer, keras.layers.Rescaling) for layer in made.layers)


def test_sizes_are_those_that_the_classifiers_take():
    sizes = {"inception_resnet_v2": 299, "resnet50": 224, "mobilenet_v2": 224, "mobilenet_v3": 224}
    sizes |= {"efficientnet_lite0": 224, "efficientnet_lite2": 256}
    assert {name: chosen.size for name, chosen in EXTRACTORS.items()} == sizes


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_the_embedding_is_what_the_classifier_says_of_the_grey_picture(suffix, files, classifier):
    picture = lightness(2, 224, 224)
    grey = 255 * ops.convert_to_numpy(conversion.grey_of_lightness(picture))
    expected = ops.convert_to_numpy(classifier(np.repeat(grey, 3, axis=-1) / 127.5 - 1))
    found = embedded(files[suffix], picture)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize("name", ["inception_resnet_v2", "resnet50"])
def test_a_large_classifier_embeds_pictures_of_any_size(name):
    found = ops.convert_to_numpy(extractors.build(name, "random")(lightness(2, 32, 64)))
    assert found.shape == (2, 1000)
    assert np.isfinite(found).all() and np.ptp(found) > 0


@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v2", "mobilenet_v3", "efficientnet_lite0", "efficientnet_lite2"]
)
def test_a_pyramid_halves_any_size_five_times(name):
    features = extractors.pyramid(name, "random")(lightness(1, 64, 96))
    assert [feature.shape[1:3] for feature in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_a_pyramid_has_the_weights_of_the_file(files, classifier):
    picture = lightness(1, 224, 224)
    grey = 255 * ops.convert_to_numpy(conversion.grey_of_lightness(picture))
    last = keras.Model(classifier.input, classifier.get_layer("out_relu").output)
    expected = ops.convert_to_numpy(last(np.repeat(grey, 3, axis=-1) / 127.5 - 1))
    found = extractors.pyramid(NAME, str(files[".weights.h5"]))(picture)[-1]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-3)


def test_a_pyramid_is_trained_with_what_is_built_on_it():
    own = extractors.build(NAME, "random")
    assert not own.trainable_weights
    assert len(extractors.pyramid(NAME, "random").trainable_weights) > 100


def test_a_classifier_that_halves_unevenly_has_no_pyramid():
    with pytest.raises(ExtractorError, match="inception_resnet_v2 does not halve its input evenly"):
        extractors.pyramid("inception_resnet_v2", "random")


def test_probabilities_are_the_softmax_of_the_logits(files):
    picture = lightness(1, 64, 96)
    logits = embedded(files[".weights.h5"], picture).astype(np.float64)
    found = embedded(files[".weights.h5"], picture, "probabilities")
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-3)


def test_weights_are_read_from_cloud_storage(files, cloud):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(project="emulator", credentials=AnonymousCredentials())
    client.bucket(cloud.removeprefix("gs://")).blob("weights/classifier.weights.h5").upload_from_filename(
        files[".weights.h5"]
    )
    picture = lightness(1, 32, 32)
    np.testing.assert_array_equal(
        embedded(f"{cloud}/weights/classifier.weights.h5", picture), embedded(files[".weights.h5"], picture)
    )
    with pytest.raises(ExtractorError, match=r"gs://.*none\.h5 cannot be read"):
        extractors.build(NAME, f"{cloud}/weights/none.h5")


def test_training_does_not_change_the_extractor(files):
    model = fusion.build(fusion.Config(extractor=NAME, weights=str(files[".weights.h5"]), width=0.05))
    before = [np.array(weight) for weight in model.get_layer("embedding").get_weights()]
    decoder = [np.array(variable) for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1e-4), loss="mse", jit_compile=False)
    model.train_on_batch(lightness(2, 32, 32), np.full((2, 32, 32, 2), 20, np.float32))
    # The weights include the batch norm statistics.
    for one, other in zip(before, model.get_layer("embedding").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    after = [np.array(variable) for variable in model.trainable_variables]
    assert any(not np.array_equal(one, other) for one, other in zip(decoder, after, strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3"])
def test_an_embedding_is_the_same_while_the_network_around_it_is_trained(name):
    extractor = extractors.build(name, "random")
    picture = lightness(2, 32, 32)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(extractor(picture, training=True)), ops.convert_to_numpy(extractor(picture))
    )


def test_the_fusion_network_has_the_parameters_of_deep_koalarization_beside_its_classifier():
    model = fusion.build(fusion.Config(extractor=NAME, weights="random"))
    own = model.count_params() - model.get_layer("embedding").count_params()
    assert own / 1e6 == pytest.approx(6.57, abs=0.005)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == own


def test_the_classifier_influences_the_colors(files):
    keras.utils.set_random_seed(0)
    config = fusion.Config(extractor=NAME, weights=str(files[".weights.h5"]), width=0.05)
    model = fusion.build(config)
    picture = lightness(1, 32, 32)
    before = ops.convert_to_numpy(model(picture))
    top = model.get_layer("embedding").get_layer("classifier").network.layers[-1]
    top.set_weights([-weight for weight in top.get_weights()])
    assert np.abs(ops.convert_to_numpy(model(picture)) - before).max() > 1e-3


def test_weights_of_another_network_are_refused_with_what_to_do(files, tmp_path):
    other = tmp_path / "other.weights.h5"
    applications.MobileNetV2(weights=None, alpha=0.35).save_weights(other)
    topless = tmp_path / "topless.h5"
    applications.MobileNetV2(weights=None, alpha=0.35, include_top=False, input_shape=(96, 96, 3)).save(
        topless
    )
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no weights")
    lacking = tmp_path / "lacking.weights.h5"
    lacking.write_bytes(files[".weights.h5"].read_bytes())
    with h5py.File(lacking, "a") as file:
        file["layers/conv2d/vars/0"][...] = np.nan
    for path in (other, topless, broken, lacking):
        with pytest.raises(
            ExtractorError, match="does not hold the weights of mobilenet_v2.* give a file of"
        ):
            extractors.build(NAME, str(path))


def test_unknown_extractors_are_refused_with_the_valid_names(tmp_path):
    with pytest.raises(ExtractorError, match="inception_resnet_v2, resnet50"):
        extractors.build("vgg16")
    with pytest.raises(ExtractorError, match="logits, probabilities"):
        extractors.build(NAME, embedding="features")
    with pytest.raises(ExtractorError, match="must end with"):
        extractors.build(NAME, str(tmp_path / "weights.ckpt"))
    with pytest.raises(ExtractorError, match="there is no file"):
        extractors.build(NAME, str(tmp_path / "missing.h5"))


@pytest.mark.usefixtures("eagerly")
def test_a_run_is_trained_and_exported_with_the_extractor_of_its_file(files, album, tmp_path):
    layers = {"extractor": NAME, "weights": str(files[".weights.h5"]), "width": 0.05}
    command = ["--photos", str(album), "--output", str(tmp_path), "--network", "fusion"]
    short = ["--epochs", "1", "--steps", "2", "--batch", "2", "--sizes", "32", "--size", "32"]
    assert train.main([*command, "--layers", json.dumps(layers), *short]) == 0
    chroma, confidence = serving.load(tmp_path / release.MODEL)(lightness(2, 32, 32))
    assert chroma.shape == (2, 32, 32, 2) and np.isfinite(chroma).all()
    assert np.all((confidence >= 0) & (confidence <= 1))
    exported = serving.weights(tmp_path / release.MODEL)
    with h5py.File(files[".weights.h5"]) as file:
        kernel = file["layers/conv2d/vars/0"][()]
        np.testing.assert_allclose(exported["Conv1/kernel"], kernel, rtol=1e-3)  # half precision


def test_without_a_network_a_run_ends_in_one_clear_line_before_it_reads_photographs(tmp_path):
    """Runs in a separate process, which cannot find weights that were downloaded before."""
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "HTTPS_PROXY": nowhere, "https_proxy": nowhere}
    command = [sys.executable, "-m", "model.train", "--photos", "missing", "--output", str(tmp_path / "run")]
    network = ["--network", "fusion", "--layers", json.dumps({"extractor": NAME})]
    began = time.monotonic()
    found = subprocess.run([*command, *network], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert time.monotonic() - began < 120
    assert found.returncode == 2
    (line,) = [
        line for line in found.stderr.splitlines() if not line.startswith(("WARNING", "I0", "E0", "W0"))
    ]
    assert line.startswith("model.train: the ImageNet weights of mobilenet_v2 cannot be downloaded here")
    assert "give a local, gs:// or s3:// file" in line and "joint" in line
    assert not (tmp_path / "run").exists()


def test_a_server_that_does_not_answer_is_not_waited_for_long(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(extractors, "PATIENCE", 0.5)
        before = socket.getdefaulttimeout()
        began = time.monotonic()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.h5"
        with pytest.raises(ExtractorError, match="timed out"), extractors._reachable(NAME):
            keras.utils.get_file("never.h5", address, cache_subdir="never")
        assert time.monotonic() - began < 20
        assert socket.getdefaulttimeout() == before
