"""Workers that a runner on a cluster starts, against real services of a runner."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import psutil
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import json_format, struct_pb2

from pipeline.batch import boot
from pipeline.colorize import main
from tests.pipeline.conftest import ROOT, WAIT, environment, start


class Runner(
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
):
    """The services that a worker talks to. It keeps workers until `hang_up` is set."""

    def __init__(self):
        self.workers, self.logged, self.dependencies = [], [], []
        self.called, self.hang_up = threading.Event(), threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self._server)
        self.address = f"localhost:{self._server.add_insecure_port('localhost:0')}"
        self._server.start()

    def GetProvisionInfo(self, request, context):
        options = json_format.ParseDict({"beam:option:job_name:v1": "the archive"}, struct_pb2.Struct())
        here = endpoints_pb2.ApiServiceDescriptor(url=self.address)
        info = beam_provision_api_pb2.ProvisionInfo(
            pipeline_options=options,
            control_endpoint=here,
            logging_endpoint=here,
            dependencies=self.dependencies,
        )
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    def Control(self, requests, context):
        self.workers.append(dict(context.invocation_metadata())["worker_id"])
        self.called.set()
        self.hang_up.wait(WAIT)
        return iter(())

    def Logging(self, requests, context):
        for request in requests:
            self.logged += [entry.message for entry in request.log_entries]
        return iter(())

    def close(self):
        self.hang_up.set()
        self._server.stop(grace=5).wait()


@pytest.fixture
def runner():
    served = Runner()
    yield served
    served.close()


@pytest.fixture
def here(monkeypatch):
    """The command in this process, which forgets the name of its worker."""
    monkeypatch.setenv("WORKER_ID", "")
    return lambda *arguments: main([*arguments])


def test_a_worker_works_for_the_runner_that_started_it_until_it_hangs_up(runner):
    process = start("worker", "--id=w-7", f"--provision_endpoint={runner.address}")
    assert runner.called.wait(WAIT)
    runner.hang_up.set()
    out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (0, ""), err
    assert runner.workers == ["w-7"]
    assert any("the archive" in line for line in runner.logged), runner.logged


def test_a_worker_without_a_runner_says_so_in_one_line(here, capsys, monkeypatch):
    monkeypatch.setattr(boot, "CONNECT_SECONDS", 1)
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        address = f"localhost:{closed.getsockname()[1]}"
        assert here("worker", "--id=1", f"--provision_endpoint={address}") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"archive-colorize: no runner answers at {address}: ")
    assert err.count("\n") == 1


def test_a_worker_refuses_a_job_that_brings_packages(here, runner, capsys):
    for name in ("workflow.tar.gz", "submission_environment_dependencies.txt"):
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name)
        artifact = beam_runner_api_pb2.ArtifactInformation(role_payload=role.SerializeToString())
        runner.dependencies.append(artifact)
    assert here("worker", "--id=1", f"--provision_endpoint={runner.address}") == 2
    err = capsys.readouterr().err
    assert "(workflow.tar.gz)" in err
    assert err.count("\n") == 1


@pytest.fixture
def pool():
    """A process with a pool of workers, and a stub for it. Its PATH has no Python."""
    command = [sys.executable, "-m", "pipeline.colorize", "worker-pool", "--port=0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(PATH="/nowhere"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().split(" call ")[1].partition(";")[0]
    with grpc.insecure_channel(address) as channel:
        yield process, address, beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
    process.kill()
    process.communicate()


def order(runner: Runner, name: str) -> beam_fn_api_pb2.StartWorkerRequest:
    endpoint = endpoints_pb2.ApiServiceDescriptor(url=runner.address)
    return beam_fn_api_pb2.StartWorkerRequest(worker_id=name, provision_endpoint=endpoint)


def test_a_pool_starts_and_stops_workers_with_its_own_python(runner, pool):
    process, _, service = pool
    assert service.StartWorker(order(runner, "a")).error == ""
    assert runner.called.wait(WAIT)
    (worker,) = psutil.Process(process.pid).children()
    assert worker.exe() == os.path.realpath(sys.executable)
    service.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="a"))
    assert not worker.is_running()
    assert runner.workers == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_pool(runner, pool, number):
    process, _, service = pool
    service.StartWorker(order(runner, "a"))
    assert runner.called.wait(WAIT)
    (worker,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    assert process.wait(WAIT) == (-number if number == signal.SIGKILL else 128 + number)
    worker.wait(WAIT)


def test_a_second_pool_on_a_port_is_refused_in_one_line(pool, capsys):
    _, address, _ = pool
    assert main(["worker-pool", f"--port={address.rpartition(':')[2]}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"archive-colorize: cannot listen at {address}: is another pool running?")
    assert err.count("\n") == 1
