"""A job on any runner can be stopped from anywhere, and tells what it measured."""

import json
import time

from pipeline.batch import accounts, stopping
from pipeline.batch.stopping import Stop
from pipeline.colorize import main
from tests.pipeline.conftest import WAIT, make_archive, start


def test_a_job_is_stopped_from_another_process_and_continued(model, colorize, tmp_path, capsys):
    archive, output = make_archive(tmp_path / "in", 120, 400, 300), tmp_path / "out"
    one = ("--direct_num_workers", 1)
    process = start("--input", archive, "--output", output, "--model", model, "--gallery_size", "0", *one)
    deadline = time.monotonic() + WAIT
    while not list(output.rglob("*_color.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert main(["stop", str(output)]) == 0
    assert "finishes work in progress and ends" in capsys.readouterr().out
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 143
    assert "stopped by archive-colorize stop" in out
    assert not list(output.glob(".archive-colorize-*")), "neither lease nor stop file stay behind"
    run = colorize(archive, output, *one)
    assert (run.code, run.summary["outcomes"]["colorized"]) == (0, 120)
    assert main(["stop", str(output)]) == 2
    assert "no job writes to" in capsys.readouterr().err


def test_the_stop_file_of_a_run_is_seen_and_cleared(anywhere):
    output = anywhere
    stop = Stop(stopping.file(output, "one"))
    assert not stop.is_requested()
    Stop(stop.file).request()
    assert Stop(stop.file).is_requested()
    assert not Stop(stopping.file(output, "two")).is_requested()
    stopping.clear(output)
    assert not Stop(stop.file).is_requested()


def test_the_summary_has_distributions_and_the_times_of_the_stages(colorize, tmp_path):
    run = colorize(make_archive(tmp_path / "in", 5), tmp_path / "out")
    figures, stages = run.summary["figures"], run.summary["stages"]
    assert {figure["count"] for figure in figures.values()} == {5}
    assert 0 < figures["confidence"]["p5"] <= figures["confidence"]["p95"] <= 1.02
    assert set(stages) == {"open", "infer", "paint"}
    assert all(stage["scans"] == 5 and stage["milliseconds"] >= 0 for stage in stages.values())
    again = colorize(tmp_path / "in", tmp_path / "out")
    assert again.summary["figures"] == {} and again.summary["kept"] == 5


def test_places_on_this_machine_are_refused_for_workers_elsewhere(model, tmp_path, capsys):
    argv = ["--input", str(make_archive(tmp_path / "in", 1)), "--output", str(tmp_path / "out")]
    argv += ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=EXTERNAL"]
    argv += ["--environment_config=localhost:2"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "may not see --input" in error and "--workers_share_files" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_dead_letters_are_bounded_and_the_manifest_has_all(colorize, tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "DEAD_LETTERS", 3)
    (tmp_path / "in").mkdir()
    for name in "edcba":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(b"no picture")
    run = colorize(tmp_path / "in", tmp_path / "out", "--direct_num_workers", "1")
    letters = [
        json.loads(line)["key"] for line in (tmp_path / "out" / "dead_letters.jsonl").read_text().splitlines()
    ]
    assert letters == ["a.jpg", "b.jpg", "c.jpg"]
    assert run.summary["dead_letters_left_out"] == 2 and len(run.records) == 5
    assert "2 more failed scans are only in the manifest" in run.out
