"""The batch job as users run it: the outcome of each scan, and the work of a second run."""

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.colorize import main
from pipeline.records.record import Outcome, Reason, Record
from tests.pipeline.conftest import WAIT, environment, export_model, jpeg, make_archive, picture


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """An archive of valid scans and of files that fail in different ways."""
    folder = make_archive(tmp_path_factory.mktemp("mixed"), 6)
    good = jpeg(picture(1))
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "random.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "notes.txt").write_text("Box 7, found in the attic")
    (folder / ".hidden.jpg").write_bytes(good)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "broken_disk.jpg").symlink_to("/proc/self/mem")  # reading it is an I/O error, even for root
    (folder / "Übergröße & <b>.jpg").write_bytes(good)
    with open(os.fsencode(folder) + b"/latin1-\xe9.jpg", "wb") as file:
        file.write(good)
    rng = np.random.default_rng(3)
    color = np.stack([picture(2), picture(3), rng.permutation(picture(4))], -1)
    Image.fromarray(color).save(folder / "color.png")
    ImageOps.colorize(Image.fromarray(picture(5)), (40, 20, 5), (255, 240, 200)).save(folder / "sepia.png")
    Image.fromarray(np.uint16(picture(6)) * 257).save(folder / "deep.tif")
    Image.fromarray(picture(7)).save(folder / "a.tif")
    (folder / "a.jpg").write_bytes(good)
    return folder


@pytest.fixture(scope="module")
def mixed_run(mixed, model, tmp_path_factory):
    from tests.pipeline.conftest import Run, start

    output = tmp_path_factory.mktemp("mixed-out") / "out"
    process = start("--input", mixed, "--output", output, "--model", model)
    out, err = process.communicate(timeout=WAIT)
    return Run(process.returncode, out, err, output)


def test_every_scan_ends_as_exactly_one_record(mixed, mixed_run):
    assert mixed_run.code == 0, mixed_run.err
    files = {
        os.fsdecode(os.path.relpath(os.path.join(folder, name), os.fsencode(mixed)))
        for folder, _, names in os.walk(os.fsencode(mixed))
        for name in names
        if not name.startswith(b".")
    }
    assert set(mixed_run.records) == files


def test_a_bad_scan_becomes_a_record_with_its_reason(mixed_run):
    records = mixed_run.records
    reasons = {key: record.reason for key, record in records.items() if record.outcome != Outcome.COLORIZED}
    assert reasons == {
        "truncated.jpg": Reason.TRUNCATED,
        "random.jpg": Reason.UNREADABLE,
        "empty.tif": Reason.UNREADABLE,
        "notes.txt": Reason.NOT_AN_IMAGE,
        "gone.jpg": Reason.MISSING,
        "broken_disk.jpg": Reason.READ_ERROR,
        "color.png": Reason.ALREADY_COLOR,
    }
    assert all(records[key].detail for key in reasons)


def test_scans_of_the_same_stem_keep_apart(mixed_run):
    records = mixed_run.records
    assert records["a.tif"].derivative != records["a.jpg"].derivative
    assert all(
        os.path.basename(records[key].derivative).startswith(f"{key}_color.") for key in ("a.tif", "a.jpg")
    )


def test_a_record_identifies_the_scan_the_derivative_and_the_model(mixed, mixed_run, model):
    import hashlib

    from model.card import read_card

    record = mixed_run.records["a.jpg"]
    master, derivative = (mixed / "a.jpg").read_bytes(), Path(record.derivative).read_bytes()
    assert (record.source_sha256, record.source_bytes) == (hashlib.sha256(master).hexdigest(), len(master))
    digest = hashlib.sha256(derivative).hexdigest()
    assert (record.derivative_sha256, record.derivative_bytes) == (digest, len(derivative))
    assert (record.model_sha256, record.model) == (read_card(model).weights_sha256, "tiny")
    assert (record.width, record.height) == Image.open(mixed / "a.jpg").size
    assert 0 <= record.confidence <= 1
    assert record.colorfulness > 0


