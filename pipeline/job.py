"""Runs the batch job: checks everything first, then the graph, then says what came of it."""

import argparse
import contextlib
import difflib
import logging
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
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
from pipeline import collections, hints, manifest, registry, storage
from pipeline.collections import JobError
from pipeline.graph import colorize, list_derivatives
from pipeline.hints import Hint
from pipeline.inference import ModelError, load, local_copy, try_out
from pipeline.plan import Action, Task, plan
from pipeline.progress import Progress
from pipeline.settings import Settings
from pipeline.stopping import DEAF, Stopped, finishing_on_signals
from pipeline.summary import FILE, describe, describe_unused

FAILURE = 1
LOCAL_RUNNER = "FnApiRunner"  # with none named, Beam would try to download another
LOCAL_RUNNERS = {LOCAL_RUNNER, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner"}
SCANS_A_WORKER = 32  # fewer are not worth another process's start


def run(chosen: argparse.Namespace, beam_argv: list[str]) -> int:
    """Runs the job.

    Args:
      chosen: the job's own options, from `options.parser`.
      beam_argv: what is left of the command line: options of Beam and its runners.

    Returns:
      The exit code.

    Raises:
      JobError: nothing has been done; says what to do.
    """
    started = time.time()
    beam_options = _beam_options(beam_argv)
    output = storage.normalize(chosen.output)
    collections.check_input(chosen.input)
    collections.check_output(chosen.input, output)
    hints_folder = storage.normalize(chosen.hints) if chosen.hints else None
    if hints_folder:
        hints.check(hints_folder, chosen.input, output)
    folder, card = _card(chosen.model, chosen.allow_unblessed)
    local = beam_options.view_as(StandardOptions).runner == LOCAL_RUNNER
    with tempfile.TemporaryDirectory(prefix="colorize-") as scratch:
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
            stop_file=os.path.join(scratch, "stop") if local else "",
        )
        if chosen.dry_run:
            return _dry_run(chosen, settings, hints_folder)
        total, todo = _workload(chosen, settings, hints_folder) if local else (_any(chosen.input), None)
        if not total:
            raise JobError(f"nothing to do: no scans in {chosen.input}")
        _check_writable(output)
        here = _local_runner(beam_options, beam_argv, todo) if local else _Local()
        if todo != 0:
            _try_model(folder, card, chosen.batch_size, here)
        build = dict(
            batch_size=chosen.batch_size,
            max_batch_pixels=chosen.max_batch_pixels,
            threads=here.threads,
            hints_folder=hints_folder,
            on_existing=chosen.on_existing,
            gallery_size=chosen.gallery_size,
            started=started,
        )
        with finishing_on_signals(settings.stop_file) as stopped:
            error = _execute(chosen.input, settings, here.runner, beam_options, build, todo)
        if error:
            print(f"archive-colorize: {error}", file=sys.stderr)
            return FAILURE
        template = beam_options.view_as(GoogleCloudOptions).template_location
        if template:
            print(f"nothing was run: the job is described in {template}")
            return 0
        return _conclude(output, settings.run, total if local else None, stopped, chosen)


def _execute(
    source: str,
    settings: Settings,
    runner: FnApiRunner | None,
    beam_options: PipelineOptions,
    build: dict,
    todo: int | None,
) -> str:
    """Runs the graph; returns what stopped it, in words, or nothing."""
    progress = contextlib.nullcontext() if todo is None else Progress(settings.output, settings.run, todo)
    try:
        with progress, beam.Pipeline(runner, options=beam_options) as root:
            colorize(root, source, settings, **build)
    except Exception as error:
        words = re.findall(r"JobError: (.*?)(?: \[while running|\n|$)", f"{type(error).__name__}: {error}")
        if words:
            return words[-1]
        logging.getLogger(__name__).error("the job stopped", exc_info=error)
        return f"the job stopped: {type(error).__name__}: {_last_line(error)}; what is finished is kept"
    return ""


def _beam_options(argv: list[str]) -> PipelineOptions:
    """Beam's options, with our own runner as the default. Beam would pass over what it does not know."""
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


def _subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _card(model: str | None, allow_unblessed: bool) -> tuple[str, ModelCard]:
    """The model's own folder, which a push in mid-job does not change, and its card."""
    try:
        folder = registry.resolve(storage.normalize(model)) if model else default_model()
        if storage.is_gcs(folder) and not storage.is_folder(folder):
            raise JobError(f"no such model: {folder}")
        card = read_card(local_copy(folder))
    except CardError as error:
        raise JobError(f"{error} (--model takes the folder of an exported model with its {CARD})") from error
    except registry.RegistryError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"cannot read the model {model}: {error}") from error
    reason = registry.why_unblessed(folder, card)
    if reason and not allow_unblessed:
        raise JobError(f"the model in {folder} is not blessed: {reason} (--allow_unblessed overrides)")
    return folder, card


