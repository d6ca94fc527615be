"""Cost of a signature (C2PA): CPU time, size and memory for one scan of 3 megapixels, with a signature and without.

    python -m tests.benchmarks.signing_cost        takes half a minute

A grey JPEG and a grey TIFF are colourised in processes of their own. The time is the median over the rounds.
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
from PIL import Image

from pipeline.codec.codec import Codec
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records.record import Outcome
from tests.benchmarks.scans import grey_jpeg, make_scan
from tests.pipeline.certificates import certify

SIDE = 160
CHROMA = np.full((1, SIDE, SIDE, 2), 12, np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        luma = make_scan(0)
        (folder / "a.jpg").write_bytes(grey_jpeg(luma))
        Image.fromarray(luma).save(folder / "a.tif")
        files = certify(folder / "keys")
        signed = {"c2pa_key": str(files.key), "c2pa_certificate": str(files.certificate)}
        for file, format in (("a.jpg", "jpeg"), ("a.tif", "tiff")):
            found = {}
            for kind in ("", "embedded", "sidecar"):
                options = {"format": format, **(signed | {"c2pa": kind} if kind else {})}
                with multiprocessing.get_context("spawn").Pool(1) as own:
                    found[kind] = own.apply(_measure, (str(folder / file), options, rounds))
                seconds, size, memory = (a - b for a, b in zip(found[kind], found[""], strict=True))
                if kind:
                    print(
                        f"{format:4} {kind:8} {1000 * seconds:+6.1f} ms of CPU (without: {1000 * found[''][0]:.1f}), "
                        f"{size:+6} bytes of the derivative, {memory:+5.0f} MiB"
                    )


def _measure(file: str, options: dict, rounds: int) -> tuple[float, int, float]:
    """CPU seconds for one scan, bytes of its derivative, and the peak memory of the process in MiB."""
    cv2.setNumThreads(1)
    output = f"{Path(file).parent}/out"
    codec, seconds = (
        Codec(Settings(output=output, run="benchmark", side=SIDE, date="2026-12-02", **options)),
        [],
    )
    item = Item(Path(file).name, file)
    for _ in range(rounds):
        started = time.process_time()
        codec.open(item)
        record = codec.paint(item, CHROMA, 0.5, 0.0)
        assert record.outcome == Outcome.COLORIZED, record
        seconds.append(time.process_time() - started)
    # `ru_maxrss` is unsuitable: a process inherits it from its parent.
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    return statistics.median(seconds), record.derivative_bytes, peak / 1024


if __name__ == "__main__":
    main()
