"""Beam's local runner: workers on this machine, in processes of their own if there are several."""

import os
import shlex
import sys
from dataclasses import dataclass

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.batch.stopping import IGNORE_SIGNALS

SCANS_PER_WORKER = 32  # fewer are not worth the start of another process


@dataclass(frozen=True)
class Local:
    """The local runner; without values, that the job has another one.

    Attributes:
      runner: of Beam.
      workers: number of processes.
      threads: of the network in each worker.
    """

    runner: FnApiRunner | None = None
    workers: int = 0
    threads: int = 1


def runner(beam_options: PipelineOptions, argv: list[str], todo: int) -> Local:
    """A runner with one worker on each core, unless the user chose otherwise.

    Args:
      beam_options: their number of workers is set.
      argv: the user's options of Beam.
      todo: number of scans.
    """
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
    return Local(FnApiRunner(default_environment=environment), workers, max(1, cores // workers))
