"""archive-colorize report: one page that says what was done, to how many, by which model, and what was refused."""

import hashlib
import re
import resource

from pipeline import storage
from pipeline.colorize import main
from pipeline.gallery import report
from pipeline.records import manifest
from pipeline.records.record import Reason, Record, Refusal
from tests.pipeline.conftest import jpeg, make_archive, picture


def text(uri):
    """The words of a page."""
    page = storage.read(uri).decode()
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_the_page_says_what_was_done_and_what_was_refused(colorize, model, tmp_path, capsys):
    archive, output = make_archive(tmp_path / "in", 12), tmp_path / "out"
    (archive / "broken <b>.jpg").write_bytes(b"no picture")
    (archive / "notes.txt").write_text("of an archivist")
    run = colorize(archive, output, "--credit", "By a model")
    assert run.code == 0, run.err
    assert main(["report", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}/report.html\n"
    words = text(f"{output}/report.html")
    assert "Scans with a record: 14. Colourised: 12. Skipped: 1. Failed: 1." in words
    assert run.records["box0/scan0000.jpg"].model_sha256 in words
    assert "credit: By a model" in words
    assert "box0 10 10 0 0" in words
    assert "box1 2 2 0 0" in words
    assert "broken &lt;b&gt;.jpg unreadable" in words
    assert "notes.txt not an image files that end in .txt are not opened" in words
    lines = "".join(record.to_json() + "\n" for record in manifest.latest(str(output)))
    assert hashlib.sha256(lines.encode()).hexdigest() in words
    first = (output / "report.html").read_bytes()
    assert main(["report", str(output)]) == 0
    assert (output / "report.html").read_bytes() == first
    assert main(["verify", str(output)]) == 0
    (output / "summary.json").unlink()  # as after a kill
    assert main(["report", str(output)]) == 0
    assert "credit: By a model" not in text(f"{output}/report.html")


def test_the_page_of_an_output_in_a_bucket(bucket, colorize, capsys):
    storage.write(f"{bucket}/reported/scans/a.jpg", jpeg(picture(1)))
    assert colorize(f"{bucket}/reported/scans", f"{bucket}/reported/out").code == 0
    assert main(["report", f"{bucket}/reported/out"]) == 0
    assert "Scans with a record: 1. Colourised: 1." in text(f"{bucket}/reported/out/report.html")


def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
    def records(count):
        for number in range(count):
            record = Record(f"/in/{number:09}/a.tif", f"{number:09}/a.tif", run=f"run{number}")
            yield record.refuse(Refusal(Reason.MISSING, "gone"))

    report.write_report(str(tmp_path), records(5_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report.write_report(str(tmp_path), records(60_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB
    words = text(f"{tmp_path}/report.html")
    assert f"{60_000 - report.NAMED:,} more are in the manifest.".replace(",", " ") in words
    assert "(others)" in words


def test_a_folder_without_a_manifest_is_a_users_mistake(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"archive-colorize: no manifest in {tmp_path}; is it the --output of a run?\n"
    )
