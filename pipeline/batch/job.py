"""Runs the batch job: checks everything, runs the graph, and prints the result."""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from model import MODELS, folder_of
from model.card import CARD, CardError, ModelCard, read_card
from pipeline import clock, storage
from pipeline.batch import (
    bagging,
    gpus,
    graph,
    joining,
    labels,
    lease,
    metrics,
    registry,
    runners,
    stopping,
    worklist,
)
from pipeline.batch.inference import SHIPPED, ModelError, load, local_copy
from pipeline.batch.plan import Action
from pipeline.batch.progress import Progress
from pipeline.batch.runners import Engine
from pipeline.batch.stopping import IGNORE_SIGNALS, Stop, Stopped, finishing_on_signals
from pipeline.batch.worklist import Worklist
from pipeline.codec.settings import Settings
from pipeline.console import complain, one_line, say
from pipeline.errors import JobError
from pipeline.inputs import bags, collection, hint_files
from pipeline.inputs.item import SAME
from pipeline.metadata.provenance import TOOL, tool_version
from pipeline.records import drift, manifest, premis
from pipeline.records.summary import FILE, RANGED, describe, describe_unused
from pipeline.storage import scratch

FAILURE = 1
BATCH_SIZE = 8  # without a GPU
SCANS_PER_WORKER = 32  # fewer are not worth the start of another process


