import pytest

from pipeline import manifest
from pipeline.collections import JobError
from pipeline.record import Outcome, Record


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


def test_records_come_in_the_order_of_their_keys_and_none_where_nothing_is(tmp_path):
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
