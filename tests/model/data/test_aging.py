"""Artificial ageing of training inputs: the effects change the look of a picture and keep its content."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color as skcolor
from skimage import data
from skimage.metrics import structural_similarity

from model.data import aging, batches

SEEDS = st.integers(0, 2**32 - 1)
EFFECTS = [effect for effect, _ in aging.EFFECTS]
SENSITIVITIES = (aging.PANCHROMATIC, aging.ORTHOCHROMATIC, aging.BLUE_SENSITIVE)
RED, GREEN, BLUE = np.eye(3, dtype=np.uint8).reshape(3, 1, 1, 3) * 255


@pytest.fixture(scope="module")
def lightness():
    """Lightness of a photograph, [160, 160, 1]."""
    return batches.lightness(batches.resized(data.astronaut(), 160, 160))


def flat(level: float, size: int = 96) -> np.ndarray:
    return np.full((size, size), level, np.float32)


def correlation(one, other) -> float:
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def luma_of_every_draw(pixel: np.ndarray, emulsion) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([aging.recorded(pixel, rng.uniform(*emulsion))[0, 0] for _ in range(50)]) / 255


@given(SEEDS)
def test_every_emulsion_leaves_greys_as_they_are(seed):
    greys = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(aging.emulsion(greys, np.random.default_rng(seed)), greys[..., 0])


def test_an_emulsion_with_the_sensitivity_of_luminance_records_the_lightness_of_cie():
    photo = data.astronaut()
    luma = aging.recorded(photo, np.array([0.2126, 0.7152, 0.0722]))
    expected = skcolor.rgb2lab(photo)[..., 0]
    measured = skcolor.rgb2lab(np.repeat(luma[..., None], 3, axis=-1))[..., 0]
    np.testing.assert_allclose(measured, expected, atol=0.5)


def test_blue_sensitive_and_orthochromatic_emulsions_are_all_but_blind_to_red():
    for emulsion in (aging.ORTHOCHROMATIC, aging.BLUE_SENSITIVE):
        assert luma_of_every_draw(RED, emulsion).max() < 0.35
    assert luma_of_every_draw(RED, aging.PANCHROMATIC).min() > 0.35


def test_only_blue_sensitive_emulsions_show_foliage_dark_and_skies_white():
    assert luma_of_every_draw(GREEN, aging.BLUE_SENSITIVE).max() < 0.45
    assert luma_of_every_draw(GREEN, aging.ORTHOCHROMATIC).min() > 0.5
    assert luma_of_every_draw(BLUE, aging.BLUE_SENSITIVE).min() > 0.9


def test_some_pictures_keep_the_luma_of_pillow_and_most_do_not():
    photo = data.astronaut()[::8, ::8]
    plain = np.asarray(Image.fromarray(photo).convert("L"))
    rng = np.random.default_rng(0)
    kept = np.mean([np.array_equal(aging.emulsion(photo, rng), plain) for _ in range(400)])
    assert 0.2 < kept < 0.4


@pytest.mark.parametrize("effect", [*EFFECTS, aging.aged], ids=lambda effect: effect.__name__)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, height=st.integers(16, 70), width=st.integers(16, 70))
def test_lightness_keeps_its_shape_type_and_range(effect, seed, height, width):
    rng = np.random.default_rng(seed)
    before = rng.uniform(0, 100, (height, width, 1)).astype(np.float32)
    before[:4], before[-4:] = 0, 100
    given = before if effect is aging.aged else before[..., 0]
    kept = given.copy()
    after = effect(given, rng)
    assert after.shape == given.shape
    assert after.dtype == np.float32
    assert after.min() >= 0
    assert after.max() <= 100
    np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("effect", [*EFFECTS, aging.aged], ids=lambda effect: effect.__name__)
def test_an_effect_is_a_function_of_the_picture_and_the_seed(effect, lightness):
    given = lightness if effect is aging.aged else lightness[..., 0]
    one, again, other = (effect(given, np.random.default_rng(seed)) for seed in (11, 11, 12))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_aged_pictures_are_changed_and_still_recognisable(lightness):
    results = [aging.aged(lightness, np.random.default_rng(seed)) for seed in range(60)]
    assert np.mean([np.array_equal(after, lightness) for after in results]) < 0.2
    assert min(correlation(after, lightness) for after in results) > 0.85
    assert min(structural_similarity(a[..., 0], lightness[..., 0], data_range=100) for a in results) > 0.2


def test_grain_is_strongest_in_the_middle_tones_and_absent_from_black_and_white():
    deviations = {level: [] for level in (0, 10, 50, 90, 100)}
    for level, found in deviations.items():
        for seed in range(20):
            found.append(aging.grainy(flat(level), np.random.default_rng(seed)).std())
    assert max(deviations[0] + deviations[100]) == 0
    assert all(np.less(deviations[10], deviations[50]))
    assert all(np.less(deviations[90], deviations[50]))
    assert min(deviations[50]) > 0.4
    assert max(deviations[50]) < 4.6


def test_grain_has_the_same_share_of_the_picture_at_every_size():
    def neighbours(size):
        grain = aging.grainy(flat(50, size), np.random.default_rng(3)) - 50
        step = size // 96
        return correlation(grain[:, :-step], grain[:, step:])

    assert neighbours(192) == pytest.approx(neighbours(96), abs=0.1)


def test_fading_keeps_the_order_of_tones_and_narrows_them():
    ramp = np.linspace(0, 100, 256, dtype=np.float32)[None].repeat(4, axis=0)
    for seed in range(50):
        tones = aging.faded(ramp, np.random.default_rng(seed))[0]
        assert np.all(np.diff(tones) > 0)
        assert 40 <= tones[-1] - tones[0] <= 100


def test_blur_removes_detail_and_keeps_the_mean(lightness):
    before = lightness[..., 0]
    for seed in range(20):
        after = aging.blurred(before, np.random.default_rng(seed))
        assert np.abs(np.diff(after)).mean() < np.abs(np.diff(before)).mean()
        assert after.mean() == pytest.approx(before.mean(), abs=0.5)


def test_uneven_light_is_smooth_and_darkens_the_corners_on_the_whole():
    fields = np.stack([aging.unevenly_lit(flat(60), np.random.default_rng(seed)) for seed in range(60)])
    assert np.abs(np.diff(fields, axis=1)).max() < 2
    corners = fields[:, ::95, ::95].mean()
    assert corners < fields[:, 40:56, 40:56].mean() - 2
    assert fields.min() >= 60 * (1 - 0.35 - 0.24)
    assert fields.max() <= 60 * (1 + 0.24) + 0.01


def test_compression_changes_a_photograph_little(lightness):
    before = lightness[..., 0]
    errors = [aging.compressed(before, np.random.default_rng(s)) - before for s in range(20)]
    assert all(0.3 < np.sqrt(np.mean(error**2)) < 8 for error in errors)


def views(**changes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs [32, 64, 64, 1] and targets [32, 16, 16, 2]: 32 views of one photograph for each of the seeds 0 to 3."""
    settings = {"sizes": (64,), "batch": 32, "scale": 4, **changes}
    made = [batches.Views(**settings, seed=seed) for seed in range(4)]
    return [one.of([data.astronaut()[::2, ::2]] * 32, 0, one.generator(0)) for one in made]


def test_the_first_view_is_of_the_same_part_and_the_same_colors_aged_or_not():
    # Only the first: ageing draws random numbers, so all later views differ.
    for (plain, chroma), (old, same) in zip(views(aging=0), views(aging=1), strict=True):
        np.testing.assert_array_equal(chroma[0], same[0])
        assert not np.array_equal(plain[0], old[0])
        assert correlation(plain[0], old[0]) > 0.7


def test_as_many_views_are_aged_as_asked_for(monkeypatch):
    monkeypatch.setattr(batches, "aged", lambda lightness, rng: np.full_like(lightness, -1))
    for share in (0, 0.25, 1):
        found = np.mean([(lightness == -1).all(axis=(1, 2, 3)) for lightness, _ in views(aging=share)])
        assert found == pytest.approx(share, abs=0.12 if share == 0.25 else 0)
