"""The job outside a checkout and a local folder: Cloud Storage, Dataflow, a wheel and a notebook."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline import storage
from pipeline.colorize import main
from pipeline.records.record import Outcome, Record, Refusal
from tests.flaky import Flaky
from tests.pipeline.conftest import ROOT, WAIT, environment, jpeg, make_archive, picture, start, told


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """URL of a Cloud Storage emulator with a bucket, running in a separate process."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("cloud")
    command = [
        sys.executable,
        "-m",
        "gcp_storage_emulator",
        "start",
        "--host=localhost",
        f"--port={port}",
        "--in-memory",
        "--default-bucket=archive",
    ]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://localhost:{port}"
    server.terminate()
    server.wait()


@pytest.fixture
def cloud_here(cloud, monkeypatch):
    """Makes this process use the emulator, too."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud)
    storage.cloud._client.cache_clear()
    yield
    storage.cloud._client.cache_clear()


@pytest.fixture
def bucket(cloud):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client("test", AnonymousCredentials(), client_options={"api_endpoint": cloud})
    return client.bucket("archive")


@pytest.mark.usefixtures("cloud_here")
def test_a_collection_in_cloud_storage_is_coloured_there(cloud, bucket, model, capsys):
    for number in range(3):
        bucket.blob(f"scans/box 1/{number}.jpg").upload_from_string(jpeg(picture(number)))
    bucket.blob("scans/broken.jpg").upload_from_string(b"no picture")
    for path in model.rglob("*"):
        if path.is_file():
            bucket.blob(f"models/tiny/{path.relative_to(model)}").upload_from_string(path.read_bytes())
    arguments = ["--input", "gs://archive/scans", "--output", "gs://archive/out"]
    arguments += ["--model", "gs://archive/models/tiny"]
    process = start(*arguments, env=environment(STORAGE_EMULATOR_HOST=cloud))
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    for kept in (0, 3):
        if kept:
            assert main(arguments) == 0
        summary = json.loads(bucket.blob("out/summary.json").download_as_bytes())
        assert summary["outcomes"] == {"colorized": 3, "skipped": 0, "failed": 1}
        assert summary["kept"] == kept
    names = {blob.name for blob in bucket.list_blobs(prefix="out/")}
    assert {"out/box 1/0.jpg_color.jpg", "out/gallery/index.html", "out/dead_letters.jsonl"} <= names
    shards = bucket.list_blobs(prefix="out/manifest/")
    records = [Record.from_json(line) for blob in shards for line in blob.download_as_bytes().splitlines()]
    first = next(record for record in records if record.key == "box 1/0.jpg")
    assert (first.source, first.outcome) == ("gs://archive/scans/box 1/0.jpg", Outcome.COLORIZED)
    capsys.readouterr()
    assert main([*arguments[:-1], "gs://archive/models/none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_temporary_storage_errors_do_not_affect_the_result(cloud, bucket, model):
    for number in range(2):
        bucket.blob(f"busy/{number}.jpg").upload_from_string(jpeg(picture(number)))
    bucket.blob("busy.jsonl").upload_from_string(
        b"".join(b'{"source": "busy/%d.jpg", "key": "%d.jpg"}\n' % (number, number) for number in range(2))
    )
    bucket.blob("busy-out/gallery/page-7.html").upload_from_string(b"of an earlier run")
    proxy = Flaky(cloud)
    for kind in ("list", "stat", "read", "upload", "delete"):
        proxy.fail(kind)
    for name in ("_color.jpg", "manifest/", "gallery/pictures", "index.html", "summary.json", "lease"):
        proxy.fail("upload", about=name)
    proxy.fail("read", about="busy.jsonl", answer="hang up")
    process = start(
        *("--input", "gs://archive/busy.jsonl", "--output", "gs://archive/busy-out", "--model", model),
        env=environment(STORAGE_EMULATOR_HOST=proxy.url),
    )
    out, err = process.communicate(timeout=WAIT)
    proxy.close()
    assert (process.returncode, told(err)) == (0, "")
    assert "2 colorized" in out
    assert len(proxy.failed) >= 11
    names = {blob.name for blob in bucket.list_blobs(prefix="busy-out/")}
    assert "busy-out/gallery/page-7.html" not in names
    assert "busy-out/.archive-colorize-lease" not in names
    assert {"busy-out/0.jpg_color.jpg", "busy-out/gallery/index.html"} <= names


def test_the_graph_is_translated_for_dataflow(model, tmp_path):
    archive = make_archive(tmp_path / "in", 1)
    template = tmp_path / "template.json"
    (tmp_path / "staging").mkdir()
    process = start(
        "--input",
        archive,
        "--output",
        tmp_path / "out",
        "--model",
        model,
        "--runner=DataflowRunner",
        "--no_auth",
        "--dataflow_endpoint=http://localhost:1/",
        "--project=p",
        "--region=europe-west4",
        f"--template_location={template}",
        f"--staging_location={tmp_path / 'staging'}",
        f"--temp_location={tmp_path / 'temp'}",
        "--sdk_container_image=image",
        "--workers_share_files",
        "--gpu=l4",
    )
    _, err = process.communicate(timeout=WAIT)
    assert template.exists(), err
    job = json.loads(template.read_text())
    pool = job["environment"]["workerPools"][0]
    assert pool["machineType"] == "g2-standard-12"
    assert any("nvidia-l4" in option for option in job["environment"]["serviceOptions"])
    assert process.returncode == 0, err


def test_a_wheel_works_outside_the_checkout_model_included(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", "-f", f"--prefix={source}/"], check=True)
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, *wheels.iterdir()], check=True)
    archive = make_archive(tmp_path / "in", 2, 200, 150)
    env = os.environ | {"PYTHONPATH": str(site), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [
        sys.executable,
        site / "bin" / "archive-colorize",
        "--input",
        archive,
        "--output",
        tmp_path / "out",
    ]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "2 colorized" in run.stdout
    assert (tmp_path / "out" / "gallery" / "index.html").exists()
    where = subprocess.run(
        [sys.executable, "-c", "import model; print(model.default_model())"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)


def test_a_notebook_gets_the_same_picture_as_the_job(model, colorize, tmp_path):
    from pipeline.notebook import colorize_image

    scan = Image.fromarray(picture(3, 300, 200))
    (tmp_path / "in").mkdir()
    scan.save(tmp_path / "in" / "scan.png")
    run = colorize(tmp_path / "in", tmp_path / "out", "--format", "png")
    derivative = np.int16(Image.open(run.records["scan.png"].derivative))
    picture_here = np.int16(colorize_image(scan, str(model)))
    assert np.abs(picture_here - derivative).max() <= 1


def test_a_notebook_refuses_what_the_job_refuses(model, tmp_path):
    from pipeline.notebook import colorize_image

    grey = Image.fromarray(np.uint8(np.add.outer(np.arange(64), np.arange(64))))
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey.rotate(90)])
    grey.save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    refused = {
        "too_small": Image.new("L", (8, 8)),
        "multipage": Image.open(tmp_path / "pages.tif"),
        "truncated": Image.open(tmp_path / "cut.png"),
        "unsupported_mode": Image.new("F", (64, 64)),
    }
    for reason, image in refused.items():
        with pytest.raises(Refusal) as caught:
            colorize_image(image, str(model))
        assert caught.value.reason == reason


def test_a_notebook_reads_an_opened_file_as_the_job_does(model, tmp_path):
    """Pillow alone reads 12-bit samples in 16 bits as nearly black."""
    from pipeline.notebook import colorize_image

    luma = np.uint8(np.add.outer(np.arange(64), np.arange(64)) + 60)
    deep = np.uint16(np.rint(luma / 255 * 4095))
    tifffile.imwrite(tmp_path / "deep.tif", deep, metadata=None, extratags=[(281, 3, 1, 4095, False)])
    found = colorize_image(Image.open(tmp_path / "deep.tif"), str(model))
    assert np.abs(np.int16(found.convert("L")) - luma).max() <= 1
