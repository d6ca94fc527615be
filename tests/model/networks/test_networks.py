"""All networks implement the common interface. Also tests their shared layers."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from model import release, train
from model.color import conversion, spaces
from model.networks import (
    NETWORKS,
    alpha,
    attention_unet,
    beta,
    classification,
    fusion_small,
    gan,
    scale,
    stride,
    unet,
)
from model.networks.layers import Enlarged, SelfAttention, SpectralConv2D
from model.training import losses, objectives
from model.training.options import Options, OptionsError

CENTRES = tuple((float(a), float(b)) for a in range(-40, 41, 20) for b in range(-40, 41, 20))
SMALL = {"stem": 8, "stages": ((8, 1), (16, 2), (16, 1), (24, 1)), "fused": 16, "decoder": ((16, 1), (16, 2))}

# Configurations that a CPU builds and trains in seconds.
QUICK = {
    "alpha": {},
    "beta": {"width": 0.1},
    "fusion": {"width": 0.1},
    "fusion_small": {
        "centres": CENTRES,
        "stem": 8,
        "stages": ((16, 1),) * 4,
        "fused": 16,
        "decoder": ((16, 1),) * 2,
    },
    # Temperature 1 gives the mean. These bins are too far apart for the mode to approximate a colour between them.
    "classification": {"centres": CENTRES, "width": 0.1, "temperature": 1.0},
    "unet": {"width": 0.1, "depth": 3},
    "attention_unet": {"width": 0.1, "depth": 3},
    "gan": {"generator_config": {"width": 0.1, "depth": 3}},
}


def quick(name: str, **options):
    """The module of a network, a small `Config` and the model."""
    config = NETWORKS[name].Config(**QUICK[name], **options)
    return NETWORKS[name], config, NETWORKS[name].build(config)


def lightness(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, (count, height, width, 1)).astype(np.float32)


def random_norms(model: keras.Model) -> None:
    """Set random weights and statistics in all batch norm layers, as if the model were trained."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2)])
def test_any_multiple_of_the_stride_gives_chroma_of_the_same_size(name, rows, columns):
    network, config, model = quick(name)
    height, width = rows * stride(network, config), columns * stride(network, config)
    chroma = ops.convert_to_numpy(model(lightness(2, height, width)))
    assert chroma.shape == (2, height, width, 2)
    assert chroma.dtype == np.float32
    assert np.abs(chroma).max() <= 128


@pytest.mark.parametrize("name", gan.GENERATORS)
def test_the_size_of_the_trained_output_follows_from_the_scale(name):
    network, config, model = quick(name)
    side = 2 * stride(network, config)
    small = side // scale(network, config)
    channels = len(CENTRES) if hasattr(config, "centres") else spaces.PLANES[config.space]
    assert trained_part(model)(lightness(1, side, side)).shape == (1, small, small, channels)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_is_colored_the_same_whatever_its_neighbours_in_the_batch(name):
    network, config, model = quick(name)
    random_norms(model)
    batch = lightness(3, stride(network, config), 2 * stride(network, config))
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(batch))[1:2], ops.convert_to_numpy(model(batch[1:2])), atol=1e-3
    )


def trained_part(model: keras.Model) -> keras.Model:
    """The model from lightness to the output that is trained: logits or planes."""
    names = {layer.name for layer in model.layers}
    return keras.Model(model.input, model.get_layer("logits" if "logits" in names else "planes").output)


# Millions of parameters, from the layer lists in the papers.
@pytest.mark.parametrize(
    ("network", "config", "millions"),
    [
        (alpha, {}, 0.0322),
        (beta, {}, 3.89),
        (classification, {"centres": tuple((float(bin), 0.0) for bin in range(313))}, 32.24),
        (unet, {"depth": 8}, 54.41),
    ],
)
def test_the_networks_have_the_parameters_of_the_originals(network, config, millions):
    count = network.build(network.Config(**config)).count_params() / 1e6
    assert count == pytest.approx(millions, rel=2e-3)


def test_a_u_net_that_is_too_shallow_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        unet.Config(depth=1)
    with pytest.raises(ValueError, match="at least 3"):
        attention_unet.Config(depth=2)


def test_a_spectral_convolution_divides_its_kernel_by_the_largest_singular_value():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
    layer = SpectralConv2D(5, 1, use_bias=False)
    for _ in range(50):
        layer(x, training=True)
    kernel = ops.convert_to_numpy(layer.kernel)[0, 0]
    expected = x @ (kernel / np.linalg.svd(kernel, compute_uv=False)[0])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=1e-3, atol=1e-4)


