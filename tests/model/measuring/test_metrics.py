"""Metrics agree with published tables and with independent libraries."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage import color as skcolor
from skimage import data
from skimage import metrics as skmetrics

from model.color import conversion
from model.measuring import metrics

# Sharma, Wu and Dalal 2005, table 1: L1 a1 b1, L2 a2 b2, CIEDE2000.
SHARMA = np.fromstring(
    """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
""",
    sep=" ",
).reshape(34, 7)


@pytest.mark.parametrize("swapped", [False, True])
def test_ciede2000_gives_the_published_values_of_all_34_pairs(swapped):
    one, other = SHARMA[:, :3], SHARMA[:, 3:6]
    measured = metrics.ciede2000(other, one) if swapped else metrics.ciede2000(one, other)
    np.testing.assert_allclose(np.asarray(measured), SHARMA[:, 6], atol=5e-5)


def test_ciede2000_of_a_photograph_agrees_with_scikit_image():
    rgb = data.astronaut()[::16, ::16] / 255
    other = np.clip(rgb[::-1] * 0.9, 0, 1)
    expected = skcolor.deltaE_ciede2000(skcolor.rgb2lab(rgb), skcolor.rgb2lab(other)).mean()
    measured = metrics.ciede2000(conversion.rgb_to_lab(rgb), conversion.rgb_to_lab(other))
    assert float(np.mean(measured)) == pytest.approx(expected, abs=0.01)


def test_colorfulness_is_zero_for_grey_and_the_papers_value_for_two_colors():
    grey = np.repeat(np.linspace(0, 1, 16).reshape(1, 4, 4, 1), 3, axis=-1)
    assert float(metrics.colorfulness(grey)[0]) == pytest.approx(0, abs=1e-6)
    halves = np.zeros((1, 2, 2, 3))
    halves[:, 0] = (1, 0, 0)
    halves[:, 1] = (0, 0, 1)
    # Red has rg 255 and yb 127.5, blue has rg 0 and yb -255. Computed by hand: sigma 229.86, mu 142.53.
    assert float(metrics.colorfulness(halves)[0]) == pytest.approx(229.8599 + 0.3 * 142.5274, abs=0.01)


def test_colorfulness_of_a_photograph_is_the_papers_formula():
    red, green, blue = data.astronaut()[::4, ::4].astype(float).transpose(2, 0, 1)
    rg, yb = red - green, 0.5 * (red + green) - blue
    sigma, mu = np.hypot(rg.std(), yb.std()), np.hypot(rg.mean(), yb.mean())
    found = metrics.colorfulness(data.astronaut()[None, ::4, ::4].astype(np.float32) / 255)
    assert float(found[0]) == pytest.approx(sigma + 0.3 * mu, rel=1e-4)


def test_raw_accuracy_by_hand():
    truth = np.zeros((2, 2, 2, 2), np.float32)
    chroma = truth.copy()
    chroma[0, 0, 0] = (30, -40)  # an error of 50 out of 150 is correct at two thirds of the thresholds
    chroma[0, 1, 1] = (90, 120)  # correct at no threshold
    chroma[1] = (0, 75)
    np.testing.assert_allclose(
        np.asarray(metrics.raw_accuracy(truth, chroma)), [(2 / 3 + 1 + 1 + 0) / 4, 0.5]
    )


def test_raw_accuracy_of_even_errors_is_the_analytic_area():
    """If errors are uniform on 0..E and E <= 150, the mean accuracy over the thresholds is 1 - E/300."""
    truth = np.zeros((1, 100, 100, 2), np.float32)
    errors = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(1, 100, 100)
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, errors.shape).astype(np.float32)
    for greatest in (30, 150):
        chroma = greatest * np.stack([errors * np.cos(angle), errors * np.sin(angle)], axis=-1)
        assert float(metrics.raw_accuracy(truth, chroma)[0]) == pytest.approx(1 - greatest / 300, abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.floats(1, 120))
@settings(deadline=None, max_examples=25)
def test_raw_accuracy_is_the_area_of_the_swept_curve(seed, spread):
    rng = np.random.default_rng(seed)
    truth, chroma = rng.normal(0, spread, (2, 3, 8, 8, 2)).astype(np.float32)
    thresholds = np.linspace(0, 150, 1501)
    distance = np.linalg.norm(chroma - truth, axis=-1).reshape(3, -1, 1)
    areas = np.trapz((distance <= thresholds).mean(axis=1), thresholds) / 150
    np.testing.assert_allclose(np.asarray(metrics.raw_accuracy(truth, chroma)), areas, atol=1e-3)


def test_chroma_rmse_of_a_constant_error_is_that_error():
    truth, error = np.zeros((2, 3, 3, 2), np.float32), np.float32([7, -2]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(np.asarray(metrics.chroma_rmse(truth, truth + error)), [7, 2])


@pytest.fixture(scope="module")
def photographs():
    """Two pairs of a photograph and a degraded copy, [2, 64, 96, 3] float32: noisy, and with swapped channels."""
    truth = data.astronaut()[100:164, 150:246].astype(np.float32) / 255
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 0.1, truth.shape), 0, 1).astype(np.float32)
    return np.stack([truth, truth]), np.stack([noisy, truth[..., ::-1]])


def test_psnr_agrees_with_scikit_image(photographs):
    expected = [
        skmetrics.peak_signal_noise_ratio(*pair, data_range=1) for pair in zip(*photographs, strict=True)
    ]
    np.testing.assert_allclose(np.asarray(metrics.psnr(*photographs)), expected, atol=1e-3)


def test_psnr_of_equal_pictures_is_finite(photographs):
    truth, _ = photographs
    # 10 log10(12 x 255^2): PSNR of 8-bit quantisation noise.
    np.testing.assert_allclose(np.asarray(metrics.psnr(truth, truth)), 58.9226, atol=1e-3)


def test_ssim_agrees_with_scikit_image(photographs):
    settings = dict(
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
    )
    expected = [skmetrics.structural_similarity(*pair, **settings) for pair in zip(*photographs, strict=True)]
    np.testing.assert_allclose(np.asarray(metrics.ssim(*photographs)), expected, atol=1e-4)


def test_luma_drift_is_that_of_the_picture_as_8_bits_hold_it():
    grey = np.full((1, 4, 4), 100 / 255, np.float32)
    neutral = np.repeat(grey[..., None], 3, axis=-1)
    assert float(metrics.luma_drift(grey, neutral + 0.4 / 255)[0]) == pytest.approx(0, abs=1e-3)
    greener = neutral + np.float32([0, 3, 0]) / 255
    assert float(metrics.luma_drift(grey, greener)[0]) == pytest.approx(3 * 0.587, abs=1e-3)


def test_bleeding_is_chroma_that_changes_where_luma_does_not():
    grey = np.zeros((1, 32, 64), np.float32)
    grey[:, :, 32:] = 0.5
    chroma = np.zeros((1, 32, 64, 2), np.float32)
    chroma[:, :, 32:] = (30, -40)
    assert float(metrics.bleeding(grey, chroma)[0]) == 0
    beside = chroma[:, :, 8:]
    # There are 55 steps between columns. One is an edge in luma. One of the other 54 is the chroma step, hypot(30, 40).
    assert float(metrics.bleeding(grey[:, :, :56], beside)[0]) == pytest.approx(50 / 54, rel=1e-4)


def test_nothing_bleeds_where_nothing_is_flat():
    ramp = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32), (1, 16, 16))
    chroma = np.random.default_rng(0).normal(0, 20, (1, 16, 16, 2)).astype(np.float32)
    assert float(metrics.bleeding(ramp, chroma)[0]) == 0


def test_a_picture_is_grey_when_its_colors_are_hardly_seen(photographs):
    truth = photographs[0][:1]
    grey = np.repeat(truth.mean(axis=-1, keepdims=True), 3, axis=-1)
    pictures = np.concatenate([truth, grey, grey + 0.05 * (truth - grey)])
    np.testing.assert_array_equal(np.asarray(metrics.is_grey(pictures)), [0, 1, 1])


def test_measures_of_pictures_are_the_same_inside_a_tensorflow_graph(photographs):
    def measures(truth, rgb):
        grey, chroma = truth[..., 0], rgb[..., 1:]
        return [
            metrics.psnr(truth, rgb),
            metrics.ssim(truth, rgb),
            metrics.luma_drift(grey, rgb),
            metrics.bleeding(grey, chroma),
            metrics.is_grey(rgb),
        ]

    spec = tf.TensorSpec((None, 64, 96, 3), tf.float32)
    in_graph = tf.function(measures, input_signature=[spec, spec])
    for one, other in zip(in_graph(*photographs), measures(*photographs), strict=True):
        np.testing.assert_allclose(one.numpy(), np.asarray(other), rtol=1e-4)


def test_rank_correlation_agrees_with_scipy():
    one, other = np.random.default_rng(0).normal(size=(2, 50))
    assert metrics.rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_rank_correlation_gives_ties_the_mean_of_their_ranks():
    assert metrics.rank_correlation(np.array([1, 1, 2, 3]), np.array([5, 5, 7, 9])) == pytest.approx(1)
    assert metrics.rank_correlation(np.array([1, 1, 1, 2]), np.array([1, 2, 3, 4])) == pytest.approx(
        np.corrcoef([2, 2, 2, 4], [1, 2, 3, 4])[0, 1]
    )
    assert np.isnan(metrics.rank_correlation(np.ones(5), np.arange(5)))


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_pictures():
    rng = np.random.default_rng(0)
    few, many = (metrics.bootstrap(np.mean, rng.normal(5, 1, count)) for count in (20, 2000))
    assert few[0] < 5 < few[1]
    assert many[0] < 5 < many[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 4


def test_brown_is_dark_orange():
    colors = {"brown": (101, 67, 33), "orange": (160, 90, 30), "cream": (250, 235, 210), "grey": (90, 90, 90)}
    colors |= {"green": (60, 120, 40), "sky": (120, 170, 240)}
    lab = conversion.rgb_to_lab(np.array(list(colors.values()), np.float32)[None, :, None] / 255)
    found = [float(metrics.brown(lab[:, index : index + 1])[0]) for index in range(len(colors))]
    assert dict(zip(colors, found, strict=True)) == {name: name in ("brown", "orange") for name in colors}
    assert float(metrics.brown(lab)[0]) == pytest.approx(2 / 6)
