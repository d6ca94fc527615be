"""Colour spaces: decoding inverts encoding, planes are scaled to the gamut, and the values agree with scikit-image."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from skimage import color as skcolor

from model.color import conversion, spaces

COLORS = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3), axis=-1)
CHANNEL = st.floats(0, 1, width=32)
RGB = st.tuples(CHANNEL, CHANNEL, CHANNEL).map(lambda rgb: np.array(rgb, np.float32))


def encoded(rgb: np.ndarray, space: str) -> np.ndarray:
    return ops.convert_to_numpy(spaces.encode(rgb, space))


def decoded(rgb: np.ndarray, planes: np.ndarray, space: str) -> np.ndarray:
    """Decode planes at the luma of the colours [..., 3]. Returns chroma."""
    lightness = conversion.lightness_of_grey(conversion.luma(rgb))[..., None]
    return ops.convert_to_numpy(spaces.decode(lightness, planes, space))


@pytest.mark.parametrize("space", spaces.PLANES)
def test_decoding_undoes_encoding_at_the_luma_of_the_scan(space):
    rgb = COLORS.astype(np.float32)
    chroma = ops.convert_to_numpy(conversion.rgb_to_lab(rgb))[..., 1:]
    np.testing.assert_allclose(decoded(rgb, encoded(rgb, space), space), chroma, atol=0.05)


@pytest.mark.parametrize("space", spaces.PLANES)
@given(RGB)
@settings(max_examples=100, deadline=None)
def test_planes_of_any_color_are_within_one_and_decode_to_that_color(space, rgb):
    planes = encoded(rgb, space)
    assert planes.shape == (spaces.PLANES[space],)
    assert np.abs(planes).max() <= 1 + 1e-5
    chroma = ops.convert_to_numpy(conversion.rgb_to_lab(rgb))[1:]
    np.testing.assert_allclose(decoded(rgb, planes, space), chroma, atol=0.05)


@pytest.mark.parametrize("space", ["yuv", "hsv", "rgb"])
def test_planes_use_their_range_to_the_end(space):
    planes = encoded(COLORS, space)
    np.testing.assert_allclose([planes.min(), planes.max()], [-1, 1], atol=1e-6)


def test_lab_planes_agree_with_scikit_image():
    np.testing.assert_allclose(128 * encoded(COLORS, "lab"), skcolor.rgb2lab(COLORS)[..., 1:], atol=0.02)


def test_yuv_planes_are_those_of_scikit_image_scaled_by_the_maximum():
    expected = skcolor.rgb2yuv(COLORS)[..., 1:]
    largest = np.abs(expected).max(axis=(0, 1, 2))
    np.testing.assert_allclose(encoded(COLORS, "yuv"), expected / largest, atol=1e-3)


def test_hsv_planes_are_hue_as_angle_and_saturation_as_length():
    hue, saturation, _ = np.moveaxis(skcolor.rgb2hsv(COLORS), -1, 0)
    expected = saturation[..., None] * np.stack([np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)], axis=-1)
    np.testing.assert_allclose(encoded(COLORS, "hsv"), expected, atol=1e-6)


@pytest.mark.parametrize("space", spaces.PLANES)
def test_grey_is_grey_at_any_lightness(space):
    grey = np.repeat(np.linspace(0, 1, 9, dtype=np.float32)[:, None], 3, axis=1)
    planes = encoded(grey, space)
    np.testing.assert_allclose(decoded(grey, planes, space), 0, atol=0.05)
    if space != "rgb":
        np.testing.assert_allclose(planes, 0, atol=1e-3)


@pytest.mark.parametrize("space", spaces.PLANES)
def test_gradients_are_finite_also_at_grey_and_where_no_such_color_exists(space):
    """A GAN propagates gradients through the decoding, and a new network outputs zero planes for black pixels."""
    axis = np.array([-1, -0.5, 0, 0.5, 1], np.float32)
    planes = np.stack(np.meshgrid(*[axis] * spaces.PLANES[space]), axis=-1).reshape(-1, spaces.PLANES[space])
    for level in (0, 50, 100):
        variable = tf.Variable(planes)
        with tf.GradientTape() as tape:
            chroma = spaces.decode(np.full((len(planes), 1), level, np.float32), variable, space)
            total = tf.reduce_sum(tf.abs(chroma))
        assert np.isfinite(chroma).all()
        assert np.isfinite(tape.gradient(total, variable)).all()