def test_the_summary_counts_the_records(mixed_run):
    counts = {str(outcome): 0 for outcome in Outcome}
    for record in mixed_run.records.values():
        counts[record.outcome] += 1
    assert mixed_run.summary["outcomes"] == counts
    assert f"{counts['failed']} failed" in mixed_run.out
    assert "truncated" in mixed_run.out
    assert str(mixed_run.output / "gallery" / "index.html") in mixed_run.out
    assert (mixed_run.output / "gallery" / "index.html").exists()


def test_the_dead_letters_can_be_fed_back(mixed, mixed_run, colorize, tmp_path):
    letters = mixed_run.output / "dead_letters.jsonl"
    failed = {record.key for record in mixed_run.records.values() if record.outcome == Outcome.FAILED}
    assert {Record.from_json(line).key for line in letters.read_text().splitlines()} == failed
    again = colorize(letters, tmp_path / "again")
    assert set(again.records) == failed


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_masters_are_never_written(mixed, colorize, tmp_path, format):
    def state():
        """Modification time, mode and digest of every file and folder at any depth."""
        found = {}
        for folder, folders, names in os.walk(os.fsencode(mixed)):
            for name in (*folders, *names):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                whole = stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK)
                digest = hashlib.sha256(open(path, "rb").read()).hexdigest() if whole else ""  # noqa: SIM115
                found[path] = status.st_mtime_ns, status.st_mode, digest
        return found

    before = state()
    assert sum(bool(digest) for _, _, digest in before.values()) > 10
    colorize(mixed, tmp_path / "out", "--format", format, "--color_scans", "colorize", "--gallery_size", 4)
    assert state() == before


def test_the_luminance_of_a_grey_jpeg_is_carried_over_in_every_pixel(mixed, mixed_run):
    for key, record in mixed_run.records.items():
        if key.startswith("box"):
            decoded = []
            for file in (mixed / key, record.derivative):
                with Image.open(file) as image:
                    image.draft("L", image.size)
                    decoded.append(np.asarray(image.convert("L")))
            assert np.array_equal(*decoded)


def test_a_second_run_does_only_what_failed_before(mixed, colorize, tmp_path):
    first = colorize(mixed, tmp_path / "out")
    derivatives = {
        r.derivative: os.stat(r.derivative).st_mtime_ns for r in first.records.values() if r.derivative
    }
    assert derivatives
    second = colorize(mixed, tmp_path / "out")
    failed = {record.key for record in second.latest.values() if record.outcome == Outcome.FAILED}
    run = second.summary["run"]
    assert {record.key for record in map(Record.from_json, second.lines) if record.run == run} == failed
    assert {path: os.stat(path).st_mtime_ns for path in derivatives} == derivatives
    assert second.summary["records"] == len(second.latest)


def test_a_second_run_processes_only_new_changed_and_missing_files(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 6)
    output = tmp_path / "out"
    colorize(archive, output)
    scans = sorted(archive.rglob("*.jpg"))
    (archive / "new.jpg").write_bytes(jpeg(picture(77)))
    scans[0].write_bytes(jpeg(picture(78)))  # changed
    os.utime(scans[1])  # new time, same bytes
    next(output.rglob(f"{scans[2].name}_color.jpg")).unlink()
    scans[3].unlink()
    run = colorize(archive, output)
    redone = {
        record.key: record for record in map(Record.from_json, run.lines) if record.run == run.summary["run"]
    }
    name = {number: str(scans[number].relative_to(archive)) for number in range(4)}
    assert set(redone) == {"new.jpg", name[0], name[1], name[2]}
    assert redone[name[1]].derivative_sha256 == run.latest[name[1]].derivative_sha256
    assert run.summary["records"] == 6, "what left the input is not of this run"
    third = colorize(archive, output)
    assert third.summary["kept"] == 6


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (("--strength", "0.5"), True),
        (("--calm", "0"), False),
        (("--quality", "70"), True),
        (("--batch_size", "3"), False),
        (("--max_failures", "0.5"), False),
    ],
)
def test_an_option_that_changes_a_derivative_makes_it_stale(colorize, tmp_path, change, stale):
    archive = make_archive(tmp_path / "in", 2)
    colorize(archive, tmp_path / "out")
    again = colorize(archive, tmp_path / "out", *change)
    assert again.summary["kept"] == (0 if stale else 2)


