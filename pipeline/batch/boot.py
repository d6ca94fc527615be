"""Starts workers of the job for a runner on a cluster.

A runner starts a worker by a command (Beam's environment PROCESS), or asks a service on its machine to start one
(EXTERNAL). Beam has the command in its containers only, and its service starts whatever `python` the PATH names.
These here start workers with this Python and its packages.
"""

import argparse
import contextlib
import os

from pipeline.batch.worker import end_with_parent
from pipeline.console import complain, say
from pipeline.errors import JobError

CONNECT_SECONDS = 60  # time limit for the first answer of the runner
_UNUSED = ("logging_endpoint", "artifact_endpoint", "control_endpoint", "semi_persist_dir")
_PACKAGES = {"workflow.tar.gz", "requirements.txt", "extra_packages.txt"}  # as Beam stages them


def worker(argv: list[str]) -> int:
    """`archive-colorize worker`: works for a runner until it hangs up. Returns the exit code.

    Raises:
      JobError: the runner does not answer, or the job brings packages of its own.
    """
    parser = _parser(
        "worker",
        "Runs one worker of the job, with this Python and its packages. A runner on a cluster calls this command where "
        "--environment_type=PROCESS was given: --environment_option=process_command=archive-colorize-worker, which is "
        "the same command in one word. The worker ends with the process that started it.",
    )
    parser.add_argument("--id", required=True, help="name of the worker; the runner sets it")
    parser.add_argument(
        "--provision_endpoint",
        required=True,
        metavar="HOST:PORT",
        help="where the runner says what the worker needs; the runner sets it",
    )
    for name in _UNUSED:  # of Beam's containers; the provision service has them, too
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    os.environ["WORKER_ID"] = chosen.id  # Beam reads it during its import
    os.environ.update(_provisioned(chosen.id, chosen.provision_endpoint))
    end_with_parent()
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    try:
        sdk_worker_main.main([])
    except grpc.RpcError as error:
        complain(f"lost the runner at {chosen.provision_endpoint}: {_words(error)}")
        return 1
    return 0


def worker_pool(argv: list[str]) -> int:
    """`archive-colorize worker-pool`: starts and stops workers for runners on this machine, until a signal ends it.

    Raises:
      JobError: the port is in use.
    """
    parser = _parser(
        "worker-pool",
        "Starts and stops workers for a runner on the same machine, with this Python and its packages. Give the job "
        "--environment_type=EXTERNAL and --environment_config=HOST:PORT. SIGINT or SIGTERM ends the pool and its "
        "workers.",
    )
    parser.add_argument("--port", type=int, default=50000, metavar="N", help="port (default: 50000)")
    parser.add_argument(
        "--host",
        default="localhost",
        metavar="HOST",
        help="address to listen at (default: localhost). Whoever reaches it can start processes here",
    )
    chosen = parser.parse_args(argv)
    from pipeline.batch.pool import Pool
    from pipeline.batch.stopping import cleaning_up

    with contextlib.closing(Pool(f"{chosen.host}:{chosen.port}")) as pool, cleaning_up(pool.close):
        say(
            f"starting workers for runners that call {chosen.host}:{pool.port}; Ctrl-C ends the pool and its workers"
        )
        pool.wait()
    return 0


def _provisioned(worker_id: str, endpoint: str) -> dict[str, str]:
    """What a runner has for a worker, as environment variables of Beam's harness."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        try:
            answer = service.GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=[("worker_id", worker_id)],
                timeout=CONNECT_SECONDS,
                wait_for_ready=True,
            )
        except grpc.RpcError as error:
            raise JobError(f"no runner answers at {endpoint}: {_words(error)}") from error
    info = answer.info
    if brought := sorted(_PACKAGES & {_staged_name(artifact) for artifact in info.dependencies}):
        raise JobError(
            f"the job brings packages ({', '.join(brought)}), which this worker does not install: install them in "
            "the Python environment of the workers, and start the job without options such as --setup_file"
        )
    endpoints = {
        name: text_format.MessageToString(getattr(info, f"{name.lower()}_endpoint"))
        for name in ("CONTROL", "LOGGING", "STATUS")
        if info.HasField(f"{name.lower()}_endpoint")
    }
    return {
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        **{f"{name}_API_SERVICE_DESCRIPTOR": text for name, text in endpoints.items()},
    }


def _staged_name(artifact) -> str:
    from apache_beam.portability.api import beam_runner_api_pb2

    role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
    return os.path.basename(role.staged_name)


def _words(error) -> str:
    return error.details() or error.code().name


def _parser(command: str, words: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"archive-colorize {command}", description=words, allow_abbrev=False)
