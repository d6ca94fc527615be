"""Training batches show the network what a scan would show it."""

import numpy as np
import pytest
from PIL import Image
from skimage import color as skcolor
from skimage import data

from model import batches
from model.photos import Photo
from tests.model.conftest import landscape

PHOTOS = [
    Photo(f"{seed}.png", ("coast", "hills")[seed % 2], f"{seed:064}", landscape(seed)) for seed in range(6)
]


def training_batches(**changes):
    settings = {"sizes": (32, 64), "batch": 3, "steps": 4, "scale": 4, "seed": 7, **changes}
    return batches.TrainingBatches(PHOTOS, batches.picture_weights(PHOTOS, {}), **settings)


def test_the_input_is_the_lightness_of_pillows_grey():
    photo = data.astronaut()
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    expected = skcolor.rgb2lab(np.repeat(grey[..., None], 3, axis=-1))[..., :1]
    np.testing.assert_allclose(batches.lightness(photo), expected, atol=0.01)


def test_batches_have_the_declared_shapes_and_ranges():
    for lightness, chroma in (training_batches()[index] for index in range(4)):
        size = lightness.shape[1]
        assert size in (32, 64)
        assert lightness.shape == (3, size, size, 1)
        assert chroma.shape == (3, size // 4, size // 4, 2)
        assert lightness.dtype == chroma.dtype == np.float32
        assert lightness.min() >= 0
        assert lightness.max() <= 100
        assert np.abs(chroma).max() < 110


def test_a_batch_is_a_function_of_seed_epoch_and_index():
    one, other = training_batches(epoch=2)[1], training_batches()[2 * 4 + 1]
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], training_batches(epoch=2, seed=8)[1][0])


def test_chroma_stays_in_place_under_crops_and_flips():
    for index in range(4):
        lightness, chroma = training_batches()[index]
        small = lightness[:, 2::4, 2::4, 0]
        middle = (small.max(axis=(1, 2), keepdims=True) + small.min(axis=(1, 2), keepdims=True)) / 2
        bright, blue = small > middle, chroma[..., 1] < 0
        assert np.mean(bright == blue) > 0.9


def test_collections_are_drawn_by_their_weights():
    weights = batches.picture_weights(PHOTOS, {"hills": 3})
    assert weights.sum() == pytest.approx(1)
    assert weights[1] == pytest.approx(3 * weights[0])


def test_whole_photos_come_once_and_in_order():
    whole = batches.WholePhotos(PHOTOS, size=32, batch=4, scale=4)
    assert [len(whole[index][0]) for index in range(len(whole))] == [4, 2]
    expected = batches.lightness(batches.resized(PHOTOS[5].pixels, 32, 32))
    np.testing.assert_array_equal(whole[1][0][1], expected)


@pytest.mark.parametrize("shape", [(40, 200, 3), (200, 40, 3)])
def test_crops_are_squashed_at_most_two_to_one(shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = batches.random_crop(np.zeros(shape, np.uint8), rng).shape[:2]
        assert 0.5 <= height / width <= 2