def test_another_model_makes_results_stale_unless_told_to_skip(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 2)
    other = export_model(tmp_path / "other", version="2")
    colorize(archive, tmp_path / "out")
    assert colorize(archive, tmp_path / "out", "--model", other, "--on_existing", "skip").summary["kept"] == 2
    assert colorize(archive, tmp_path / "out", "--model", other).summary["kept"] == 0
    assert (
        colorize(archive, tmp_path / "out", "--model", other, "--on_existing", "replace").summary["kept"] == 0
    )


def test_a_derivative_without_a_record_is_adopted(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 3)
    first = colorize(archive, tmp_path / "out")
    before = {record.derivative: os.stat(record.derivative).st_mtime_ns for record in first.records.values()}
    shutil.rmtree(tmp_path / "out" / "manifest")
    again = colorize(archive, tmp_path / "out")
    assert all("adopted" in record.detail for record in again.records.values())
    assert {path: os.stat(path).st_mtime_ns for path in before} == before


def test_results_of_low_confidence_can_be_withheld(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 2)
    (archive / "dull.jpg").write_bytes(jpeg(np.full((64, 96), 128, np.uint8)))
    run = colorize(archive, tmp_path / "out", "--min_confidence", "0.2")
    record = run.records["dull.jpg"]
    assert (record.outcome, record.reason, record.derivative) == (Outcome.SKIPPED, Reason.LOW_CONFIDENCE, "")
    assert not list((tmp_path / "out").rglob("dull*"))
    assert run.summary["outcomes"]["colorized"] == 2


def test_a_scan_that_is_skipped_keeps_no_derivative_of_an_earlier_run(colorize, tmp_path):
    output = tmp_path / "out"
    make_archive(tmp_path / "in", 2)
    coloured = np.stack([picture(2), picture(3), np.random.default_rng(3).permutation(picture(4))], -1)
    Image.fromarray(coloured).save(tmp_path / "in" / "colour.png")
    first = colorize(tmp_path / "in", output, "--color_scans", "colorize").records
    assert {record.outcome for record in first.values()} == {Outcome.COLORIZED}
    record = colorize(tmp_path / "in", output).latest["colour.png"]
    assert record.reason == Reason.ALREADY_COLOR
    assert record.detail.endswith("the derivative of an earlier run was deleted")
    assert not Path(first["colour.png"].derivative).exists()
    assert main(["verify", str(output)]) == 0
    assert colorize(tmp_path / "in", output).summary["kept"] == 3


def test_uncertain_places_fade_by_the_models_calm_or_by_the_option(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 2)
    outputs = ("chroma", "confidence", "certainty")  # certainty = lightness / 100
    model = export_model(tmp_path / "certain", outputs=outputs, calm=0.5)
    runs = {
        calm: colorize(archive, tmp_path / f"out{calm}", "--model", model, *options).records
        for calm, options in {"card": (), "0": ("--calm", "0"), "1": ("--calm", "1")}.items()
    }
    for key in runs["card"]:
        never, card, always = (runs[calm][key] for calm in ("0", "card", "1"))
        assert 0 == never.faded < card.faded < always.faded < 1
        assert never.colorfulness > card.colorfulness > always.colorfulness > 0


def test_a_model_without_certainty_is_refused_with_calm_only(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 1)
    refused = colorize(archive, tmp_path / "out", "--calm", "0.3")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "the model tiny 1 has no certainty for --calm" in refused.err
    (record,) = colorize(archive, tmp_path / "out", "--calm", "0").records.values()
    assert record.faded == 0


def test_a_scan_that_the_network_fails_on_does_not_take_its_batch_along(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 5)
    (archive / "white.jpg").write_bytes(jpeg(np.full((64, 96), 255, np.uint8)))
    run = colorize(archive, tmp_path / "out", "--layout", "whole")
    assert run.records["white.jpg"].reason == Reason.MODEL_ERROR
    assert run.summary["outcomes"] == {"colorized": 5, "skipped": 0, "failed": 1}


