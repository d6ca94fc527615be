"""Measure 1: CPU time per scan without the network, relative to Pillow's decode and encode.

    python -m tests.benchmarks.host_cost        takes about a minute

The CPU time of this process and the codec process is added up. It covers the guard, IPC, reading, hashes, decoding,
the network's input, edge-aware chroma, encoding, metadata, the durable write and the record. The floor is Pillow alone,
in memory: it decodes to RGB and encodes a JPEG of the same quality. The two are measured alternately, and the ratio is
the median over the rounds. The last line of the output shows the additional cost of a scan's two gallery pictures. Its
floor is Pillow making thumbnails of the master and the derivative, which it decodes at a reduced scale.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from pipeline.codec.guard import Guard
from pipeline.codec.settings import Settings
from pipeline.imaging.thumbnail import SIDE as SHOWN
from pipeline.inputs.item import Item
from pipeline.records.record import Outcome, Record
from tests.benchmarks.scans import make_scan

QUALITY = 90
SIDE = 192
PANORAMA = 5016, 627  # width, height: 3 megapixels
TILES = 11  # of the panorama
KINDS = {
    "grafted: grey JPEG": ("L", "JPEG", 1.0),
    "grafted: YCbCr JPEG": ("RGB", "JPEG", 2.0),
    "composed: PNG": ("L", "PNG", 2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=2, help="number of different pictures")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    lumas = [make_scan(seed) for seed in range(arguments.scans)]
    with tempfile.TemporaryDirectory() as folder:
        for kind, (mode, format, bound) in KINDS.items():
            items = _write(lumas, Path(folder) / mode / format, mode, format)
            ratio, host, floor = _measure(items, folder, arguments.rounds)
            print(
                f"{kind:20} {ratio:5.2f} times Pillow's decode and encode (limit {bound}): "
                f"{1000 * host:.1f} ms and {1000 * floor:.1f} ms of CPU per scan"
            )
        panoramas = [make_scan(seed, *PANORAMA) for seed in range(arguments.scans)]
        items = _write(lumas, Path(folder) / "L" / "JPEG", "L", "JPEG")
        wide = _write(panoramas, Path(folder) / "8:1", "L", "JPEG")
        ratio, host, floor = _measure(wide, folder, arguments.rounds, items)
        print(
            f"{'panorama of 8:1':20} {ratio:5.2f} times a scan of 4:3 with as many pixels (limit 1.5): "
            f"{1000 * host:.1f} ms and {1000 * floor:.1f} ms of CPU per scan"
        )
        more, floor = _gallery(items, folder, arguments.rounds)
        print(
            f"{'gallery: grey JPEG':20} {more / floor:5.2f} times Pillow's thumbnails of both files: "
            f"{1000 * more:.1f} ms (limit 5) and {1000 * floor:.1f} ms of CPU per scan"
        )


def _write(lumas: list[np.ndarray], folder: Path, mode: str, format: str) -> list[Item]:
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, luma in enumerate(lumas):
        path = folder / f"{number}.{format.lower()}"
        Image.fromarray(luma).convert(mode).save(
            path, format, **({"quality": QUALITY} if format == "JPEG" else {})
        )
        items.append(Item(f"{format}/{mode}/{number}", str(path)))
    return items


def _guard(folder: str) -> Guard:
    return Guard(Settings(output=f"{folder}/out", run="benchmark", model="none", side=SIDE, quality=QUALITY))


def _chroma() -> np.ndarray:
    """Chroma float16 [TILES, SIDE, SIDE, 2] in place of the network's."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    chroma = np.float16(np.stack([30 * np.sin(5 * x + 3 * y), 40 * np.cos(4 * y - 2 * x)], -1))
    return np.stack([chroma] * TILES)


CHROMA = _chroma()


def _colorize(guard: Guard, items: list[Item], show: bool = False) -> list[Record]:
    records = []
    for item in items:
        view = guard.open(item)
        records.append(guard.paint(item, CHROMA[: len(view.tiles)], 0.5, 0.0, view.pixels, show))
        assert records[-1].outcome == Outcome.COLORIZED, records[-1]
        records[-1].to_json()
    return records


def _gallery(items: list[Item], folder: str, rounds: int) -> tuple[float, float]:
    """CPU seconds per scan for its gallery pictures, and for Pillow's thumbnails of its files."""
    guard = _guard(folder)

    def thumbnails() -> None:
        for file in files:
            image = Image.open(file)
            image.draft(None, (SHOWN, SHOWN))
            image.thumbnail((SHOWN, SHOWN))
            image.save(io.BytesIO(), "JPEG", quality=85)

    try:
        records = _colorize(guard, items, show=True)
        files = [file for record in records for file in (record.source, record.derivative)]
        (codec,) = psutil.Process().children()
        spent = [
            [
                *(_cpu(lambda show=show: _colorize(guard, items, show), codec.pid) for show in (False, True)),
                _cpu(thumbnails, codec.pid),
            ]
            for _ in range(rounds)
        ]
    finally:
        guard.close()
    without, shown, floor = (statistics.median(side) / len(items) for side in zip(*spent, strict=True))
    return shown - without, floor


def _measure(
    items: list[Item], folder: str, rounds: int, others: list[Item] | None = None
) -> tuple[float, float, float]:
    """The ratio, and the CPU seconds per scan of the host code and of the floor: Pillow, or our work on `others`."""
    guard = _guard(folder)
    masters = [Path(item.source).read_bytes() for item in items]

    def ours() -> None:
        _colorize(guard, items)

    def floor() -> None:
        if others is not None:
            _colorize(guard, others)
            return
        for master in masters:
            Image.open(io.BytesIO(master)).convert("RGB").save(io.BytesIO(), "JPEG", quality=QUALITY)

    try:
        ours(), floor()  # warm-up
        (codec,) = psutil.Process().children()
        spent = [(_cpu(ours, codec.pid), _cpu(floor, codec.pid)) for _ in range(rounds)]
    finally:
        guard.close()
    ratio = statistics.median(host / base for host, base in spent)
    return ratio, *(statistics.median(side) / len(items) for side in zip(*spent, strict=True))


def _cpu(work: Callable[[], None], codec: int) -> float:
    """CPU seconds that this process and the codec process spend on `work`."""
    clocks = (time.CLOCK_PROCESS_CPUTIME_ID, ~codec << 3 | 2)  # clock_getcpuclockid(3)
    before = sum(map(time.clock_gettime, clocks))
    work()
    return sum(map(time.clock_gettime, clocks)) - before


if __name__ == "__main__":
    main()
