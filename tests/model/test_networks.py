"""Every network keeps the one interface, and what they share does what it says."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from model import losses
from model.networks import NETWORKS, fusion_small
from model.networks.layers import Enlarged

CENTRES = tuple((float(a), float(b)) for a in range(-40, 41, 20) for b in range(-40, 41, 20))
SMALL = {"stem": 8, "stages": ((8, 1), (16, 2), (16, 1), (24, 1)), "fused": 16, "decoder": ((16, 1), (16, 2))}


def lightness(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, (count, height, width, 1)).astype(np.float32)


def random_norms(model: keras.Model) -> None:
    """Gives batch norm the kind of statistics that training gives it."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2)])
def test_any_multiple_of_the_stride_gives_chroma_of_the_same_size(name, rows, columns):
    network = NETWORKS[name]
    fields = {field.name for field in dataclasses.fields(network.Config)}
    model = network.build(network.Config(**({"centres": CENTRES} if "centres" in fields else {})))
    height, width = rows * network.STRIDE, columns * network.STRIDE
    chroma = ops.convert_to_numpy(model(lightness(2, height, width)))
    assert chroma.shape == (2, height, width, 2)
    assert chroma.dtype == np.float32
    assert np.abs(chroma).max() <= 128


def test_the_logits_have_a_quarter_of_the_size_and_one_channel_a_bin():
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **SMALL))
    classifier = keras.Model(model.input, model.get_layer("logits").output)
    assert classifier(lightness(1, 64, 96)).shape == (1, 16, 24, len(CENTRES))


def test_the_colors_of_a_picture_do_not_depend_on_its_neighbours_in_the_batch():
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **SMALL))
    random_norms(model)
    batch = lightness(3, 32, 32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(batch))[1:2], ops.convert_to_numpy(model(batch[1:2])), atol=1e-4
    )


def test_the_global_branch_alone_carries_one_corner_to_the_other():
    keras.utils.set_random_seed(0)
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **SMALL))
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            # Fresh depthwise kernels are small for their fan-in; batch norm makes up for that only in training.
            layer.set_weights([4 * weight for weight in layer.get_weights()])
    picture = np.full((1, 160, 160, 1), 50, np.float32)
    changed = picture.copy()
    changed[:, :64, :64] = 0

    def carried():
        # The local features of this small network see 45 pixels to each side.
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


def unfolded_once():
    """A folded network, a network set to its function by `unfold`, and the batches its statistics are of."""
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


def test_the_network_learns_a_tiny_picture_in_seconds():
    keras.utils.set_random_seed(0)
    picture = np.full((320, 32, 32, 1), 30, np.float32)
    picture[:, :16] = 70
    truth = np.full((320, 8, 8, 2), 20, np.float32)
    truth[:, :4] = (-20, -40)
    centres = np.array(CENTRES, np.float32)
    shallow = {"stem": 8, "stages": ((16, 1),) * 4, "fused": 16, "decoder": ((16, 1), (16, 1))}
    model = fusion_small.build(fusion_small.Config(centres=CENTRES, **shallow))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8  # statistics settle within these few steps
    classifier = keras.Model(model.input, model.get_layer("logits").output)
    loss = losses.rebalanced_cross_entropy(centres, np.ones(len(centres), np.float32))
    classifier.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss=loss, jit_compile=False)
    classifier.fit(picture, truth, batch_size=4, verbose=0)
    found = ops.convert_to_numpy(model(picture[:1]))[0]
    np.testing.assert_allclose(found[4, 16], (-20, -40), atol=6)
    np.testing.assert_allclose(found[28, 16], (20, 20), atol=6)


def test_rare_bins_weigh_more_and_the_mean_weight_of_pixels_is_one():
    shares = np.array([0.9, 0.09, 0.01])
    weights = losses.rebalancing_weights(shares)
    assert weights[0] < weights[1] < weights[2]
    assert np.sum(shares * weights) == pytest.approx(1)
    # Zhang et al., section 2.2, by hand: 1 / (p/2 + 1/6) scaled to mean 1.
    np.testing.assert_allclose(weights[2] / weights[0], (0.45 + 1 / 6) / (0.005 + 1 / 6), rtol=1e-5)
    np.testing.assert_allclose(losses.rebalancing_weights(shares, uniform=1), 1)


def test_the_loss_is_least_at_the_truth():
    centres = np.array(CENTRES, np.float32)
    loss = losses.rebalanced_cross_entropy(centres, np.ones(len(centres), np.float32))
    truth = np.full((1, 2, 2, 2), 20, np.float32)
    right = -((truth[..., None, :] - centres) ** 2).sum(-1) / 50
    assert (
        float(loss(truth, right)[0])
        < float(loss(truth, np.zeros_like(right))[0])
        < float(loss(truth, -right)[0])
    )
