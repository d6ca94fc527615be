"""Fixtures for all tests. In CI (CI=true), where all dependencies are installed, a skipped test is a failure."""

import contextlib
import os
import socket
import subprocess
import time

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A bucket on a Cloud Storage emulator, accessed over HTTP.

    The program in FAKE_GCS_SERVER is preferred: it knows conditions and pages, unlike the one from PyPI.
    """
    from pipeline.storage import gcs

    program = os.environ.get("FAKE_GCS_SERVER")
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(_fake_gcs_server(program) if program else _gcp_storage_emulator())
        stack.enter_context(pytest.MonkeyPatch.context()).setenv(ENDPOINTS["gs"], url)
        gcs._client.cache_clear()
        if program:
            gcs._client().create_bucket("archive")
        yield "gs://archive"
    gcs._client.cache_clear()


@contextlib.contextmanager
def _gcp_storage_emulator():
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    server = emulator.create_server("localhost", 0, in_memory=True, default_bucket="archive")
    server.start()
    api = server._api
    yield f"http://localhost:{(api._httpd if hasattr(api, '_httpd') else api._server).server_port}"
    server.stop()


@contextlib.contextmanager
def _fake_gcs_server(program: str):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    address = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-public-host=localhost:{port}"]
    with subprocess.Popen([program, *address, "-backend=memory", "-log-level=error"]) as server:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://localhost:{port}"
        server.terminate()


@pytest.fixture(scope="module")
def s3():
    """A bucket on a server with the interface of S3, accessed over HTTP."""
    from pipeline.storage import s3 as store

    servers = pytest.importorskip("moto.server", reason="moto is not installed")
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    given = {
        ENDPOINTS["s3"]: "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        store._client.cache_clear()
        store._client().create_bucket(Bucket="archive")
        yield "s3://archive"
        server.stop()
    store._client.cache_clear()


ENDPOINTS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL_S3"}  # environment variables by scheme


@pytest.fixture(params=["gs", "s3"])
def bucket(request):
    """A bucket of each object store in turn."""
    return request.getfixturevalue({"gs": "cloud", "s3": "s3"}[request.param])


@pytest.fixture(params=["gs", "s3"] if os.environ.get("FAKE_GCS_SERVER") else ["s3"])
def strict_bucket(request):
    """A bucket of each object store whose server knows conditions and pages."""
    return request.getfixturevalue({"gs": "cloud", "s3": "s3"}[request.param])


@pytest.fixture(params=["here", "gs", "s3"])
def anywhere(request, tmp_path):
    """A folder of the test alone: on this machine, and in a bucket of each object store."""
    if request.param == "here":
        return str(tmp_path / "anywhere")
    bucket = request.getfixturevalue({"gs": "cloud", "s3": "s3"}[request.param])
    return f"{bucket}/{request.node.originalname}"


@pytest.fixture
def flaky(bucket):
    """A proxy in front of the object store of `bucket` (see `tests.flaky`). This process and its children use it."""
    from pipeline import storage
    from tests.flaky import Flaky

    variable, module = ENDPOINTS[bucket[:2]], storage._module(bucket)
    proxy = Flaky(os.environ[variable])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, proxy.url)
        module._client.cache_clear()
        yield proxy
    module._client.cache_clear()
    proxy.close()