def run(chosen: argparse.Namespace, beam_argv: list[str]) -> int:
    """Runs the job.

    Args:
      chosen: options of the job, from `options.parser`.
      beam_argv: the rest of the command line, which are options of Beam and its runners.

    Returns:
      The exit code.

    Raises:
      JobError: nothing was done; the message says what to do.
    """
    started = clock.now()
    engine = runners.engine(beam_argv, chosen.workers_share_files, chosen.gpu)
    gpu = gpus.GPUS.get(chosen.gpu)
    batch_size = chosen.batch_size or (gpu.batch_size if gpu else BATCH_SIZE)
    signs = labels.signs(chosen)
    model = chosen.model or MODELS[0]
    elsewhere = None if model in MODELS else model
    for place in filter(None, (chosen.output, chosen.hints, elsewhere, *signs.values())):
        collection.check_reachable(place)
    output = storage.normalize(chosen.output)
    chosen.input = collection.resolved(chosen.input)
    collection.check_input(chosen.input)
    collection.check_output(chosen.input, output)
    hints_folder = storage.normalize(chosen.hints) if chosen.hints else None
    if hints_folder:
        hint_files.check(hints_folder, chosen.input, output)
    places = (
        ("--input", chosen.input),
        ("--output", output),
        ("--hints", hints_folder),
        ("--model", elsewhere),
        *((f"--{name}", place) for name, place in signs.items()),
    )
    runners.check_places(engine, places)
    place = output
    bagging.check(place, chosen.bag, chosen.premis, engine.waits)
    output = storage.join(place, bags.DATA) if chosen.bag else place
    folder, card, why = _card(model, chosen.allow_unblessed)
    if chosen.calm and card.default_calm is None:
        raise JobError(f"the model {card.name} {card.version} has no certainty for --calm; leave it out")
    if chosen.compression and chosen.format not in ("tiff", "ptif", SAME):
        raise JobError(f"--compression is for TIFFs, not for --format {chosen.format}; leave it out")
    run = clock.label(started) + "-" + secrets.token_hex(3)
    stop = Stop(stopping.file(output, run))
    with scratch.folder() as made:
        settings = Settings(
            output=output,
            run=run,
            model=card.name,
            model_version=card.version,
            model_sha256=card.weights_sha256,
            model_uri=folder if elsewhere or engine.local else f"{SHIPPED}{model}",
            side=card.size,
            format=chosen.format,
            quality=chosen.quality,
            compression=chosen.compression or "",
            min_confidence=chosen.min_confidence,
            strength=card.default_strength if chosen.strength is None else chosen.strength,
            calm=(card.default_calm or 0.0) if chosen.calm is None else chosen.calm,
            color_scans=chosen.color_scans,
            layout=chosen.layout,
            negatives=chosen.negatives,
            max_pixels=chosen.max_pixels,
            codec_timeout=chosen.codec_timeout,
            stop_file=stop.file,
            gpu=gpu is not None,
            gpu_memory=chosen.gpu_memory or 0,
            bag=chosen.bag,
            **labels.settings(chosen, card, started),
            local=engine.local,
        )
        if chosen.dry_run:
            return _dry_run(chosen, settings, hints_folder)
        if next(collection.expand(chosen.input), None) is None:
            raise JobError(f"nothing to do: no scans in {chosen.input}")
        with lease.held(output, run, stop.request) as hold, _without_stop_files(output, stop):
            before = manifest.runs(output)
            planning = dict(
                hints_folder=hints_folder,
                on_existing=chosen.on_existing,
                since=hold.since,
                group_by=chosen.group_by or "",
            )
            work, here = None, _Local()
            if engine.local:
                work = worklist.write(
                    made, chosen.input, settings, gallery_size=chosen.gallery_size, **planning
                )
                here = _local_runner(engine.options, beam_argv, work.todo)
            threads = (0 if gpu else here.threads) if chosen.threads is None else chosen.threads
            if gpu and here.workers > 1 and not chosen.gpu_memory:
                settings = dataclasses.replace(settings, gpu_memory=gpus.part_of_memory(here.workers))
            if work is None or work.todo:
                _try_model(folder, card, batch_size, here.workers, threads, settings.gpu)
            build = dict(
                batch_size=batch_size,
                max_batch_pixels=max(1, chosen.max_batch_pixels // engine.bundles),
                threads=threads,
                gallery_size=chosen.gallery_size,
                started=started,
            )
            if chosen.bag:
                bagging.begin(place)
            with finishing_on_signals(stop.request) as stopped:
                error, stages, left = _execute(
                    chosen.input, settings, here.runner, engine, work, planning, build, stopped
                )
            if error:
                return _failed(error)
            cloud = engine.options.view_as(GoogleCloudOptions)
            if cloud.template_location:
                say(f"nothing was run; the job is described in {cloud.template_location}")
                return 0
            if not engine.waits:
                say(f"the job {cloud.job_name or run} was started; it goes on without this command")
                return 0
            try:
                code = _conclude(settings, work, stop, stopped, chosen, stages, left, here.workers, card, why)
                intruder = hold.lost or _intruder(settings, before)
                if chosen.premis:
                    premis.write(output, TOOL, tool_version())
                if chosen.bag and code <= FAILURE and not intruder:
                    bagging.complete(place, settings.date, settings.digests)
            except (JobError, OSError) as error:
                return _failed(f"{error}; what is finished is kept")
            if intruder:
                return _failed(f"{intruder}; run the same command again when it has ended")
            return code


@contextlib.contextmanager
def _without_stop_files(output: str, stop: Stop) -> Iterator[None]:
    """Removes the stop files of earlier runs before the block, and that of this run after it."""
    try:
        stopping.clear(output)
        yield
    finally:
        with contextlib.suppress(OSError):
            storage.delete(stop.file)


def _execute(
    source: str,
    settings: Settings,
    runner: FnApiRunner | None,
    engine: Engine,
    work: Worklist | None,
    planning: dict,
    build: dict,
    stopped: Stopped,
) -> tuple[str, dict, int]:
    """Runs the graph.

    Returns what stopped it, in words, or an empty text; the times of its stages; and the number of scans that were
    not started because of a request to stop.
    """
    progress = Progress(settings.output, settings.run, work.todo if work else None)
    if engine.local:  # errors are reported here once; Beam would log them on every layer
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        root = beam.Pipeline(runner, options=engine.options)
        if work is None:
            tasks, unused = joining.planned(root, source, settings, **planning)
            graph.colorize(tasks, settings, unused_hints=unused, **build)
        else:
            graph.colorize(
                graph.listed(root, work.file),
                settings,
                kept=work.kept,
                sample=work.sample,
                unused_hints=work.unused_hints,
                **build,
            )
        with progress:
            result = root.run()
            stopped.cancel = result.cancel
            stopped.rearm()  # a job server has taken SIGINT over
            if not engine.waits:
                return "", {}, 0
            result.wait_until_finish()
            stages, left = metrics.stages(result), metrics.not_started(result)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if words := re.findall(r"(?:JobError|ModelError): (.*?)(?: \[while running|\n|$)", said):
            return words[-1], {}, 0
        # An error of the machine:
        if words := re.findall(r"\[Errno \d+\] (.*?)(?: \[while running|\n|$)", said):
            return f"the job stopped: {words[-1]}; what is finished is kept", {}, 0
        logging.getLogger(__name__).error("the job stopped", exc_info=error)
        return (
            f"the job stopped: {type(error).__name__}: {_last_line(error)}; what is finished is kept",
            {},
            0,
        )
    return "", stages, left


def _intruder(settings: Settings, before: Counter[str]) -> str:
    """Describes another run that has committed records since this one began; empty if there is none."""
    others = manifest.runs(settings.output) - before
    del others[settings.run]
    if not others:
        return ""
    return f"another job (run {min(others)}) wrote to the output {settings.output} at the same time"


def _failed(words: str) -> int:
    complain(words)
    return FAILURE


def _card(model: str, allow_unblessed: bool) -> tuple[str, ModelCard, str]:
    """Folder of a model, which a push during the job does not change, its card, and why it was taken."""
    ships = model in MODELS
    try:
        folder = folder_of(model) if ships else registry.resolve(storage.normalize(model))
        if storage.is_cloud(folder) and not storage.is_folder(folder):
            raise JobError(f"no such model: {folder}")
        card = read_card(local_copy(folder))
        reason = registry.why_unblessed(folder, card)
        why = registry.why(None if ships else model, folder, card, reason)
    except CardError as error:
        raise JobError(f"{error} (--model needs the folder of an exported model with its {CARD})") from error
    except registry.RegistryError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"cannot read the model {model}: {error.strerror or error}") from error
    if reason and not allow_unblessed:
        raise JobError(f"the model in {folder} is not blessed: {reason} (--allow_unblessed overrides)")
    return folder, card, why


