"""What given colours cost a scan: CPU time and memory of the codec, with and without hints.

    python -m tests.benchmarks.hint_cost        half a minute

A 3-megapixel scan is coloured in a process of its own: without hints, with twelve points, and with a marked picture
of forty strokes. The time is the median of the rounds'; memory is the process's peak, SciPy included.
"""

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from pipeline.codec import Codec
from pipeline.collections import Item
from pipeline.record import Outcome
from pipeline.settings import Settings
from tests.benchmarks.scans import grey_jpeg, make_scan

SIDE = 160
CHROMA = np.full((1, SIDE, SIDE, 2), 12, np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        luma = make_scan(0)
        (folder / "scan.jpg").write_bytes(grey_jpeg(luma))
        items = {
            "without hints": Item("scan.jpg", str(folder / "scan.jpg")),
            "twelve points": Item("scan.jpg", str(folder / "scan.jpg"), hints=(_points(folder, luma),)),
            "a marked picture": Item("scan.jpg", str(folder / "scan.jpg"), hints=(_picture(folder, luma),)),
        }
        found = {}
        for kind, item in items.items():
            with multiprocessing.get_context("spawn").Pool(1) as own:
                found[kind] = own.apply(_measure, (item, str(folder / "out"), rounds))
        seconds, memory = found["without hints"]
        for kind, (its_seconds, its_memory) in found.items():
            print(
                f"{kind:18} {its_seconds:5.2f} s of CPU a scan, {its_seconds / seconds:3.0f} times that without; "
                f"{its_memory - memory:+5.0f} MiB over {memory:.0f}"
            )


def _measure(item: Item, output: str, rounds: int) -> tuple[float, float]:
    """Seconds of CPU a scan, and the process's peak in MiB."""
    cv2.setNumThreads(1)
    codec, seconds = Codec(Settings(output=output, run="benchmark", side=SIDE)), []
    for _ in range(rounds):
        started = time.process_time()
        codec.open(item)
        record = codec.paint(item, CHROMA, 0.5, 0.0)
        assert record.outcome == Outcome.COLORIZED, record
        seconds.append(time.process_time() - started)
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    return statistics.median(seconds), peak / 1024


def _points(folder: Path, luma: np.ndarray) -> str:
    height, width = luma.shape
    places = np.random.default_rng(1).uniform(0.05, 0.95, (12, 2)) * (width, height)
    file = folder / "scan.jpg.txt"
    file.write_text("".join(f"{int(x)} {int(y)} #{40 + 17 * n:02x}6050\n" for n, (x, y) in enumerate(places)))
    return str(file)


def _picture(folder: Path, luma: np.ndarray) -> str:
    height, width = luma.shape
    marks = np.zeros((height, width, 4), np.uint8)
    rng = np.random.default_rng(2)
    for _ in range(40):
        start, end = (rng.uniform(0.05, 0.95, (2, 2)) * (width, height)).astype(int)
        end = start + (end - start) // 8
        color = [int(level) for level in rng.integers(0, 255, 3)]
        cv2.line(marks, tuple(map(int, start)), tuple(map(int, end)), (*color, 255), 12)
    file = folder / "scan.jpg.png"
    cv2.imwrite(str(file), marks)
    return str(file)


if __name__ == "__main__":
    main()
