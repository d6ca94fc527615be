"""Faults: a job survives them or stops with one line. It leaves no partial files, loses no scan and never hangs."""

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from PIL import Image

from pipeline import storage
from pipeline.batch import lease
from pipeline.records import manifest
from pipeline.records.record import Outcome, Reason, Record
from tests.pipeline.conftest import (
    ROOT,
    WAIT,
    Run,
    assert_one_line,
    environment,
    jpeg,
    make_archive,
    picture,
    start,
)


def wait_for(condition, seconds=120):
    """Wait until the condition holds. Returns False if it does not hold within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def derivatives(output):
    return sorted(output.rglob("*_color.*"))


def children(pid):
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = dict(map(int, line.split()) for line in listing.splitlines()[1:])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids):
    return [
        pid
        for pid in pids
        if os.path.exists(f"/proc/{pid}/stat")
        and open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    ]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An archive of 200 scans. Each picture is in it ten times. No test writes to it."""
    folder = make_archive(tmp_path_factory.mktemp("many") / "in", 20, 400, 300)
    for file in sorted(folder.rglob("*.jpg")):
        for number in range(1, 10):
            os.link(file, file.with_name(f"{file.stem}-{number}.jpg"))
    return folder


ONE = ("--direct_num_workers", 1)  # the worker is this process, which has TensorFlow already


def catches(pid, number):
    """Whether a process has a handler for a signal. Python itself has one for SIGINT only."""
    with open(f"/proc/{pid}/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return mask >> (number - 1) & 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_job_leaves_nothing_half_done_and_the_next_run_completes_it(
    model, colorize, many, tmp_path, workers
):
    output = tmp_path / "out"
    arguments = ("--model", model, "--gallery_size", "0", "--direct_num_workers", workers)
    process = start("--input", many, "--output", output, *arguments)
    assert wait_for(lambda: len(derivatives(output)) >= 12)
    family = children(process.pid)
    process.kill()
    process.communicate()
    assert wait_for(lambda: not alive(family), 60), "workers and codecs outlive their job"
    there = derivatives(output)
    assert 0 < len(there) < 200
    for path in there:
        Image.open(path).load()
    other = {path.name for path in output.rglob("*") if path.is_file()} - {path.name for path in there}
    assert {name for name in other if not name.endswith(".jsonl")} == {lease.FILE}
    again = colorize(many, output, *ONE)
    assert again.code == 0, again.err
    assert len(again.records) == 200, "a scan has two records, or none"
    assert len(derivatives(output)) == 200


@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_lets_what_is_in_flight_finish(model, colorize, many, tmp_path, sent, workers):
    output = tmp_path / "out"
    process = start(
        "--input",
        many,
        "--output",
        output,
        "--model",
        model,
        "--gallery_size",
        "0",
        "--direct_num_workers",
        workers,
        start_new_session=True,
    )
    assert wait_for(lambda: len(derivatives(output)) >= 8)
    os.killpg(process.pid, sent)  # like a terminal, signal every process of the job
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 128 + sent, err
    stopped = Run(process.returncode, out, err, output)
    assert "Traceback" not in err
    assert f"stopped by {sent.name}" in out
    done = {record.derivative for record in stopped.records.values()}
    assert done == {str(path) for path in derivatives(output)}, (
        "a derivative without a record, or the reverse"
    )
    assert len(done) < 200
    again = colorize(many, output, *ONE)
    assert again.code == 0
    assert len(again.records) == 200