def test_a_frozen_spectral_convolution_does_not_change():
    x = np.ones((1, 4, 4, 3), np.float32)
    layer = SpectralConv2D(5, 3)
    layer(x)
    layer.trainable = False
    before = layer.get_weights()
    layer(x, training=True)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_attention_is_initially_the_identity_and_then_affects_every_position():
    keras.utils.set_random_seed(0)
    layer = SelfAttention()
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x)
    layer.gamma.assign(1.0)
    changed = x.copy()
    changed[0, 0, 0] += 5
    difference = ops.convert_to_numpy(layer(changed) - layer(x))
    assert np.all(np.abs(difference).max(axis=-1) > 0)


def test_attention_is_that_of_the_paper():
    layer = SelfAttention()
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 8)).astype(np.float32)
    layer(x)
    layer.gamma.assign(0.5)
    flat = x.reshape(6, 8)
    query, key, value = (
        ops.convert_to_numpy(part(x)).reshape(6, -1) for part in (layer.query, layer.key, layer.value)
    )
    shares = np.exp(query @ key.T)
    expected = flat + 0.5 * (shares / shares.sum(axis=1, keepdims=True)) @ value
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)).reshape(6, 8), expected, rtol=1e-4, atol=1e-5)


def test_the_embedding_matters_everywhere_in_the_picture():
    keras.utils.set_random_seed(0)
    _, _, model = quick("fusion")
    picture = lightness(1, 32, 32)
    before = ops.convert_to_numpy(model(picture))
    whole = model.get_layer("fused_whole")
    whole.set_weights([-weight for weight in whole.get_weights()])
    after = ops.convert_to_numpy(model(picture))
    assert np.all(np.abs(after - before).max(axis=-1) > 0)


def test_adding_an_embedding_equals_tiling_and_a_1x1_convolution():
    _, _, model = quick("fusion")
    whole, local = model.get_layer("fused_whole"), model.get_layer("fused_local")
    both = keras.Model(model.input, [local.input, model.get_layer("embedding").output, local.output])
    features, embedding, _ = both(lightness(2, 32, 48))
    tiled = ops.tile(embedding[:, None, None], (1, 4, 6, 1))
    kernel = np.concatenate([local.get_weights()[0][0, 0], whole.get_weights()[0]])
    expected = ops.matmul(ops.concatenate([features, tiled], -1), kernel) + local.get_weights()[1]
    found = local(features) + whole(embedding)[:, None, None]
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5)


def test_the_logits_have_a_quarter_of_the_size_and_one_channel_a_bin():
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **SMALL))
    classifier = keras.Model(model.input, model.get_layer("logits").output)
    assert classifier(lightness(1, 64, 96)).shape == (1, 16, 24, len(CENTRES))


def test_only_the_global_branch_connects_opposite_corners():
    keras.utils.set_random_seed(0)
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **SMALL))
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            # Initial depthwise kernels are small for their fan-in. Batch norm compensates for that only in training.
            layer.set_weights([4 * weight for weight in layer.get_weights()])
    picture = np.full((1, 160, 160, 1), 50, np.float32)
    changed = picture.copy()
    changed[:, :64, :64] = 0

    def carried():
        # The local features of this small network have a receptive field of 45 pixels to each side.
        corners = (ops.convert_to_numpy(model(one))[:, -8:, -8:] for one in (picture, changed))
        return np.abs(np.subtract(*corners)).max()

    assert carried() > 1e-6
    scene = model.get_layer("scene")
    scene.set_weights([np.zeros_like(weight) for weight in scene.get_weights()])
    assert carried() == 0


def test_folding_batch_norm_changes_no_color():
    config = fusion_small.Config(centres=CENTRES, temperature=0.7, gain=1.3, **SMALL)
    model = fusion_small.build(config)
    random_norms(model)
    folded = fusion_small.fold(model, config)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    batch = lightness(2, 64, 64)
    np.testing.assert_allclose(
        ops.convert_to_numpy(folded(batch)), ops.convert_to_numpy(model(batch)), atol=1e-3
    )


def test_dropout_acts_in_training_only():
    config = fusion_small.Config(centres=CENTRES, dropout=0.5, **SMALL)
    model, without = fusion_small.build(config), fusion_small.build(replace(config, dropout=0.0))
    random_norms(model)
    without.set_weights(model.get_weights())
    batch = lightness(2, 64, 64)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(network(batch)) for network in (model, without)))
    once, again = (ops.convert_to_numpy(model(batch, training=True)) for _ in range(2))
    assert np.abs(once - again).max() > 1
    with pytest.raises(ValueError, match="dropout"):
        replace(config, dropout=1.0)


