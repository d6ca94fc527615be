"""Rule-based colourisation: rules colour some regions, and their colours fill the rest."""

import numpy as np
import pytest

from model.data import batches
from model.data.photos import Photo, chroma
from model.measuring import evaluation
from model.traditional import rules
from model.traditional.rules import RULES, Rule
from tests.model.conftest import landscape

PHOTOS = [Photo(f"{seed}.png", "coast", f"{seed:064}", landscape(seed)) for seed in range(10)]


def lightness(seed=0, size=64):
    return batches.lightness(batches.resized(landscape(seed), size, size))


def names(picture):
    return np.array([rule.name for rule in RULES] + ["none"])[rules.assigned(picture)]


def test_a_bright_smooth_top_is_sky_and_a_rough_bottom_foliage():
    rng = np.random.default_rng(0)
    picture = np.full((60, 80), 75.0)
    picture[30:] = 40 + rng.normal(0, 12, (30, 80))
    found = names(picture)
    assert (found[2:20] == "sky").mean() > 0.95
    assert (found[35:] == "foliage").mean() > 0.6
    colors, _ = rules.colored(picture)
    assert colors[:20, :, 1].mean() < -10
    assert colors[35:, :, 1].mean() > 10


def test_the_first_rule_that_holds_counts():
    first, second = Rule("first", chroma=(1, 2)), Rule("second", chroma=(3, 4))
    assert (rules.colored(lightness()[..., 0], (first, second))[0] == [1, 2]).all()


def test_regions_without_a_rule_are_filled_from_regions_with_one():
    picture = np.full((40, 40), 50.0)
    picture[:, 20:] = 30
    only = (Rule("dark", lightness=(0, 40), chroma=(10, -10), confidence=0.8),)
    colors, confidence = rules.colored(picture, only)
    assert np.abs(colors - [10, -10]).max() < 0.1
    assert confidence == pytest.approx(0.4)


def test_without_a_matching_rule_the_result_is_neutral_and_has_no_confidence():
    colors, confidence = rules.colored(np.full((20, 20), 50.0), (Rule("none", lightness=(200, 300)),))
    assert not colors.any()
    assert confidence == 0


def test_the_same_picture_gives_the_same_colours():
    one, other = (rules.predictor()(lightness()[None]) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert one[0].shape == (1, 64, 64, 2)
    assert one[1].shape == (1,)


def test_fitted_rules_have_the_photographs_own_colours_and_beat_grey_on_them():
    fitted = rules.fit(PHOTOS, least=100)
    (sky,) = (rule for rule in fitted if rule.name == "sky")
    assert sky.chroma == pytest.approx(chroma(np.uint8([[[110, 170, 240]]]))[0, 0], abs=3)
    assert sky.confidence > 0.9
    errors = [
        evaluation.measure(PHOTOS, 64, who).rmse.mean() for who in (rules.predictor(fitted), evaluation.grey)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_rules_that_never_apply_keep_their_own_colours():
    rare = Rule("rare", lightness=(200, 300), chroma=(7, 8))
    assert rules.fit(PHOTOS, (rare,)) == (rare,)
