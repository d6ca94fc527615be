"""GPU workers: one preset for each kind of accelerator, and the checks of what a user sets beside it.

Machine types and names of accelerators are those of Dataflow. On other runners the site chooses the machines, and a
preset sets only the batch size and what a worker must see.
"""

import re
import subprocess
from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    WorkerOptions,
)

from pipeline.errors import JobError

_ACCELERATOR = re.compile(r"worker_accelerator=type:([\w-]+);count:([1-9]\d*);install-nvidia-driver(:\dxx)?")
_USABLE = 0.9  # of the memory of a GPU; the rest is for CUDA itself
_ONE_PROCESS = "no_use_multiple_sdk_containers"  # one network for each GPU


@dataclass(frozen=True, slots=True)
class Gpu:
    machine_type: str
    accelerator: str
    batch_size: int  # views in a batch
    codecs: int  # codec processes in a worker; the machine has as many cores


GPUS = {
    "t4": Gpu("n1-standard-8", "nvidia-tesla-t4", 32, 8),
    "l4": Gpu("g2-standard-12", "nvidia-l4", 64, 12),
    "a100": Gpu("a2-highgpu-1g", "nvidia-tesla-a100", 128, 12),
    "h100": Gpu("a3-highgpu-1g", "nvidia-h100-80gb", 256, 26),
}


def check_accelerator(options: PipelineOptions) -> str:
    """The `worker_accelerator` among the service options, or an empty text. Raises JobError if it is malformed."""
    for option in options.view_as(GoogleCloudOptions).dataflow_service_options or ():
        if option.startswith("worker_accelerator"):
            if not _ACCELERATOR.fullmatch(option):
                raise JobError(
                    f"--dataflow_service_options {option}: write worker_accelerator=type:TYPE;count:N;"
                    "install-nvidia-driver:5xx, or use --gpu"
                )
            return option
    return ""


def part_of_memory(processes: int) -> int:
    """MB of this machine's smallest GPU for each of several processes; 0, no limit, if `nvidia-smi` cannot tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return int(_USABLE * min(map(int, listed.split())) / processes)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def apply(kind: str, options: PipelineOptions) -> None:
    """Sets the options of Dataflow for a kind of GPU, or "none".

    Raises:
      JobError: another option contradicts it.
    """
    accelerator = check_accelerator(options)
    if kind == "none":
        if accelerator:
            raise JobError(f"--gpu none contradicts --dataflow_service_options {accelerator}")
        return
    gpu = GPUS[kind]
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    debug = options.view_as(DebugOptions)
    if accelerator and f"type:{gpu.accelerator};" not in accelerator:
        raise JobError(
            f"--gpu {kind} contradicts --dataflow_service_options {accelerator}; remove one of them"
        )
    family = gpu.machine_type.partition("-")[0]
    if worker.machine_type and not worker.machine_type.startswith(f"{family}-"):
        raise JobError(
            f"--machine_type {worker.machine_type} has no {kind.upper()}: use {gpu.machine_type}, or omit it"
        )
    if debug.lookup_experiment("use_multiple_sdk_containers"):
        raise JobError(
            f"--gpu {kind} contradicts --experiments use_multiple_sdk_containers: one GPU holds one network"
        )
    worker.machine_type = worker.machine_type or gpu.machine_type
    if not accelerator:
        cloud.dataflow_service_options = [
            *(cloud.dataflow_service_options or ()),
            f"worker_accelerator=type:{gpu.accelerator};count:1;install-nvidia-driver:5xx",
        ]
    if not debug.lookup_experiment(_ONE_PROCESS):
        debug.add_experiment(_ONE_PROCESS)
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or gpu.codecs
