"""Files with several pictures: a record and a derivative for each, also after kills and changes of the file."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.batch import worklist
from pipeline.batch.plan import Action
from pipeline.codec.settings import Settings
from pipeline.colorize import main
from pipeline.inputs.collection import expand
from pipeline.records import manifest
from pipeline.records.record import Reason
from tests.pipeline.batch.test_faults import ONE, alive, children, wait_for
from tests.pipeline.batch.test_graph import plan_on_a_cluster, without_times
from tests.pipeline.conftest import WAIT, jpeg, make_archive, picture, start


def document(*pictures, **options):
    """A TIFF with these pictures, luma uint8 [H, W] each."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **{"bigtiff": False, **options}) as writer:
        for number, luma in enumerate(pictures, 1):
            writer.write(
                luma,
                photometric="minisblack",
                compression="deflate",
                description=f"leaf {number}",
                metadata=None,
            )
    return buffer.getvalue()


def leaves(*seeds):
    return [picture(seed, 96 + seed, 64) for seed in seeds]


@pytest.fixture
def archive(tmp_path):
    """Two single scans, and a document of three pages."""
    folder = make_archive(tmp_path / "in", 2)
    (folder / "book.tif").write_bytes(document(*leaves(1, 2, 3)))
    return folder


PAGES = ["book.tif#page=1", "book.tif#page=2", "book.tif#page=3"]


def contents(output):
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*_color.*"))
    }


def counted(output, capsys):
    """What `status` counts, from the manifest."""
    capsys.readouterr()
    assert main(["status", str(output)]) == 0
    return capsys.readouterr().out


def is_sound(output, capsys):
    """Whether `verify` finds derivatives and masters as the manifest says."""
    capsys.readouterr()
    code = main(["verify", str(output), "--masters"])
    return code == 0 or capsys.readouterr().out


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_every_page_has_a_record_and_a_derivative_with_its_luma(
    colorize, tmp_path, format, order, big, capsys
):
    folder = make_archive(tmp_path / "in", 1)
    data = document(*leaves(1, 2, 3), byteorder=order, bigtiff=big)
    (folder / "book.tif").write_bytes(data)
    run = colorize(folder, tmp_path / "out", "--format", format, *ONE)
    assert run.code == 0, run.err
    assert sorted(run.records) == ["book.tif#page=1", *PAGES[1:], "box0/scan0000.jpg"]
    assert run.summary["outcomes"] == {"colorized": 4, "skipped": 0, "failed": 0}
    for number, key in enumerate(PAGES, 1):
        record = run.records[key]
        assert (record.pages, record.width, record.source) == (3, 96 + number, str(folder / "book.tif"))
        assert record.source_bytes == len(data)
        assert record.source_sha256 == hashlib.sha256(data).hexdigest()
        ending = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif"}[format]
        assert record.derivative == f"{run.output}/{key}_color{ending}"
        with Image.open(record.derivative) as image:
            difference = np.abs(np.int16(image.convert("L")) - leaves(number)[0])
            assert difference.max() <= (25 if format == "jpeg" else 1)
            if format == "tiff":
                assert image.tag_v2[270] == f"leaf {number}"
    assert is_sound(run.output, capsys) is True
    assert "4 scans: 4 colorized" in counted(run.output, capsys)


def test_pages_that_are_up_to_date_are_not_opened_again(colorize, archive, tmp_path):
    colorize(archive, tmp_path / "out", *ONE)
    again = colorize(archive, tmp_path / "out", *ONE)
    assert (again.summary["records"], again.summary["kept"]) == (5, 5)
    os.unlink(tmp_path / "out/book.tif#page=2_color.jpg")
    again = colorize(archive, tmp_path / "out", *ONE)
    assert (again.summary["records"], again.summary["kept"]) == (5, 4)
    assert again.latest["book.tif#page=2"].run == again.summary["run"]


def test_another_option_makes_all_pages_stale(colorize, archive, tmp_path):
    colorize(archive, tmp_path / "out", *ONE)
    again = colorize(archive, tmp_path / "out", "--quality", 80, *ONE)
    assert (again.summary["records"], again.summary["kept"]) == (5, 0)