def test_a_pictures_colours_do_not_depend_on_its_batch_mates(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 9)
    together = colorize(archive, tmp_path / "together").records
    alone = colorize(archive / "box0" / "scan0004.jpg", tmp_path / "x")
    assert alone.code == 2, "a single file is no collection"
    alone = colorize(str(archive / "box0" / "scan0004*"), tmp_path / "alone").records
    assert alone["scan0004.jpg"].confidence == together["box0/scan0004.jpg"].confidence
    first, second = (Image.open(r.derivative) for r in (alone["scan0004.jpg"], together["box0/scan0004.jpg"]))
    assert np.array_equal(first, second)


def test_max_failures_turns_too_many_failures_into_exit_code_1(mixed, colorize, tmp_path):
    run = colorize(mixed, tmp_path / "out", "--max_failures", "0.1")
    assert run.code == 1
    assert "max_failures" in run.err
    assert run.summary["records"], "the work was done all the same"


def test_a_dry_run_lists_what_would_be_done_and_does_nothing(mixed, colorize, tmp_path):
    run = colorize(mixed, tmp_path / "out", "--dry_run")
    assert run.code == 0
    assert "a.tif  (new)" in run.out
    assert "notes.txt  (files that end in .txt are not opened)" in run.out
    assert not (tmp_path / "out").exists()


def test_colour_pictures_are_coloured_anew_when_told(mixed, colorize, tmp_path):
    run = colorize(str(mixed / "color.png"), tmp_path / "no")
    assert run.code == 2
    run = colorize(str(mixed / "col*.png"), tmp_path / "out", "--color_scans", "colorize")
    assert run.records["color.png"].outcome == Outcome.COLORIZED


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_lossless_derivatives_have_the_scans_own_luma(mixed, colorize, tmp_path, format):
    run = colorize(mixed, tmp_path / "out", "--format", format)
    assert run.records["a.tif"].outcome == Outcome.COLORIZED
    for key in ("a.tif", "sepia.png", "box0/scan0000.jpg"):
        scan = np.int16(Image.open(mixed / key).convert("L"))
        difference = np.abs(np.int16(Image.open(run.records[key].derivative).convert("L")) - scan)
        assert difference.max() <= 2
        assert difference.mean() < 0.5


