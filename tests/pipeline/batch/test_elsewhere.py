"""The job outside a checkout: Dataflow, a wheel and a notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from apache_beam.portability.api import beam_runner_api_pb2
from PIL import Image

from pipeline.batch import lease
from pipeline.records.record import Refusal
from tests import rest
from tests.pipeline.conftest import ROOT, WAIT, make_archive, picture, start

KEY = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"


def dataflow(tmp_path, *arguments: object) -> list[object]:
    """Arguments for Dataflow without Google Cloud: files are staged in a folder."""
    (tmp_path / "staging").mkdir()
    return [
        "--input",
        make_archive(tmp_path / "in", 1),
        "--output",
        tmp_path / "out",
        "--workers_share_files",
        "--runner=DataflowRunner",
        "--no_auth",
        "--project=p",
        "--region=europe-west4",
        f"--staging_location={tmp_path / 'staging'}",
        f"--temp_location={tmp_path / 'temp'}",
        "--sdk_container_image=registry/worker:1",
        *arguments,
    ]


@pytest.mark.parametrize("gpu", ["none", "l4"])
def test_the_graph_is_translated_for_dataflow(model, tmp_path, gpu):
    """A Flex Template's launcher runs the command like this, and must end without waiting for the job."""
    template = tmp_path / "template.json"
    process = start(
        *dataflow(tmp_path, "--model", model, "--dataflow_endpoint=http://localhost:1/", f"--gpu={gpu}"),
        f"--template_location={template}",
        "--job_name=colorize-nightly",
        "--service_account_email=worker@p.iam.gserviceaccount.com",
        "--subnetwork=regions/europe-west4/subnetworks/colorize",
        "--no_use_public_ips",
        "--max_num_workers=4",
        "--disk_size_gb=60",
        f"--dataflow_kms_key={KEY}",
        "--labels=application=archive-colorize",
        *(["--machine_type=n2-standard-8", "--number_of_worker_harness_threads=6"] if gpu == "none" else []),
        "--resource_hints=min_ram=16GB",
    )
    _, err = process.communicate(timeout=WAIT)
    assert template.exists(), err
    assert process.returncode == 0, err
    job = json.loads(template.read_text())
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    (harness,) = pool["sdkHarnessContainerImages"]
    assert (job["name"], job["type"]) == ("colorize-nightly", "JOB_TYPE_BATCH")
    assert job["labels"] == {"application": "archive-colorize"}
    assert environment["serviceAccountEmail"] == "worker@p.iam.gserviceaccount.com"
    assert environment["serviceKmsKeyName"] == KEY
    assert environment["tempStoragePrefix"] == str(tmp_path / "temp")
    assert "use_runner_v2" in environment["experiments"]
    assert pool["subnetwork"] == "regions/europe-west4/subnetworks/colorize"
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert pool["autoscalingSettings"] == {"maxNumWorkers": 4}
    assert pool["diskSizeGb"] == 60
    assert pool["workerHarnessContainerImage"] == harness["containerImage"] == "registry/worker:1"
    one_process = "no_use_multiple_sdk_containers"
    if gpu == "none":
        assert (pool["machineType"], pool["numThreadsPerWorker"]) == ("n2-standard-8", 6)
        assert "serviceOptions" not in environment and one_process not in environment["experiments"]
    else:
        assert (pool["machineType"], pool["numThreadsPerWorker"]) == ("g2-standard-12", 12)
        accelerator = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:5xx"
        assert environment["serviceOptions"] == [accelerator]
        assert one_process in environment["experiments"]
    graph = beam_runner_api_pb2.Pipeline.FromString((tmp_path / "staging" / "pipeline.pb").read_bytes())
    hints = [dict(one.resource_hints) for one in graph.components.environments.values()]
    assert {"beam:resources:min_ram_bytes:v1": b"16000000000"} in hints


def test_a_launcher_need_not_wait_for_the_end(model, tmp_path):
    """The job of this server runs for ever."""
    asked = []

    def answer(method: str, path: str, body: dict) -> tuple[int, dict]:
        asked.append((method, path.partition("?")[0]))
        job = {"id": "1", "name": "n", "currentState": "JOB_STATE_RUNNING", "projectId": "p"}
        return 200, job | {"location": "europe-west4"}

    with rest.server(answer) as url:
        endpoint = f"--dataflow_endpoint={url}/"
        process = start(
            *dataflow(tmp_path, "--model", model, endpoint, "--job_name=once", "--no_wait_until_finish")
        )
        out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    assert "the job once was started" in out
    assert asked[0] == ("POST", "/v1b3/projects/p/locations/europe-west4/jobs")
    assert not (tmp_path / "out" / lease.FILE).exists()


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