def made_up_formats(folder):
    """A Pillow plugin for files that begin with CRASH or HANG. Their decoders really crash and hang."""
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import ctypes, time
        from PIL import Image, ImageFile

        class Made(ImageFile.ImageFile):
            format_description = "a decoder with a fault"

            def _open(self):
                self._mode, self._size = "L", (64, 64)
                self.tile = [("raw", (0, 0, 64, 64), 0, "L")]

        class Crash(Made):
            format = "CRASH"

            def load(self):
                ctypes.string_at(0)

        class Hang(Made):
            format = "HANG"

            def load(self):
                time.sleep(1000)

        for made in (Crash, Hang):
            Image.register_open(made.format, made, lambda prefix, name=made.format: prefix.startswith(name.encode()))
    """)
    )
    return environment(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]))


def test_a_decoder_that_dies_or_hangs_costs_its_picture_only(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 12)
    for name, method in (("bad1.jpg", "CRASH"), ("box0/bad2.jpg", "CRASH"), ("box0/bad3.jpg", "HANG")):
        (archive / name).write_bytes(method.encode() * 100)
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    options = ("--codec_timeout", "3", "--direct_num_workers", 2)
    run = colorize(archive, tmp_path / "out", *options, process=True, env=made_up_formats(plugin))
    assert run.code == 0, run.err
    records = run.records
    assert {key: record.reason for key, record in records.items() if record.reason} == {
        "bad1.jpg": Reason.CODEC_CRASHED,
        "box0/bad2.jpg": Reason.CODEC_CRASHED,
        "box0/bad3.jpg": Reason.CODEC_TIMEOUT,
    }
    assert sum(record.outcome == Outcome.COLORIZED for record in records.values()) == 12


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_output_stops_with_one_line_or_records_and_leaves_no_partial_file(
    colorize, small_disk, tmp_path
):
    archive = make_archive(tmp_path / "in", 30, 800, 600)
    output = small_disk / "out"
    run = colorize(archive, output)
    if run.code:
        assert (run.code, run.err.count("\n")) == (1, 1)
        assert "No space left on device" in run.err
    else:
        assert any(record.reason == Reason.WRITE_ERROR for record in run.records.values())
    assert 0 < len(derivatives(output)) < 30
    for path in derivatives(output):
        Image.open(path).load()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = colorize(archive, output)
    assert again.code == 0, again.err
    assert len(derivatives(output)) == 30
    assert {record.outcome for record in again.latest.values()} == {Outcome.COLORIZED}


def test_a_full_output_says_its_one_line_alone(colorize, small_disk, tmp_path):
    archive = make_archive(tmp_path / "in", 20, 800, 600)
    (small_disk / "ballast").write_bytes(bytes(900_000))
    run = colorize(archive, small_disk / "out", "--direct_num_workers", 2, process=True)
    assert (run.code, run.err.count("\n")) == (1, 1), run.err
    assert "No space left on device" in run.err


def test_a_full_temporary_folder_stops_before_any_work(colorize, small_disk, tmp_path):
    archive, output = make_archive(tmp_path / "in", 2), tmp_path / "out"
    some = [Record(f"/{n}", f"{n}.jpg", outcome=Outcome.FAILED, detail="x" * 15_000) for n in range(3000)]
    manifest.commit(str(output), "run", some)
    env = environment(TMPDIR=str(small_disk))
    commands = (
        ("status", output),
        ("--input", archive, "--output", output),
        ("--input", archive, "--output", output),
    )
    for arguments, more in zip(commands, ((), ("--dry_run",), ()), strict=True):
        process = start(*arguments, *more, env=env)
        _, err = process.communicate(timeout=WAIT)
        assert (process.returncode, err.count("\n")) == (2, 1), err
        assert f"in {small_disk}: database or disk is full; set TMPDIR" in err
    assert not list(small_disk.iterdir())
    assert [path.name for path in output.iterdir()] == ["manifest"]


def test_a_machine_without_a_temporary_folder_stops_before_any_work(model, tmp_path):
    archive, output = make_archive(tmp_path / "in", 1), tmp_path / "out"
    output.mkdir()
    job = f"-m pipeline.colorize --input {archive} --output {output} --model {model}"
    command = [sys.executable, *job.split()]
    script = (
        f"mount -t tmpfs tmpfs {shlex.quote(str(output))} && for place in /tmp /var/tmp /dev/shm /usr/tmp; do "
        f"test -d $place && mount --bind -o ro $place $place; done; mount -o remount,ro,bind / && exec {{}}"
    )
    for more in ([], ["--dry_run"]):
        run = subprocess.run(
            ["unshare", "-m", "sh", "-c", script.format(shlex.join(map(str, [*command, *more])))],
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
        )
        if "Operation not permitted" in run.stderr or "permission denied" in run.stderr:
            pytest.skip("a read-only root needs root")
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert "set TMPDIR" in run.stderr


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        (0, signal.SIGINT),
        (0.6, signal.SIGTERM),
        (2, signal.SIGINT),
        (4, signal.SIGTERM),
        (6, signal.SIGINT),
    ],
)
def test_a_signal_before_the_work_ends_it_with_one_line(model, many, tmp_path, sent, seconds):
    output = tmp_path / "out"
    places = ("--input", many, "--output", output, "--model", model, "--gallery_size", "0")
    process = start(*places, env=environment(TMPDIR=str(tmp_path)))
    assert wait_for(lambda: catches(process.pid, signal.SIGTERM))
    time.sleep(seconds)
    process.send_signal(sent)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 128 + sent, err
    assert "Traceback" not in err
    assert sent.name in out + err
    assert len(err.strip().splitlines()) == 1, err
    assert not (output / lease.FILE).exists()
    assert not list(tmp_path.glob("archive-colorize-*"))


def test_a_closed_pipe_does_not_change_the_exit_code(model, tmp_path):
    archive = tmp_path / "in"
    archive.mkdir()
    (archive / "broken.jpg").write_bytes(b"no picture")
    reader, writer = os.pipe()
    os.close(reader)
    places = ("--input", archive, "--output", tmp_path / "out", "--model", model, "--gallery_size", "0")
    cases = {("--max_failures", "0"): 1, (): 0, ("--dry_run",): 0, ("--quality", "0"): 2}
    for more, code in cases.items():
        process = start(*places, *more, stdout=writer)
        _, err = process.communicate(timeout=WAIT)
        assert (process.returncode, "Traceback" in err) == (code, False), err
    assert start("none", stdout=writer, stderr=writer).wait(60) == 2
    os.close(writer)


def test_only_temporary_files_of_a_killed_job_are_removed(colorize, tmp_path):
    archive, output = make_archive(tmp_path / "in", 2), tmp_path / "out"
    left = [
        output / ".archive-colorize-0123456789abcdef",
        output / "box0" / ".archive-colorize-fedcba9876543210",
    ]
    kept = [output / ".archive-colorize-notes", output / "box0" / ".hidden"]
    for path in [*left, *kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert colorize(archive, output, "--dry_run").code == 0
    assert all(path.exists() for path in left), "a dry run changes nothing"
    assert colorize(archive, output).code == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_a_temporary_file_of_a_living_job_is_left_alone(tmp_path):
    path = tmp_path / ".archive-colorize-0123456789abcdef"
    path.touch()
    (info,) = storage.list_files(str(tmp_path), hidden=True)
    assert not storage.is_leftover(info, str(path.stat().st_mtime_ns))
    assert storage.is_leftover(info, str(path.stat().st_mtime_ns + 1))


def test_a_read_only_output_stops_before_any_work(colorize, small_disk, tmp_path):
    archive = make_archive(tmp_path / "in", 2)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    run = colorize(archive, small_disk / "out")
    assert_one_line(run, "cannot write to the output", "Read-only file system")


def test_a_file_that_vanishes_after_it_was_listed_is_a_record(model, tmp_path):
    archive = make_archive(tmp_path / "in", 300, 200, 150)
    output = tmp_path / "out"
    last = sorted(archive.rglob("*.jpg"))
    process = start(
        "--input",
        archive,
        "--output",
        output,
        "--model",
        model,
        "--gallery_size",
        "0",
        "--direct_num_workers",
        1,
    )
    assert wait_for(lambda: derivatives(output))
    for path in last:
        path.unlink()
    out, err = process.communicate(timeout=WAIT)
    run = Run(process.returncode, out, err, output)
    assert run.code == 0, err
    records = run.records
    assert len(records) == 300
    assert {record.reason for record in records.values()} == {Reason.NONE, Reason.MISSING}


def test_truncations_anywhere_are_recorded(colorize, tmp_path):
    whole = jpeg(picture(0, 200, 150))
    archive = tmp_path / "in"
    archive.mkdir()
    for number, length in enumerate(range(2, len(whole) - 2, len(whole) // 20)):
        (archive / f"{number}.jpg").write_bytes(whole[:length])
    run = colorize(archive, tmp_path / "out")
    assert run.code == 0, run.err
    assert {record.reason for record in run.records.values()} <= {Reason.TRUNCATED, Reason.UNREADABLE}
    assert len(run.records) == len(list(archive.iterdir()))
