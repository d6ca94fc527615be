"""Losses agree with values computed by hand from the papers, with the losses of Keras, and with each other."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from skimage import data

from model.color import conversion
from model.training import losses

CENTRES = np.float32([[0, 0], [40, 40], [-40, 0], [0, -60]])
RARE = np.float32([0.5, 2, 3, 4])  # weights of the bins
SEEDS = st.integers(0, 2**32 - 1)


def numbers(values) -> np.ndarray:
    return keras.ops.convert_to_numpy(values)


def normal(seed: int, *shapes: tuple[int, ...], scale: float = 2.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, scale, shape).astype(np.float32) for shape in shapes]


@given(SEEDS, st.floats(0.1, 3))
@settings(max_examples=20, deadline=None)
def test_regression_losses_agree_with_keras(seed, delta):
    truth, prediction = normal(seed, (3, 4, 5, 2), (3, 4, 5, 2))
    rows = [array.reshape(3, -1) for array in (truth, prediction)]
    pairs = {
        losses.mae: keras.losses.mean_absolute_error,
        losses.mse: keras.losses.mean_squared_error,
        functools.partial(losses.huber, delta=delta): functools.partial(keras.losses.huber, delta=delta),
    }
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(numbers(ours(truth, prediction)), numbers(theirs(*rows)), rtol=1e-5)


def test_huber_is_half_a_square_up_to_delta_and_linear_beyond():
    error = np.float32([0.5, 2, -5]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(numbers(losses.huber(0 * error, error, delta=2)), [0.125, 2, 2 * (5 - 1)])


def test_rare_bins_weigh_more_and_the_mean_weight_of_pixels_is_one():
    shares = np.array([0.9, 0.09, 0.01])
    weights = losses.rebalancing_weights(shares)
    assert weights[0] < weights[1] < weights[2]
    assert np.sum(shares * weights) == pytest.approx(1)
    # Zhang et al., section 2.2, computed by hand: 1 / (p/2 + 1/6), scaled to mean 1.
    np.testing.assert_allclose(weights[2] / weights[0], (0.45 + 1 / 6) / (0.005 + 1 / 6), rtol=1e-5)
    np.testing.assert_allclose(losses.rebalancing_weights(shares, uniform=1), 1)


def test_cross_entropy_is_least_at_the_truth():
    loss = losses.rebalanced_cross_entropy(CENTRES, np.ones(len(CENTRES), np.float32))
    truth = np.full((1, 2, 2, 2), 20, np.float32)
    right = -((truth[..., None, :] - CENTRES) ** 2).sum(-1) / 50
    assert (
        float(loss(truth, right)[0])
        < float(loss(truth, np.zeros_like(right))[0])
        < float(loss(truth, -right)[0])
    )


def test_cross_entropy_of_even_logits_is_the_bins_weight_times_log_q():
    chroma = np.broadcast_to(CENTRES[:, None, None], (4, 2, 2, 2))
    found = losses.rebalanced_cross_entropy(CENTRES, RARE)(chroma, np.zeros((4, 2, 2, 4), np.float32))
    np.testing.assert_allclose(numbers(found), RARE * np.log(4), rtol=1e-4)


def test_the_target_is_mixed_by_the_share_of_the_teacher():
    """The loss is linear in its target: a weighted sum of the loss for the truth and the loss for the teacher."""
    rng = np.random.default_rng(0)
    centres = np.array([(0, 0), (30, 0), (0, 30)], np.float32)
    chroma = rng.uniform(-5, 35, (2, 4, 4, 2)).astype(np.float32)
    learner, teacher = (rng.normal(size=(2, 4, 4, 3)).astype(np.float32) for _ in range(2))
    weights = np.array([0.5, 1, 3], np.float32)
    both = np.concatenate([learner, teacher], axis=-1)

    def loss(share):
        return numbers(losses.distilled_cross_entropy(centres, weights, share)(chroma, both))

    np.testing.assert_allclose(
        loss(0.0), numbers(losses.rebalanced_cross_entropy(centres, weights)(chroma, learner)), rtol=1e-5
    )
    weight = numbers(conversion.soft_encode(chroma, centres)) @ weights
    shares, logs = softmax(teacher, axis=-1), log_softmax(learner, axis=-1)
    np.testing.assert_allclose(loss(1.0), -(weight * (shares * logs).sum(-1)).mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(loss(0.7), 0.3 * loss(0.0) + 0.7 * loss(1.0), rtol=1e-5)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_adversarial_losses_agree_with_the_cross_entropy_of_keras(seed):
    real, generated = normal(seed, (3, 5, 5, 1), (3, 5, 5, 1))

    def crossed(logits, label):
        rows = logits.reshape(3, -1)
        return keras.losses.binary_crossentropy(np.full_like(rows, label), rows, from_logits=True)

    np.testing.assert_allclose(
        numbers(losses.adversarial_generator(generated)), numbers(crossed(generated, 1)), rtol=1e-4
    )
    expected = (numbers(crossed(real, 1)) + numbers(crossed(generated, 0))) / 2
    found = losses.adversarial_discriminator(real, generated)
    np.testing.assert_allclose(numbers(found), expected, rtol=1e-4)


def test_an_undecided_discriminator_has_loss_log_2_or_a_quarter():
    unsure = np.zeros((2, 3, 3, 1), np.float32)
    np.testing.assert_allclose(
        numbers(losses.adversarial_discriminator(unsure, unsure)), np.log(2), rtol=1e-6
    )
    np.testing.assert_allclose(numbers(losses.least_squares_discriminator(unsure + 0.5, unsure + 0.5)), 0.25)


def test_least_squares_losses_are_zero_at_their_targets():
    zeros, ones = np.zeros((2, 3, 3, 1), np.float32), np.ones((2, 3, 3, 1), np.float32)
    assert not numbers(losses.least_squares_discriminator(ones, zeros)).any()
    assert not numbers(losses.least_squares_generator(ones)).any()
    np.testing.assert_allclose(numbers(losses.least_squares_generator(-ones)), 4)
    np.testing.assert_allclose(numbers(losses.least_squares_discriminator(-ones, 2 * ones)), (4 + 4) / 2)


def test_the_generators_gradient_does_not_vanish_where_the_discriminator_is_sure():
    logits = tf.fill((1, 2, 2, 1), -20.0)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.adversarial_generator(logits)
    np.testing.assert_allclose(tape.gradient(loss, logits), -0.25, rtol=1e-4)


def test_feature_matching_is_the_mean_over_maps_of_each_maps_mean_error():
    real = [np.zeros((2, 4, 4, 8), np.float32), np.ones((2, 2, 2, 3), np.float32)]
    generated = [real[0] - 3, real[1] + np.float32([1, 2]).reshape(2, 1, 1, 1)]
    found = losses.feature_matching(real, generated)
    np.testing.assert_allclose(numbers(found), [(3 + 1) / 2, (3 + 2) / 2])
    with pytest.raises(ValueError, match="shorter"):
        losses.feature_matching(real, generated[:1])


@pytest.fixture(scope="module")
def photograph():
    return data.astronaut()[None, :128:2, 128:256:2].astype(np.float32) / 255


def extractor_of(*kernels: np.ndarray) -> keras.Model:
    """A model whose outputs are 1 x 1 convolutions of RGB with kernels [3, C]."""
    inputs = keras.Input((None, None, 3))
    outputs = []
    for kernel in kernels:
        layer = keras.layers.Conv2D(kernel.shape[1], 1, use_bias=False)
        outputs.append(layer(inputs))
        layer.set_weights([kernel[None, None]])
    return keras.Model(inputs, outputs)


def test_perceptual_distance_depends_on_the_directions_of_the_features():
    red, green = np.eye(3, dtype=np.float32)[:2].reshape(2, 1, 1, 1, 3)
    both = red + green
    one_map = losses.perceptual(extractor_of(np.eye(3, dtype=np.float32)))
    np.testing.assert_allclose(numbers(one_map(red, green)), 2, rtol=1e-5)  # at right angles
    np.testing.assert_allclose(numbers(one_map(red, both)), 2 - np.sqrt(2), rtol=1e-5)  # at 45 degrees
    np.testing.assert_allclose(numbers(one_map(red, red / 2)), 0, atol=1e-6)  # in the same direction
    # A second map, the sum of red and green, sees no difference. The mean over both maps is half the distance.
    two_maps = losses.perceptual(extractor_of(np.eye(3, dtype=np.float32), np.float32([[1], [1], [0]])))
    np.testing.assert_allclose(numbers(two_maps(red, green)), 1, rtol=1e-5)


def test_perceptual_distance_grows_with_damage_and_is_zero_without(photograph):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, strides=2, activation="relu") for _ in range(3)]
    distance = losses.perceptual(keras.Sequential([keras.Input((64, 64, 3)), *layers]))
    noise = np.random.default_rng(0).normal(0, 1, photograph.shape).astype(np.float32)
    none, some, much = (
        float(distance(photograph, photograph + strength * noise)[0]) for strength in (0, 0.05, 0.3)
    )
    assert none == 0
    assert 0 < some < much


def test_gradients_of_the_perceptual_loss_are_finite_where_no_feature_is_left():
    distance = losses.perceptual(extractor_of(np.zeros((3, 4), np.float32)))
    picture = tf.ones((1, 2, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        loss = distance(0 * picture, picture)
    assert np.isfinite(tape.gradient(loss, picture)).all()


def test_the_statistics_of_an_extractors_batch_norm_do_not_move(photograph):
    norm = keras.layers.BatchNormalization()
    extractor = keras.Sequential([keras.Input((64, 64, 3)), norm])
    before = [array.copy() for array in extractor.get_weights()]
    losses.perceptual(extractor)(photograph, photograph * 0.5)
    for one, other in zip(before, extractor.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_losses_train_a_network_through_keras():
    chroma = np.broadcast_to(CENTRES[1], (4, 8, 8, 2))
    lightness = np.full((4, 8, 8, 1), 0.5, np.float32)
    for loss, channels in ((losses.rebalanced_cross_entropy(CENTRES, RARE), 4), (losses.huber, 2)):
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(channels, 1)])
        model.compile(keras.optimizers.Adam(0.1), loss=loss, jit_compile=False)
        history = model.fit(lightness, chroma, epochs=30, verbose=0).history["loss"]
        assert history[-1] < 0.9 * history[0]
