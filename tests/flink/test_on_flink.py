"""The job on a real Flink cluster whose processes are killed. `make test-flink` runs this; `make test` does not."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.pipeline.conftest import ROOT, WAIT, Run, environment, start

SCANS = 200


def test_killed_task_managers_and_workers_cost_no_scan(cluster, scans, worker, model, tmp_path):
    source, output = scans(SCANS), tmp_path / "flink"
    job = start(
        *arguments(source, output, model),
        *cluster.options("--environment_type=PROCESS", f"--environment_option=process_command={worker}"),
    )
    wait_for(lambda: done(output) >= SCANS // 5, job)
    lost = cluster.task_managers.pop(0)
    os.kill(lost.pid, signal.SIGKILL)
    lost.wait()
    assert done(output) < SCANS // 2, "the TaskManager was killed too late"
    cluster.add_task_manager()
    for state in ("RESTARTING", "RUNNING"):  # the worker is lost after the job has survived the first loss
        wait_for(lambda state=state: job_state(cluster) == state, job)
    before = done(output)
    wait_for(lambda: done(output) >= before + SCANS // 20, job)
    busiest(workers(cluster)).kill()
    assert done(output) < SCANS, "the worker was killed too late"
    out, err = job.communicate(timeout=WAIT)
    run = Run(job.returncode, out, err, output)
    assert run.code == 0, err
    assert f"{SCANS} colorized" in out
    check_whole(run, SCANS)
    check_same_bytes(output, source, model, tmp_path / "local")
    assert list(orphans(lost.pid)) == []


def test_an_external_pool_starts_the_workers(cluster, scans, model, tmp_path):
    source, output = scans(30), tmp_path / "flink"
    with worker_pool() as (address, pool):
        job = start(
            *arguments(source, output, model),
            *cluster.options("--environment_type=EXTERNAL", f"--environment_config={address}"),
        )
        out, err = job.communicate(timeout=WAIT)
        started = psutil.Process(pool.pid).children(recursive=True)
    run = Run(job.returncode, out, err, output)
    assert run.code == 0, err
    check_whole(run, 30)
    check_same_bytes(output, source, model, tmp_path / "local")
    assert not any(process.is_running() for process in started)


def arguments(source: Path, output: Path, model: Path) -> list[str]:
    places = ["--input", str(source), "--output", str(output), "--model", str(model)]
    return [*places, "--workers_share_files", "--gallery_size=0"]


def done(output: Path) -> int:
    """Number of derivatives so far. On a cluster, their records follow after half a minute or at the end."""
    return sum(1 for _ in output.rglob("*_color.jpg"))


def wait_for(condition: Callable[[], bool], job: subprocess.Popen) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline, "the job makes no progress"
        time.sleep(0.02)


def job_state(cluster) -> str:
    """What Flink says of its only job."""
    (job,) = cluster.ask("jobs/overview")["jobs"]
    return job["state"]


def workers(cluster) -> Iterator[psutil.Process]:
    """Python workers of the cluster."""
    for task_manager in cluster.task_managers:
        for process in psutil.Process(task_manager.pid).children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "worker" in process.cmdline():
                    yield process


def busiest(processes: Iterator[psutil.Process]) -> psutil.Process:
    """The worker whose codec works most in a fifth of a second."""
    before = {process: cpu(process) for process in processes}
    time.sleep(0.2)
    return max(before, key=lambda process: cpu(process) - before[process])


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a worker's codec; 0 if the worker has ended."""
    with contextlib.suppress(psutil.Error):
        return sum(sum(child.cpu_times()[:2]) for child in process.children())
    return 0.0


def orphans(group: int) -> Iterator[psutil.Process]:
    """Processes of a process group."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def check_whole(run: Run, count: int) -> None:
    """Checks that there are one record and one whole derivative for each scan, and nothing else."""
    assert len(run.lines) == len(run.records) == run.summary["records"] == count
    for record in run.records.values():
        digest = hashlib.sha256(Path(record.derivative).read_bytes()).hexdigest()
        assert digest == record.derivative_sha256, record.key
    files = {path for path in run.output.rglob("*") if path.is_file()}
    expected = {Path(record.derivative) for record in run.records.values()}
    expected |= {
        run.output / "summary.json",
        run.output / "dead_letters.jsonl",
        *run.output.glob("manifest/*.jsonl"),
    }
    assert files == expected


def check_same_bytes(output: Path, source: Path, model: Path, local: Path) -> None:
    """Checks the derivatives against those of the local runner."""
    job = start(*arguments(source, local, model))
    _, err = job.communicate(timeout=WAIT)
    assert job.returncode == 0, err
    pictures = [
        sorted(path.relative_to(folder) for path in folder.rglob("*_color.jpg")) for folder in (output, local)
    ]
    assert pictures[0] == pictures[1]
    for name in pictures[0]:
        assert (output / name).read_bytes() == (local / name).read_bytes(), name


@contextlib.contextmanager
def worker_pool() -> Iterator[tuple[str, subprocess.Popen]]:
    """A pool on a free port: its address and its process. The PATH has no Python of the project."""
    command = [sys.executable, "-m", "pipeline.colorize", "worker-pool", "--port=0"]
    env = environment(PATH="/usr/bin:/bin", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    pool = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert pool.stdout is not None
        yield pool.stdout.readline().split(" call ")[1].partition(";")[0], pool
    finally:
        pool.terminate()
        assert pool.wait(WAIT) == 128 + signal.SIGTERM
