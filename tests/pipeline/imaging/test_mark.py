"""--mark: the text is there, is grey, and nothing else of the picture changes; text that cannot be drawn is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import JobError
from pipeline.imaging import mark
from pipeline.imaging.mark import PLACES, Mark
from pipeline.records.record import Reason, Refusal
from tests.pipeline.conftest import jpeg, picture

TEXT = "Colourised by a model"
SIZES = [(640, 480), (641, 483), (300, 900)]


def box(place, size):
    """Rows and columns of a mark, found by drawing it on black and on white."""
    width, height = size
    one, two = (Mark(TEXT, place).stamped(np.full((height, width), level, np.uint8)) for level in (0, 255))
    rows, columns = np.nonzero(one == two)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_only_the_mark_is_different(place, size):
    luma = picture(1, *size)
    rows, columns = box(place, size)
    marked = Mark(TEXT, place).stamped(luma)
    assert marked.shape[::-1] == Mark(TEXT, place).size(size)
    assert (marked.shape == luma.shape) == (place != "below")
    same = marked[: size[1]] == luma
    same[rows, columns] = True
    assert same.all()
    label = marked[rows, columns]
    assert (label > 200).mean() > 0.005  # ink
    assert (label < 60).mean() > 0.5  # ground
    assert ("top" in place) == (rows.start == 0)
    assert ("right" in place) == (columns.start > 0)


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("place", ["bottom-right", "below"])
def test_a_derivative_has_the_mark_in_grey_and_its_colours_elsewhere(colorize, tmp_path, format, place):
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(picture(1, 483, 641), exif=exif))  # it is turned
    size = (641, 483)
    plain = colorize(tmp_path / "in", tmp_path / "plain", "--format", "png").records["a.jpg"]
    options = ("--mark", TEXT, "--mark_place", place, "--format", format, "--quality", 95)
    record = colorize(tmp_path / "in", tmp_path / "out", *options).records["a.jpg"]
    assert record.outcome == "colorized", record.detail
    rows, columns = box(place, size)
    with Image.open(record.derivative) as image, Image.open(plain.derivative) as other:
        exif = image.getexif().get_ifd(0x8769)
        assert exif.get(0xA003, image.height) == image.height
        ours, theirs = (
            np.asarray(image.convert("RGB")).astype(int),
            np.asarray(other.convert("RGB")).astype(int),
        )
    assert ours.shape[:2] == Mark(TEXT, place).size(size)[::-1]
    label = ours[rows, columns][4:-4, 4:-4]
    assert np.ptp(label, axis=-1).max() <= 8  # of 255; a block of a JPEG may lie across the edge
    assert ((label[..., 1] > 180).mean() > 0.005) and ((label[..., 1] < 70).mean() > 0.5)
    elsewhere = np.ones(theirs.shape[:2], bool)
    elsewhere[max(0, rows.start - 16) :, max(0, columns.start - 16) :] = False
    difference = np.abs(ours[: theirs.shape[0]] - theirs).max(-1)[elsewhere]
    assert np.percentile(difference, 99) <= (0 if format != "jpeg" else 24)


def test_the_mark_is_in_the_users_language_and_script():
    for text in (
        "Mit KI koloriert – Größe",
        "Цвета: модель",
        "Χρώματα από μοντέλο",
        "צבע על ידי מודל",
        "لوّنه نموذج",
        "着色",
    ):
        if text == "着色":
            with pytest.raises(JobError, match=r"no 着 \(U\+7740\), 色"):
                mark.check(text)
        else:
            mark.check(text)
            assert Mark(text, "below").stamped(np.zeros((400, 600), np.uint8)).max() > 200


@pytest.mark.parametrize("text", ["着色", "a\U0001f3f4b", "\u200f"])
def test_text_that_cannot_be_drawn_stops_the_job_before_any_work(colorize, tmp_path, text):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(picture(1)))
    try:
        run = colorize(tmp_path / "in", tmp_path / "out", "--mark", text)
    except SystemExit as stopped:  # a character that is not printable
        assert stopped.code == 2
    else:
        assert run.code == 2
        assert "cannot be drawn" in run.err
        assert run.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_too_small_for_the_mark_is_refused():
    with pytest.raises(Refusal) as refused:
        Mark(TEXT, "below").size((40, 40))
    assert refused.value.reason == Reason.TOO_SMALL


def test_a_missing_font_is_named(monkeypatch):
    monkeypatch.setattr(mark, "_font_file", lambda: "")
    with pytest.raises(JobError, match="pip install matplotlib"):
        mark.check(TEXT)


def test_the_same_mark_gives_the_same_bytes(colorize, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(picture(1, 640, 480)))
    options = ("--mark", TEXT, "--date", "2026-12-02")
    files = [
        colorize(tmp_path / "in", tmp_path / name, *options).records["a.jpg"].derivative for name in "ab"
    ]
    one, two = (io.FileIO(file).read() for file in files)
    assert one == two
    other = colorize(tmp_path / "in", tmp_path / "a", "--mark", "Other", "--date", "2026-12-02")
    assert "1 in this run" in other.out  # another mark makes the result stale


def test_a_mark_on_16_bits_looks_like_one_on_8():
    mark = Mark("Colourised by a model", "below")
    plain = np.full((300, 400, 3), 90, np.uint8)
    deep = mark.stamped(plain.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, mark.stamped(plain).astype(np.uint16) * 257)
