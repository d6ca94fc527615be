"""Time, derivative size and codec memory for scans of 3, 20 and 100 megapixels.

    python -m tests.benchmarks.scan_sizes        takes about a minute

The time is the minimum of three rounds on one core and excludes the network. Memory is the peak of the codec process.
The large scans repeat the small one as a tile.
"""

import re
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from pipeline.codec.guard import Guard
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records.record import Outcome
from tests.benchmarks.scans import grey_jpeg, make_scan

SIDE = 160
SIZES = ((2048, 1536), (5472, 3648), (11584, 8640))
CHROMA = np.full((1, SIDE, SIDE, 2), 12, np.float16)


def main() -> None:
    tile = make_scan(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width, height in SIZES:
            rows, columns = -(-height // tile.shape[0]), -(-width // tile.shape[1])
            luma = np.tile(tile, (rows, columns))[:height, :width]
            (folder / "a.jpg").write_bytes(grey_jpeg(luma))
            Image.fromarray(luma).save(folder / "a.tif")
            for file, format in (("a.jpg", "jpeg"), ("a.tif", "jpeg"), ("a.tif", "tiff")):
                seconds, derivative, memory = _measure(folder / file, format, str(folder / "out"))
                print(
                    f"{width * height / 1e6:4.0f} MP  {file[2:]} to {format:4}  {seconds:6.2f} s  "
                    f"{(folder / file).stat().st_size / 1e6:5.1f} -> {derivative / 1e6:5.1f} MB  "
                    f"codec {memory:5.0f} MB"
                )


def _measure(file: Path, format: str, output: str) -> tuple[float, int, float]:
    guard = Guard(Settings(output=output, run="benchmark", side=SIDE, format=format))
    item, times = Item(file.name, str(file)), []
    try:
        for _ in range(3):
            started = time.perf_counter()
            view = guard.open(item)
            record = guard.paint(item, CHROMA, 0.5, 0.0, view.pixels)
            times.append(time.perf_counter() - started)
            assert record.outcome == Outcome.COLORIZED, record
        (codec,) = psutil.Process().children()
        status = Path(f"/proc/{codec.pid}/status").read_text()
    finally:
        guard.close()
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert peak is not None
    return min(times), record.derivative_bytes, int(peak[1]) / 1000


if __name__ == "__main__":
    main()
