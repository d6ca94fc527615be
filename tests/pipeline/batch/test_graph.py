"""The plan that workers of a cluster make, compared with the plan that is made on one machine."""

import json
import os

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.batch import joining, worklist
from pipeline.codec.settings import Settings
from pipeline.records import manifest
from pipeline.records.record import Record
from tests.pipeline.conftest import make_archive


def plan_on_a_cluster(source, settings, hints, tmp_path, **options) -> tuple[set[str], set[str]]:
    """The tasks as JSON, and the URIs of unused hints. They come back in files, as from other machines."""

    def keep(lines: beam.PCollection, name: str) -> None:
        lines | name >> beam.io.WriteToText(str(tmp_path / name))

    with beam.Pipeline(FnApiRunner()) as root:
        tasks, unused = joining.planned(root, source, settings, hints_folder=hints, **options)
        keep(tasks | beam.Map(lambda task: worklist.packed(task).decode().strip()), "tasks")
        keep(unused | beam.Map(os.fsdecode), "unused")

    def lines(name: str) -> set[str]:
        return {line for file in tmp_path.glob(f"{name}-*") for line in file.read_text().splitlines()}

    return lines("tasks"), lines("unused")


@pytest.fixture
def finished(colorize, model, tmp_path):
    """A collection that was colourised, and then changed in every way that a plan must see."""
    archive = make_archive(tmp_path / "in", 14)
    run = colorize(archive, tmp_path / "out")
    kept = iter(sorted(archive.rglob("*.jpg")))
    os.utime(next(kept), ns=(1, 1))  # another time
    next(kept).unlink()  # it has only a record
    (run.output / (next(kept).relative_to(archive).as_posix() + "_color.jpg")).unlink()
    (archive / "new.jpg").write_bytes(next(kept).read_bytes())
    (run.output / "new.jpg_color.jpg").write_bytes(b"without a record")
    (archive / "notes.txt").write_text("no image")
    hints = tmp_path / "hints"
    hints.mkdir()
    (hints / "new.jpg.txt").write_text("1 1 red")
    (hints / "nothing.jpg.txt").write_text("1 1 red")
    return archive, run, hints


def test_workers_plan_what_one_machine_plans(finished, tmp_path):
    archive, run, hints = finished
    settings = Settings(
        str(run.output), "next", model_sha256=next(iter(run.records.values())).model_sha256, strength=1.0
    )
    by_key = worklist.hints_by_key(str(hints))
    expected = list(worklist.tasks(str(archive), settings, by_key, "stale"))
    tasks, unused = plan_on_a_cluster(str(archive), settings, str(hints), tmp_path)
    assert len(tasks) == len(expected) == 15
    assert {without_times(task) for task in tasks} == {
        without_times(worklist.packed(task).decode()) for task in expected
    }
    assert {str(task.action) for task in expected} >= {"adopt", "colorize", "keep", "refuse", "verify"}
    assert unused == {str(hints / "nothing.jpg.txt")}


def without_times(packed: str) -> str:
    def without(task: list) -> list:
        action, item, why, record, pages = task
        return [action, item, why, (record or {}) | {"finished": ""}, [without(page) for page in pages]]

    return json.dumps(without(json.loads(packed)))


def test_a_record_travels_whole():
    """Names that are not UTF-8 and missing figures stay as they are."""
    record = Record("/a/\udcff.jpg", "\udcff.jpg", outcome="colorized", confidence=None, colorfulness=3.5)
    name, packed = joining.packed_record(record, "/out", "jpeg")
    assert name == b"\xff.jpg_color.jpg"
    assert Record(*json.loads(packed)) == record


def test_a_shard_has_the_lines_of_its_records(tmp_path):
    records = [Record(f"/a/{number}", str(number), outcome="skipped", finished="2026") for number in range(3)]
    manifest.commit(str(tmp_path), "run", records)
    with manifest.Latest(str(tmp_path)) as latest:
        assert list(latest) == records
        assert latest.get("1") == records[1]
        assert latest.get("4") is None
