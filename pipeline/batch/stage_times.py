"""How long the stages of a scan take: measured with a sample on this machine, or taken from an earlier run."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pipeline import storage
from pipeline.console import say
from pipeline.errors import JobError, words
from pipeline.inputs import collection
from pipeline.inputs.item import Item
from pipeline.records.record import Record
from pipeline.records.summary import FILE
from pipeline.storage import scratch

LISTED = 10_000  # scans that are listed for a sample if --count gives their number
NETWORK = "network"


@dataclass(frozen=True)
class Measured:
    """Mean times of a scan on one core of a machine."""

    stages: dict[str, float]  # seconds by name of the stage; `NETWORK` is one of them
    start: float  # seconds until the first scan
    megapixels: float
    derivative_bytes: float
    words: str  # where the times come from


def from_summary(file: str) -> Measured:
    """The times of an earlier run, from its `summary.json`. Raises JobError if it has none."""
    try:
        summary = json.loads(storage.read(storage.normalize(file)))
        return _measured(summary, f"the run {summary['run']}")
    except OSError as error:
        raise JobError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise JobError(f"{file} is not the {FILE} of a run that colourised scans on this machine") from error


def _measured(summary: dict, words: str) -> Measured:
    stages, figures = summary["stages"], summary["figures"]
    scans = stages["open"]["scans"]
    seconds = {name: stage["scans"] * stage["milliseconds"] / 1000 / scans for name, stage in stages.items()}
    done = figures["derivative_bytes"]["count"]
    start = summary["seconds"] - sum(seconds.values()) * scans / summary["processes"]
    return Measured(
        {"read and decode": seconds["open"], NETWORK: seconds["infer"], "encode and write": seconds["paint"]},
        max(0.0, start),
        summary["pixels"] / done / 1e6,
        figures["derivative_bytes"]["mean"],
        words,
    )


def scaled(measured: Measured, megapixels: float) -> Measured:
    """The times for scans of another size. All but those of the network grow with the pixels."""
    factor = megapixels / measured.megapixels
    stages = {name: seconds * (factor if name != NETWORK else 1) for name, seconds in measured.stages.items()}
    return Measured(stages, measured.start, megapixels, factor * measured.derivative_bytes, measured.words)


def measure(sample: Sequence[Item], output: str | None, job_options: Sequence[str]) -> Measured:
    """Colourises a sample on all cores of this machine, and measures the stages.

    Args:
      sample: scans. They are copied to temporary files, from which they are colourised.
      output: folder or URI where the speed of writing is measured, in files that are deleted again; None for the
        folder of temporary files.
      job_options: other options of the job.

    Raises:
      JobError: the sample cannot be read, colourised or written.
    """
    cores = len(os.sched_getaffinity(0))
    say(f"colourising a sample of {len(sample)} scans", error=True)
    with scratch.folder() as folder:
        records, reading = [], 0.0
        for number, item in enumerate(sample):
            started = time.perf_counter()
            try:
                data = storage.read(item.source)
            except OSError:
                continue  # the job would make a record of it
            reading += time.perf_counter() - started
            copy = Path(folder, f"scan{number}")
            try:
                copy.write_bytes(data)
            except OSError as error:
                raise JobError(scratch.no_room(error)) from error
            records.append(Record(str(copy), item.key).to_json() + "\n")
        if not records:
            raise JobError("no scan of the sample can be read")
        manifest = Path(folder, "sample.jsonl")
        manifest.write_text("".join(records))
        derivatives = Path(folder, "derivatives")
        _run("--input", manifest, "--output", derivatives, f"--direct_num_workers={cores}", *job_options)
        summary = json.loads((derivatives / FILE).read_bytes())
        if not summary["outcomes"]["colorized"]:
            reasons = ", ".join(f"{number} {reason}" for reason, number in summary["reasons"].items())
            raise JobError(f"no scan of the sample was colourised: {reasons}")
        measured = _measured(summary, f"{len(records)} scans, on the {cores} cores of this machine")
        files = [path for path in derivatives.rglob("*") if "_color" in path.name]
        here = _write_seconds(files, folder) / len(records)
        there = _write_seconds(files, output) / len(records) if output else here
    stages = measured.stages
    times = {
        "read": reading / len(records),
        "decode": stages["read and decode"],
        NETWORK: stages[NETWORK],
        "encode": max(0.0, stages["encode and write"] - here),
        "write": there,
    }
    return Measured(times, measured.start, measured.megapixels, measured.derivative_bytes, measured.words)


def _run(*arguments: object) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.colorize", *map(str, arguments), "--gallery_size=0"],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if run.returncode:
        raise JobError("the sample was not colourised; see above")


def _write_seconds(files: Iterable[Path], folder: str) -> float:
    """Seconds for writing copies of files. The copies are deleted."""
    seconds = 0.0
    for number, file in enumerate(files):
        data, copy = file.read_bytes(), storage.join(folder, f".archive-colorize-plan-{os.getpid()}-{number}")
        started = time.perf_counter()
        try:
            storage.write(copy, data)
            seconds += time.perf_counter() - started
            storage.delete(copy)
        except OSError as error:
            raise JobError(f"cannot write to {folder}: {words(error)}") from error
    return seconds


def sampled(source: str, size: int, count: int | None) -> tuple[list[Item], int]:
    """A random sample of a collection, and the number of its scans, which is `count` if given."""
    chosen: list[Item] = []
    chance, seen = random.Random(0), 0
    items = (item for item in collection.expand(source) if not item.reason)
    for seen, item in enumerate(itertools.islice(items, LISTED if count else None), 1):
        place = len(chosen) if len(chosen) < size else chance.randrange(seen)
        chosen[place : place + 1] = [item] if place < size else chosen[place : place + 1]
    if not chosen:
        raise JobError(f"nothing to do: no scans in {source}")
    return chosen, count or seen


def synthetic(folder: str, megapixels: float, size: int) -> list[Item]:
    """Grey JPEGs of 3:2 with structure and grain, made in a local folder."""
    from PIL import Image, ImageChops

    height = max(16, round(math.sqrt(megapixels * 1e6 / 1.5)))
    shape = round(1.5 * height), height
    coarse = Image.effect_noise((shape[0] // 16 + 1, shape[1] // 16 + 1), 90).resize(
        shape, Image.Resampling.BICUBIC
    )
    picture, data = ImageChops.add(coarse, Image.effect_noise(shape, 12), scale=1, offset=-128), BytesIO()
    picture.save(data, "JPEG", quality=90)
    file = Path(folder, "synthetic.jpg")
    try:
        file.write_bytes(data.getvalue())
    except OSError as error:
        raise JobError(scratch.no_room(error)) from error
    return [Item(f"scan{number}.jpg", str(file)) for number in range(size)]
