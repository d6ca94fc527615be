"""Forecast of a run: pictures per second, workers for a deadline, cost and bottleneck.

The times of the stages come from `pipeline.batch.stage_times`. With C cores, and the seconds of CPU and of the network
for a scan:

    pictures per second of a worker = C / (read + decode + network + encode + write)
    with a GPU                      = min(C / (read + decode + encode + write), 1 / network)
    seconds of a run                = start + scans / (workers * pictures per second)

Beam's own share is part of the times, because they are measured around its calls.
"""

import argparse
import dataclasses
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from pipeline import storage
from pipeline.batch.stage_times import NETWORK, Measured, from_summary, measure, sampled, scaled, synthetic
from pipeline.console import say
from pipeline.errors import JobError
from pipeline.inputs import collection
from pipeline.storage import scratch

PRICES = "prices.toml"


@dataclass(frozen=True)
class Worker:
    """A machine that colourises scans."""

    words: str
    cores: int
    has_gpu: bool = False
    hourly: float | None = None  # price; None if unknown


@dataclass(frozen=True)
class Forecast:
    """What a run would take."""

    rate: float  # pictures per second of a worker
    workers: int
    seconds: float
    cost: float | None
    bottleneck: str  # the stage that takes most of the time
    share: float  # of the bottleneck in the time of a scan, 0...1; 1 for a GPU that is always busy


def forecast(
    measured: Measured, count: int, worker: Worker, *, workers: int = 1, deadline: float | None = None
) -> Forecast:
    """Forecasts a run.

    Args:
      measured: times of a scan.
      count: number of scans.
      worker: kind of worker.
      workers: their number, without a deadline.
      deadline: seconds; sets the number of workers.

    Raises:
      JobError: the deadline is shorter than the start.
    """
    on_cores = {name: seconds for name, seconds in measured.stages.items() if name != NETWORK}
    network = measured.stages[NETWORK]
    if not worker.has_gpu:
        on_cores[NETWORK] = network
    busy = sum(on_cores.values()) / worker.cores  # seconds for each scan
    rate = 1 / max(busy, network if worker.has_gpu else 0.0, 1e-9)
    bottleneck = max(on_cores, key=lambda name: on_cores[name])
    share = on_cores[bottleneck] / max(sum(on_cores.values()), 1e-9)
    if worker.has_gpu and network > busy:
        bottleneck, share = NETWORK, 1.0
    if deadline is not None:
        if deadline <= measured.start:
            raise JobError(
                f"--deadline is shorter than the start of the job, which takes {duration(measured.start)}"
            )
        workers = max(1, math.ceil(count / (rate * (deadline - measured.start))))
    seconds = measured.start + count / (workers * rate)
    cost = None if worker.hourly is None else worker.hourly * workers * seconds / 3600
    return Forecast(rate, workers, seconds, cost, bottleneck, share)


def read_worker(kind: str, file: str | None) -> tuple[Worker, str]:
    """A worker of a cloud, by its `--gpu`, and words about the prices. Raises JobError if the file is wrong."""
    name = file or PRICES
    try:
        text = (
            storage.read(storage.normalize(file))
            if file
            else resources.files(__package__).joinpath(PRICES).read_bytes()
        )
        table = tomllib.loads(text.decode())
        entry, hour = table["worker"][kind], table["hour"]
        cores, gigabytes, gpu_hour = entry["vcpus"], entry["gigabytes"], entry.get("gpu_hour")
        hourly = None
        if gpu_hour is not None:
            hourly = float(cores * hour["vcpu"] + gigabytes * hour["gigabyte"] + gpu_hour)
        gpu = "" if kind == "none" else f" with a GPU of the kind {kind}"
        words = f"{entry['machine_type']}{gpu}, {cores} cores"
        return Worker(
            words, int(cores), kind != "none", hourly
        ), f"{table['currency']}, prices of {table['date']}"
    except OSError as error:
        raise JobError(f"cannot read {name}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{name} is not a table of prices with a worker {kind!r}: {error}") from error


