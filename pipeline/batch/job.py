"""Runs the batch job: checks everything, runs the graph, and prints the result."""

import argparse
import contextlib
import dataclasses
import logging
import re
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline import clock, storage
from pipeline.batch import (
    bagging,
    chosen_model,
    conclusion,
    dry_run,
    gpus,
    graph,
    joining,
    labels,
    lease,
    local,
    metrics,
    places,
    runners,
    stopping,
    worklist,
)
from pipeline.batch.chosen_model import ChosenModel
from pipeline.batch.local import Local
from pipeline.batch.places import Places
from pipeline.batch.progress import Progress
from pipeline.batch.runners import Engine
from pipeline.batch.stopping import Stop, Stopped, finishing_on_signals
from pipeline.codec.settings import Settings
from pipeline.console import complain, say
from pipeline.errors import JobError
from pipeline.inputs import collection
from pipeline.inputs.item import SAME
from pipeline.metadata.provenance import TOOL, tool_version
from pipeline.records import manifest, premis
from pipeline.storage import scratch

FAILURE = 1
BATCH_SIZE = 8  # without a GPU


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
    where = places.checked(chosen, engine)
    model = chosen_model.choose(chosen_model.named(chosen.model), chosen.allow_unblessed)
    settings = _settings(chosen, engine, where, model, started)
    group_by = chosen.group_by or ""
    if chosen.dry_run:
        dry_run.show(where.input, settings, where.hints, chosen.on_existing, group_by)
        return 0
    if next(collection.expand(where.input), None) is None:
        raise JobError(f"nothing to do: no scans in {where.input}")
    stop = Stop(settings.stop_file)
    with (
        scratch.folder() as made,
        lease.held(where.output, settings.run, stop.request) as hold,
        _without_stop_files(where.output, stop),
    ):
        before = manifest.runs(where.output)
        planning = dict(
            hints_folder=where.hints,
            on_existing=chosen.on_existing,
            since=hold.since,
            group_by=group_by,
        )
        work, here = None, Local()
        if engine.local:
            work = worklist.write(made, where.input, settings, gallery_size=chosen.gallery_size, **planning)
            here = local.runner(engine.options, beam_argv, work.todo)
        figures = _figures(chosen, engine, here, started)
        if settings.gpu and here.workers > 1 and not settings.gpu_memory:
            settings = dataclasses.replace(settings, gpu_memory=gpus.part_of_memory(here.workers))
        if work is None or work.todo:
            chosen_model.try_out(model, figures["batch_size"], here.workers, figures["threads"], settings.gpu)

        def build(root: beam.Pipeline) -> None:
            if work is None:
                tasks, unused = joining.planned(root, where.input, settings, **planning)
                graph.colorize(tasks, settings, unused_hints=unused, **figures)
                return
            tasks = graph.listed(root, work.file)
            graph.colorize(
                tasks,
                settings,
                kept=work.kept,
                sample=work.sample,
                unused_hints=work.unused_hints,
                **figures,
            )

        if where.bag:
            bagging.begin(where.bag)
        progress = Progress(where.output, settings.run, work.todo if work else None)
        with finishing_on_signals(stop.request) as stopped:
            ended = _execute(build, engine, here.runner, progress, stopped)
        if ended.error:
            return _failed(ended.error)
        cloud = engine.options.view_as(GoogleCloudOptions)
        if cloud.template_location:
            say(f"nothing was run; the job is described in {cloud.template_location}")
            return 0
        if not engine.waits:
            say(f"the job {cloud.job_name or settings.run} was started; it goes on without this command")
            return 0
        try:
            summary = conclusion.completed(settings, model, ended.stages, here.workers)
            conclusion.show(summary, settings)
            if stopped.by is not None or stop.is_requested():
                code = _stopped(stopped.by, ended.not_started, counted=engine.local)
            elif summary["records"]:
                code = _finished(summary, model, chosen.max_failures)
            else:
                raise JobError(f"the workers see no scans in {where.input}, but this machine does")
            intruder = hold.lost or _intruder(settings, before)
            if chosen.premis:
                premis.write(where.output, TOOL, tool_version())
            if where.bag and code <= FAILURE and not intruder:
                bagging.complete(where.bag, settings.date, settings.digests)
        except JobError as error:
            return _failed(str(error))
        except OSError as error:
            return _failed(manifest.unwritable(where.output, error))
        if intruder:
            return _failed(f"{intruder}; run the same command again when it has ended")
        return code


