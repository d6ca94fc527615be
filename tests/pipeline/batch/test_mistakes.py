"""Mistakes of a user: a job stops before any work, with one line that says what to do."""

import os
import subprocess
import sys

import pytest

from pipeline import storage
from pipeline.colorize import main
from tests.pipeline.conftest import (
    Run,
    assert_one_line,
    environment,
    export_model,
    make_archive,
    start,
)


def test_no_such_model(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 1)
    assert_one_line(colorize(archive, tmp_path / "out", "--model", tmp_path / "none"), "no such model")


def test_a_model_without_its_card(colorize, tmp_path):
    model = export_model(tmp_path / "model")
    (model / "model_card.json").unlink()
    assert_one_line(
        colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--model", model), "model_card.json"
    )


def test_a_model_whose_weights_differ_from_its_card(colorize, tmp_path):
    model = export_model(tmp_path / "model")
    weights = next((model / "variables").glob("*.index"))
    weights.write_bytes(weights.read_bytes() + b"x")
    assert_one_line(
        colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--model", model), "other weights"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_with_another_signature(colorize, tmp_path, workers):
    model = export_model(tmp_path / "model", outputs=("chroma",))
    archive = make_archive(tmp_path / "in", 1)
    run = colorize(archive, tmp_path / "out", "--model", model, "--direct_num_workers", workers)
    assert_one_line(run, "signature", "confidence")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_fails_on_its_trial(colorize, tmp_path, workers):
    model = export_model(tmp_path / "model", broken=True)
    archive = make_archive(tmp_path / "in", 1)
    run = colorize(archive, tmp_path / "out", "--model", model, "--direct_num_workers", workers)
    assert_one_line(run, "the model fails on a plain grey", "InvalidArgumentError")


def test_a_deeply_nested_card(colorize, tmp_path):
    model = export_model(tmp_path / "model")
    (model / "model_card.json").write_text("[" * 100_000)
    run = colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--model", model)
    assert_one_line(run, "unreadable model card")


def test_a_manifest_of_earlier_runs_with_a_dangling_link(colorize, tmp_path, capsys):
    archive, output = make_archive(tmp_path / "in", 1), tmp_path / "out"
    (output / "manifest").mkdir(parents=True)
    (output / "manifest" / "x.jsonl").symlink_to("nowhere")
    runs = [colorize(archive, output), colorize(archive, output, "--dry_run")]
    runs.append(Run(main(["status", str(output)]), *capsys.readouterr(), output))
    for run in runs:
        assert (run.code, run.err.count("\n")) == (2, 1), run.err
        assert "cannot read" in run.err and "x.jsonl" in run.err


@pytest.mark.parametrize("part", ["box0", "manifest"])
def test_an_output_that_cannot_be_listed(colorize, tmp_path, monkeypatch, part):
    archive, output = make_archive(tmp_path / "in", 1), tmp_path / "out"
    assert colorize(archive, output).code == 0
    scandir = os.scandir

    def refuse(path):  # simulated, because root ignores permissions
        if str(path) == str(output / part):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    run = colorize(archive, output)
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert f"cannot list {output / part}: Permission denied" in run.err


@pytest.mark.parametrize("where", ["input", "output", "hints", "model", "status", "models", "rollback"])
def test_a_bucket_that_is_not_there(bucket, colorize, tmp_path, capsys, where):
    archive, none = make_archive(tmp_path / "in", 1), f"{storage.scheme(bucket)}no-such-bucket/x"
    if where in ("status", "models", "rollback"):
        run = Run(main([where, none]), *capsys.readouterr(), tmp_path / "out")
    elif where == "input":
        run = colorize(none, tmp_path / "out")
    elif where == "output":
        run = Run(main(["--input", str(archive), "--output", none]), *capsys.readouterr(), tmp_path / "out")
    else:
        run = colorize(archive, tmp_path / "out", f"--{where}", none)
    assert_one_line(run, "no-such-bucket", "no such object or bucket")


@pytest.mark.parametrize("option", ["input", "output", "hints", "model"])
def test_a_place_that_is_neither_local_nor_in_an_object_store(colorize, tmp_path, option, capsys):
    archive = make_archive(tmp_path / "in", 1)
    places = {"--input": archive, "--output": tmp_path / "out"} | {f"--{option}": "ftp://bucket/x"}
    code = main([str(text) for pair in places.items() for text in pair])
    assert_one_line(Run(code, *capsys.readouterr(), tmp_path / "out"), "ftp:// is not supported")


@pytest.mark.parametrize("place", ["gs://", "gs:///x", "gs:/bucket/x", "gs://bucket/\ud800", "\ud800/x"])
@pytest.mark.parametrize("option", ["input", "output", "hints", "model", "status", "models", "rollback"])
def test_a_place_without_a_bucket_or_with_an_impossible_name(tmp_path, monkeypatch, capsys, option, place):
    monkeypatch.chdir(tmp_path)
    archive = make_archive(tmp_path / "in", 1)
    places = {"--input": archive, "--output": tmp_path / "out"} | {f"--{option}": place}
    command = [str(text) for pair in places.items() for text in pair]
    code = main([option, place] if option in ("status", "models", "rollback") else command)
    run = Run(code, *capsys.readouterr(), tmp_path / "out")
    assert_one_line(run, "can have the name" if "\ud800" in place else "names no bucket")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("part", [".", "manifest"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_file_in_place_of_the_output_or_manifest_folder_stops_before_any_work(
    colorize, tmp_path, part, kind
):
    archive, path = make_archive(tmp_path / "in", 1), tmp_path / "out" / part
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x") if kind == "file" else path.symlink_to("nowhere")
    run = colorize(archive, tmp_path / "out")
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert f"{path}: it is not a folder" in run.err


def test_output_inside_input_or_equal_to_it_or_around_it(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 1)
    link = tmp_path / "link"
    link.symlink_to(archive)
    for output in (archive, archive / "color", tmp_path, link / "color"):
        run = colorize(archive, output)
        assert run.code == 2
        assert "overlaps the input" in run.err
    assert sorted(path.name for path in archive.rglob("*")) == ["box0", "scan0000.jpg"]


def test_an_empty_input(colorize, tmp_path):
    (tmp_path / "in").mkdir()
    assert_one_line(colorize(tmp_path / "in", tmp_path / "out"), "nothing to do", "no scans in")
    assert_one_line(colorize(str(tmp_path / "in" / "*.tif"), tmp_path / "out"), "nothing to do")


def test_no_such_folder(colorize, tmp_path):
    assert_one_line(colorize(tmp_path / "none", tmp_path / "out"), "no such folder")


def test_an_unknown_option_is_named_with_what_was_meant(colorize, tmp_path):
    run = colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--direct_num_worker", 1)
    assert_one_line(run, "unknown option: --direct_num_worker", "--direct_num_workers")


def test_a_manifest_without_a_valid_line_is_named_with_its_first_error(colorize, tmp_path):
    manifest = tmp_path / "wanted.jsonl"
    manifest.write_text('{"key": "a.jpg"}\n{"key": "b.jpg"}\n')
    assert_one_line(
        colorize(manifest, tmp_path / "out"), "wanted.jsonl is not a manifest: line 1", '"source"'
    )


def test_an_option_out_of_range(tmp_path):
    process = start("--input", "x", "--output", "y", "--quality", "101")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "not a whole number from 1 to 100" in err


def test_help_does_not_wait_for_beam(tmp_path):
    code = (
        "import sys, pipeline.colorize as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('apache_beam', 'tensorflow', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (("--c2pa", "sidecar"), "--c2pa_key"),
        (("--mark_place", "below"), "--mark,"),
        (("--compression", "none"), "--format jpeg"),
    ],
)
def test_an_option_that_would_have_no_effect(colorize, tmp_path, options, missing):
    run = colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", *options)
    assert_one_line(run, options[0], missing)
    assert not (tmp_path / "out").exists()
