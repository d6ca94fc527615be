"""Temporary folders are removed with their process. Those of a killed process are removed by the next one."""

import os
import subprocess
import sys

import pytest

from pipeline.errors import JobError
from pipeline.storage import scratch
from tests.pipeline.conftest import environment

MAKER = """
import time
from pipeline.storage import scratch
folder = scratch.make()
open(folder + "/large", "w").close()
print(folder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_after_its_block(place):
    with scratch.folder() as made:
        assert os.path.isdir(made)
    assert list(place.iterdir()) == []


def test_a_killed_processs_folder_is_removed_by_the_next_and_a_living_ones_is_not(place):
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(place)),
    )
    made = maker.stdout.readline().strip()
    (place / "archive-colorize.txt").touch()
    (place / "archive-colorize-link").symlink_to(place.parent)
    with scratch.folder() as mine, scratch.folder() as another:
        assert os.path.isdir(made) and os.path.isdir(mine) and os.path.isdir(another)
    maker.kill()
    maker.wait()
    maker.stdout.close()
    assert os.path.exists(f"{made}/large")
    with scratch.folder():
        assert not os.path.exists(made)
    assert (place / "archive-colorize.txt").exists()
    assert place.parent.exists()


def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(place, monkeypatch):
    lock, removed = scratch._lock, []

    def late(folder):
        if not removed:
            removed.append(folder)
            os.rmdir(folder)
        return lock(folder)

    monkeypatch.setattr(scratch, "_lock", late)
    with scratch.folder() as made:
        assert os.path.isdir(made) and removed and made not in removed


def fill():
    with scratch.database() as database:
        database.execute("CREATE TABLE a (b BLOB)")
        for _ in range(20_000):
            database.execute("INSERT INTO a VALUES (?)", (os.urandom(4000),))


def test_a_database_that_finds_no_room_is_one_line_that_names_tmpdir(place):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted: that takes root")
    try:
        with pytest.raises(JobError, match="TMPDIR"):
            fill()
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_place_that_is_not_there_is_one_line_that_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(JobError, match=f"{tmp_path}/none: No such file or directory; set TMPDIR"):
        scratch.make()
