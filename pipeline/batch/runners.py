"""Runners: options of Beam are checked here before any work, with one line for a mistake.

A runner is *local* if the launcher plans the run and starts the workers itself. The workers of other runners may be on
other machines. They see the launcher's files only if they are on this machine or share a mount with it.
"""

import argparse
import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline import storage
from pipeline.batch import gpus
from pipeline.errors import JobError

LOCAL = "FnApiRunner"  # by default, Beam would try to download another one
_LOCAL_RUNNERS = {LOCAL, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner"}
_JOB_SERVER_RUNNERS = {"FlinkRunner", "SparkRunner", "PortableRunner"}

# A TaskManager keeps a harness for the next task. If a task could not be opened on a harness that was lost, Beam 2.62
# keeps that harness as long as the TaskManager lives, and every restart meets it, unless it expires. Both times must be
# shorter than the delay of a restart. A harness that expires ends after its last bundle.
_CACHE_MILLIS = 1000
_EXPIRATION_MILLIS = 10_000

# Options that only the job server of Flink knows (FlinkPipelineOptions of Beam 2.62).
_FLINK_OPTIONS = """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled auto_watermark_interval
    checkpoint_timeout_millis checkpointing_interval checkpointing_mode disable_metrics enable_stable_input_drain
    environment_expiration_millis execution_mode_for_batch execution_retry_delay externalized_checkpoints_enabled
    fail_on_checkpointing_errors faster_copy file_input_split_max_size_mb finish_bundle_before_checkpointing
    flink_conf_dir force_unaligned_checkpoint_enabled job_check_interval_in_secs latency_tracking_interval
    max_bundle_size max_bundle_time_mills min_pause_between_checkpoints num_concurrent_checkpoints
    number_of_execution_retries object_reuse operator_chaining re_iterable_group_by_key_result
    report_checkpoint_duration retain_externalized_checkpoints_on_cancellation savepoint_path
    shutdown_sources_after_idle_ms state_backend state_backend_storage_path unaligned_checkpoint_enabled
"""

_ENVIRONMENTS = (
    'choose where the workers run: --environment_type=PROCESS with --environment_config=\'{"command": "..."}\' '
    "(the command is archive-colorize-worker on every machine), EXTERNAL with --environment_config=HOST:PORT of an "
    "archive-colorize worker-pool, DOCKER with --environment_config=IMAGE, or LOOPBACK for workers in this process"
)


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a job runs.

    Attributes:
      options: of Beam, complete.
      local: whether this is Beam's local runner, for which the launcher plans the run.
      shares_files: whether the workers see the launcher's files.
      bundles: number of bundles, each with a codec process, that a worker processes at the same time.
      waits: whether the launcher waits for the end of the job.
    """

    options: PipelineOptions
    local: bool
    shares_files: bool
    bundles: int = 1
    waits: bool = True


def engine(argv: list[str], workers_share_files: bool = False, gpu: str | None = None) -> Engine:
    """Parses and checks the options of Beam. The local runner is the default.

    Raises:
      JobError: an option is unknown, is missing, or contradicts another one.
    """
    options = _parsed(argv)
    standard = options.view_as(StandardOptions)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if standard.runner is None or standard.runner in _LOCAL_RUNNERS:
        standard.runner = LOCAL
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # of workers: each arena keeps what it once held
        return Engine(options, local=True, shares_files=True)
    name = standard.runner.rpartition(".")[2]
    portable = options.view_as(PortableOptions)
    if name in _JOB_SERVER_RUNNERS:
        _check_environment(portable)
        _check_job_server(name, options, argv)
    if name == "DataflowRunner":
        _check_dataflow(options)
        gpus.apply(gpu or "none", options) if gpu else gpus.check_accelerator(options)
    here = portable.environment_type == "LOOPBACK" or (
        name == "PrismRunner" and not portable.environment_type
    )
    threads = options.view_as(DebugOptions).number_of_worker_harness_threads
    return Engine(
        options,
        local=False,
        shares_files=here or workers_share_files,
        bundles=threads or 1,
        waits=not standard.no_wait_until_finish,
    )


def check_places(engine: Engine, places: Iterable[tuple[str, str | None]]) -> None:
    """Raises JobError if the workers cannot see a place, given as (option, path or URI)."""
    for option, place in places:
        if place and not engine.shares_files and not storage.is_cloud(place):
            runner = engine.options.view_as(StandardOptions).runner
            raise JobError(
                f"the workers of {runner} may not see {option} {place}, because it is on this machine: use gs:// or "
                "s3://, or add --workers_share_files if every worker has the same path mounted"
            )


def _parsed(argv: list[str]) -> PipelineOptions:
    """Options of Beam. Unknown options are errors, which Beam would ignore."""
    known = argparse.ArgumentParser(prog="archive-colorize", add_help=False, allow_abbrev=False)
    for kind in dict.fromkeys(_subclasses(PipelineOptions)):
        with contextlib.suppress(argparse.ArgumentError):
            kind._add_argparse_args(known)
    chosen, unknown = known.parse_known_args(argv)
    names = [text for action in known._actions for text in action.option_strings]
    if str(getattr(chosen, "runner", "")).endswith("FlinkRunner"):
        passed = [f"--{name}" for name in _FLINK_OPTIONS.split()]
        if not any(text.partition("=")[0] == "--environment_expiration_millis" for text in argv):
            argv = [f"--environment_expiration_millis={_EXPIRATION_MILLIS}", *argv]
        names += passed
        # Their values are separate arguments or follow a `=`.
        unknown = [
            text
            for before, text in zip(["", *unknown], unknown, strict=False)
            if text.partition("=")[0] not in passed and (text.startswith("-") or before not in passed)
        ]
    if unknown:
        name = unknown[0].partition("=")[0]
        close = difflib.get_close_matches(name, names, 1)
        raise JobError(f"unknown option: {unknown[0]}" + (f" (did you mean {close[0]}?)" if close else ""))
    return PipelineOptions(argv)


def _subclasses(kind: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _check_environment(portable: PortableOptions) -> None:
    kind, config = portable.environment_type, portable.environment_config
    given = dict(option.partition("=")[::2] for option in portable.environment_options or ())
    if not kind:
        raise JobError(f"--environment_type is missing; {_ENVIRONMENTS}")
    if kind not in ("PROCESS", "EXTERNAL", "DOCKER", "LOOPBACK"):
        raise JobError(f"--environment_type {kind} is not supported; {_ENVIRONMENTS}")
    if kind == "PROCESS" and "process_command" not in given:
        try:
            command = json.loads(config or "{}").get("command")
        except (ValueError, AttributeError):
            raise JobError(f"--environment_config {config} is not a JSON object; {_ENVIRONMENTS}") from None
        if not command:
            raise JobError(f"--environment_type PROCESS needs a command; {_ENVIRONMENTS}")
    if kind == "EXTERNAL" and not re.search(r":\d+$", config or given.get("external_service_address", "")):
        raise JobError(f"--environment_type EXTERNAL needs HOST:PORT; {_ENVIRONMENTS}")
    if kind == "DOCKER" and not (config or given.get("docker_container_image")):
        raise JobError(f"--environment_type DOCKER needs an image with this package; {_ENVIRONMENTS}")
    if kind in ("PROCESS", "EXTERNAL") and not int(portable.environment_cache_millis or 0):
        portable.environment_cache_millis = _CACHE_MILLIS


def _check_job_server(name: str, options: PipelineOptions, argv: list[str]) -> None:
    if options.view_as(PortableOptions).job_endpoint:
        return
    if name == "PortableRunner":
        raise JobError("--job_endpoint=HOST:PORT of a job server is missing (--runner=PortableRunner)")
    if name != "FlinkRunner":
        return
    flink = options.view_as(FlinkRunnerOptions)
    if not flink.flink_job_server_jar:
        raise JobError(
            "--flink_job_server_jar is missing: name the job server's jar of your versions of Beam and Flink, or "
            "--job_endpoint of a job server that runs"
        )
    if not re.match(r"https?://", flink.flink_job_server_jar) and not os.path.isfile(
        flink.flink_job_server_jar
    ):
        raise JobError(f"no such file: --flink_job_server_jar {flink.flink_job_server_jar}")
    if flink.flink_master not in ("[local]", "[auto]") and flink.parallelism < 1:
        raise JobError(
            "--parallelism is missing: the number of task slots that the job may use (without it, Flink uses one)"
        )


def _check_dataflow(options: PipelineOptions) -> None:
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    for name in ("project", "region", "temp_location"):
        if not getattr(cloud, name):
            raise JobError(f"--{name} is missing, which --runner=DataflowRunner needs")
    if not (options.view_as(WorkerOptions).sdk_container_image or setup.setup_file):
        raise JobError(
            "the workers would lack this package: add --sdk_container_image=IMAGE, "
            "or --setup_file=setup.py from a checkout"
        )
