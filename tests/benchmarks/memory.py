"""Measure 5: growth of the job's memory per scan.

    python -m tests.benchmarks.memory           takes about six minutes on two idle cores

The job runs with two workers on 3,000 and on 10,000 small scans. Meanwhile the memory of its whole process tree is
sampled as PSS, which counts a page that n processes share as 1/n in each. The slope is the difference of the two peaks
divided by the difference in scans. With fewer scans, the peak comes before allocators and caches are full.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
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
    few, many = (_peak(count) for count in (arguments.few, arguments.many))
    slope = (many - few) / (arguments.many - arguments.few)
    peaks = f"{few / 2**20:.0f} MiB with {arguments.few} scans, {many / 2**20:.0f} MiB with {arguments.many}"
    print(f"peak memory {peaks}: {slope / 1024:.2f} KiB per scan (limit 2)")


def _peak(count: int) -> int:
    """Peak memory in bytes, summed over the processes of a run."""
    scans = [grey_jpeg(make_scan(seed, 160, 120)) for seed in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "in"
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
            f"{folder}/out",
            "--direct_num_workers=2",
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=_quiet())
        peak = 0
        while process.poll() is None:
            peak = max(peak, _memory(psutil.Process(process.pid)))
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(f"the run failed with exit code {process.returncode}")
    return peak


def _memory(root: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()
