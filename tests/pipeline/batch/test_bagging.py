"""--bag: the output is a bag that others validate, also after a kill, in an object store, and with strange names."""

import mmap
import os
import signal
import time

import bagit
import pytest

from pipeline import storage
from pipeline.batch import bagging
from pipeline.colorize import main
from pipeline.inputs import bags
from pipeline.records import manifest
from pipeline.records.record import Reason
from tests.pipeline.conftest import jpeg, make_archive, picture, start


@pytest.fixture
def archive(tmp_path):
    folder = make_archive(tmp_path / "in", 4)
    (folder / "Übergröße\n2.jpg").write_bytes(jpeg(picture(5)))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def validated(folder):
    """Payload files of a bag, after the validation of all digests."""
    bag = bagit.Bag(str(folder))
    bag.validate()
    return set(bag.payload_files())


def test_an_output_is_a_bag_that_bagit_validates(archive, model, tmp_path, colorize, capsys):
    output = tmp_path / "out"
    run = colorize(
        archive, output, "--bag", "--digests", "md5,sha512", "--gallery_size", 9, "--date", "2026-12-02"
    )
    assert run.code == 0, run.err
    files = validated(output)
    assert "data/Übergröße\n2.jpg_color.jpg" in files
    assert {name.split("/")[1] for name in files} >= {
        "box0",
        "manifest",
        "gallery",
        "summary.json",
        "dead_letters.jsonl",
    }
    bag = bagit.Bag(str(output))
    assert sorted(bag.algorithms) == ["md5", "sha256", "sha512"]
    assert bag.info["Bagging-Date"] == "2026-12-02"
    assert bag.info["Bag-Software-Agent"].startswith("archive-colorize ")
    sizes = [path.stat().st_size for path in (output / "data").rglob("*") if path.is_file()]
    assert bag.info["Payload-Oxum"] == f"{sum(sizes)}.{len(sizes)}"
    for command in ("verify", "status", "report"):
        assert main([command, str(output)]) == 0
    assert (output / "report.html").is_file()
    validated(output)


def test_a_derivative_that_changed_on_the_disk_makes_the_bag_invalid(archive, tmp_path, colorize):
    output = tmp_path / "out"
    assert colorize(archive, output, "--bag").code == 0
    file = next((output / "data").rglob("*_color.jpg"))
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert colorize(archive, output, "--bag").code == 0  # its size is the same, so it is kept
    with pytest.raises(bagit.BagValidationError, match=file.name):
        validated(output)


def test_a_second_run_makes_the_bag_valid_again(archive, tmp_path, colorize):
    output = tmp_path / "out"
    assert colorize(archive, output, "--bag").code == 0
    before = validated(output)
    (archive / "new.jpg").write_bytes(jpeg(picture(9)))
    assert colorize(archive, output, "--bag").code == 0
    assert "data/new.jpg_color.jpg" in validated(output) - before


def test_a_killed_run_leaves_no_valid_bag_and_the_next_one_completes_it(model, tmp_path, colorize):
    archive, output = make_archive(tmp_path / "in", 60, 512, 384), tmp_path / "out"
    process = start("--input", archive, "--output", output, "--model", model, "--bag", start_new_session=True)
    while len(list(output.rglob("*_color.jpg"))) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(bagit.BagError):
        validated(output)
    assert colorize(archive, output, "--bag").code == 0
    assert len([name for name in validated(output) if name.endswith("_color.jpg")]) == 60


def test_a_bag_in_a_bucket(bucket, archive, tmp_path, colorize):
    output = f"{bucket}/bagged/out"
    assert colorize(archive, output, "--bag").code == 0
    copy = tmp_path / "copy"
    for info in storage.list_files(output):
        file = copy / info.uri[len(output) + 1 :]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(info.uri))
    assert "data/box0/scan0000.jpg_color.jpg" in validated(copy)
    assert main(["verify", output]) == 0


def test_names_in_manifests_are_written_as_the_rfc_says(archive, tmp_path, colorize):
    (archive / "50%.jpg").write_bytes(jpeg(picture(7)))
    with open(os.fsencode(archive) + b"/latin1-\xe9.jpg", "wb") as file:
        file.write(jpeg(picture(8)))
    run = colorize(archive, tmp_path / "out", "--bag")
    lines = (tmp_path / "out" / "manifest-sha256.txt").read_text().splitlines()
    assert sum("  data/50%25.jpg_color.jpg" in line for line in lines) == 1
    assert sum("  data/Übergröße%0A2.jpg_color.jpg" in line for line in lines) == 1
    assert len(lines) == sum(len(names) for _, _, names in os.walk(tmp_path / "out" / "data"))
    records = {record.key: record for record in manifest.latest(str(tmp_path / "out" / "data"))}
    assert records["latin1-\udce9.jpg"].reason == Reason.BAD_KEY
    assert run.code == 0


def test_an_output_is_a_bag_from_its_first_run_to_its_last(archive, tmp_path, colorize):
    for name, first, second, words in (
        ("plain", [], ["--bag"], "is not a bag"),
        ("bag", ["--bag"], [], "is a bag: add --bag"),
    ):
        assert colorize(archive, tmp_path / name, *first).code == 0
        run = colorize(archive, tmp_path / name, *second)
        assert run.code == 2
        assert words in run.err
        assert run.err.count("\n") == 1


def test_the_payload_of_a_bag_stays_as_it_is(archive, tmp_path, colorize):
    output = tmp_path / "out"
    assert colorize(archive, output, "--bag").code == 0
    for place in (output / "data", output / "data" / "new"):
        run = colorize(archive, place, "--strength", 0.5)
        assert run.code == 2 and run.err.count("\n") == 1, run.err
        assert f"--output {output} --bag" in run.err
    assert main(["report", str(output / "data")]) == 0
    assert "<code>data/manifest</code>" in (output / "report.html").read_text()
    validated(output)


def test_memory_does_not_grow_with_the_payload(tmp_path, monkeypatch):
    """The manifest is never in memory as a whole: what is written is mapped from a file."""
    written, write = {}, storage.write

    def noted(uri, data, **more):
        written[uri] = type(data)
        write(uri, data, **more)

    monkeypatch.setattr(storage, "write", noted)
    (tmp_path / "data").mkdir()
    for number in range(300):
        (tmp_path / "data" / f"{number}").write_text(str(number))
    bagging.begin(str(tmp_path))
    bagging.complete(str(tmp_path), "2026-12-02")
    assert len(validated(tmp_path)) == 300
    assert written[f"{tmp_path}/{bags.manifest_name('sha256')}"] is mmap.mmap