def _try_model(folder: str, card: ModelCard, batch_size: int, workers: int, threads: int, gpu: bool) -> None:
    """Tries the model out: in this process if it will do the work, otherwise in a process of its own."""
    if workers == 1:
        try:
            load(folder, card.weights_sha256, card.size, batch_size, threads, gpu)
        except ModelError as error:
            raise JobError(str(error)) from error
        return
    trial = subprocess.run(
        [sys.executable, "-m", "pipeline.batch.trial", folder, card.weights_sha256, str(card.size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="backslashreplace",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if trial.returncode:
        raise JobError(trial.stdout.strip() or f"the model in {folder} cannot be loaded")


def _dry_run(chosen: argparse.Namespace, settings: Settings, hints_folder: str | None) -> int:
    counts, hints, keys = dict.fromkeys(Action, 0), worklist.hints_by_key(hints_folder), set()
    planned = worklist.tasks(
        chosen.input, settings, hints, chosen.on_existing, group_by=chosen.group_by or ""
    )
    for task in planned:
        counts[task.action] += 1
        keys |= {one.item.key for one in (task, *task.pages)} & hints.keys()
        if not say(one_line(f"{task.action:<9} {task.item.key}  ({task.why})")):
            return 0  # nobody reads any more
    if not sum(counts.values()):
        raise JobError(f"nothing to do: no scans in {chosen.input}")
    say(", ".join(f"{n:,} to {action}" for action, n in counts.items() if n) + "; nothing was done")
    unused = sorted(hint.uri for key in hints.keys() - keys for hint in hints[key])
    if unused:
        say(describe_unused(unused))
    return 0


def _local_runner(beam_options: PipelineOptions, argv: list[str], todo: int) -> "_Local":
    """A runner with one worker on each core, unless the user chose otherwise."""
    direct = beam_options.view_as(DirectOptions)
    cores = len(os.sched_getaffinity(0))
    given = {argument.partition("=")[0] for argument in argv}
    if "--direct_num_workers" not in given:
        direct.direct_num_workers = max(1, min(cores, todo // SCANS_PER_WORKER))
    workers = direct.direct_num_workers = direct.direct_num_workers or cores
    environment = None
    if workers > 1 and "--direct_running_mode" not in given:
        command = f"{IGNORE_SIGNALS}exec {shlex.quote(sys.executable)} -m pipeline.batch.worker"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    return _Local(FnApiRunner(default_environment=environment), workers, max(1, cores // workers))


@dataclass(frozen=True)
class _Local:
    runner: FnApiRunner | None = None  # None for another runner, which is given by name
    workers: int = 0
    threads: int = 1  # of the network in each worker; 0 for one on each core


def _conclude(
    settings: Settings,
    work: Worklist | None,
    stop: Stop,
    stopped: Stopped,
    chosen: argparse.Namespace,
    stages: dict,
    left: int,
    processes: int,
    card: ModelCard,
    why: str,
) -> int:
    """Prints the result of the run. Returns the exit code. Raises JobError if the summary is of another run."""
    file = storage.join(settings.output, FILE)
    try:
        summary = json.loads(storage.read(file))
    except FileNotFoundError as error:
        words = "do they share this folder? (--workers_share_files)" if work is None else "was it deleted?"
        raise JobError(f"the workers wrote no {FILE} to {settings.output}: {words}") from error
    if summary["run"] != settings.run:
        raise JobError(f"{FILE} belongs to another run: two jobs write to {settings.output}")
    comparable = RANGED if settings.strength == card.default_strength else ("confidence",)
    drifted = drift.drift(summary["collections"], card.ranges, comparable)
    more: dict[str, object] = {"model_why": why, "drift": drifted}
    if stages:
        more |= {"stages": stages} | ({"processes": processes} if processes else {})
    storage.write(file, (json.dumps(summary | more, indent=2) + "\n").encode())
    say(describe(summary))
    done = summary["records"] - summary["kept"]
    if summary["kept"]:
        say(f"  {summary['kept']:>9,}  of these were up to date already")
    say(f"{done:,} in this run, {summary['seconds']:,} s, {summary['pictures_per_second']:g} a second\n")
    failed = summary["outcomes"]["failed"]
    rows = [("derivatives", settings.output), ("manifest", summary["manifest"])]
    rows += [("model", f"{summary['model_uri']} ({why})")]
    rows += [("gallery", summary["gallery"])] if summary["gallery"] else []
    rows += [("failed scans", summary["dead_letters"])] if failed else []
    for name, uri in rows:
        say(f"{name:<13} {uri}")
    if left_out := summary["dead_letters_left_out"]:
        say(
            f"{left_out:,} more failed scans are only in the manifest; the same command tries them again, too"
        )
    if summary["unused_hints"]:
        say(describe_unused(summary["unused_hints"]))
    if stopped.by is not None or stop.is_requested():
        by = stopped.by.name if stopped.by is not None else "archive-colorize stop"
        number = f"{left:,} scans" if work or left else "the other scans"
        say(f"\nstopped by {by}; {number} were not started; run the same command to continue")
        return 128 + (stopped.by or signal.SIGTERM)
    if not summary["records"]:
        raise JobError(f"the workers see no scans in {chosen.input}, but this machine does")
    if drifted:
        say("\n" + drift.describe(drifted))
    newer = _newer_model(chosen.model, settings.model_uri)
    if newer:
        say(f"\na newer model was pushed during the run: {newer}; the same command colours with it")
    if failed:
        say("\nthe same command tries failed scans again; their records say what was wrong")
    if failed > chosen.max_failures * summary["records"]:
        share = failed / summary["records"]
        return _failed(f"{share:.1%} of the scans failed, more than --max_failures")
    return 0


def _newer_model(model: str | None, used: str) -> str:
    """Folder of the current model if another one was current at the start; empty otherwise."""
    if model is None:
        return ""
    with contextlib.suppress(registry.RegistryError, CardError, OSError):
        current = registry.resolve(storage.normalize(model))
        return current if current != used else ""
    return ""


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