def _try_model(folder: str, card: ModelCard, batch_size: int, here: "_Local") -> None:
    """Loads the model once for trial: in this process if it is going to do the work, else in one of its own."""
    if here.workers == 1:
        try:
            try_out(load(folder, card.size, batch_size, here.threads), card.size)
        except ModelError as error:
            raise JobError(str(error)) from error
        return
    trial = subprocess.run(
        [sys.executable, "-m", "pipeline.trial", folder, str(card.size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if trial.returncode:
        raise JobError(trial.stdout.strip() or f"the model in {folder} cannot be loaded")


def _any(source: str) -> int:
    return int(next(collections.expand(source), None) is not None)


def _workload(chosen: argparse.Namespace, settings: Settings, hints_folder: str | None) -> tuple[int, int]:
    """How many scans there are, and how many of them are to be done."""
    total = todo = 0
    for task in _tasks(chosen, settings, _given(hints_folder)):
        total += 1
        todo += task.action != Action.KEEP
    return total, todo


def _given(hints_folder: str | None) -> dict[str, list[Hint]]:
    """Hints files by the key they are named for."""
    given = defaultdict(list)
    for key, uri in hints.listing(hints_folder) if hints_folder else ():
        given[key].append(hints.identified(uri))
    return given


def _tasks(chosen: argparse.Namespace, settings: Settings, given: dict[str, list[Hint]]) -> Iterator[Task]:
    """The plan of a local run, as the graph will make it."""
    there = dict(list_derivatives(settings.output, settings.format))
    with manifest.Latest(settings.output) as records:
        for item in collections.expand(chosen.input):
            record = records.get(item.key)
            earlier = [record] if record else []
            size = there.get(os.fsencode(item.key))
            its_hints = given.get(item.key, ())
            yield from plan([item], earlier, size, settings, chosen.on_existing, its_hints)


def _dry_run(chosen: argparse.Namespace, settings: Settings, hints_folder: str | None) -> int:
    counts, given, keys = dict.fromkeys(Action, 0), _given(hints_folder), set()
    for task in _tasks(chosen, settings, given):
        counts[task.action] += 1
        keys |= {task.item.key} & given.keys()
        print(f"{task.action:<9} {task.item.key}  ({task.why})".encode(errors="backslashreplace").decode())
    if not sum(counts.values()):
        raise JobError(f"nothing to do: no scans in {chosen.input}")
    print(", ".join(f"{n:,} to {action}" for action, n in counts.items() if n) + "; nothing was done")
    unused = sorted(hint.uri for key in given.keys() - keys for hint in given[key])
    if unused:
        print(describe_unused(unused))
    return 0


def _check_writable(output: str) -> None:
    probe = storage.join(output, ".archive-colorize")
    try:
        storage.write(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise JobError(f"cannot write to the output {output}: {error.strerror or error}") from error


def _local_runner(beam_options: PipelineOptions, argv: list[str], todo: int) -> "_Local":
    """A runner with a worker a core, unless the user said otherwise."""
    direct = beam_options.view_as(DirectOptions)
    cores = len(os.sched_getaffinity(0))
    given = {argument.partition("=")[0] for argument in argv}
    if "--direct_num_workers" not in given:
        direct.direct_num_workers = max(1, min(cores, todo // SCANS_A_WORKER))
    workers = direct.direct_num_workers = direct.direct_num_workers or cores
    environment = None
    if workers > 1 and "--direct_running_mode" not in given:
        command = f"{DEAF}exec {shlex.quote(sys.executable)} -m pipeline.worker"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    return _Local(FnApiRunner(default_environment=environment), workers, max(1, cores // workers))


@dataclass(frozen=True)
class _Local:
    runner: FnApiRunner | None = None  # None: another runner, by name
    workers: int = 0
    threads: int = 0  # of each worker's network; 0 leaves it to TensorFlow


def _conclude(output: str, run: str, total: int | None, stopped: Stopped, chosen: argparse.Namespace) -> int:
    import json

    summary = json.loads(storage.read(storage.join(output, FILE)))
    if summary["run"] != run:
        raise RuntimeError(f"{FILE} is of another run: two jobs write to {output}")
    print(describe(summary))
    done = summary["records"] - summary["kept"]
    if summary["kept"]:
        print(f"  {summary['kept']:>9,}  of these were current already")
    print(f"{done:,} in this run, {summary['seconds']:,} s, {summary['pictures_per_second']:g} a second\n")
    failed = summary["outcomes"]["failed"]
    rows = [("derivatives", output), ("manifest", summary["manifest"]), ("model", summary["model_uri"])]
    rows += [("gallery", summary["gallery"])] if summary["gallery"] else []
    rows += [("failed scans", summary["dead_letters"])] if failed else []
    for name, uri in rows:
        print(f"{name:<13} {uri}")
    if summary["unused_hints"]:
        print(describe_unused(summary["unused_hints"]))
    if stopped.by is not None:
        left = (total or 0) - summary["records"]
        print(
            f"\nstopped by {stopped.by.name}; {left:,} scans were not begun: run the same command again to go on"
        )
        return 128 + stopped.by
    if failed:
        print("\nfailed scans are tried again by the same command; the records say what was wrong with each")
    if failed > chosen.max_failures * summary["records"]:
        share = failed / summary["records"]
        print(f"archive-colorize: {share:.1%} of the scans failed, more than --max_failures", file=sys.stderr)
        return FAILURE
    return 0


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
