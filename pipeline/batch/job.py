"""Runs the batch job: checks everything, runs the graph, and prints the result."""

import argparse
import contextlib
import difflib
import json
import logging
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from model import default_model
from model.card import CARD, CardError, ModelCard, read_card
from pipeline import storage
from pipeline.batch import graph, lease, registry, worklist
from pipeline.batch.inference import ModelError, load, local_copy, try_out
from pipeline.batch.plan import Action
from pipeline.batch.progress import Progress
from pipeline.batch.stopping import IGNORE_SIGNALS, Stopped, finishing_on_signals
from pipeline.batch.worklist import Worklist
from pipeline.codec.settings import Settings
from pipeline.console import complain, one_line, say
from pipeline.errors import JobError
from pipeline.inputs import collection, hint_files
from pipeline.records import manifest
from pipeline.records.summary import FILE, describe, describe_unused
from pipeline.storage import scratch

FAILURE = 1
LOCAL_RUNNER = "FnApiRunner"  # by default, Beam would try to download another one
LOCAL_RUNNERS = {LOCAL_RUNNER, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner"}
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
    started = time.time()
    beam_options = _beam_options(beam_argv)
    for place in filter(None, (chosen.output, chosen.hints, chosen.model)):
        collection.check_reachable(place)
    output = storage.normalize(chosen.output)
    collection.check_input(chosen.input)
    collection.check_output(chosen.input, output)
    hints_folder = storage.normalize(chosen.hints) if chosen.hints else None
    if hints_folder:
        hint_files.check(hints_folder, chosen.input, output)
    folder, card = _card(chosen.model, chosen.allow_unblessed)
    local = beam_options.view_as(StandardOptions).runner == LOCAL_RUNNER
    with scratch.folder() as made:
        settings = Settings(
            output=output,
            run=time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + "-" + secrets.token_hex(3),
            model=card.name,
            model_version=card.version,
            model_sha256=card.weights_sha256,
            model_uri=folder,
            side=card.size,
            format=chosen.format,
            quality=chosen.quality,
            min_confidence=chosen.min_confidence,
            strength=card.default_strength if chosen.strength is None else chosen.strength,
            color_scans=chosen.color_scans,
            max_pixels=chosen.max_pixels,
            codec_timeout=chosen.codec_timeout,
            stop_file=os.path.join(made, "stop") if local else "",
        )
        if chosen.dry_run:
            return _dry_run(chosen, settings, hints_folder)
        if next(collection.expand(chosen.input), None) is None:
            raise JobError(f"nothing to do: no scans in {chosen.input}")
        with lease.held(output, settings.run, settings.stop_file) as hold:
            before = manifest.runs(output)
            planning = dict(hints_folder=hints_folder, on_existing=chosen.on_existing, since=hold.since)
            work, here = None, _Local()
            if local:
                work = worklist.write(
                    made, chosen.input, settings, gallery_size=chosen.gallery_size, **planning
                )
                here = _local_runner(beam_options, beam_argv, work.todo)
            if work is None or work.todo:
                _try_model(folder, card, chosen.batch_size, here)
            build = dict(
                batch_size=chosen.batch_size,
                max_batch_pixels=chosen.max_batch_pixels,
                threads=here.threads,
                gallery_size=chosen.gallery_size,
                started=started,
            )
            with finishing_on_signals(settings.stop_file) as stopped:
                error = _execute(chosen.input, settings, here.runner, beam_options, work, planning, build)
            if error:
                return _failed(error)
            template = beam_options.view_as(GoogleCloudOptions).template_location
            if template:
                say(f"nothing was run; the job is described in {template}")
                return 0
            try:
                code = _conclude(settings, work, stopped, chosen)
                intruder = hold.lost or _intruder(settings, before)
            except (JobError, OSError) as error:
                return _failed(f"{error}; what is finished is kept")
            if intruder:
                return _failed(f"{intruder}; run the same command again when it has ended")
            return code


def _execute(
    source: str,
    settings: Settings,
    runner: FnApiRunner | None,
    beam_options: PipelineOptions,
    work: Worklist | None,
    planning: dict,
    build: dict,
) -> str:
    """Runs the graph. Returns what stopped it, in words; empty if nothing did."""
    progress: contextlib.AbstractContextManager = contextlib.nullcontext()
    if work is not None:
        progress = Progress(settings.output, settings.run, work.todo)
    if work is not None:  # errors are reported here once; Beam would log them on every layer
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        with progress, beam.Pipeline(runner, options=beam_options) as root:
            if work is None:
                tasks, unused = graph.planned(root, source, settings, **planning)
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
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if words := re.findall(r"(?:JobError|ModelError): (.*?)(?: \[while running|\n|$)", said):
            return words[-1]
        # An error of the machine:
        if words := re.findall(r"\[Errno \d+\] (.*?)(?: \[while running|\n|$)", said):
            return f"the job stopped: {words[-1]}; what is finished is kept"
        logging.getLogger(__name__).error("the job stopped", exc_info=error)
        return f"the job stopped: {type(error).__name__}: {_last_line(error)}; what is finished is kept"
    return ""


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


def _beam_options(argv: list[str]) -> PipelineOptions:
    """Options of Beam, with the local runner as the default. Unknown options are errors; Beam would ignore them."""
    known = argparse.ArgumentParser(prog="archive-colorize", add_help=False, allow_abbrev=False)
    for kind in dict.fromkeys(_subclasses(PipelineOptions)):
        with contextlib.suppress(argparse.ArgumentError):
            kind._add_argparse_args(known)
    _, unknown = known.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        names = [text for action in known._actions for text in action.option_strings]
        close = difflib.get_close_matches(name, names, 1)
        raise JobError(f"unknown option: {unknown[0]}" + (f" (did you mean {close[0]}?)" if close else ""))
    beam_options = PipelineOptions(argv)
    standard = beam_options.view_as(StandardOptions)
    if standard.runner is None or standard.runner in LOCAL_RUNNERS:
        standard.runner = LOCAL_RUNNER
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # of workers: each arena keeps what it once held
    return beam_options


def _subclasses(kind: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _card(model: str | None, allow_unblessed: bool) -> tuple[str, ModelCard]:
    """Folder of the model, which a push during the job does not change, and its card."""
    try:
        folder = registry.resolve(storage.normalize(model)) if model else default_model()
        if storage.is_gcs(folder) and not storage.is_folder(folder):
            raise JobError(f"no such model: {folder}")
        card = read_card(local_copy(folder))
        reason = registry.why_unblessed(folder, card)
    except CardError as error:
        raise JobError(f"{error} (--model needs the folder of an exported model with its {CARD})") from error
    except registry.RegistryError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"cannot read the model {model}: {error.strerror or error}") from error
    if reason and not allow_unblessed:
        raise JobError(f"the model in {folder} is not blessed: {reason} (--allow_unblessed overrides)")
    return folder, card


def _try_model(folder: str, card: ModelCard, batch_size: int, here: "_Local") -> None:
    """Tries the model out: in this process if it will do the work, otherwise in a process of its own."""
    if here.workers == 1:
        try:
            try_out(load(folder, card.size, batch_size, here.threads), card.size)
        except ModelError as error:
            raise JobError(str(error)) from error
        return
    trial = subprocess.run(
        [sys.executable, "-m", "pipeline.batch.trial", folder, str(card.size)],
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
    for task in worklist.tasks(chosen.input, settings, hints, chosen.on_existing):
        counts[task.action] += 1
        keys |= {task.item.key} & hints.keys()
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
    threads: int = 0  # of the network in each worker; 0 lets TensorFlow choose


def _conclude(settings: Settings, work: Worklist | None, stopped: Stopped, chosen: argparse.Namespace) -> int:
    """Prints the result of the run. Returns the exit code. Raises JobError if the summary is of another run."""
    summary = json.loads(storage.read(storage.join(settings.output, FILE)))
    if summary["run"] != settings.run:
        raise JobError(f"{FILE} belongs to another run: two jobs write to {settings.output}")
    say(describe(summary))
    done = summary["records"] - summary["kept"]
    if summary["kept"]:
        say(f"  {summary['kept']:>9,}  of these were up to date already")
    say(f"{done:,} in this run, {summary['seconds']:,} s, {summary['pictures_per_second']:g} a second\n")
    failed = summary["outcomes"]["failed"]
    rows = [("derivatives", settings.output), ("manifest", summary["manifest"])]
    rows += [("model", summary["model_uri"])]
    rows += [("gallery", summary["gallery"])] if summary["gallery"] else []
    rows += [("failed scans", summary["dead_letters"])] if failed else []
    for name, uri in rows:
        say(f"{name:<13} {uri}")
    if summary["unused_hints"]:
        say(describe_unused(summary["unused_hints"]))
    if stopped.by is not None and work is not None:
        left = work.kept.records + work.todo - summary["records"]
        say(
            f"\nstopped by {stopped.by.name}; {left:,} scans were not started; run the same command to continue"
        )
        return 128 + stopped.by
    if failed:
        say("\nthe same command tries failed scans again; their records say what was wrong")
    if failed > chosen.max_failures * summary["records"]:
        share = failed / summary["records"]
        return _failed(f"{share:.1%} of the scans failed, more than --max_failures")
    return 0


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
