"""The service that starts workers for runners on the same machine (Beam's environment EXTERNAL)."""

import os
import subprocess
import sys
import threading
from concurrent import futures

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from pipeline.errors import JobError

STOP_SECONDS = 4  # from SIGTERM to SIGKILL; a signal to the pool leaves it five seconds for its clean-up


class Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts and stops workers on request, until `close`.

    Args:
      address: to listen at, HOST:PORT; port 0 takes a free one.

    Raises:
      JobError: the address is in use, or not one of this machine.
    """

    def __init__(self, address: str):
        self._workers: dict[str, subprocess.Popen] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Without the option, two pools could share a port.
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self._server)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise JobError(
                f"cannot listen at {address}: is another pool running? (--port sets another port)"
            ) from error
        self._server.start()

    def StartWorker(self, request, context) -> beam_fn_api_pb2.StartWorkerResponse:
        command = [sys.executable, "-m", "pipeline.colorize", "worker", f"--id={request.worker_id}"]
        command += [f"--provision_endpoint={request.provision_endpoint.url}"]
        with self._lock:
            if self._closed:
                return beam_fn_api_pb2.StartWorkerResponse(error="the pool of workers is ending")
            try:
                self._workers[request.worker_id] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                )
            except OSError as error:
                return beam_fn_api_pb2.StartWorkerResponse(error=f"cannot start a worker: {error}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request, context) -> beam_fn_api_pb2.StopWorkerResponse:
        with self._lock:
            worker = self._workers.pop(request.worker_id, None)
        if worker is not None:
            _stop([worker])
        return beam_fn_api_pb2.StopWorkerResponse()

    def wait(self) -> None:
        """Waits until the pool is closed."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """Ends the workers, then the service."""
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
            self._workers.clear()
        _stop(workers)
        self._server.stop(grace=0)


def _stop(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
