"""The job with everything in an object store: Cloud Storage and S3, on real servers over HTTP."""

import json
import signal
import time

import pytest

from pipeline import storage
from pipeline.records import manifest
from pipeline.records.record import Outcome
from tests.pipeline.conftest import WAIT, jpeg, picture, start, told


@pytest.fixture
def place(bucket, request) -> str:
    """A folder of this test alone in the bucket."""
    return f"{bucket}/{request.node.originalname}"


def upload(folder: str, count: int) -> None:
    for number in range(count):
        storage.write(f"{folder}/box 1/{number}.jpg", jpeg(picture(number)))


def upload_model(model, folder: str) -> str:
    for path in model.rglob("*"):
        if path.is_file():
            storage.write(f"{folder}/{path.relative_to(model)}", path.read_bytes())
    return folder


def summary(output: str) -> dict:
    return json.loads(storage.read(f"{output}/summary.json"))


def test_input_output_model_and_hints_are_in_a_bucket(place, model, colorize, tmp_path):
    upload(f"{place}/scans", 3)
    storage.write(f"{place}/scans/broken.jpg", b"no picture")
    storage.write(f"{place}/hints/box 1/2.jpg.txt", b"10 10 red")
    other = upload_model(model, f"{place}/models/tiny")
    output = f"{place}/out"
    for kept in (0, 3):
        run = colorize(f"{place}/scans", output, "--model", other, "--hints", f"{place}/hints")
        assert run.code == 0, run.err
        found = summary(output)
        assert found["outcomes"] == {"colorized": 3, "skipped": 0, "failed": 1}
        assert found["kept"] == kept
    records = {record.key: record for record in manifest.latest(output)}
    first = records["box 1/0.jpg"]
    assert (first.source, first.outcome) == (f"{place}/scans/box 1/0.jpg", Outcome.COLORIZED)
    assert first.source_version == storage.stat(first.source).version
    assert len(storage.read(first.derivative)) == first.derivative_bytes
    assert records["box 1/2.jpg"].hints_sha256
    missing = colorize(f"{place}/scans", output, "--model", f"{place}/models/none")
    assert (missing.code, missing.err.count("\n")) == (2, 1)


def test_temporary_errors_do_not_affect_the_result(place, flaky, model, colorize):
    upload(f"{place}/scans", 2)
    lines = (b'{"source": "scans/box 1/%d.jpg", "key": "%d.jpg"}\n' % (number, number) for number in range(2))
    storage.write(f"{place}/todo.jsonl", b"".join(lines))
    output = f"{place}/out"
    storage.write(f"{output}/gallery/page-7.html", b"of an earlier run")
    for kind in ("list", "stat", "read", "upload", "delete"):
        flaky.fail(kind)
    for name in ("_color.jpg", "manifest/", "gallery/pictures", "index.html", "summary.json", "lease"):
        flaky.fail("upload", about=name)
    flaky.fail("read", about="todo.jsonl", answer="hang up")
    flaky.fail("read", about="1.jpg", answer="cut")
    run = colorize(f"{place}/todo.jsonl", output, "--gallery_size", "10")
    assert (run.code, told(run.err)) == (0, "")
    assert "2 colorized" in run.out
    assert len(flaky.failed) >= 12
    names = {info.uri[len(output) + 1 :] for info in storage.list_files(output, hidden=True)}
    assert "gallery/page-7.html" not in names
    assert ".archive-colorize-lease" not in names
    assert {"0.jpg_color.jpg", "gallery/index.html"} <= names


def test_a_killed_job_is_continued(place, model):
    count = 24
    upload(f"{place}/scans", count)
    output = f"{place}/out"
    command = ["--input", f"{place}/scans", "--output", output, "--model", model, "--gallery_size=0"]
    killed = start(*command)
    deadline = time.monotonic() + WAIT
    while sum(1 for _ in storage.list_files(f"{output}/box 1")) < 4:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=WAIT)
    again = start(*command)
    _, err = again.communicate(timeout=WAIT)
    assert again.returncode == 0, err
    assert summary(output)["outcomes"] == {"colorized": count, "skipped": 0, "failed": 0}
    derivatives = {record.derivative for record in manifest.latest(output)}
    assert derivatives == {info.uri for info in storage.list_files(f"{output}/box 1")}
    assert len(derivatives) == count
    assert not [info.uri for info in storage.list_files(output, hidden=True) if "/.archive" in info.uri]


@pytest.mark.parametrize(("kind", "name"), [("list", "scans"), ("upload", "lease"), ("read", "tiny")])
def test_a_forbidden_bucket_is_one_line(place, flaky, model, colorize, kind, name):
    upload(f"{place}/scans", 1)
    other = upload_model(model, f"{place}/models/tiny")
    flaky.fail(kind, about=name, answer=403)
    run = colorize(f"{place}/scans", f"{place}/out", "--model", other)
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert not list(storage.list_files(f"{place}/out"))
