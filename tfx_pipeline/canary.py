"""Canary scans, and a trial: the real batch job on them, in the environment of the worker, with limits."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import ExifTags, Image

from pipeline import storage
from pipeline.records import manifest
from pipeline.records.record import Outcome

_POLL = 0.1  # seconds between measurements of the memory


@dataclass(frozen=True)
class Trial:
    """Result of a trial.

    Attributes:
        findings: one line for each problem; empty if there is none.
        seconds: duration, including the start.
        memory_mb: largest sum over all processes of the job.
        scans: number of canary scans.
    """

    findings: list[str]
    seconds: float
    memory_mb: float
    scans: int


def write_scans(pictures: Sequence[np.ndarray], folder: str) -> list[str]:
    """Writes grey scans of RGB pictures [H, W, 3] uint8, one for each kind. Returns their keys.

    The kinds are those that may break a worker: odd sizes, 1, 8 and 16 bits, palette, alpha, CMYK, rotated, large.
    """
    keys = []
    for index, (kind, save) in enumerate(_KINDS.items()):
        grey = Image.fromarray(pictures[index % len(pictures)]).convert("L")
        name, data = save(grey)
        keys.append(f"{kind}/{name}")
        storage.write(os.path.join(folder, *keys[-1].split("/")), data)
    return keys


def try_job(
    model: str, pictures: Sequence[np.ndarray], python: str, most_seconds: float, most_memory_mb: float
):
    """Runs the batch job with an exported model on canary scans of some pictures.

    Args:
        model: folder on this machine.
        pictures: RGB [H, W, 3] uint8, at least one.
        python: interpreter of the worker's environment; empty for this one.
        most_seconds, most_memory_mb: limits; the job is ended if it exceeds one.

    Returns:
        A Trial.
    """
    with tempfile.TemporaryDirectory(prefix="canary-") as scratch:
        scans, output = os.path.join(scratch, "scans"), os.path.join(scratch, "output")
        keys = write_scans(pictures, scans)
        command = [python or sys.executable, "-m", "pipeline.colorize", "--input", scans, "--output", output]
        # A candidate is not blessed yet; the trial is a condition for that.
        command += ["--model", model, "--allow_unblessed", "--gallery_size=0", "--direct_num_workers=1"]
        log = Path(scratch, "log")
        started = time.monotonic()
        code, memory, finding = _watch(command, log, most_seconds, most_memory_mb)
        findings = [finding] if finding else list(_findings(code, log, output, keys))
        return Trial(findings, round(time.monotonic() - started, 1), round(memory, 1), len(keys))


def _watch(command: list[str], log: Path, most_seconds: float, most_memory_mb: float):
    """Runs a command. Returns exit code, largest memory in MB, and why the process was ended, if it was."""
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"},
        )
        started, largest, finding = time.monotonic(), 0.0, ""
        while process.poll() is None:
            largest = max(largest, _memory_mb(process.pid))
            if largest > most_memory_mb:
                finding = f"the job used {largest:.0f} MB of memory; at most {most_memory_mb:.0f} are allowed"
            elif time.monotonic() - started > most_seconds:
                finding = f"the job took more than {most_seconds:.0f} s"
            if finding:
                _end(process)
                break
            time.sleep(_POLL)
    return process.wait(), largest, finding


def _memory_mb(pid: int) -> float:
    """Memory of a process and its descendants. Shared memory is counted once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended
    return total / 2**20


def _end(process: subprocess.Popen) -> None:
    """Kills a process and all its descendants, including those in other process groups."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    os.killpg(process.pid, signal.SIGKILL)
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def _findings(code: int, log: Path, output: str, keys: list[str]) -> Iterator[str]:
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        yield f"the job ended with exit code {code}: {lines[-1] if lines else 'it printed nothing'}"
        return
    found = {record.key: record for record in manifest.latest(output)}
    for key in keys:
        record = found.get(key)
        if record is None:
            yield f"{key} has no record"
        elif record.outcome != Outcome.COLORIZED:
            yield f"{key}: {record.outcome}, {record.reason}: {record.detail}"
        else:
            yield from _check(key, record)


def _check(key: str, record) -> Iterator[str]:
    with Image.open(io.BytesIO(storage.read(record.derivative))) as image:
        image.load()
        size = image.size
    if sorted(size) != sorted((record.width, record.height)):
        yield f"{key}: the derivative has {size[0]} x {size[1]} pixels, the scan {record.width} x {record.height}"
    if record.confidence is None or not 0 <= record.confidence <= 1:
        yield f"{key}: the confidence {record.confidence} is not between 0 and 1"


def _bytes(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _deep(grey: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


_KINDS = {
    "grey": lambda grey: ("scan.jpg", _bytes(grey, "JPEG", quality=90)),
    "progressive": lambda grey: ("scan.jpg", _bytes(grey, "JPEG", quality=90, progressive=True)),
    "turned": lambda grey: ("scan.jpg", _bytes(grey, "JPEG", quality=90, exif=_turned())),
    "rgb": lambda grey: ("scan.jpg", _bytes(grey.convert("RGB"), "JPEG", quality=90)),
    "cmyk": lambda grey: ("scan.jpg", _bytes(grey.convert("RGB").convert("CMYK"), "JPEG", quality=90)),
    "deep": lambda grey: ("scan.tif", _bytes(_deep(grey), "TIFF")),
    "bilevel": lambda grey: ("scan.tif", _bytes(grey.convert("1"), "TIFF", compression="group4")),
    "palette": lambda grey: ("scan.png", _bytes(grey.convert("P"), "PNG")),
    "alpha": lambda grey: ("scan.png", _bytes(grey.convert("LA"), "PNG")),
    "narrow": lambda grey: ("scan.png", _bytes(grey.resize((17, 401)), "PNG")),
    "wide": lambda grey: ("scan.jpg", _bytes(grey.resize((1203, 31)), "JPEG", quality=90)),
    "odd": lambda grey: ("scan.jpg", _bytes(grey.resize((333, 257)), "JPEG", quality=90)),
    "small": lambda grey: ("scan.png", _bytes(grey.resize((16, 16)), "PNG")),
    "large": lambda grey: ("scan.jpg", _bytes(grey.resize((3001, 2003)), "JPEG", quality=85)),
}