@pytest.mark.parametrize("kills", [1, 3])
def test_a_killed_job_and_its_successor_give_the_bytes_of_one_that_was_not_killed(
    model, colorize, tmp_path, kills, capsys
):
    folder = make_archive(tmp_path / "in", 4)
    pictures = [picture(seed, 300 + seed, 200) for seed in range(60)]
    (folder / "book.tif").write_bytes(document(*pictures))
    (folder / "volume.tif").write_bytes(document(*pictures[:7]))
    whole = colorize(folder, tmp_path / "whole", "--format", "png", *ONE)
    assert whole.summary["outcomes"]["colorized"] == 71
    output = tmp_path / "out"
    for kill in range(1, kills + 1):
        given = ("--model", model, "--gallery_size", "0", "--format", "png", *ONE)
        process = start("--input", folder, "--output", output, *given)
        assert wait_for(lambda enough=12 * kill: len(contents(output)) >= enough)
        family = children(process.pid)
        process.kill()
        process.communicate()
        assert wait_for(lambda family=family: not alive(family), 60)
    assert len(contents(output)) < 71
    again = colorize(folder, output, "--format", "png", *ONE)
    assert again.code == 0, again.err
    assert contents(output) == contents(tmp_path / "whole")
    assert again.summary["outcomes"] == {"colorized": 71, "skipped": 0, "failed": 0}
    assert again.latest.keys() == whole.records.keys()
    assert is_sound(output, capsys) is True


def test_a_request_to_stop_ends_between_pages_and_counts_the_rest(model, colorize, tmp_path, capsys):
    folder = make_archive(tmp_path / "in", 1)
    pictures = [picture(seed, 300 + seed, 200) for seed in range(40)]
    (folder / "book.tif").write_bytes(document(*(pictures * 5)))
    output = tmp_path / "out"
    given = ("--model", model, "--gallery_size", "0", "--format", "png", *ONE)
    process = start("--input", folder, "--output", output, *given)
    assert wait_for(lambda: len(contents(output)) >= 12)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130, err
    done = int(re.search(r"(\d+) in this run", out)[1])
    assert 12 <= done < 201
    assert len(contents(output)) == done
    assert int(re.search(r"(\d+) scans not started", out)[1]) == 201 - done
    again = colorize(folder, output, "--format", "png", *ONE)
    assert again.summary["outcomes"] == {"colorized": 201, "skipped": 0, "failed": 0}
    assert again.summary["kept"] == done
    assert is_sound(output, capsys) is True


def test_a_damaged_page_fails_alone_and_is_tried_again(colorize, archive, tmp_path, capsys):
    good = (archive / "book.tif").read_bytes()
    with tifffile.TiffFile(io.BytesIO(good)) as file:
        place, size = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    (archive / "book.tif").write_bytes(good[:place] + b"\xff" * size + good[place + size :])
    run = colorize(archive, tmp_path / "out", *ONE)
    assert run.summary["outcomes"] == {"colorized": 4, "skipped": 0, "failed": 1}
    failed = run.records["book.tif#page=2"]
    assert (failed.outcome, failed.reason, failed.pages) == ("failed", Reason.UNREADABLE, 3)
    letters = tmp_path / "letters.jsonl"  # they name the page
    letters.write_text((run.output / "dead_letters.jsonl").read_text())
    (archive / "book.tif").write_bytes(good)
    named = colorize(letters, tmp_path / "named", *ONE)
    assert list(named.records) == ["book.tif#page=2"]
    again = colorize(archive, run.output, *ONE)
    assert again.summary["outcomes"] == {"colorized": 5, "skipped": 0, "failed": 0}
    assert contents(tmp_path / "named").items() <= contents(run.output).items()
    assert is_sound(run.output, capsys) is True


def test_a_file_with_another_time_is_hashed_and_its_pages_kept(colorize, archive, tmp_path, capsys):
    first = colorize(archive, tmp_path / "out", *ONE)
    before = contents(first.output)
    times = {path: path.stat().st_mtime_ns for path in first.output.rglob("*_color.*")}
    os.utime(archive / "book.tif", ns=(1, 1))
    colorize(archive, first.output, *ONE)
    assert contents(first.output) == before
    assert times == {path: path.stat().st_mtime_ns for path in first.output.rglob("*_color.*")}
    assert colorize(archive, first.output, *ONE).summary["kept"] == 5
    assert is_sound(first.output, capsys) is True


