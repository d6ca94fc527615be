"""Flink's CPU per picture over that of the local runner, and how both use two cores.

    python -m tests.benchmarks.flink_cost                takes about fifteen minutes on two cores
    python -m tests.benchmarks.flink_cost --many 900     takes about eight minutes

The job colours 3-megapixel scans with the shipped model on the local runner and on a Flink cluster, each with one
worker and with two; a TaskManager has one worker. The CPU time of all processes is counted, those of the cluster from
its start to its end. All run on a few scans and on many: the difference in CPU time divided by the difference in scans
is the cost of a picture, and what is left is the fixed cost of a run. Throughput comes from the difference in wall
time, and means something only on a machine that does nothing else.
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

WORKERS = (1, 2)
COMMAND = [sys.executable, "-m", "pipeline.colorize", "--gallery_size=0", "--workers_share_files"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=300, help="scans of the small run (default: 300)")
    parser.add_argument("--many", type=int, default=2000, help="scans of the large run (default: 2000)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="the cheapest of so many runs counts (default: 1)"
    )
    chosen = parser.parse_args()
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = {count: _archive(folder / f"in{count}", count) for count in (chosen.few, chosen.many)}
        runs: dict[tuple, list[tuple[float, float]]] = {}
        for _ in range(chosen.rounds):
            for workers in reversed(WORKERS):  # the runners alternate: a slow minute affects both
                for count, archive in archives.items():
                    for runner in (_local, _flink):
                        cost = _cost(runner, workers, archive, folder / "out")
                        runs.setdefault((runner, workers, count), []).append(cost)
    best = {key: [min(column) for column in zip(*costs, strict=True)] for key, costs in runs.items()}
    more = chosen.many - chosen.few
    each, fixed, rate = {}, {}, {}
    for runner in (_local, _flink):
        for key in ((runner, workers) for workers in WORKERS):
            (few, few_wall), (many, many_wall) = best[*key, chosen.few], best[*key, chosen.many]
            each[key] = (many - few) / more
            fixed[key] = few - each[key] * chosen.few
            rate[key] = more / (many_wall - few_wall)
    for workers in reversed(WORKERS):
        local, flink = (_local, workers), (_flink, workers)
        print(
            f"CPU per picture    Flink {each[flink] / each[local]:.2f} times the local runner (goal 1.10), "
            f"{workers} workers: {1000 * each[flink]:.1f} ms and {1000 * each[local]:.1f} ms"
        )
        print(
            f"fixed CPU of a run {fixed[flink]:.1f} s on Flink, cluster included; {fixed[local]:.1f} s locally"
        )
        total = best[*flink, chosen.many][0] / best[*local, chosen.many][0]
        print(f"CPU of {chosen.many} scans  Flink {total:.2f} times the local runner, fixed CPU included")
    for runner, label in ((_local, "local"), (_flink, "Flink")):
        one, two = (rate[runner, workers] for workers in WORKERS)
        print(f"scans per second   {label} {one:.1f} with 1 worker, {two:.1f} with 2: {two / one:.2f} times")


def _archive(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:05}.jpg"
        if number < 4:
            file.write_bytes(grey_jpeg(make_scan(number)))
        else:
            os.link(folder / f"{number % 4:05}.jpg", file)
    return folder


def _cost(runner, workers: int, archive: Path, output: Path) -> tuple[float, float]:
    """CPU seconds of a run with all its processes, and wall seconds of its job."""
    before = _children()
    wall = runner([*COMMAND, "--input", archive, "--output", output], workers)
    cpu = _children() - before
    shutil.rmtree(output)
    print(
        f"{runner.__name__[1:]:6} {workers} workers, {archive.name[2:]:>5} scans: {cpu:6.1f} s of CPU in {wall:.0f} s",
        flush=True,
    )
    return cpu, wall


def _local(command: list, workers: int) -> float:
    return _run([*command, f"--direct_num_workers={workers}"])


def _flink(command: list, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        worker = Path(folder) / "worker"
        worker.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline.colorize worker "$@"\n')
        worker.chmod(0o755)
        with Cluster(workers, env=_environment()) as cluster:
            options = cluster.options(
                "--environment_type=PROCESS", f"--environment_option=process_command={worker}"
            )
            return _run([*command, *options])


def _run(command: list) -> float:
    """Wall seconds of the job."""
    began = time.monotonic()
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=_environment()).returncode:
        raise SystemExit("a run failed")
    return time.monotonic() - began


def _environment() -> dict[str, str]:
    """One thread for the network of each worker, as local workers have."""
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | threads


if __name__ == "__main__":
    main()
