"""Exemplar colourisation: colours are transferred from a similar reference picture."""

import numpy as np
import pytest

from model.data import batches
from model.data.photos import Photo, chroma
from model.measuring import evaluation
from model.traditional import exemplar
from tests.model.conftest import landscape


def lightness(rgb, size=64):
    return batches.lightness(batches.resized(rgb, size, size))[..., 0]


def upside_down(seed):
    """A landscape turned upside down: the same colours, but dark at the top."""
    return np.ascontiguousarray(landscape(seed)[::-1])


def test_a_picture_gets_the_colours_of_a_similar_reference():
    photos = [Photo("1.png", "coast", "1" * 64, landscape(1))]
    who = exemplar.predictor([exemplar.reference(landscape(2))])
    errors = [evaluation.measure(photos, 64, each).rmse.mean() for each in (who, evaluation.grey)]
    assert errors[0] < errors[1] / 2


def test_the_references_exposure_does_not_matter():
    darker = np.uint8(landscape(2) * 0.6)
    found = exemplar.transferred(lightness(landscape(1)), exemplar.reference(darker))
    sky, ground = found[:12].mean(axis=(0, 1)), found[-12:].mean(axis=(0, 1))
    assert sky[1] < -10
    assert ground[1] > 10


def test_every_colour_occurs_in_the_reference():
    source = exemplar.reference(landscape(2))
    found = exemplar.transferred(lightness(landscape(1)), source)
    known = {tuple(color) for color in source.chroma}
    assert {tuple(color) for color in found.reshape(-1, 2)} <= known


def test_samples_are_spread_over_the_reference_and_the_same_each_time():
    one, other = exemplar.reference(landscape(2)), exemplar.reference(landscape(2))
    assert len(one.lightness) == len(one.chroma) == exemplar.SAMPLES
    assert np.array_equal(one.chroma, other.chroma)
    truth = chroma(landscape(2)).mean(axis=(0, 1))
    assert np.abs(one.chroma.mean(axis=0) - truth).max() < 5


def test_the_most_similar_reference_is_chosen_and_its_likeness_is_the_confidence():
    references = [exemplar.reference(upside_down(3)), exemplar.reference(landscape(4))]
    chosen, alike = exemplar.most_similar(lightness(landscape(5)), references)
    assert chosen is references[1]
    _, confidence = exemplar.predictor(references)(lightness(landscape(5))[None, ..., None])
    assert confidence[0] == pytest.approx(alike)
    assert 0.5 < alike <= 1


def test_a_picture_is_most_similar_to_itself_at_another_exposure():
    own = lightness(landscape(5))
    darker = 0.7 * own + 4
    assert exemplar.descriptor(own) @ exemplar.descriptor(darker) == pytest.approx(1, abs=1e-3)


def test_a_flat_picture_has_colours_all_the_same():
    found, confidence = exemplar.predictor([exemplar.reference(landscape(2))])(np.full((1, 32, 32, 1), 50.0))
    assert np.isfinite(found).all()
    assert confidence[0] == 0


def test_no_reference_is_an_error():
    with pytest.raises(ValueError, match="no reference"):
        exemplar.predictor([])