def test_a_manifest_may_name_masters_anywhere(colorize, tmp_path):
    archive = make_archive(tmp_path / "in", 3)
    manifest = tmp_path / "wanted.jsonl"
    scans = sorted(archive.rglob("*.jpg"))
    lines = [
        {"source": str(scans[0]), "key": "first.jpg", "shelf": "B 12"},
        {"source": str(scans[1])},
        {"source": str(scans[2]), "key": "../../escape.jpg"},
        {"source": str(scans[2]), "key": "first.jpg"},
        {"source": str(tmp_path / "never.jpg"), "key": "never.jpg"},
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = colorize(manifest, tmp_path / "out")
    records = run.records
    assert records["first.jpg"].outcome == Outcome.COLORIZED
    assert records[str(scans[1]).lstrip("/")].outcome == Outcome.COLORIZED
    assert records["../../escape.jpg"].reason == Reason.BAD_KEY
    assert records["never.jpg"].reason == Reason.MISSING
    assert [r.reason for r in records.values() if r.reason == Reason.DUPLICATE_KEY] == [Reason.DUPLICATE_KEY]
    assert not list(tmp_path.glob("escape*"))


def test_status_counts_the_latest_record_of_each_scan(mixed_run, capsys):
    from pipeline.colorize import main

    assert main(["status", str(mixed_run.output)]) == 0
    assert f"{len(mixed_run.records)} scans" in capsys.readouterr().out


# Manifests


def write_manifest(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_bad_line_of_a_manifest_is_a_record_and_the_others_go_on(colorize, tmp_path):
    scan = next(make_archive(tmp_path / "in", 1).rglob("*.jpg"))
    os.mkfifo(tmp_path / "pipe")
    wanted = write_manifest(
        tmp_path / "wanted.jsonl",
        {"source": str(scan), "key": "good.jpg"},
        {"source": str(scan), "key": "cut \ud83d.jpg"},
        {"source": "/cut \ud83d.jpg", "key": "source.jpg"},
        {"source": "/whole \ud800.jpg"},
        '{"source": ',
        "[" * 100_000,
        {"source": "https://archive.example/a.jpg", "key": "remote.jpg"},
        {"source": "/dev/zero"},
        {"source": str(tmp_path / "pipe"), "key": "pipe"},
        {"source": str(tmp_path), "key": "folder"},
        {"source": str(scan.relative_to(tmp_path)), "key": "beside.jpg"},
    )
    run = colorize(wanted, tmp_path / "out")
    assert run.code == 0, run.err
    reasons = {key: record.reason for key, record in run.records.items()}
    assert reasons == {
        "good.jpg": "",
        "beside.jpg": "",
        "cut \ud83d.jpg": Reason.BAD_KEY,
        "source.jpg": Reason.READ_ERROR,
        "whole \ud800.jpg": Reason.BAD_KEY,
        f"{wanted}:5": Reason.BAD_LINE,
        f"{wanted}:6": Reason.BAD_LINE,
        "remote.jpg": Reason.UNSUPPORTED_SOURCE,
        "dev/zero": Reason.READ_ERROR,
        "pipe": Reason.READ_ERROR,
        "folder": Reason.READ_ERROR,
    }
    assert run.records[f"{wanted}:5"].detail.startswith("line 5: it is not JSON")
    assert all("not a regular file" in run.records[key].detail for key in ("dev/zero", "pipe", "folder"))
    dry = colorize(wanted, tmp_path / "out", "--dry_run")
    assert dry.code == 0
    assert "cut \\ud83d.jpg" in dry.out and "2 to keep" in dry.out
    letters = tmp_path / "out" / "dead_letters.jsonl"
    again = colorize(letters, tmp_path / "again")
    assert {key: record.reason for key, record in again.records.items()} == {
        key: reason for key, reason in reasons.items() if reason
    }
    second = colorize(wanted, tmp_path / "out")
    assert (second.code, second.summary["kept"]) == (0, 2)


def test_a_dry_run_plans_the_scans_of_one_key_together(colorize, tmp_path):
    scans = sorted(make_archive(tmp_path / "in", 3).rglob("*.jpg"))
    lines = [
        {"source": str(scan), "key": key}
        for scan, key in zip(scans, ("a.jpg", "b.jpg", "a.jpg"), strict=True)
    ]
    wanted = write_manifest(tmp_path / "wanted.jsonl", *lines)
    dry = colorize(wanted, tmp_path / "out", "--dry_run")
    assert "2 to colorize, 1 to refuse; nothing was done" in dry.out
    run = colorize(wanted, tmp_path / "out")
    assert run.summary["outcomes"] == {"colorized": 2, "skipped": 0, "failed": 1}
    (refused,) = (record for record in run.records.values() if record.reason)
    assert (refused.reason, refused.source) == (Reason.DUPLICATE_KEY, str(scans[2]))


def test_a_key_with_a_part_that_begins_with_a_dot_is_current_in_the_second_run(colorize, tmp_path):
    scan = next(make_archive(tmp_path / "in", 1).rglob("*.jpg"))
    names = ("a/.hidden.jpg", ".box/b.jpg")
    wanted = write_manifest(
        tmp_path / "wanted.jsonl", *({"source": str(scan), "key": name} for name in names)
    )
    first = colorize(wanted, tmp_path / "out")
    assert all(record.outcome == Outcome.COLORIZED for record in first.records.values())
    assert colorize(wanted, tmp_path / "out").summary["kept"] == 2


# File names


@pytest.mark.parametrize("name", ["a" * 251 + ".jpg", "é" * 125 + ".jpg", "漢" * 83 + ".jpg"])
def test_a_scan_with_the_longest_of_names_is_coloured_and_current_in_the_second_run(colorize, tmp_path, name):
    archive = make_archive(tmp_path / "in", 1)
    (archive / name).write_bytes(jpeg(picture(1)))
    (archive / f"{name[:-5]}b.jpg").write_bytes(jpeg(picture(2)))
    first = colorize(archive, tmp_path / "out")
    assert first.summary["outcomes"] == {"colorized": 3, "skipped": 0, "failed": 0}
    assert len({record.derivative for record in first.records.values()}) == 3
    assert all(os.path.exists(record.derivative) for record in first.records.values())
    assert colorize(archive, tmp_path / "out").summary["kept"] == 3


@pytest.fixture
def oddly_named(tmp_path):
    """A folder whose name is not UTF-8, with the environment of a command that has its files there."""
    base = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xfccher \n1890"))
    base.mkdir()
    return base, environment(PYTHONIOENCODING="ascii:strict", TMPDIR=str(base))


@pytest.mark.parametrize("workers", [1, 2])
def test_names_that_are_not_utf8_are_accepted_in_every_path(model, colorize, oddly_named, workers):
    base, ascii = oddly_named
    archive = make_archive(base / "in", 2 if workers == 1 else 39)
    (archive / os.fsdecode(b"Stra\xdfe.jpg")).write_bytes(jpeg(picture(5)))
    shutil.copytree(model, base / "model")
    (base / "hints" / "box0").mkdir(parents=True)
    (base / "hints" / "box0" / "scan0000.jpg.txt").write_text("3 3 red\n")
    (base / "hints" / os.fsdecode(b"\xff.txt")).write_text("3 3 red\n")
    options = ("--model", base / "model", "--hints", base / "hints", "--gallery_size", 40)
    options += ("--direct_num_workers", workers)
    run = colorize(archive, base / "out", *options, process=True, env=ascii)
    assert (run.code, run.err) == (0, "")
    assert len(run.records) == (3 if workers == 1 else 40)
    assert {record.outcome for record in run.records.values()} == {Outcome.COLORIZED}
    assert run.records["box0/scan0000.jpg"].detail == "corrected by 1 point"
    assert (base / "out" / os.fsdecode(b"Stra\xdfe.jpg_color.jpg")).exists()
    assert 'href="../Stra%DFe.jpg_color.jpg"' in (base / "out/gallery/index.html").read_text()
    assert run.summary["unused_hints"] == [str(base / "hints" / "\udcff.txt")]
    assert "B\\udcfccher" in run.out


def test_names_that_are_not_utf8_are_accepted_around_a_manifest_and_in_messages(colorize, oddly_named):
    base, ascii = oddly_named
    make_archive(base / "in", 2)
    wanted = write_manifest(base / "list.jsonl", {"source": "in/box0/scan0001.jpg", "key": "listed.jpg"})
    listed = colorize(wanted, base / "out", process=True, env=ascii)
    assert listed.records["listed.jpg"].outcome == Outcome.COLORIZED
    wrong = colorize(base / "none", base / "out2", process=True, env=ascii)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "B\\udcfccher \\n1890/none" in wrong.err


def test_a_name_that_is_not_utf8_is_refused_where_the_output_is_in_cloud_storage(colorize, tmp_path, cloud):
    archive = make_archive(tmp_path / "in", 1)
    (archive / os.fsdecode(b"Stra\xdfe.jpg")).write_bytes(jpeg(picture(5)))
    from pipeline.colorize import main
    from pipeline.records import manifest

    assert main(["--input", str(archive), "--output", f"{cloud}/utf8", "--gallery_size", "0"]) == 0
    reasons = {record.key: record.reason for record in manifest.latest(f"{cloud}/utf8")}
    assert reasons == {"box0/scan0000.jpg": "", "Stra\udcdfe.jpg": Reason.BAD_KEY}


def test_a_thin_scan_has_a_place_in_the_gallery(colorize, tmp_path):
    archive = tmp_path / "in"
    archive.mkdir()
    Image.fromarray(np.tile(np.arange(20_000, dtype=np.uint8), (16, 1))).save(archive / "thin.png")
    for _ in range(2):  # the second run uses the existing gallery pictures
        run = colorize(archive, tmp_path / "out", "--gallery_size", 4)
        assert (run.code, run.summary["outcomes"]["colorized"]) == (0, 1)
    assert (tmp_path / "out/gallery/index.html").read_text().count("<img") == 2
