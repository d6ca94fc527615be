"""The evaluation report, on pictures with known results."""

import numpy as np
import pytest

from model.data import batches
from model.data.photos import Photo, chroma
from model.measuring import evaluation
from model.traditional import luminance_table
from tests.model.conftest import landscape

PHOTOS = [
    Photo(f"{seed}.png", ("coast", "hills")[seed % 2], f"{seed:064}", landscape(seed)) for seed in range(8)
]
SIZE = 32


def oracle(lightness):
    """A predictor that returns the true chroma. The confidence is the index of the picture."""
    known = {
        batches.lightness(square).tobytes(): chroma(square)
        for square in (batches.resized(photo.pixels, SIZE, SIZE) for photo in PHOTOS)
    }
    return np.stack([known[picture.tobytes()] for picture in lightness]), np.arange(
        len(lightness), dtype=np.float32
    )


def test_the_truth_has_hardly_any_error_and_all_of_its_colorfulness():
    measures = evaluation.measure(PHOTOS, SIZE, oracle)
    assert measures.rmse.max() < 1.5
    assert measures.ciede2000.max() < 1.5
    np.testing.assert_allclose(measures.colorfulness, evaluation.truth(PHOTOS, SIZE).colorfulness, rtol=0.1)


def test_grey_errs_by_the_truths_own_chroma_and_is_not_colorful():
    measures = evaluation.measure(PHOTOS, SIZE, evaluation.grey)
    square = batches.resized(PHOTOS[3].pixels, SIZE, SIZE)
    assert measures.rmse[3] == pytest.approx(np.sqrt(np.mean(chroma(square) ** 2)), rel=0.01)
    assert measures.colorfulness.max() < 0.1


def test_the_operating_strength_gives_60_percent_of_the_truths_colorfulness():
    strength = evaluation.operating_strength(PHOTOS, SIZE, oracle)
    found = evaluation.measure(PHOTOS, SIZE, oracle, strength).colorfulness.mean()
    assert found / evaluation.truth(PHOTOS, SIZE).colorfulness.mean() == pytest.approx(0.6, abs=0.02)


def test_the_ranges_are_those_of_the_colored_pictures():
    found = evaluation.ranges(PHOTOS, SIZE, oracle, 1.0)
    assert found["confidence"] == pytest.approx([0.35, 3.5, 6.65])
    truth = np.quantile(evaluation.truth(PHOTOS, SIZE).colorfulness, (0.05, 0.5, 0.95))
    np.testing.assert_allclose(found["colorfulness"], truth, rtol=0.1)


def test_the_lightness_table_learns_colors_that_follow_from_lightness():
    table = luminance_table.predictor(luminance_table.fit(PHOTOS, SIZE))
    errors = [evaluation.measure(PHOTOS, SIZE, who).rmse.mean() for who in (table, evaluation.grey)]
    assert errors[0] < errors[1] / 3


def test_mean_chroma_is_better_than_grey_on_pictures_of_one_tint():
    rgb = np.clip(landscape(0).mean(axis=-1, keepdims=True) * [1, 0.8, 0.6], 0, 255).astype(np.uint8)
    photos = [Photo("one.png", "sepia", "0" * 64, rgb)]
    average = chroma(rgb).mean(axis=(0, 1))
    tinted = evaluation.measure(photos, SIZE, evaluation.constant(*average))
    assert tinted.rmse[0] < evaluation.measure(photos, SIZE, evaluation.grey).rmse[0] / 2


def test_the_report_gives_figures_by_collection_with_intervals():
    report = evaluation.report(PHOTOS, PHOTOS, SIZE, oracle, strength=0.6)
    assert set(report["model"]) == {"coast", "hills"}
    assert report["size"] == SIZE
    for figures in report["model"].values():
        assert figures["pictures"] == 4
        mean, low, high = figures["rmse_over_grey"]
        assert low <= mean <= high
        assert mean == pytest.approx(0.4, abs=0.05)
        assert figures["full_strength_colorfulness_over_truth"][0] == pytest.approx(1, abs=0.1)
