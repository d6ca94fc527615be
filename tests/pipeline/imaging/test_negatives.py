"""Negatives: recognised, skipped or inverted, with all bits of the master."""

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.imaging import negatives
from pipeline.records.record import Outcome, Reason
from tests.pipeline.imaging.test_layout import map_of, printed

POSITIVES = {name: getattr(data, name)() for name in ("astronaut", "camera", "rocket", "chelsea", "coffee")}


def grey(name):
    picture = POSITIVES[name]
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


@pytest.fixture
def plates(tmp_path):
    """A positive, and its negative as JPEG and as PNG of 16 bits."""
    folder = tmp_path / "in"
    folder.mkdir()
    luma = cv2.resize(grey("camera"), (320, 320))
    Image.fromarray(luma).save(folder / "positive.png")
    Image.fromarray(~luma).save(folder / "negative.jpg", quality=95)
    deep = luma.astype(np.uint16) * 257
    deep[::2] += np.where(deep[::2] < 65000, 100, 0).astype(np.uint16)
    imagecodecs.imwrite(str(folder / "deep.png"), ~deep)
    return folder


def luma_of(path):
    return np.asarray(Image.open(path).convert("L")).astype(int)


def test_all_scans_are_inverted_if_they_are_said_to_be_negatives(colorize, plates, tmp_path):
    (plates / "positive.png").rename(tmp_path / "positive.png")
    run = colorize(plates, tmp_path / "out", "--negatives", "all", "--format", "png")
    positive = luma_of(tmp_path / "positive.png")
    for key in ("negative.jpg", "deep.png"):
        record = run.records[key]
        assert record.outcome == Outcome.COLORIZED and "a negative, which was inverted" in record.detail
        assert np.abs(luma_of(record.derivative) - positive).mean() < 2
    found = imagecodecs.imread(run.records["deep.png"].derivative)
    wanted = 65535 - imagecodecs.imread(str(plates / "deep.png")).astype(float)
    assert found.dtype == np.uint16
    assert np.abs(found @ [0.299, 0.587, 0.114] - wanted).mean() < 1


def test_a_jpeg_of_a_negative_gives_a_jpeg_of_its_positive(colorize, plates, tmp_path):
    record = colorize(plates, tmp_path / "out", "--negatives", "all").records["negative.jpg"]
    assert np.abs(luma_of(record.derivative) - luma_of(plates / "positive.png")).mean() < 3  # two encodings


def test_negatives_are_coloured_as_they_are_by_default(colorize, plates, tmp_path):
    record = colorize(plates, tmp_path / "out", "--format", "png").records["negative.jpg"]
    assert np.abs(luma_of(record.derivative) - luma_of(plates / "negative.jpg")).mean() < 2


@pytest.mark.parametrize("name", POSITIVES)
def test_a_positive_is_none(name):
    assert not negatives.is_negative(grey(name))


def test_the_evidence_of_photographs_has_the_right_sign():
    signs = [negatives.evidence(grey(name)) < 0 < negatives.evidence(~grey(name)) for name in POSITIVES]
    assert sum(signs) >= 3


@pytest.mark.parametrize("shape", [(16, 16), (16, 4000), (3000, 2000)])
def test_scans_of_any_shape_have_an_answer(shape):
    assert np.isfinite(negatives.evidence(np.full(shape, 90, np.uint8)))


@pytest.mark.parametrize("how", ["skip", "invert"])
def test_only_recognised_negatives_are_skipped_or_inverted(colorize, plates, tmp_path, how):
    run = colorize(plates, tmp_path / "out", "--negatives", how)
    assert run.records["positive.png"].outcome == Outcome.COLORIZED
    assert "negative" not in run.records["positive.png"].detail
    found = run.records["negative.jpg"]
    if how == "skip":
        assert (found.outcome, found.reason) == (Outcome.SKIPPED, Reason.NEGATIVE)
    else:
        assert "a negative, which was inverted" in found.detail


@pytest.mark.parametrize("how", ["skip", "invert"])
def test_pages_and_drawings_are_no_negatives(colorize, tmp_path, how):
    """The network takes some of them for negatives, because it was trained on photographs."""
    (tmp_path / "in").mkdir()
    pages = {"text.png": printed(columns=2, size=28), "map.png": map_of(3)}
    for name, page in pages.items():
        assert negatives.is_negative(page)
        Image.fromarray(page).save(tmp_path / "in" / name)
    records = colorize(tmp_path / "in", tmp_path / "out", "--negatives", how).records
    assert records["text.png"].reason == Reason.TEXT_PAGE
    assert records["map.png"].reason == Reason.LINE_DRAWING


def test_results_without_the_option_become_stale(colorize, plates, tmp_path):
    first = colorize(plates, tmp_path / "out").records["negative.jpg"]
    derivative = Image.open(first.derivative).copy()
    assert colorize(plates, tmp_path / "out", "--negatives", "all").code == 0
    assert Image.open(first.derivative) != derivative