@pytest.mark.parametrize("now", [1, 2, 5])
def test_a_file_that_changes_its_number_of_pictures_counts_as_it_is_now(
    colorize, archive, tmp_path, now, capsys
):
    output = tmp_path / "out"
    colorize(archive, output, *ONE)
    (archive / "book.tif").write_bytes(document(*leaves(*range(3, 3 + now))))
    run = colorize(archive, output, *ONE)
    own = ["book.tif"] if now == 1 else [f"book.tif#page={page}" for page in range(1, now + 1)]
    latest = {record.key for record in manifest.latest(str(output))}
    assert {key for key in latest if key.startswith("book")} == set(own)
    assert run.summary["outcomes"] == {"colorized": 2 + now, "skipped": 0, "failed": 0}
    assert f"{2 + now} scans: {2 + now} colorized" in counted(output, capsys)
    gone = [key for key in PAGES if key not in own]
    found = is_sound(output, capsys)
    if gone:  # derivatives of pages that are gone stay, as those of scans that are gone, and are named
        assert found.count("not in the manifest") == len(gone) + 1
        assert all(f"{key}_color.jpg" in found for key in gone)
    else:
        assert found is True
    assert colorize(archive, output, *ONE).summary["kept"] == 2 + now
    (archive / "book.tif").write_bytes(document(*leaves(1, 2, 3)))  # and back
    assert colorize(archive, output, *ONE).summary["outcomes"]["colorized"] == 5
    latest = {record.key for record in manifest.latest(str(output))}
    assert {key for key in latest if key.startswith("book")} == set(PAGES)


def test_a_file_that_was_refused_as_a_whole_is_not_counted_beside_its_pages(
    colorize, archive, tmp_path, capsys
):
    good = (archive / "book.tif").read_bytes()
    (archive / "book.tif").write_bytes(good[:100])
    first = colorize(archive, tmp_path / "out", *ONE)
    assert first.records["book.tif"].outcome == "failed"
    (archive / "book.tif").write_bytes(good)
    colorize(archive, tmp_path / "out", *ONE)
    assert "5 scans: 5 colorized, 0 skipped, 0 failed" in counted(tmp_path / "out", capsys)
    (archive / "book.tif").write_bytes(good[:100])
    run = colorize(archive, tmp_path / "out", *ONE)
    assert run.summary["outcomes"]["failed"] == 1
    assert "3 scans: 2 colorized, 0 skipped, 1 failed" in counted(tmp_path / "out", capsys)
    (archive / "book.tif").write_bytes(good)
    again = colorize(archive, tmp_path / "out", *ONE)
    assert again.summary["outcomes"]["colorized"] == 5
    assert "5 scans: 5 colorized, 0 skipped, 0 failed" in counted(tmp_path / "out", capsys)


