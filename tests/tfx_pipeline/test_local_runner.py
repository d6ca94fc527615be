"""User errors stop the runner before any work, with a message of one line."""

import shutil
from dataclasses import replace

import pytest

from model import default_model
from model.card import parse_card, read_card, weights_sha256, write_card
from pipeline.batch import registry
from tests.tfx_pipeline.conftest import THRESHOLDS, write_collection
from tfx_pipeline import arguments, report, runs
from tfx_pipeline.local_runner import main


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_collection(tmp_path_factory.mktemp("few") / "harbour", range(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--collections", "/no/such/folder"), "no such folder: /no/such/folder"),
        (("--thresholds", "/no/such.yaml"), "cannot read /no/such.yaml"),
        (("--schema", "/no/such.pbtxt"), "cannot read --schema /no/such.pbtxt"),
        (("--sizes", "97"), "sizes must be multiples of 32, the stride of the network, got 97"),
        (("--epochs", "0"), "--epochs must be positive"),
        (("--side", "8"), "--side must be between 16 and 4096 pixels, got 8"),
        (("--shares", "0.9", "0.1", "0"), "--shares: all three must be positive"),
        (("--warm", "/no/model"), "--warm: no such model: /no/model"),
        (("--teacher", "/no/run"), "a pipeline has no teacher"),
        (("--terms", "/no/terms"), "cannot read --terms /no/terms"),
        (("--root", "gs://bucket/run"), "--root must be a local folder"),
        (("--root", f"{__file__}/run"), "cannot make the folder --root"),
        (("--worker_python", "/no/python"), "--worker_python /no/python cannot be run"),
        (("--colorize", "/no/scans", "/tmp/out"), "no such folder: /no/scans"),
        (("--colorize", "/tmp", "/tmp/out"), "the output /tmp/out overlaps the input /tmp"),
        (("--weights", "harbor=2"), "--weights: there is no collection harbor; choose from harbour"),
        (("--schema", __file__), "is not a schema: "),
        (("--network", "gan"), "a GAN cannot start from a model: give --warm none"),
        (("--thresholds", str(arguments.SCHEMA)), "schema.pbtxt: not YAML: "),
    ],
)
def test_a_users_mistake_is_one_line(options, words, manifest, tmp_path, capsys):
    argv = ["--collections", str(manifest), "--root", str(tmp_path / "run"), *options]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("local_runner: ") and words in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "artifacts").exists()


def test_an_unknown_option_is_one_line(manifest, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--collections", str(manifest), "--root", str(tmp_path), "--epoch", "3"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "--epoch" in error and error.count("\n") == 1


def test_a_compared_feature_that_the_schema_lacks_is_named(manifest, tmp_path, capsys):
    wrong = tmp_path / "thresholds.yaml"
    wrong.write_text(THRESHOLDS.replace("drift: {era: 0.2}", "drift: {epoch: 0.2}"))
    argv = ["--collections", str(manifest), "--root", str(tmp_path / "run"), "--thresholds", str(wrong)]
    assert main(argv) == 2
    assert "the thresholds compare epoch, which is not a feature in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "push", "words"),
    [
        (
            "complete",
            {"pushed": 1, "pushed_version": "2"},
            "pushed: version 2 of fusion-small is the current model",
        ),
        ("complete", {"pushed": 0, "pushed_version": "1"}, "the model is version 1 already; version 2 stays"),
        ("cached", {"pushed": 1, "pushed_version": "2"}, "the model is version 2 already; version 2 stays"),
    ],
)
def test_a_run_says_that_it_pushed_only_where_a_version_has_come_to_be(state, push, words, tmp_path):
    pushed = str(tmp_path / "pushed")
    for number in (1, 2):
        model = tmp_path / f"model{number}"
        shutil.copytree(default_model(), model)
        (model / "variables" / "more").write_text(str(number))
        write_card(model, replace(read_card(default_model()), weights_sha256=weights_sha256(model)))
        registry.push(str(model), pushed, gates=[{"gate": "data", "verdict": "passed"}])
    run = runs.Run(states={"Pusher": state}, properties={("Pusher", "pushed_model"): push})
    assert words in report.last_lines(run, pushed, None)[0]


def test_the_root_must_not_be_inside_a_collection(manifest, capsys):
    folder = manifest.with_suffix("")
    assert main(["--collections", str(folder), "--root", str(folder / "run")]) == 2
    assert "overlaps the input" in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_a_malformed_line_of_a_manifest_is_named(tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"source": "a.png"}\n{"key": "b"}\n')
    assert main(["--collections", str(bad), "--root", str(tmp_path / "run")]) == 2
    assert "bad.jsonl, line 2" in capsys.readouterr().err


def test_a_model_to_start_from_may_be_the_shipped_one(manifest, tmp_path):
    from tfx_pipeline.local_runner import parser

    argv = ["--collections", str(manifest), "--root", str(tmp_path), "--warm", "shipped"]
    found, _ = arguments.settings(
        parser().parse_args(argv), manifests="m", pushed=str(tmp_path / "none"), checkpoints="c", schema="s"
    )
    assert found.warm == default_model() and found.state == "nothing pushed"
    assert found.warm_sha256 == read_card(default_model()).weights_sha256


def test_replacing_the_starting_model_causes_a_new_training(manifest, tmp_path):
    from tfx_pipeline.local_runner import _made_from, parser

    start = shutil.copytree(default_model(), tmp_path / "start")
    argv = ["--collections", str(manifest), "--root", str(tmp_path), "--warm", str(start)]

    def made_from():
        found, _ = arguments.settings(
            parser().parse_args(argv), manifests=str(tmp_path), pushed="p", checkpoints="c", schema="s"
        )
        return _made_from(found)

    before = made_from()
    assert made_from() == before
    with open(start / "variables" / "variables.data-00000-of-00001", "ab") as file:
        file.write(b"other weights")
    write_card(start, replace(read_unchecked(start), weights_sha256=weights_sha256(start)))
    assert made_from() != before


def read_unchecked(folder):
    """Read a card without checking its weight hash."""
    return parse_card((folder / "model_card.json").read_bytes(), str(folder))
