"""A user's mistakes stop the runner before any work, in one line."""

import pytest

from model import default_model
from tests.tfx_pipeline.conftest import write_collection
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
        (("--sizes", "97"), "sizes must be multiples of 32, the network's stride, got 97"),
        (("--epochs", "0"), "--epochs must be positive"),
        (("--side", "8"), "--side must be between 16 and 4096 pixels, got 8"),
        (("--shares", "0.9", "0.1", "0"), "--shares: each of the three must be positive"),
        (("--warm", "/no/model"), "--warm: no such model: /no/model"),
        (("--terms", "/no/terms"), "cannot read --terms /no/terms"),
        (("--root", "gs://bucket/run"), "--root must be on this machine"),
    ],
)
def test_a_users_mistake_is_one_line(options, words, manifest, tmp_path, capsys):
    argv = ["--collections", str(manifest), "--root", str(tmp_path / "run"), *options]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("local_runner: ") and words in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "artifacts").exists()


def test_the_root_must_not_lie_in_a_collection(manifest, capsys):
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
    from tfx_pipeline import arguments
    from tfx_pipeline.local_runner import parser

    argv = ["--collections", str(manifest), "--root", str(tmp_path), "--warm", "shipped"]
    found, _ = arguments.settings(
        parser().parse_args(argv), manifests="m", pushed=str(tmp_path / "none"), checkpoints="c", schema="s"
    )
    assert found.warm == default_model() and found.state == "nothing pushed"
