"""Flink's CPU per picture over that of the local runner.

    python -m tests.benchmarks.flink_cost                takes about six minutes
    python -m tests.benchmarks.flink_cost --many 2000

The job colours 3-megapixel scans with the shipped model, once with two local workers and once on a Flink cluster of
two TaskManagers with one worker each. The CPU time of all processes is counted, those of the cluster from its start to
its end. Both run on a few scans and on many: the difference in CPU time divided by the difference in scans is the
cost of a picture, and what is left is the fixed cost of a run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.flink.cluster import Cluster
from tests.benchmarks.job_cost import ROOT, _adopt_orphans, _children
from tests.benchmarks.scans import grey_jpeg, make_scan

WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=300, help="scans of the small run (default: 300)")
    parser.add_argument("--many", type=int, default=900, help="scans of the large run (default: 900)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="the cheapest of so many runs counts (default: 1)"
    )
    chosen = parser.parse_args()
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = {count: _archive(folder / f"in{count}", count) for count in (chosen.few, chosen.many)}
        costs = {}
        for runner in (_local, _flink):
            few, many = (
                min(_cpu(runner, archive, folder / "out") for _ in range(chosen.rounds))
                for archive in archives.values()
            )
            each = (many - few) / (chosen.many - chosen.few)
            costs[runner] = each, few - each * chosen.few
    (local, local_fixed), (flink, flink_fixed) = costs[_local], costs[_flink]
    each = f"{1000 * flink:.1f} ms and {1000 * local:.1f} ms"
    print(f"Flink, CPU per picture     {flink / local:5.2f} times the local runner's (goal 1.10): {each}")
    print(
        f"fixed CPU of a run         {flink_fixed:5.1f} s on Flink, cluster included; {local_fixed:.1f} s locally"
    )


def _archive(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:05}.jpg"
        if number < 4:
            file.write_bytes(grey_jpeg(make_scan(number)))
        else:
            os.link(folder / f"{number % 4:05}.jpg", file)
    return folder


def _cpu(runner, archive: Path, output: Path) -> float:
    """CPU seconds of a run with all its processes."""
    began, before = time.monotonic(), _children()
    runner(
        [
            sys.executable,
            "-m",
            "pipeline.colorize",
            "--input",
            archive,
            "--output",
            output,
            "--gallery_size=0",
            "--workers_share_files",
        ]
    )
    seconds, cpu = time.monotonic() - began, _children() - before
    shutil.rmtree(output)
    print(
        f"{runner.__name__[1:]:6} {archive.name[2:]:>5} scans: {cpu:6.1f} s of CPU in {seconds:.0f} s",
        flush=True,
    )
    return cpu


def _local(command: list) -> None:
    _run([*command, f"--direct_num_workers={WORKERS}"])


def _flink(command: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        worker = Path(folder) / "worker"
        worker.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline.colorize worker "$@"\n')
        worker.chmod(0o755)
        with Cluster(WORKERS, env=_environment()) as cluster:
            options = cluster.options(
                "--environment_type=PROCESS", f"--environment_option=process_command={worker}"
            )
            _run([*command, *options])


def _run(command: list) -> None:
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=_environment()).returncode:
        raise SystemExit("a run failed")


def _environment() -> dict[str, str]:
    """One thread for the network of each worker, as local workers have."""
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | threads


if __name__ == "__main__":
    main()
