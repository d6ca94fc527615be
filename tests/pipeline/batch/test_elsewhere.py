"""The job outside a checkout: Dataflow, a wheel and a notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.records.record import Refusal
from tests.pipeline.conftest import ROOT, WAIT, make_archive, picture, start


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
