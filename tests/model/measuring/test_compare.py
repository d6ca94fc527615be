"""The comparison: it trains its rows, resumes after an interruption, and shows all rows side by side."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from model import compare
from model.data.photos import read_photos
from model.measuring import comparison
from model.training.options import defaults, load, save
from tests.model.conftest import landscape

BUDGET = ("--budget", "0.01", "--batch", "2")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder of 72 photographs in two collections. The split puts some of them in each part."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(72):
        collection = folder / ("coast", "hills")[seed % 2]
        collection.mkdir(exist_ok=True)
        Image.fromarray(landscape(seed)).save(collection / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def compared(album, tmp_path_factory):
    """The folder of a comparison with one trained network."""
    folder = tmp_path_factory.mktemp("compared")
    argv = ["--photos", str(album), "--output", str(folder), *BUDGET, "--only", "alpha"]
    assert compare.main(argv) == 0
    return folder


def figures(folder, name: str) -> dict:
    return json.loads((comparison.folder_of(folder, name) / comparison.FIGURES).read_text())


def test_the_tables_have_a_line_for_every_control_and_network(compared):
    tables = (compared / comparison.TABLE).read_text()
    rows = [line.split("|")[1].strip() for line in tables.splitlines() if line.startswith("| ")]
    quality, costs = ["", *comparison.CONTROLS, "alpha", comparison.SHIPPED], ["", "alpha"]
    assert rows == quality + costs


def test_networks_have_figures_of_quality_and_of_cost(compared):
    row = figures(compared, "alpha")
    assert set(row["collections"]) == {"coast", "hills"}
    assert row["parameters"] == 32202
    assert row["gmac"] > 0 and row["milliseconds_at_1"] > 0 and row["milliseconds_at_16"] > 0
    folder = comparison.folder_of(compared, "alpha")
    options = load(folder / "options.json")
    assert row["seconds"] == round(json.loads((folder / compare.SECONDS).read_text()))
    assert row["steps"] == options.epochs * options.steps
    assert len(json.loads((folder / "history.json").read_text())) == options.epochs


def test_the_grey_control_has_no_colorfulness(compared):
    for found in figures(compared, "grey")["collections"].values():
        assert found["colorfulness"] < 0.1 and found["grey"] == 1


def test_propagation_of_true_marks_comes_near_the_truth(compared):
    marked, grey = (figures(compared, name)["collections"]["coast"] for name in (comparison.MARKED, "grey"))
    assert marked["rmse"] < 0.3 * grey["rmse"]


def test_the_sheet_has_a_column_for_every_row_and_the_truth(compared):
    with Image.open(compared / comparison.SHEET) as sheet:
        assert sheet.width == (len(comparison.CONTROLS) + 3) * (comparison.CELL + 4)


def test_finished_rows_are_not_run_again(album, compared, capsys):
    before = (comparison.folder_of(compared, "alpha") / comparison.FIGURES).stat().st_mtime_ns
    assert compare.main(["--photos", str(album), "--output", str(compared), *BUDGET, "--only", "alpha"]) == 0
    assert "alpha: finished already" in capsys.readouterr().out
    assert (comparison.folder_of(compared, "alpha") / comparison.FIGURES).stat().st_mtime_ns == before


def test_a_row_without_its_imagenet_weights_says_so_and_is_tried_again(album, compared, tmp_path, capsys):
    row = "fusion, MobileNetV2"
    (tmp_path / "mobilenet_v2.weights.h5").write_text("none")
    more = ("--only", row, "--weights", str(tmp_path))
    assert compare.main(["--photos", str(album), "--output", str(compared), *BUDGET, *more]) == 0
    assert "mobilenet_v2.weights.h5" in figures(compared, row)["not_run"]
    assert f"Missing: {row} (not run: " in (compared / comparison.TABLE).read_text()
    assert compare.main(["--photos", str(album), "--output", str(compared), *BUDGET, *more]) == 0
    assert capsys.readouterr().out.count(f"{row}: not run") == 2
    comparison.folder_of(compared, row).joinpath(comparison.FIGURES).unlink()


def test_the_row_of_a_model_that_ships_no_more_is_made_anew(album, compared):
    file = comparison.folder_of(compared, comparison.SHIPPED) / comparison.FIGURES
    now = json.loads(file.read_text())
    file.write_text(json.dumps(now | {"weights_sha256": "of another", "strength": 9}))
    assert compare.main(["--photos", str(album), "--output", str(compared), *BUDGET, "--only", "alpha"]) == 0
    assert json.loads(file.read_text()) == now


def test_classifier_weights_are_given_by_name_or_found_in_a_folder(tmp_path):
    entry = next(entry for entry in compare.ENTRIES if entry.extractor == "efficientnet_lite0")
    assert compare._file(entry, None) == compare._file(entry, str(tmp_path)) == "imagenet"
    file = tmp_path / "efficientnet_lite0.weights.h5"
    file.touch()
    assert compare._file(entry, str(tmp_path)) == str(file)


@pytest.mark.parametrize("entry", compare.ENTRIES, ids=lambda entry: entry.name)
def test_every_row_has_options(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_seconds_a_step", lambda photos, options: 0.5)
    arguments = compare.parser().parse_args(["--photos", ".", "--output", ".", "--budget", "1"])
    options = compare._options(entry, arguments, None, tmp_path)
    assert options.batch == (4 if entry.network == "gan" else 16)
    assert options.epochs * options.steps == 120
    assert all(getattr(options, name) == value for name, value in entry.options.items())


@pytest.mark.usefixtures("eagerly")
def test_a_row_on_classifier_features_resumes_with_its_saved_options(album, compared, tmp_path):
    row = "fusion-small on EfficientNet-Lite0"
    folder = comparison.folder_of(compared, row)
    folder.mkdir()
    layers = {"extractor": "efficientnet_lite0", "fused": 8, "decoder": [[8, 1], [8, 1]]}
    begun = replace(
        defaults("fusion_small"), layers=layers, epochs=1, steps=1, batch=2, sizes=(128,), size=128, seed=7
    )
    save(begun, folder / "options.json")
    argv = ["--photos", str(album), "--output", str(compared), *BUDGET, "--only", row]
    assert compare.main(argv) == 0
    assert load(folder / "options.json") == begun
    found = figures(compared, row)
    assert found["steps"] == 1 and found["parameters"] > 3e6
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("network", "planned", "minutes", "epochs"),
    [("alpha", 10, 10, 2), ("gan", 10, 10, 2), ("alpha", 2, 15, 3)],
    ids=["slow", "slow GAN", "quick"],
)
def test_a_row_takes_its_time_whatever_was_planned(album, tmp_path, network, planned, minutes, epochs):
    layers = {"generator": "alpha"} if network == "gan" else {}
    options = replace(
        defaults(network), layers=layers, epochs=planned, steps=1, batch=2, sizes=(128,), size=128
    )
    (tmp_path / compare.SECONDS).write_text("600")  # pretend that training has taken ten minutes so far
    ended, seconds = compare._trained(read_photos(album), options, tmp_path, 60 * minutes)
    assert ended == replace(options, epochs=epochs)
    assert 600 < seconds < 700
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    assert compare._trained(read_photos(album), ended, tmp_path, 60 * minutes) == (ended, seconds)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--only", "gamma"), "unknown row gamma"),
        (("--budget", "0"), "--budget must be a positive number"),
        (("--budget", "inf"), "--budget must be a positive number"),
        (("--output", __file__), "cannot be used as a folder"),
        (("--photos", "/nowhere"), "no such folder"),
    ],
)
def test_a_users_mistake_is_one_line(album, tmp_path, capsys, options, words):
    argv = ["--photos", str(album), "--output", str(tmp_path), *BUDGET, *options]
    assert compare.main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--budget", "3"), "another budget"), (("--batch", "3"), "another batch")],
)
def test_rows_under_other_conditions_are_refused(album, compared, capsys, options, words):
    argv = ["--photos", str(album), "--output", str(compared), *BUDGET, *options]
    assert compare.main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_rows_of_other_photographs_are_refused(album, compared, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(album, other)
    next(other.glob("*/*.png")).unlink()
    assert compare.main(["--photos", str(other), "--output", str(compared), *BUDGET]) == 2
    error = capsys.readouterr().err
    assert "another " in error and error.count("\n") == 1