def duration(seconds: float) -> str:
    """A duration for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def parser() -> argparse.ArgumentParser:
    """The options of `archive-colorize plan`."""
    made = argparse.ArgumentParser(
        prog="archive-colorize plan",
        description="Forecasts time, workers, cost and bottleneck of a job, from a sample that it colourises on this "
        "machine. Other options, such as --model and --format, are those of the job.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--input", metavar="SRC", help="the collection, as for the job; a sample of it is measured"
    )
    made.add_argument("--count", type=int, metavar="N", help="number of scans, if they need not be counted")
    made.add_argument(
        "--megapixels",
        type=float,
        metavar="M",
        help="size of a scan; without --input, synthetic scans are measured",
    )
    made.add_argument(
        "--measured",
        metavar="FILE",
        help="summary.json of an earlier run on this machine, instead of a sample",
    )
    made.add_argument("--sample", type=int, default=64, metavar="N", help="scans in the sample (default: 64)")
    made.add_argument(
        "--output", metavar="DST", help="where the speed of writing is measured (default: temporary files)"
    )
    made.add_argument(
        "--gpu",
        choices=("none", "t4", "l4", "a100", "h100"),
        help="forecast for Dataflow workers with this GPU (default: for this machine)",
    )
    made.add_argument(
        "--network_ms",
        type=float,
        metavar="MS",
        help="milliseconds of the network for a scan on the --gpu, if it was measured elsewhere",
    )
    made.add_argument("--workers", type=int, default=1, metavar="N", help="number of workers (default: 1)")
    made.add_argument(
        "--deadline",
        type=float,
        metavar="H",
        help="hours in which the job must end; sets the number of workers",
    )
    made.add_argument(
        "--prices", metavar="FILE", help="table of prices (default: the shipped one, prices.toml)"
    )
    return made


def main(argv: list[str]) -> int:
    """`archive-colorize plan`: prints the forecast."""
    chosen, job_options = parser().parse_known_args(argv)
    _check(chosen)
    worker, prices = Worker("this machine", len(os.sched_getaffinity(0))), ""
    if chosen.gpu:
        worker, prices = read_worker(chosen.gpu, chosen.prices)
    measured, count = _measure(chosen, job_options)
    unknown = worker.has_gpu and chosen.network_ms is None and not _sees_gpu()
    if worker.has_gpu and chosen.network_ms is not None:
        stages = measured.stages | {NETWORK: chosen.network_ms / 1000}
        measured = dataclasses.replace(measured, stages=stages)
    elif unknown:
        measured = dataclasses.replace(measured, stages=measured.stages | {NETWORK: 0.0})
    deadline = None if chosen.deadline is None else 3600 * chosen.deadline
    expected = forecast(measured, count, worker, workers=chosen.workers, deadline=deadline)
    say(f"measured: {measured.words}; {measured.megapixels:.1f} megapixels a scan\n")
    for name, seconds in measured.stages.items():
        time_of = "unknown" if unknown and name == NETWORK else f"{1000 * seconds:.1f} ms"
        say(f"  {name:<18}{time_of:>10}")
    share = (
        ""
        if expected.bottleneck == NETWORK and worker.has_gpu
        else f", {expected.share:.0%} of the work of the cores"
    )
    rows = [
        ("worker", worker.words),
        ("rate", f"{expected.rate:.3g} pictures a second and worker"),
        ("bottleneck", expected.bottleneck + share),
        ("workers", f"{expected.workers:,}"),
        (
            f"{count:,} scans",
            f"{duration(expected.seconds)}; the start takes {duration(measured.start)} of it",
        ),
        ("derivatives", f"{count * measured.derivative_bytes / 1e9:,.1f} GB"),
    ]
    if chosen.gpu:
        rows.append(("cost", "unknown" if expected.cost is None else f"{expected.cost:,.2f} {prices}"))
    say("")
    for name, value in rows:
        say(f"{name:<16}{value}")
    if chosen.gpu:
        say(
            "\nThe cores of the worker are taken to be as fast as those of this machine. The start of machines in the"
        )
        say("cloud (minutes), storage and network traffic are not included.")
    if unknown:
        say(
            "The time of the network on this GPU is unknown and not included: give --network_ms, or measure there."
        )
    return 0


def _measure(chosen: argparse.Namespace, job_options: Sequence[str]) -> tuple[Measured, int]:
    """The times of a scan, and the number of scans."""
    if chosen.measured:
        measured = from_summary(chosen.measured)
        return (scaled(measured, chosen.megapixels) if chosen.megapixels else measured), chosen.count
    if _sees_gpu() and chosen.gpu not in (None, "none"):
        job_options = [*job_options, f"--gpu={chosen.gpu}"]
    if chosen.output:
        collection.check_reachable(chosen.output)
    with scratch.folder() as folder:
        if chosen.input:
            chosen.input = collection.resolved(chosen.input)
            collection.check_input(chosen.input)
            sample, count = sampled(chosen.input, chosen.sample, chosen.count)
        else:
            sample, count = synthetic(folder, chosen.megapixels, chosen.sample), chosen.count
        output = storage.normalize(chosen.output) if chosen.output else None
        return measure(sample, output, job_options), count


def _check(chosen: argparse.Namespace) -> None:
    for name in ("count", "megapixels", "sample", "network_ms", "workers", "deadline"):
        value = getattr(chosen, name)
        if value is not None and not 0 < value < math.inf:
            raise JobError(f"--{name} must be more than 0")
    if not chosen.input and not chosen.count:
        raise JobError(
            "give --input, or --count with --megapixels or --measured (see archive-colorize plan --help)"
        )
    if chosen.input and (chosen.measured or chosen.megapixels):
        raise JobError("--input contradicts --measured and --megapixels: the scans of the input are measured")
    if not chosen.input and not chosen.measured and not chosen.megapixels:
        raise JobError("--count needs --megapixels or --measured")
    if chosen.network_ms and chosen.gpu in (None, "none"):
        raise JobError("--network_ms needs --gpu with the kind of GPU")
    if chosen.prices and not chosen.gpu:
        raise JobError("--prices needs --gpu, with a kind of GPU or none")


def _sees_gpu() -> bool:
    return os.path.isdir("/proc/driver/nvidia/gpus")