def _settings(
    chosen: argparse.Namespace, engine: Engine, where: Places, model: ChosenModel, started: datetime
) -> Settings:
    """What every scan of a new run has in common. Raises JobError if the options contradict each other."""
    card = model.card
    if chosen.calm and card.default_calm is None:
        raise JobError(f"the model {card.name} {card.version} has no certainty for --calm; leave it out")
    if chosen.compression and chosen.format not in ("tiff", "ptif", SAME):
        raise JobError(f"--compression is for TIFFs, not for --format {chosen.format}; leave it out")
    run = clock.label(started) + "-" + secrets.token_hex(3)
    return Settings(
        output=where.output,
        run=run,
        model=card.name,
        model_version=card.version,
        model_sha256=card.weights_sha256,
        model_uri=model.uri(engine.local),
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
        stop_file=stopping.file(where.output, run),
        gpu=chosen.gpu in gpus.GPUS,
        gpu_memory=chosen.gpu_memory or 0,
        bag=chosen.bag,
        **labels.settings(chosen, card, started),
        local=engine.local,
    )


def _figures(chosen: argparse.Namespace, engine: Engine, here: Local, started: datetime) -> dict:
    """How the workers divide their work: arguments of `graph.colorize`."""
    gpu = gpus.GPUS.get(chosen.gpu)
    return dict(
        batch_size=chosen.batch_size or (gpu.batch_size if gpu else BATCH_SIZE),
        max_batch_pixels=max(1, chosen.max_batch_pixels // engine.bundles),
        threads=(0 if gpu else here.threads) if chosen.threads is None else chosen.threads,
        gallery_size=chosen.gallery_size,
        started=started,
    )


@contextlib.contextmanager
def _without_stop_files(output: str, stop: Stop) -> Iterator[None]:
    """Removes the stop files of earlier runs before the block, and that of this run after it."""
    try:
        stopping.clear(output)
        yield
    finally:
        with contextlib.suppress(OSError):
            storage.delete(stop.file)


@dataclass(frozen=True, slots=True)
class _Ended:
    error: str = ""  # what stopped the graph, in words
    stages: dict = field(default_factory=dict)  # their times; see `metrics.stages`
    not_started: int = 0  # scans that were left because of a request to stop


def _execute(
    build: Callable[[beam.Pipeline], None],
    engine: Engine,
    runner: FnApiRunner | None,
    progress: Progress,
    stopped: Stopped,
) -> _Ended:
    """Builds the graph and runs it."""
    if engine.local:  # errors are reported here once; Beam would log them on every layer
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        root = beam.Pipeline(runner, options=engine.options)
        build(root)
        with progress:
            result = root.run()
            stopped.cancel = result.cancel
            stopped.rearm()  # a job server has taken SIGINT over
            if engine.waits:
                result.wait_until_finish()
                return _Ended("", metrics.stages(result), metrics.not_started(result))
            return _Ended()
    except Exception as error:
        return _Ended(_what_stopped(error))


def _what_stopped(error: Exception) -> str:
    """What an error of the graph means, in words. It is logged if it has none for people."""
    said = f"{type(error).__name__}: {error}"
    if words := re.findall(r"(?:JobError|ModelError): (.*?)(?: \[while running|\n|$)", said):
        return words[-1]
    # An error of the machine:
    if words := re.findall(r"\[Errno \d+\] (.*?)(?: \[while running|\n|$)", said):
        return f"the job stopped: {words[-1]}; what is finished is kept"
    logging.getLogger(__name__).error("the job stopped", exc_info=error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"the job stopped: {type(error).__name__}: {lines[-1] if lines else ''}; what is finished is kept"


def _stopped(by: signal.Signals | None, not_started: int, counted: bool) -> int:
    """Says that a run was stopped. Returns the exit code."""
    name = by.name if by is not None else "archive-colorize stop"
    scans = f"{not_started:,} scan{'s' * (not_started != 1)}" if counted or not_started else "the other scans"
    say(f"\nstopped by {name}; {scans} not started; run the same command to continue")
    return 128 + (by or signal.SIGTERM)


def _finished(summary: dict, model: ChosenModel, max_failures: float) -> int:
    """Says what to do next. Returns the exit code."""
    conclusion.advise(summary, model)
    failed = summary["outcomes"]["failed"]
    if failed > max_failures * summary["records"]:
        share = failed / summary["records"]
        return _failed(f"{share:.1%} of the scans failed, more than --max_failures")
    return 0


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
