"""Measures 2, 3 and 4: the complete job with the shipped model, compared with Pillow and with a plain loop.

    python -m tests.benchmarks.job_cost         takes about six minutes

* CPU time per picture without start-up, relative to Pillow's decode to RGB and encode at the same quality.
* Beam's overhead: the job's CPU time relative to a plain loop that calls the same functions.
* Scaling: the speed-up from one worker to two, relative to the speed-up of two plain loops that run in parallel.

To exclude the start-up cost, the job runs on a few scans and on many scans, and the difference in CPU time is divided
by the difference in scans. Rates are computed from the times in the records; the first and last records are left out.
"""

import argparse
import contextlib
import ctypes
import io
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from PIL import Image

from pipeline.records import manifest
from tests.benchmarks.scans import grey_jpeg, make_scan

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 8, 168
QUALITY = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    _adopt_orphans()
    rounds = range(parser.parse_args().rounds)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        floor = min(bench.floor() for _ in rounds)
        job = bench.cpu_per_scan("pipeline.colorize", rounds)
        loop = bench.cpu_per_scan("tests.benchmarks.plain_loop", rounds)
        print(
            f"job, CPU per picture       {job / floor:5.2f} times Pillow's decode and encode (limit 4): "
            f"{1000 * job:.1f} ms and {1000 * floor:.1f} ms"
        )
        print(
            f"Beam's overhead            {job / loop:5.2f} times the CPU of a plain loop (limit 1.10): "
            f"{1000 * job:.1f} ms and {1000 * loop:.1f} ms"
        )
        modules = ("pipeline.colorize", "tests.benchmarks.plain_loop")
        rates = {(module, cores): [] for module in modules for cores in (1, 2)}
        for _ in rounds:  # alternate, so that a slow minute of the machine affects all of them
            for (module, cores), found in rates.items():
                found.append(bench.rate(module, cores))
        gains = []
        for module in modules:
            one, two = (statistics.median(rates[module, cores]) for cores in (1, 2))
            gains.append(two / one)
            print(
                f"{module:26} {one:5.1f} pictures per second on one core, {two:.1f} on two: speed-up {two / one:.2f}"
            )
        print(
            f"scaling                    {gains[0] / gains[1]:5.2f} of the plain loops' speed-up (minimum 0.90)"
        )


class Bench:
    def __init__(self, folder: Path):
        self._folder = folder
        self._scans = [grey_jpeg(make_scan(seed), QUALITY) for seed in range(4)]
        self._archives = {count: self._archive(f"all{count}", range(count)) for count in (FEW, MANY)}
        self._halves = [self._archive(f"half{half}", range(half, MANY, 2)) for half in (0, 1)]

    def floor(self) -> float:
        """CPU seconds that Pillow takes to decode a scan to RGB and encode it."""
        started = time.process_time()
        for _ in range(5):
            for scan in self._scans:
                Image.open(io.BytesIO(scan)).convert("RGB").save(io.BytesIO(), "JPEG", quality=QUALITY)
        return (time.process_time() - started) / (5 * len(self._scans))

    def cpu_per_scan(self, module: str, rounds: range) -> float:
        """CPU seconds per scan on one core, summed over all processes, without start-up."""
        few, many = (min(self._cpu(module, count) for _ in rounds) for count in (FEW, MANY))
        return (many - few) / (MANY - FEW)

    def _cpu(self, module: str, count: int) -> float:
        before = _children()
        self._finish([self._start(module, self._archives[count], "cpu", core=0)])
        return _children() - before

    def rate(self, module: str, cores: int) -> float:
        """Scans per second in the steady state."""
        if cores == 1:
            runs = [self._start(module, self._archives[MANY], "rate", core=0)]
        elif module == "pipeline.colorize":
            runs = [self._start(module, self._archives[MANY], "rate", "--direct_num_workers=2")]
        else:
            runs = [
                self._start(module, half, f"rate{core}", core=core) for core, half in enumerate(self._halves)
            ]
        outputs = self._finish(runs)
        times = sorted(
            datetime.fromisoformat(record.finished).timestamp()
            for output in outputs
            for record in manifest.latest(str(output))
        )
        assert len(times) == MANY, "a scan has no record"
        warm = times[MANY // 4 : -MANY // 8]  # leaves out the times when some workers are idle
        return (len(warm) - 1) / (warm[-1] - warm[0])

    def _archive(self, name: str, numbers: range) -> Path:
        folder = self._folder / name
        folder.mkdir()
        for number in numbers:
            (folder / f"{number:04}.jpg").write_bytes(self._scans[number % len(self._scans)])
        return folder

    def _start(self, module: str, archive: Path, name: str, *options: str, core: int | None = None):
        output = self._folder / f"out-{name}"
        shutil.rmtree(output, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            module,
            "--input",
            str(archive),
            "--output",
            str(output),
            "--gallery_size=0",
        ]
        pin = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen(
            [*pin, *command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, env=_quiet()
        )
        return process, output

    def _finish(self, runs: list) -> list[Path]:
        for process, _ in runs:
            if process.wait():
                raise SystemExit(f"a run failed with exit code {process.returncode}")
        return [output for _, output in runs]


def _adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants, so that their CPU time is counted too."""
    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _children() -> float:
    """CPU seconds of all descendants so far. Waits until all of them have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _quiet() -> dict[str, str]:
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}


if __name__ == "__main__":
    main()
