"""archive-colorize verify: what is missing, changed or not listed is named, and an output can be moved."""

import hashlib
import shutil
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.colorize import main
from tests.pipeline.conftest import jpeg, make_output, picture


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """An archive of six scans, one of them broken, and its output."""
    return make_output(tmp_path_factory.mktemp("finished"), model, 5)


@pytest.fixture
def output(finished, tmp_path):
    """A copy of the output, in another place than that where the job wrote it."""
    return shutil.copytree(finished / "out", tmp_path / "moved")


def derivatives(output):
    return sorted(output.rglob("*_color.jpg"))


def test_a_whole_output_has_no_findings(output, capsys):
    assert main(["verify", str(output)]) == 0
    assert capsys.readouterr().out == "5 files read: all as the manifest says\n"


def test_masters_are_read_if_asked(output, finished, capsys):
    master = next((finished / "in").rglob("*.jpg"))
    assert main(["verify", str(output), "--masters"]) == 0
    assert "11 files read: all" in capsys.readouterr().out  # the broken master, too
    before = master.read_bytes()
    try:
        master.write_bytes(before + b"!")
        assert main(["verify", str(output), "--masters"]) == 1
        assert f"master changed: {master} (SHA-256 is " in capsys.readouterr().out
    finally:
        master.write_bytes(before)


def test_further_digests_are_recorded_and_verified(finished, colorize, tmp_path, capsys):
    output = tmp_path / "out"
    before = colorize(finished / "in", output, "--date", "2026-12-02").latest
    bytes_before = {path: path.read_bytes() for path in derivatives(output)}
    run = colorize(finished / "in", output, "--date", "2026-12-02", "--digests", "MD5,sha-512")
    assert run.code == 0, run.err
    assert {path: path.read_bytes() for path in derivatives(output)} == bytes_before
    for key, record in run.latest.items():
        if key == "broken.jpg":
            continue
        assert record.confidence == before[key].confidence
        for name, uri in (("source", record.source), ("derivative", record.derivative)):
            data = Path(uri).read_bytes()
            wanted = {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "md5", "sha512")}
            assert record.fixity(name) == wanted
    again = colorize(finished / "in", output, "--date", "2026-12-02", "--digests", "md5")
    assert "5  of these were up to date already" in again.out
    assert main(["verify", str(output), "--masters"]) == 0
    for path in (output / "manifest").iterdir():
        path.write_text(path.read_text().replace('_sha512":"', '_sha512":"0'))
    capsys.readouterr()
    assert main(["verify", str(output)]) == 1
    assert "(SHA-512 is " in capsys.readouterr().out


def test_the_same_date_gives_the_same_bytes(finished, colorize, tmp_path):
    outputs = [tmp_path / name for name in ("a", "b", "later")]
    for output, date in zip(outputs, ["2026-12-02", "2026-12-02", "2026-12-03"], strict=True):
        assert colorize(finished / "in", output, "--date", date).code == 0
    one, same, later = ([path.read_bytes() for path in derivatives(output)] for output in outputs)
    assert one == same
    assert not set(one) & set(later)


@pytest.mark.parametrize(
    "option", ["--date=2026-02-30", "--date=today", "--digests=crc32", "--credit= ", "--description=a\tb"]
)
def test_wrong_labels_stop_the_job_before_any_work(finished, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--input", str(finished / "in"), "--output", str(tmp_path / "out"), option])
    assert stopped.value.code == 2
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.splitlines()[-1].startswith("archive-colorize: error: argument --")


def test_missing_changed_and_unlisted_files_are_named(output, capsys):
    missing, changed, unreadable, *_ = derivatives(output)
    missing.unlink()
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    unreadable.unlink()
    unreadable.mkdir()
    (output / "box0" / "notes.txt").write_text("of an archivist")
    stray = output / "gallery" / "box9" / "a.jpg_color.png"  # of a collection with such a folder
    stray.parent.mkdir()
    stray.write_bytes(b"")
    assert main(["verify", str(output)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"missing: {missing}",
        f"changed: {changed}",
        f"unreadable: {unreadable}",
        f"not in the manifest: {output / 'box0' / 'notes.txt'}",
        f"not in the manifest: {stray}",
    ]
    assert last == "5 files read: 1 missing, 1 changed, 1 unreadable, 2 not in the manifest"


def test_an_output_in_a_bucket_is_verified(bucket, model, colorize, capsys):
    storage.write(f"{bucket}/verified/scans/a.jpg", jpeg(picture(1)))
    output = f"{bucket}/verified/out"
    assert colorize(f"{bucket}/verified/scans", output).code == 0
    assert main(["verify", output, "--masters"]) == 0
    storage.write(f"{output}/a.jpg_color.jpg", b"changed")
    assert main(["verify", output]) == 1
    assert f"changed: {output}/a.jpg_color.jpg" in capsys.readouterr().out


def test_a_folder_without_a_manifest_is_a_users_mistake(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"archive-colorize: no manifest in {tmp_path}; is it the --output of a run?\n"
    )
