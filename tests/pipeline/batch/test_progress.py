"""The progress of a run is computed from its own shards. Each shard is read once."""

from pipeline import storage
from pipeline.batch import progress
from pipeline.batch.progress import Progress
from pipeline.records import manifest
from pipeline.records.record import Outcome, Record


def commit(output, run: str, *keys: str) -> None:
    manifest.commit(str(output), run, [Record(f"/{key}", key, outcome=Outcome.FAILED) for key in keys])


def test_records_of_this_run_are_counted_and_its_shards_read_once(anywhere, monkeypatch):
    output = anywhere
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    monkeypatch.setattr(progress, "CLOUD_SECONDS", 0)
    monkeypatch.setattr(progress, "PAUSE", 0)
    read, seen = storage.read, []
    monkeypatch.setattr(storage, "read", lambda uri: seen.append(uri) or read(uri))
    watched = Progress(output, "run", 5)
    commit(output, "earlier", "x", "y")
    assert watched._count() == 0
    commit(output, "run", "a", "b")
    assert watched._count() == 2
    commit(output, "run", "c")
    assert watched._count() == 3
    assert len(seen) == 2


def test_slow_polling_is_followed_by_a_longer_pause(tmp_path, monkeypatch):
    moments = iter([100.0, 103.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(moments))
    watched = Progress(str(tmp_path), "run", 5)
    watched._count()
    assert watched._next == 103.0 + 3.0 * progress.PAUSE


def test_a_manifest_that_cannot_be_listed_stops_no_progress(tmp_path):
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "run-x.jsonl").symlink_to("nowhere")
    assert Progress(str(tmp_path), "run", 5)._count() == 0
