"""The demonstration: the contents of its archive, and the job that it runs."""

import sys
import types
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline import demo
from pipeline.codec.codec import Codec, View
from pipeline.codec.settings import Settings
from pipeline.inputs.collection import expand
from pipeline.inputs.item import derivative_uri
from pipeline.records.record import Reason


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "archive"
    demo.make_archive(folder)
    return folder


@pytest.fixture
def job(monkeypatch):
    """Replaces the command line of the job. The value is the list of its calls."""
    calls = []
    module = types.ModuleType("pipeline.colorize")
    module.main = lambda argv: calls.append(argv) or 0
    monkeypatch.setitem(sys.modules, "pipeline.colorize", module)
    return calls


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def opened(archive, kind):
    return [Image.open(archive / plate.key) for plate in demo.ARCHIVE if plate.kind == kind]


def test_the_archive_holds_at_least_twenty_scans_in_folders(archive):
    keys = [path.relative_to(archive).as_posix() for path in contents(archive)]
    assert len(keys) >= 20
    assert sorted(keys) == sorted(plate.key for plate in demo.ARCHIVE)
    assert len({key.rpartition("/")[0] for key in keys}) >= 3


def test_the_archive_has_every_kind_of_scan(archive):
    grey = [(image.format, image.mode, "progressive" in image.info) for image in opened(archive, "grey")]
    assert len(grey) >= 3
    assert set(grey) == {("JPEG", "L", False)}
    assert [image.mode for image in opened(archive, "progressive") if image.info["progressive"]] == ["L"]
    assert {image.format for image in opened(archive, "png")} == {"PNG"}
    assert {(image.format, image.mode) for image in opened(archive, "tiff")} == {("TIFF", "L")}
    for image in opened(archive, "tiff16"):
        assert image.mode == "I;16"
        assert (np.asarray(image) % 257 != 0).mean() > 0.5
    [turned] = opened(archive, "turned")
    assert turned.width > turned.height
    assert ImageOps.exif_transpose(turned).size == demo.ADMIRAL.open().size


def test_the_job_refuses_only_the_colour_slide_and_the_truncated_file(archive, tmp_path):
    codec = Codec(Settings(output=str(tmp_path), run="r", side=64))
    answers = {item.key: codec.open(item) for item in expand(str(archive))}
    refusals = {key: answer.reason for key, answer in answers.items() if not isinstance(answer, View)}
    kinds = {plate.key: plate.kind for plate in demo.ARCHIVE}
    assert Counter(refusals.values()) == {Reason.ALREADY_COLOR: 1, Reason.TRUNCATED: 1}
    assert {kinds[key] for key in refusals} == {"color", "truncated"}


def test_making_the_archive_again_changes_no_file(archive):
    before = contents(archive)
    demo.make_archive(archive)
    assert contents(archive) == before


def test_the_archive_is_deterministic(archive, tmp_path):
    demo.make_archive(tmp_path)
    assert [data for _, (data, _) in sorted(contents(tmp_path).items())] == [
        data for _, (data, _) in sorted(contents(archive).items())
    ]


def test_the_demonstration_runs_the_job_as_a_user_would(job, tmp_path):
    assert demo.main(["--scratch", str(tmp_path), "--format", "png"]) == 0
    assert job == [["--input", f"{tmp_path}/archive", "--output", f"{tmp_path}/colorized", "--format", "png"]]
    assert len(contents(tmp_path / "archive")) == len(demo.ARCHIVE)


def test_missing_packages_are_named_in_one_line(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo.main(["--scratch", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert 'pip install "archive-colorize[demo]"' in line
    assert not job
    assert not contents(tmp_path)


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.png"])
def test_the_sheet_shows_scan_derivative_and_photograph(archive, tmp_path, name):
    for plate in demo.ARCHIVE:
        if plate.key in demo.SHEET:
            path = derivative_uri(str(tmp_path), plate.key, "jpeg")
            (tmp_path / plate.key).parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
    demo.make_picture(str(tmp_path), str(archive), str(tmp_path / name))
    assert (tmp_path / name).stat().st_size <= demo.SHEET_BYTES
    sheet = Image.open(tmp_path / name)
    spread = np.ptp(np.asarray(sheet, np.int16), axis=2)
    third = sheet.height // 3
    scans, derivatives, photographs = (spread[row * third : (row + 1) * third] for row in range(3))
    assert np.mean(scans > 24) < 0.1 < np.mean(photographs > 24)
    assert np.mean(derivatives > 150) > 0.6


def test_a_sheet_without_derivatives_is_an_error(archive, tmp_path):
    with pytest.raises(FileNotFoundError):
        demo.make_picture(str(tmp_path), str(archive), str(tmp_path / "sheet.jpg"))
