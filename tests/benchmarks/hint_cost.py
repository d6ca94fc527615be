"""Cost of hints: CPU time and memory of the codec for one scan, with and without hints.

    python -m tests.benchmarks.hint_cost        takes half a minute

A 3-megapixel scan is colourised in a separate process: without hints, with twelve points, and with a marked picture
of forty strokes. The time is the median over the rounds. Memory is the peak of the process, including SciPy.
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

from pipeline.codec.codec import Codec
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records.record import Outcome
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
                f"{kind:18} {its_seconds:5.2f} s of CPU per scan, "
                f"{its_seconds / seconds:3.0f} times the cost without hints; "
                f"{its_memory - memory:+5.0f} MiB compared with {memory:.0f}"
            )


def _measure(item: Item, output: str, rounds: int) -> tuple[float, float]:
    """CPU seconds per scan, and the peak memory of the process in MiB."""
    cv2.setNumThreads(1)
    codec, seconds = Codec(Settings(output=output, run="benchmark", side=SIDE)), []
    for _ in range(rounds):
        started = time.process_time()
        codec.open(item)
        record = codec.paint(item, CHROMA, 0.5, 0.0)
        assert record.outcome == Outcome.COLORIZED, record
        seconds.append(time.process_time() - started)
    # `ru_maxrss` is unsuitable: a process inherits it from its parent.
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
