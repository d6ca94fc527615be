"""Colour conversions agree with scikit-image and Pillow. Chroma bins and their decoding agree with the paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color as skcolor
from skimage import data

from model.color import conversion

COLORS = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3), axis=-1)


def test_rgb_to_lab_agrees_with_scikit_image_all_over_the_cube():
    np.testing.assert_allclose(np.asarray(conversion.rgb_to_lab(COLORS)), skcolor.rgb2lab(COLORS), atol=0.02)


def test_rgb_to_lab_agrees_with_scikit_image_on_a_photograph_of_any_rank():
    photo = (data.astronaut()[::8, ::8] / 255).astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(conversion.rgb_to_lab(photo[None]))[0], skcolor.rgb2lab(photo), atol=0.02
    )


def test_lab_to_rgb_undoes_rgb_to_lab():
    np.testing.assert_allclose(
        np.asarray(conversion.lab_to_rgb(conversion.rgb_to_lab(COLORS))), COLORS, atol=1e-5
    )


def test_lightness_of_a_grey_agrees_with_scikit_image():
    greys = np.arange(256) / 255
    expected = skcolor.rgb2lab(np.repeat(greys[:, None], 3, axis=1))[:, 0]
    np.testing.assert_allclose(np.asarray(conversion.lightness_of_grey(greys)), expected, atol=0.01)


def test_luma_of_a_photograph_agrees_with_pillow_in_every_pixel():
    photo = data.astronaut()
    np.testing.assert_array_equal(
        conversion.luma_uint8(photo), np.asarray(Image.fromarray(photo).convert("L"))
    )


def test_luma_of_random_colors_agrees_with_pillow_and_with_the_rounded_float_luma():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(conversion.luma_uint8(rgb), np.asarray(Image.fromarray(rgb).convert("L")))
    assert np.abs(255 * np.asarray(conversion.luma(rgb / 255)) - conversion.luma_uint8(rgb)).max() < 0.51


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(-128, 128), st.floats(-128, 128))
def test_joined_colors_keep_the_luma_and_stay_in_the_gamut(grey, a, b):
    rgb = np.asarray(conversion.join(np.array([grey]), np.array([[a, b]])))
    assert rgb.min() >= -1e-6
    assert rgb.max() <= 1 + 1e-6
    assert float(conversion.luma(rgb)[0]) == pytest.approx(grey, abs=1e-6)


def test_a_color_inside_the_gamut_is_joined_unchanged():
    truth = np.array([[0.5, 0.45, 0.4]])
    lab = skcolor.rgb2lab(truth)
    joined = skcolor.rgb2lab(np.asarray(conversion.join(np.asarray(conversion.luma(truth)), lab[:, 1:])))
    np.testing.assert_allclose(joined[:, 1:], lab[:, 1:], atol=1.0)


def test_bins_are_the_grid_points_near_the_colors_that_occur():
    chroma = np.array([[0.0, 0]] * 50 + [[12, -8]] * 30 + [[-33, 44]] * 20)
    centres, shares = conversion.grid_bins(chroma)
    np.testing.assert_array_equal(centres, [[-30, 40], [0, 0], [10, -10]])
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3])


def test_bins_leave_out_colors_that_hardly_occur():
    chroma = np.array([[0.0, 0]] * 9999 + [[50, 50]])
    centres, shares = conversion.grid_bins(chroma, least=1e-3)
    assert centres.tolist() == [[0, 0]]
    assert shares.sum() == 1


def test_bins_do_not_depend_on_the_order_of_the_pixels():
    chroma = np.random.default_rng(0).normal(0, 30, (2000, 2))
    np.testing.assert_array_equal(conversion.grid_bins(chroma)[0], conversion.grid_bins(chroma[::-1])[0])


GRID = np.array([(a, b) for a in range(-40, 41, 10) for b in range(-40, 41, 10)], np.float32)


def test_soft_encoding_is_the_normalised_gaussian():
    share = np.asarray(conversion.soft_encode(np.array([[3.0, -4.0]], np.float32), GRID))[0]
    gaussian = np.exp(-((GRID - [3, -4]) ** 2).sum(1) / 50)
    np.testing.assert_allclose(share, gaussian / gaussian.sum(), atol=1e-5)


@pytest.mark.parametrize("chroma", [(0, 0), (10, -20), (13.7, 4.2)])
def test_the_mean_of_a_soft_encoding_is_the_color(chroma):
    share = conversion.soft_encode(np.array([chroma], np.float32), GRID)
    decoded = np.asarray(conversion.annealed_mean(np.log(np.asarray(share) + 1e-30), GRID))[0]
    # By Poisson summation, the mean is off by up to 0.23 if the grid spacing is twice sigma.
    np.testing.assert_allclose(decoded, chroma, atol=0.24)


def test_the_annealed_mean_goes_from_the_mean_to_the_mode():
    logits = np.log(np.array([[0.6, 0.4]]))
    centres = np.array([[0.0, 0], [10, 20]])
    np.testing.assert_allclose(
        np.asarray(conversion.annealed_mean(logits, centres, 1.0))[0], [4, 8], atol=1e-5
    )
    np.testing.assert_allclose(
        np.asarray(conversion.annealed_mean(logits, centres, 0.01))[0], [0, 0], atol=1e-5
    )
