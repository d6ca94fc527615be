"""The judge: figures by collection, era, label and skin tone on colour originals."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model import judge
from model.color import conversion
from model.data import batches
from model.measuring import judgement
from tests.model.conftest import landscape


@pytest.fixture(scope="module")
def judged(album, tmp_path_factory):
    """The output of the command for an album and a manifest, which names an era and a label."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "more").mkdir()
    lines = []
    for seed in range(6):
        file = folder / "more" / f"{seed}.png"
        Image.fromarray(landscape(200 + seed)).save(file)
        known = {"collection": "harbour", "era": "1950s", "labels": {"genre": "view"}}
        lines.append(json.dumps({"source": str(file)} | known))
    (folder / "more.jsonl").write_text("\n".join(lines) + "\n")
    code = judge.main(["--photos", str(album), str(folder / "more.jsonl"), "--output", str(folder / "out")])
    assert code == 0
    return folder / "out"


def test_each_collection_era_and_label_has_its_figures(judged):
    report = json.loads((judged / judge.REPORT).read_text())
    counts = {name: figures["pictures"] for name, figures in report["groups"].items()}
    assert counts == {
        "all": 36,
        "collection: coast": 15,
        "collection: hills": 15,
        "collection: harbour": 6,
        "era: 1950s": 6,
        "genre: view": 6,
    }
    low, high = report["groups"]["all"]["rmse_over_grey"][1:]
    assert 0 < low < high


def test_grey_and_broken_pictures_are_counted(judged):
    report = json.loads((judged / judge.REPORT).read_text())
    assert report["left_out"] == {"grey": 1, "unreadable": 1}


def test_the_table_and_the_pictures_are_beside_the_figures(judged):
    assert "era: 1950s" in (judged / judge.TABLE).read_text()
    with Image.open(judged / judge.SHEET) as sheet:
        assert sheet.size == (judgement.EXAMPLES * judgement.CELL, 3 * judgement.CELL)


def test_true_colours_have_no_error_and_grey_has_that_of_grey():
    originals = [
        judgement.Original(one, "", (), [])
        for one in (judgement.Photo(f"{n}", "coast", f"{n}", landscape(n)) for n in range(6))
    ]
    squares = np.stack([batches.resized(one.photo.pixels, 64, 64) for one in originals])
    truth = np.asarray(conversion.rgb_to_lab(squares.astype(np.float32) / 255))[..., 1:]

    def knows(lightness):
        return truth[: len(lightness)], np.linspace(0, 1, len(lightness), dtype=np.float32)

    def blank(lightness):
        return 0 * truth[: len(lightness)], np.zeros(len(lightness), np.float32)

    best, none = (judgement.judge(originals, 64, one, 1.0)["groups"]["all"] for one in (knows, blank))
    assert best["rmse_over_grey"][0] < 0.1
    assert none["rmse_over_grey"][0] == pytest.approx(1)


def test_the_skin_of_a_face_has_a_tone():
    astronaut = skimage.data.astronaut()
    [face] = judgement.faces(astronaut)
    assert judgement.tone(astronaut, face) in judgement.TONES
    darker = (astronaut * 0.45).astype(np.uint8)
    names = list(judgement.TONES)
    assert names.index(judgement.tone(darker, face)) > names.index(judgement.tone(astronaut, face))
    assert judgement.tone(np.repeat(astronaut[..., :1], 3, axis=-1), face) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--photos", "/no/such/folder"], "no such folder: /no/such/folder"),
        (["--photos", "PHOTOS", "--model", "/no/model"], "no such model: /no/model"),
        (["--photos", "PHOTOS", "--strength", "4"], "--strength must be between 0 and 3, got 4"),
        (["--photos", "GREY"], "no colour photographs in"),
    ],
)
def test_a_users_mistake_is_one_line(options, words, album, tmp_path, capsys):
    (tmp_path / "grey").mkdir()
    Image.fromarray(landscape(1)).convert("L").save(tmp_path / "grey" / "a.png")
    named = {"PHOTOS": str(album), "GREY": str(tmp_path / "grey")}
    argv = [named.get(option, option) for option in options]
    assert judge.main([*argv, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
