"""Training batches give the network the same kind of input as a scan does."""

import numpy as np
import pytest
from PIL import Image
from skimage import color as skcolor
from skimage import data

from model.data import batches
from model.data.photos import Photo
from model.training import objectives
from model.training.options import Options
from tests.model.conftest import landscape

PHOTOS = [
    Photo(f"{seed}.png", ("coast", "hills")[seed % 2], f"{seed:064}", landscape(seed)) for seed in range(6)
]


def training_batches(start=0, **changes):
    views = batches.Views(**{"sizes": (32, 64), "batch": 3, "scale": 4, "seed": 7, **changes})
    return batches.TrainingBatches(PHOTOS, batches.picture_weights(PHOTOS, {}), views, start)


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


def test_a_batch_is_a_function_of_the_seed_and_the_step():
    one, other = training_batches(start=8)[1], training_batches()[9]
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], training_batches(start=8, seed=8)[1][0])


def test_sizes_alternate_also_in_a_resumed_run():
    assert [training_batches(start=3)[index][0].shape[1] for index in range(3)] == [64, 32, 64]


def test_targets_may_be_planes_of_another_space():
    encode = objectives.objective(Options(network="beta", space="rgb"), None, None).target
    _, planes = training_batches(target=encode)[1]
    assert planes.shape == (3, 16, 16, 3)
    assert planes.min() >= -1 and planes.max() <= 1 and planes.max() - planes.min() > 0.5


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


def test_crops_have_aspect_jitter_up_to_the_declared_bound():
    rng = np.random.default_rng(0)
    crops = [batches.random_crop(np.zeros((200, 200, 3), np.uint8), rng).shape for _ in range(300)]
    aspects = np.array([height / width for height, width, _ in crops])
    assert 0.5 <= aspects.min() < 0.65
    assert 1.55 < aspects.max() <= 2


def test_another_scan_may_be_blurred_or_toned_but_shows_the_same_picture():
    whole = batches.lightness(landscape(0))
    rng = np.random.default_rng(0)
    scans = [batches.as_scanned(whole, rng) for _ in range(60)]
    assert all(scan.shape == whole.shape and scan.dtype == np.float32 for scan in scans)
    same = [np.array_equal(scan, whole) for scan in scans]
    assert 10 < sum(same) < 35  # a third is expected

    def fine(picture):
        """Contrast between neighbouring pixels relative to the contrast of the picture."""
        return np.abs(np.diff(picture, axis=1)).mean() / picture.std()

    assert 10 < sum(fine(scan) < 0.97 * fine(whole) for scan in scans) < 30
    for scan in scans:
        assert np.corrcoef(scan.ravel(), whole.ravel())[0, 1] > 0.9
