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
    storage.cloud._client.cache_clear()
    yield "gs://archive"
    server.stop()
    storage.cloud._client.cache_clear()
    os.environ.pop("STORAGE_EMULATOR_HOST")
    if before:
        os.environ["STORAGE_EMULATOR_HOST"] = before


@pytest.fixture
def flaky(cloud):
    """A proxy in front of the emulator (see `tests.flaky`). This process and its children use it."""
    from pipeline import storage
    from tests.flaky import Flaky

    emulator = os.environ["STORAGE_EMULATOR_HOST"]
    proxy = Flaky(emulator)
    os.environ["STORAGE_EMULATOR_HOST"] = proxy.url
    storage.cloud._client.cache_clear()
    yield proxy
    os.environ["STORAGE_EMULATOR_HOST"] = emulator
    storage.cloud._client.cache_clear()
    proxy.close()
