"""Folders of artifacts and of interrupted trainings, on the local disk and in Cloud Storage."""

from pathlib import Path

import pytest

from pipeline import storage
from tfx_pipeline import folders
from tfx_pipeline.artifacts import PASSED, Verdict


@pytest.fixture(params=["here", "there"])
def home(request, tmp_path):
    return str(tmp_path) if request.param == "here" else request.getfixturevalue("cloud") + "/artifacts"


def test_files_written_into_a_folder_are_read_and_copied(home):
    with folders.filled(f"{home}/one") as folder:
        Path(folder, "below").mkdir()
        Path(folder, "below", "a.txt").write_text("words")
    folders.copy(f"{home}/one", f"{home}/two")
    with folders.here(f"{home}/two") as folder:
        assert Path(folder, "below", "a.txt").read_text() == "words"


def test_a_verdict_is_read_as_it_was_written(home):
    verdict = Verdict("data", PASSED, [], {"pictures": 7})
    verdict.write(f"{home}/verdict")
    assert Verdict.read(f"{home}/verdict") == verdict


def test_checkpoints_of_a_killed_training_are_found_and_those_of_a_finished_one_deleted(home):
    from tfx_pipeline.trainer import checkpoints

    def train_until_killed():
        with checkpoints(f"{home}/checkpoints", "run") as (run, saved):
            Path(run, "state").write_text("after the first epoch")
            saved.on_epoch_end(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_until_killed()
    with checkpoints(f"{home}/checkpoints", "run") as (run, _):
        assert Path(run, "state").read_text() == "after the first epoch"
    assert not list(storage.list_files(f"{home}/checkpoints"))
