"""Leases: only one job at a time writes to an output. A job that was killed or stopped renewing loses its lease."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import storage
from pipeline.batch import lease
from pipeline.colorize import main
from pipeline.errors import JobError
from pipeline.records import manifest
from pipeline.records.record import Outcome, Record
from tests.pipeline.conftest import environment, make_archive


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def of_another_machine(output, minutes_ago: float, **more) -> dict:
    renewed = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    said = {"run": "theirs", "host": "elsewhere", "machine": "another", "pid": 1, "renewed": renewed} | more
    storage.write(f"{output}/{lease.FILE}", json.dumps(said).encode())
    return said


def test_a_second_job_stops_before_any_work_with_one_line(colorize, tmp_path):
    archive, output = make_archive(tmp_path / "in", 2), tmp_path / "out"
    with lease.held(str(output), "the first"):
        run = colorize(archive, output)
        assert (run.code, run.err.count("\n")) == (2, 1)
        assert "another job (run the first" in run.err
        assert [path.name for path in output.iterdir()] == [lease.FILE]
        assert colorize(archive, output, "--dry_run").code == 0
    assert colorize(archive, output).code == 0
    assert not (output / lease.FILE).exists()
    with lease.held(str(output), "the third"):
        assert main(["status", str(output)]) == 0


def test_a_job_that_stops_before_its_work_lets_go(colorize, tmp_path):
    (tmp_path / "out" / "manifest").mkdir(parents=True)
    (tmp_path / "out" / "manifest" / "x.jsonl").write_text("hello\n")
    assert colorize(make_archive(tmp_path / "in", 1), tmp_path / "out").code == 2
    assert not (tmp_path / "out" / lease.FILE).exists()


HOLDER = """
import sys, time
from pipeline.batch import lease
with lease.held(sys.argv[1], "killed"):
    print("held", flush=True)
    time.sleep(600)
"""


def taken(output, run="mine") -> str:
    """Takes the lease. Returns the run that its file then names."""
    with lease.held(str(output), run):
        return json.loads(storage.read(f"{output}/{lease.FILE}"))["run"]


def test_a_killed_job_on_this_machine_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, env=environment()
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(JobError, match=f"process {holder.pid} "):
        taken(tmp_path)
    holder.kill()
    wait_for(lambda: lease._born(holder.pid) == "")  # the killed process is still a zombie
    assert taken(tmp_path) == "mine"
    holder.wait()
    holder.stdout.close()


def test_a_process_number_that_another_process_has_by_now_holds_nothing(tmp_path):
    of_another_machine(tmp_path, 0, machine=lease._machine(), born="1")
    assert taken(tmp_path) == "mine"


def test_a_job_on_another_machine_keeps_its_lease_while_it_renews(anywhere):
    output = anywhere
    of_another_machine(output, 9)
    with pytest.raises(JobError, match="on elsewhere"):
        taken(output)
    of_another_machine(output, 11)
    with lease.held(output, "mine"):
        assert json.loads(storage.read(f"{output}/{lease.FILE}"))["run"] == "mine"
        with pytest.raises(JobError, match="run mine"):
            taken(output, "second")
    assert storage.stat(f"{output}/{lease.FILE}") is None


@pytest.mark.parametrize("renewed", ["2099-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "2026-01-01"])
def test_a_lease_dated_by_a_clock_that_was_wrong_holds_nothing(tmp_path, renewed):
    of_another_machine(tmp_path, 0, renewed=renewed)
    assert taken(tmp_path) == "mine"


def test_one_of_several_concurrent_jobs_gets_the_lease(tmp_path):
    of_another_machine(tmp_path, 60)
    got, refused, go, done = [], [], threading.Barrier(8), threading.Event()

    def take(number):
        go.wait()
        try:
            with lease.held(str(tmp_path), f"run{number}"):
                got.append(number)
                done.wait(30)
        except JobError:
            refused.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(got) + len(refused) == 8)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[]", b'{"run": 1, "renewed": "x"}'])
def test_an_invalid_lease_file_is_ignored(tmp_path, content):
    (tmp_path / lease.FILE).write_bytes(content)
    assert taken(tmp_path) == "mine"


def test_a_lease_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    output, stop = tmp_path / "out", tmp_path / "stop"
    with lease.held(str(output), "mine", stop.touch) as hold:
        first = (output / lease.FILE).stat().st_mtime_ns
        assert wait_for(lambda: (output / lease.FILE).stat().st_mtime_ns != first)
        of_another_machine(output, 0)
        assert wait_for(lambda: hold.lost)
        assert "run theirs" in hold.lost
        assert wait_for(stop.exists), "no new work is started"
    assert json.loads((output / lease.FILE).read_text())["run"] == "theirs", "it is theirs now"


def test_records_that_another_run_added_meanwhile_are_reported_at_the_end(colorize, tmp_path):
    archive, output = make_archive(tmp_path / "in", 3), tmp_path / "out"
    manifest.commit(str(output), "before", [Record("/x", "x.jpg", outcome=Outcome.FAILED)])

    def intrude():
        if wait_for(lambda: list(output.rglob("*_color.jpg"))):
            manifest.commit(str(output), "intruder", [Record("/y", "y.jpg", outcome=Outcome.FAILED)])

    other = threading.Thread(target=intrude)
    other.start()
    run = colorize(archive, output)
    other.join()
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert "another job (run intruder) wrote to the output" in run.err
    assert run.summary["outcomes"]["colorized"] == 3
    assert colorize(archive, output).code == 0
