"""Fixtures for all tests. In CI (CI=true), where all dependencies are installed, a skipped test is a failure."""

import os

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
def cloud():
    """A bucket on a Cloud Storage emulator, accessed over HTTP."""
    from pipeline import storage

    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    server = emulator.create_server("localhost", 0, in_memory=True, default_bucket="archive")
    server.start()
    port = (
        server._api._httpd.server_port if hasattr(server._api, "_httpd") else server._api._server.server_port
    )
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://localhost:{port}"
    storage.gcs._client.cache_clear()
    yield "gs://archive"
    server.stop()
    storage.gcs._client.cache_clear()
    os.environ.pop("STORAGE_EMULATOR_HOST")
    if before:
        os.environ["STORAGE_EMULATOR_HOST"] = before


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
