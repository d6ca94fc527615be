"""Measure 5: growth of the job's memory per scan.

    python -m tests.benchmarks.memory           takes about four minutes on two idle cores

The job runs with two workers on 10,000 small scans. Meanwhile the memory of its whole process tree is sampled as PSS,
which counts a page that n processes share as 1/n in each. The slope is the growth of the peak after the first 3,000
scans, divided by the number of scans after them. Before, allocators and caches fill. Peaks of two runs differ by more
than this growth, so both are of one run.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.benchmarks.job_cost import ROOT, _quiet
from tests.benchmarks.scans import grey_jpeg, make_scan

SAMPLE_SECONDS = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=3000)
    parser.add_argument("--many", type=int, default=10_000)
    arguments = parser.parse_args()
    samples = list(_samples(arguments.many))
    few, many = (
        max(memory for records, memory in samples if records <= count)
        for count in (arguments.few, arguments.many)
    )
    slope = (many - few) / (arguments.many - arguments.few)
    peaks = f"{few / 2**20:.0f} MiB until scan {arguments.few}, {many / 2**20:.0f} MiB until scan {arguments.many}"
    print(f"peak memory {peaks}: {slope / 1024:.2f} KiB per scan (limit 2)")


def _samples(count: int) -> Iterator[tuple[int, int]]:
    """Runs the job on a number of scans. Yields the number of records and the bytes of all processes."""
    scans = [grey_jpeg(make_scan(seed, 160, 120)) for seed in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        archive, output = Path(folder) / "in", Path(folder) / "out"
        for number in range(count):
            box = archive / f"box{number // 100:03}"
            box.mkdir(parents=True, exist_ok=True)
            (box / f"{number:05}.jpg").write_bytes(scans[number % len(scans)])
        command = [
            sys.executable,
            "-m",
            "pipeline.colorize",
            "--input",
            str(archive),
            "--output",
            str(output),
            "--direct_num_workers=2",
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=_quiet())
        while process.poll() is None:
            records = sum(shard.read_bytes().count(b"\n") for shard in output.glob("manifest/*.jsonl"))
            yield records, _memory(psutil.Process(process.pid))
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(f"the run failed with exit code {process.returncode}")


def _memory(root: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()
