import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import JobError
from pipeline.records import manifest
from pipeline.records.record import Outcome, Record


def record(key: str, second: int = 0, **fields) -> Record:
    return Record(source=f"/{key}", key=key, finished=f"2026-01-01T00:00:{second:02}.000+00:00", **fields)


def test_a_retried_bundle_adds_no_second_shard(tmp_path):
    for _ in range(2):
        manifest.commit(str(tmp_path), "run", [record("b"), record("a")])
    assert len(list(manifest.shards(str(tmp_path)))) == 1


def test_a_retry_with_another_result_is_kept_beside_and_the_later_counts(tmp_path):
    manifest.commit(str(tmp_path), "run", [record("a", 1, outcome=Outcome.FAILED)])
    manifest.commit(str(tmp_path), "run", [record("a", 2, outcome=Outcome.COLORIZED)])
    manifest.commit(str(tmp_path), "run0", [record("a", 0, outcome=Outcome.SKIPPED)])
    assert [r.outcome for r in manifest.latest(str(tmp_path))] == [Outcome.COLORIZED]


def test_undecodable_file_names_survive(tmp_path):
    manifest.commit(str(tmp_path), "run", [record("caf\udce9.jpg")])
    assert [r.key for r in manifest.latest(str(tmp_path))] == ["caf\udce9.jpg"]


def test_records_are_sorted_by_key_and_an_empty_folder_has_none(tmp_path):
    assert list(manifest.latest(str(tmp_path))) == []
    manifest.commit(str(tmp_path), "run", [record(key) for key in "bca"])
    assert [r.key for r in manifest.latest(str(tmp_path))] == ["a", "b", "c"]


def test_a_record_is_found_by_its_key(tmp_path):
    manifest.commit(str(tmp_path), "run", [record("a"), record("caf\udce9.jpg")])
    with manifest.Latest(str(tmp_path)) as records:
        assert records.get("caf\udce9.jpg").key == "caf\udce9.jpg"
        assert records.get("b") is None


def test_a_foreign_line_is_named(tmp_path):
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "x.jsonl").write_text("hello\n")
    with pytest.raises(JobError, match="line 1"):
        list(manifest.latest(str(tmp_path)))


def dated(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def test_a_record_with_a_time_in_the_future_does_not_hide_a_later_run(tmp_path):
    now = datetime.now(UTC)
    ahead = record("a", outcome=Outcome.COLORIZED).replace(finished=dated(now + timedelta(days=26_000)))
    true = record("a", outcome=Outcome.FAILED).replace(finished=dated(now))
    manifest.commit(str(tmp_path), "run1", [ahead, record("b").replace(finished=ahead.finished)])
    manifest.commit(str(tmp_path), "run2", [true])
    found = {r.key: r for r in manifest.latest(str(tmp_path))}
    assert found["a"] == true
    assert found["b"].finished == ahead.finished, "it is the only one of its scan"
    assert manifest.later(ahead, true) == true


def test_a_clock_difference_of_a_minute_is_tolerated():
    now = datetime.now(UTC)
    first, second = (record("a").replace(finished=dated(now + timedelta(seconds=s))) for s in (0, 60))
    assert manifest.later(first, second) == second


def test_a_record_of_a_later_version_of_the_program_is_refused(tmp_path):
    manifest.commit(str(tmp_path), "run", [record("a"), record("b").replace(schema=2)])
    with pytest.raises(JobError, match=r"line 2: a later version .*schema 2"):
        list(manifest.latest(str(tmp_path)))


@pytest.mark.parametrize("schema", ["2", 1.5, None])
def test_a_record_with_an_invalid_schema_is_refused(tmp_path, schema):
    (tmp_path / "manifest").mkdir()
    line = json.loads(record("a").to_json()) | {"schema": schema}
    (tmp_path / "manifest" / "x.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(JobError, match="line 1: a later version"):
        list(manifest.latest(str(tmp_path)))


def test_a_deeply_nested_line_is_named(tmp_path):
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "x.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(JobError, match="line 1: it is nested too deep"):
        list(manifest.latest(str(tmp_path)))


def test_a_shard_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "x.jsonl").symlink_to("nowhere")
    with pytest.raises(JobError, match=r"cannot read .*x\.jsonl: No such file"):
        list(manifest.latest(str(tmp_path)))


@pytest.mark.parametrize("key", ["\ud83d", "\ud800.jpg", "caf\udce9.jpg", "nul\0"])
def test_a_record_of_a_bad_key_is_read_again(tmp_path, key):
    manifest.commit(str(tmp_path), "run", [record(key), record("a")])
    assert {r.key for r in manifest.latest(str(tmp_path))} == {key, "a"}


def test_the_shards_of_each_run_are_counted(tmp_path):
    for run, key in (("20260101-a", "a"), ("20260101-a", "b"), ("20260102-b", "c")):
        manifest.commit(str(tmp_path), run, [record(key)])
    assert manifest.runs(str(tmp_path)) == {"20260101-a": 2, "20260102-b": 1}
    assert len(list(manifest.shards(str(tmp_path), "20260101-a"))) == 2


def test_the_database_is_about_as_large_as_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    some = [record(f"box/scan{n:05}.jpg", detail="x" * 900, derivative_sha256="1" * 64) for n in range(5000)]
    manifest.commit(str(tmp_path), "run", some)
    (shard,) = (tmp_path / "manifest").iterdir()
    with manifest.Latest(str(tmp_path)) as records:
        records._database.execute("COMMIT")
        (database,) = (tmp_path / "tmp").glob("*/*.db")
        assert os.path.getsize(database) < 1.35 * shard.stat().st_size
        assert json.loads(records.get("box/scan00007.jpg").to_json())["key"] == "box/scan00007.jpg"