def test_a_manifest_may_name_pages_and_a_page_may_be_missing(colorize, archive, tmp_path):
    lines = [
        {"source": str(archive / "book.tif"), "key": "x/book.tif#page=3"},
        {"source": str(archive / "book.tif"), "key": "book.tif#page=4"},
        {"source": str(archive / "box0/scan0000.jpg"), "key": "a.jpg#page=1"},
        {"source": str(archive / "box0/scan0000.jpg"), "key": "a.jpg#page=2"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = colorize(tmp_path / "list.jsonl", tmp_path / "out", *ONE)
    outcomes = {key: (str(record.outcome), str(record.reason)) for key, record in run.records.items()}
    assert outcomes == {
        "x/book.tif#page=3": ("colorized", ""),
        "book.tif#page=4": ("failed", "missing"),
        "a.jpg#page=1": ("colorized", ""),
        "a.jpg#page=2": ("failed", "missing"),
    }
    assert colorize(tmp_path / "list.jsonl", tmp_path / "out", *ONE).summary["kept"] == 2


def test_a_page_that_is_named_beside_its_file_is_done_once_and_one_of_another_file_is_a_duplicate(
    colorize, archive, tmp_path
):
    shutil.copy(archive / "book.tif", tmp_path / "other.tif")
    lines = [
        {"source": str(archive / "book.tif"), "key": "book.tif"},
        {"source": str(archive / "book.tif"), "key": "book.tif#page=2"},
        {"source": str(tmp_path / "other.tif"), "key": "book.tif#page=2"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = colorize(tmp_path / "list.jsonl", tmp_path / "out", *ONE)
    assert sorted(run.records) == sorted([*PAGES, str(tmp_path / "other.tif")])
    record = run.records[str(tmp_path / "other.tif")]
    assert record.reason == Reason.DUPLICATE_KEY
    again = colorize(run.output / "dead_letters.jsonl", run.output, *ONE).latest[record.key]
    assert (again.outcome, again.reason, again.detail) == ("failed", record.reason, record.detail)


def test_a_file_whose_name_is_that_of_a_page_is_refused_and_takes_nothing_from_the_page(
    colorize, archive, tmp_path
):
    (archive / "book.tif#page=2").write_bytes(jpeg(picture(9)))
    (archive / "scan#page=1").write_bytes(jpeg(picture(9)))
    run = colorize(archive, tmp_path / "out", *ONE)
    assert set(PAGES) < set(run.records)
    for name in ("book.tif#page=2", "scan#page=1"):
        record = run.records[str(archive / name)]
        assert (record.outcome, record.reason) == ("failed", Reason.BAD_KEY)
    assert run.summary["outcomes"] == {"colorized": 5, "skipped": 0, "failed": 2}


def test_hints_for_a_page_colour_it_and_hints_for_the_file_are_refused(colorize, archive, tmp_path):
    hints = tmp_path / "hints"
    hints.mkdir()
    (hints / "book.tif#page=2.txt").write_text("10 10 #c02020\n60 40 #2040c0\n")
    given = ("--hints", hints, "--format", "png", *ONE)
    plain = colorize(archive, tmp_path / "plain", "--format", "png", *ONE)
    run = colorize(archive, tmp_path / "out", *given)
    assert [bool(run.records[key].hints_sha256) for key in PAGES] == [False, True, False]
    differing = {
        name for name, digest in contents(plain.output).items() if contents(run.output)[name] != digest
    }
    assert differing == {"book.tif#page=2_color.png"}
    assert not run.summary["unused_hints"]
    assert colorize(archive, run.output, *given).summary["kept"] == 5
    (hints / "book.tif#page=7.txt").write_text("10 10 #c02020\n")
    assert len(colorize(archive, run.output, *given).summary["unused_hints"]) == 1
    (hints / "book.tif#page=7.txt").unlink()
    (hints / "book.tif.txt").write_text("10 10 #c02020\n")
    refused = colorize(archive, tmp_path / "refused", *given)
    record = refused.records["book.tif"]
    assert (record.outcome, record.reason) == ("failed", Reason.BAD_HINTS)
    assert "#page=1" in record.detail
    (hints / "book.tif.txt").unlink()
    assert colorize(archive, tmp_path / "refused", *given).summary["outcomes"]["colorized"] == 5


def test_hints_for_a_page_of_a_file_with_one_picture_are_refused(colorize, archive, tmp_path):
    hints = tmp_path / "hints"
    hints.mkdir()
    key = sorted(key for key in colorize(archive, tmp_path / "out", *ONE).records if "book" not in key)[0]
    name = hints / f"{key}#page=1.txt"
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_text("10 10 #c02020\n")
    for output in (tmp_path / "out", tmp_path / "fresh"):  # with an up-to-date result, and without one
        for _ in range(2):
            run = colorize(archive, output, "--hints", hints, *ONE)
            record = run.latest[key]
            assert (record.outcome, record.reason) == ("failed", Reason.BAD_HINTS)
            assert f"name its hints {key}.txt" in record.detail
            assert not run.summary["unused_hints"]
    name.rename(hints / f"{key}.txt")
    record = colorize(archive, tmp_path / "fresh", "--hints", hints, *ONE).latest[key]
    assert record.outcome == "colorized" and record.hints_sha256


def test_the_gallery_shows_every_page(colorize, archive, tmp_path):
    run = colorize(archive, tmp_path / "out", "--gallery_size", 10, *ONE)
    page = (run.output / "gallery/index.html").read_text()
    assert page.count("book.tif%23page%3D") + page.count("book.tif%23page=") >= 3
    assert len(list((run.output / "gallery/pictures").glob("*-before.jpg"))) == 5
    shutil.rmtree(run.output / "gallery")
    colorize(archive, tmp_path / "out", "--gallery_size", 10, *ONE)  # now made from the files
    pictures = (run.output / "gallery/pictures").glob("*-before.jpg")
    sizes = sorted(Image.open(file).size for file in pictures)
    assert sizes == [(96, 64), (96, 64), (97, 64), (98, 64), (99, 64)]


def test_workers_plan_pages_as_one_machine_does(colorize, archive, tmp_path):
    run = colorize(archive, tmp_path / "out", *ONE)
    os.utime(archive / "book.tif", ns=(1, 1))
    long = "n" * 240 + ".tif"
    (archive / long).write_bytes((archive / "book.tif").read_bytes())
    assert colorize(archive, run.output, *ONE).code == 0
    os.unlink(next(run.output.glob("nnn*#page=2_color.jpg")))
    os.unlink(run.output / "book.tif#page=1_color.jpg")
    os.utime(archive / "book.tif", ns=(2, 2))
    model = run.latest["book.tif#page=1"].model_sha256
    settings = Settings(str(run.output), "next", model_sha256=model, strength=1.0)
    expected = list(worklist.tasks(str(archive), settings, {}, "stale"))
    tasks, _ = plan_on_a_cluster(str(archive), settings, None, tmp_path)
    assert {without_times(task) for task in tasks} == {
        without_times(worklist.packed(task).decode()) for task in expected
    }
    by_key = {task.item.key: task for task in expected}
    assert [page.action for page in by_key["book.tif"].pages] == [Action.VERIFY, Action.VERIFY]
    assert [page.action for page in by_key[long].pages] == [Action.KEEP, Action.KEEP]
    assert all(
        worklist.unpacked(worklist.packed(task)).pages == task.pages for task in expected if task.pages
    )


def test_the_plan_of_a_dry_run_names_the_pages_that_are_left(colorize, archive, tmp_path):
    run = colorize(archive, tmp_path / "out", *ONE)
    os.unlink(run.output / "book.tif#page=3_color.jpg")
    assert "book.tif  (1 of 3 pages: " in colorize(archive, run.output, "--dry_run").out


def test_animations_are_refused_with_that_reason(colorize, tmp_path):
    folder = make_archive(tmp_path / "in", 1)
    frames = [Image.fromarray(luma) for luma in leaves(1, 1)]
    frames[1] = Image.fromarray(picture(5, 97, 64))
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].convert("RGB").save(folder / name, save_all=True, append_images=[frames[1].convert("RGB")])
    run = colorize(folder, tmp_path / "out", *ONE)
    assert run.summary["reasons"] == {"animation": 3}


def test_memory_does_not_grow_with_the_number_of_pages(tmp_path):
    """Memory of the codec process besides the mapped file, for two pages and for many; the file is larger."""
    import psutil

    from pipeline.codec.codec import View
    from pipeline.codec.guard import Guard
    from pipeline.inputs.item import page_of

    def used():
        (codec,) = psutil.Process().children()
        status = Path(f"/proc/{codec.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) << 10

    rng, peaks = np.random.default_rng(0), []
    luma = rng.integers(0, 255, (1500, 1500), np.uint8)
    for number in (2, 60):
        folder = tmp_path / str(number)
        folder.mkdir()
        with tifffile.TiffWriter(folder / "book.tif") as writer:
            for page in range(number):
                writer.write(np.roll(luma, page), photometric="minisblack", metadata=None)
        guard = Guard(Settings(output=str(tmp_path / "out"), run="r", side=32, format="tiff"))
        (item,) = expand(str(folder))
        assert guard.open(item).pages == number
        peaks.append(0)
        for page in range(1, number + 1):
            assert isinstance(guard.open(page_of(item, page)), View)
            peaks[-1] = max(peaks[-1], used())
            guard.drop(page_of(item, page))
        guard.close()
    assert peaks[1] - peaks[0] < 40 << 20, "60 pages of 2 MB in 130 MB"


@pytest.mark.parametrize("in_memory", [64 << 20, 100])
def test_pages_of_a_file_in_a_bucket_are_read_and_the_file_only_once(
    bucket, tmp_path, monkeypatch, in_memory
):
    from pipeline import storage
    from pipeline.codec import masters
    from pipeline.codec.codec import Codec, Several, View
    from pipeline.inputs.item import page_of

    monkeypatch.setattr(masters, "_IN_MEMORY", in_memory)
    place = f"{bucket}/pages{in_memory}"
    data = document(*leaves(1, 2, 3))
    storage.write(f"{place}/book.tif", data)
    storage.write(f"{place}/single.tif", document(*leaves(4)))
    book, single = expand(place)
    codec = Codec(Settings(output=str(tmp_path / "out"), run="r", side=32))
    assert codec.open(book) == Several(3)
    storage.delete(f"{place}/book.tif")
    for page in (1, 2, 3):
        view = codec.open(page_of(book, page))
        assert isinstance(view, View), view
        tiles = np.zeros((*view.tiles.shape, 2), np.float16)
        record = codec.paint(page_of(book, page), tiles, 1.0, 0.0)
        assert (record.source_sha256, record.width) == (hashlib.sha256(data).hexdigest(), 96 + page)
    assert isinstance(codec.open(single), View)
    assert codec.open(page_of(book, 1)).reason == Reason.MISSING  # the copy is not kept for longer
