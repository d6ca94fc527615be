"""Cost of a run that finds all derivatives current: CPU, memory and temporary files per record of the manifest.

    python -m tests.benchmarks.resume_cost           takes about three minutes

Scans and derivatives are links to empty files, because neither is opened. The records are as long as real ones. To
exclude the start-up cost, the command runs on a few records and on many records, and the difference in cost is divided
by the difference in records. Up to about half a million records, memory grows with the caches of two databases (32 MB
each). `--few 1000000 --many 10000000` shows the growth after that, and takes an hour and 30 GB of disk.

On a cluster, a join brings scans, records and derivatives together. The benchmark prints its bytes for each scan.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from model import default_model
from model.card import read_card
from pipeline.batch import joining
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records import manifest
from pipeline.records.record import Outcome, Record
from tests.benchmarks.job_cost import ROOT, _children, _quiet
from tests.benchmarks.memory import _memory

SHARD, BOX = 500, 1000  # records, files
LINKS = 50_000  # names of a file; ext4 allows 65 000
SAMPLE_SECONDS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = Collection(Path(folder) / "few", arguments.few)
        many = Collection(Path(folder) / "many", arguments.many)
        for name, command in (("resume", Collection.resume), ("status", Collection.status)):
            small, large = command(few), command(many)
            cpu, memory, scratch = (
                (b - a) / (arguments.many - arguments.few) for a, b in zip(small, large, strict=True)
            )
            print(
                f"{name:8} {1e6 * cpu:6.0f} us of CPU per record, {memory:6.0f} bytes of memory, {scratch:5.0f} bytes "
                f"of temporary files; records of {many.bytes / many.count:.0f} bytes. All {many.count}: "
                f"{large[0]:.1f} s, {large[1] / 2**20:.0f} MiB, {large[2] / 2**20:.0f} MiB"
            )
        print(f"join on a cluster: {many.join_bytes} bytes for each scan")


class Collection:
    """A finished collection in its own folder."""

    def __init__(self, folder: Path, count: int):
        self.count = count
        self._archive, self._output, self._scratch = (folder / name for name in ("in", "out", "tmp"))
        self._scratch.mkdir(parents=True)
        card = read_card(default_model())
        settings = Settings("", "", strength=card.default_strength)
        known = dict(
            outcome=Outcome.COLORIZED,
            source_sha256="0" * 64,
            derivative_sha256="1" * 64,
            model=card.name,
            model_version=card.version,
            model_sha256=card.weights_sha256,
            options_sha256=settings.options_sha256,
            width=3508,
            height=2480,
            confidence=0.5,
            colorfulness=20.0,
            milliseconds=100,
            run="20260101T000000-000000",
            finished="2026-01-01T00:00:00.000+00:00",
        )
        records, link = [], Linker(self._scratch.with_name("empty"))
        for number in range(count):
            key = f"box{number // BOX:05}/scan{number:08}.jpg"
            scan, derivative = self._archive / key, self._output / f"{key}_color.jpg"
            if number % BOX == 0:
                scan.parent.mkdir(parents=True)
                derivative.parent.mkdir(parents=True)
            link(scan)
            link(derivative)
            version = str(scan.stat().st_mtime_ns)
            records.append(Record(str(scan), key, 0, version, derivative=str(derivative), **known))
            if len(records) == SHARD or number == count - 1:
                manifest.commit(str(self._output), known["run"], records)
                records = []
        self.bytes = sum(file.stat().st_size for file in (self._output / "manifest").iterdir())

        self.join_bytes = _join_bytes(Record(str(scan), key, 0, version, derivative=str(derivative), **known))

    def resume(self) -> tuple[float, int, int]:
        return self._measured("--input", self._archive, "--output", self._output, "--gallery_size=0")

    def status(self) -> tuple[float, int, int]:
        return self._measured("status", self._output)

    def _measured(self, *arguments: object) -> tuple[float, int, int]:
        """CPU seconds, peak memory and peak size of temporary files (in bytes) of a command."""
        before, memory, scratch = _children(), 0, 0
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.colorize", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            env=_quiet() | {"TMPDIR": str(self._scratch)},
        )
        while process.poll() is None:
            memory = max(memory, _memory(psutil.Process(process.pid)))
            scratch = max(scratch, _size(self._scratch))
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(f"the command failed with exit code {process.returncode}")
        return _children() - before, memory, scratch


class Linker:
    """Makes names of empty files. A file system has far fewer files than names."""

    def __init__(self, file: Path):
        self._file, self._names = file, 0

    def __call__(self, name: Path) -> None:
        if self._names % LINKS == 0:
            self._file.unlink(missing_ok=True)
            self._file.touch()
            os.utime(self._file, ns=(0, 0))
        self._names += 1
        os.link(self._file, name)


def _join_bytes(record: Record) -> int:
    """Bytes that the join of a cluster moves for a scan with a record."""
    output, _, name = record.derivative.rpartition(f"/{record.key}")
    item = Item(record.key, record.source, record.source_bytes, record.source_version)
    packed = joining.packed_item(item, output, "jpeg"), joining.packed_record(record, output, "jpeg")
    return (
        sum(map(len, sum(packed, ())))
        + len(os.fsencode(record.key + name))
        + len(str(record.derivative_bytes))
    )


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:  # deleted since it was listed
                continue
    return total


if __name__ == "__main__":
    main()