def unfolded_once():
    """A folded network, an equivalent network made by `unfold`, and the pictures for its statistics."""
    config = fusion_small.Config(centres=CENTRES, **SMALL)
    trained, model = fusion_small.build(config), fusion_small.build(config)
    random_norms(trained)
    folded = fusion_small.fold(trained, config)
    pictures = lightness(4, 64, 64)
    weights = {variable.path: ops.convert_to_numpy(variable) for variable in folded.weights}
    fusion_small.unfold(model, config, weights, [pictures[:2], pictures[2:]])
    return folded, model, pictures


def test_unfolding_gives_batch_norm_back_and_changes_no_color():
    folded, model, _ = unfolded_once()
    assert [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    others = 100 - lightness(2, 32, 32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(others)), ops.convert_to_numpy(folded(others)), atol=1e-3
    )


def test_an_unfolded_network_is_the_same_function_in_training():
    folded, model, pictures = unfolded_once()
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(pictures, training=True)),
        ops.convert_to_numpy(folded(pictures)),
        atol=1e-2,
    )


def test_a_bin_that_is_certain_gives_its_color_times_the_gain():
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, gain=1.5, **SMALL))
    kernel, offset = model.get_layer("logits").get_weights()
    offset[CENTRES.index((20, -40))] = 100
    model.get_layer("logits").set_weights([kernel, offset])
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(lightness(1, 32, 32)))[0, 5, 5], [30, -60], atol=0.01
    )


def test_upsampling_is_bilinear():
    ramp = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1) * np.ones((1, 8, 8, 2), np.float32)
    large = ops.convert_to_numpy(Enlarged(4)(ramp))
    assert large.shape == (1, 32, 32, 2)
    np.testing.assert_allclose(large[0, 6:-6, 3, 0], ((np.arange(32) + 0.5) / 4 - 0.5)[6:-6], atol=1e-5)


def scenery(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Lightness [1, S, S, 1] and sRGB 0..1 [1, S, S, 3] of a light blue sky above dark green ground."""
    rgb = np.zeros((1, side, side, 3), np.float32)
    rgb[:, : side // 2] = np.array([110, 170, 240]) / 255
    rgb[:, side // 2 :] = np.array([70, 110, 30]) / 255
    return ops.convert_to_numpy(conversion.lightness_of_grey(conversion.luma(rgb)))[..., None], rgb


def learn(name: str, steps: int, **options) -> float:
    """Train on one picture. Returns the larger error, in Lab units, at the centres of sky and ground."""
    keras.utils.set_random_seed(0)
    network, config, model = quick(name, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8  # lets the statistics converge within few steps
    picture, rgb = scenery(32)
    small = rgb[:, :: scale(network, config), :: scale(network, config)]
    chroma = ops.convert_to_numpy(conversion.rgb_to_lab(rgb))[..., 1:]
    if hasattr(config, "centres"):
        centres = np.array(config.centres, np.float32)
        truth = ops.convert_to_numpy(conversion.rgb_to_lab(small))[..., 1:]
        loss = losses.rebalanced_cross_entropy(centres, np.ones(len(centres), np.float32))
    else:
        truth, loss = ops.convert_to_numpy(spaces.encode(small, config.space)), "mse"
    trained = trained_part(model)
    trained.compile(keras.optimizers.Adam(5e-3), loss=loss, jit_compile=False)
    for _ in range(steps):  # `fit` traces the step twice, which takes longer than all steps
        trained.train_on_batch(picture, truth)
    return np.abs(ops.convert_to_numpy(model(picture)) - chroma)[0, [8, 24], 16].max()


@pytest.mark.parametrize("name", gan.GENERATORS)
def test_every_network_learns_a_small_picture_in_seconds(name):
    assert learn(name, steps=120) < 6


@pytest.mark.parametrize("space", [space for space in spaces.PLANES if space != "lab"])
def test_a_network_learns_in_any_color_space_and_still_gives_lab_chroma(space):
    assert learn("alpha", steps=250, space=space) < 6


def test_a_run_in_another_color_space_ends_in_a_model_that_is_nearer_the_truth_than_grey(album, tmp_path):
    command = ["--photos", str(album), "--output", str(tmp_path), "--network", "alpha", "--space", "hsv"]
    short = [
        "--epochs",
        "2",
        "--steps",
        "60",
        "--batch",
        "8",
        "--rate",
        "0.005",
        "--sizes",
        "32",
        "--size",
        "32",
    ]
    assert train.main([*command, *short, "--gain", "1"]) == 0
    report = json.loads((tmp_path / release.REPORT).read_text(encoding="utf-8"))
    assert all(figures["rmse_over_grey"][0] < 0.7 for figures in report["model"].values())


def test_layers_that_a_network_refuses_are_a_users_mistake():
    for network, layers in (("unet", {"depth": 1}), ("fusion", {"extractor": "vgg16"})):
        with pytest.raises(OptionsError, match="--layers does not fit the network"):
            objectives.check(Options(network=network, layers=layers))
