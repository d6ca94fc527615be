"""Hints, colours that an archivist gives for single scans: their effect on these scans and on the others."""

import hashlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import storage
from pipeline.errors import JobError
from pipeline.imaging import hints
from pipeline.inputs import hint_files
from pipeline.metadata import provenance
from pipeline.metadata.embedded import packet
from pipeline.records.record import Outcome, Reason, Refusal
from tests.pipeline.decoding.test_png import claiming

SIZE = WIDTH, HEIGHT = 96, 64
RED_MARK, BLUE_MARK = (200, 40, 40), (40, 60, 200)


def scan():
    """Luma uint8 [H, W]: dark on the left, light on the right, with grain."""
    grain = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH))
    return np.uint8(np.where(np.arange(WIDTH) < WIDTH // 2, 70, 180) + grain)


@pytest.fixture
def archive(tmp_path):
    """Three scans, including `box/a.jpg`, and an empty folder for hints."""
    for name in ("box/a.jpg", "box/b.jpg", "c.png"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan()).save(file, quality=95)
    (tmp_path / "hints" / "box").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def run(archive, colorize):
    def run(*arguments, hints=archive / "hints", output=archive / "out"):
        given = ["--hints", hints] if hints else []
        return colorize(archive / "in", output, *given, *arguments)

    return run


def give(archive, text, name="box/a.jpg.txt"):
    file = archive / "hints" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rgb(record):
    return np.asarray(Image.open(record.derivative).convert("RGB")).astype(int)


def redness(pixels):
    return float((pixels[..., 0] - pixels[..., 2]).mean())


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def damaged(data):
    """A PNG with one byte of its pixel data inverted."""
    at = (data.index(b"IDAT") + data.index(b"IEND")) // 2
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def copy_with(*marks, of=None):
    """A grey copy of the scan with coloured squares at x, y."""
    pixels = np.repeat((scan() if of is None else of)[..., None], 3, axis=-1)
    for x, y, color in marks:
        pixels[y - 3 : y + 4, x - 3 : x + 4] = color
    return pixels


def layer_with(*marks):
    """A transparent picture with coloured squares at x, y."""
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    for x, y, color in marks:
        pixels[y - 3 : y + 4, x - 3 : x + 4] = (*color, 255)
    return pixels


# Correcting a scan


def test_a_corrected_scan_is_done_again_and_no_other(archive, run):
    before = run().latest
    file = give(archive, "# the coat\n20 30 #c82828\n")
    second = run()
    assert second.code == 0, second.err
    assert second.summary["kept"] == 2
    after = second.latest
    assert after["box/a.jpg"].hints_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert after["box/a.jpg"].detail == "corrected by 1 point"
    assert after["box/a.jpg"].derivative_sha256 != before["box/a.jpg"].derivative_sha256
    assert after["box/b.jpg"].hints_sha256 == after["c.png"].hints_sha256 == ""
    third = run()
    assert third.summary["kept"] == 3


def test_a_given_colour_fills_its_surface_and_the_network_keeps_the_rest(archive, run):
    plain = run(hints=None, output=archive / "plain").records["box/a.jpg"]
    give(archive, "20 30 #c82828\n")
    record = run().records["box/a.jpg"]
    before, after = rgb(plain), rgb(record)
    assert redness(before[:, :44]) < 0  # the blue of the tiny model
    assert redness(after[26:35, 16:25]) > 80
    assert redness(after[:, :44]) > 60
    assert np.abs(after[:, 54:] - before[:, 54:]).mean() < 2
    assert record.colorfulness > plain.colorfulness + 5


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_a_corrected_derivative_has_the_luma_of_the_scan(archive, run, format):
    give(archive, "20 30 red\n70 30 blue\n")
    record = run("--format", format).records["box/a.jpg"]
    master, image = Image.open(archive / "in/box/a.jpg"), Image.open(record.derivative)
    if format == "jpeg":
        image.draft("L", image.size)  # decode only the coded luma
    difference = np.abs(np.asarray(image.convert("L")).astype(int) - np.asarray(master))
    assert difference.max() <= (0 if format == "jpeg" else 2)


def test_changed_hints_make_a_scan_stale_and_so_does_their_removal(archive, run):
    first = run().latest["box/a.jpg"]
    file = give(archive, "20 30 red\n")
    red = redness(rgb(run().latest["box/a.jpg"]))
    give(archive, "20 30 blue\n")
    changed = run()
    assert changed.summary["kept"] == 2
    assert redness(rgb(changed.latest["box/a.jpg"])) < red - 20
    file.unlink()
    removed = run()
    last = removed.latest["box/a.jpg"]
    assert removed.summary["kept"] == 2
    assert (last.hints_sha256, last.derivative_sha256) == ("", first.derivative_sha256)


def test_touching_a_hints_file_changes_nothing(archive, run):
    file = give(archive, "20 30 red\n")
    run()
    os.utime(file, (1, 1))
    assert run().summary["kept"] == 3


def test_a_dry_run_says_why_a_scan_is_to_be_done(archive, run):
    run()
    give(archive, "20 30 red\n")
    give(archive, "1 1 red\n", "box/none.jpg.txt")
    out = run("--dry_run").out
    assert "box/a.jpg  (it has hints now)" in out
    assert "2 to keep" in out
    assert "1 hints file matches no scan" in out


def test_the_derivative_says_which_hints_it_was_made_with_and_a_killed_run_adopts_it(archive, run):
    give(archive, "20 30 red\n")
    record = run().latest["box/a.jpg"]
    claimed = provenance.read_packet(packet(Path(record.derivative).read_bytes()))
    assert claimed.hints_sha256 == record.hints_sha256
    shutil.rmtree(archive / "out/manifest")
    again = run().latest["box/a.jpg"]
    assert "adopted" in again.detail
    shutil.rmtree(archive / "out/manifest")
    give(archive, "20 30 blue\n")
    assert "adopted" not in run().latest["box/a.jpg"].detail


def test_a_scan_that_a_person_has_corrected_is_not_withheld(archive, run):
    give(archive, "20 30 red\n")
    records = run("--min_confidence", 1).records
    assert records["box/a.jpg"].outcome == Outcome.COLORIZED
    assert records["box/b.jpg"].reason == Reason.LOW_CONFIDENCE


def test_coordinates_are_of_the_upright_scan(archive, run):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    Image.fromarray(scan()).save(archive / "in/box/a.jpg", quality=95, exif=exif)
    give(archive, f"{HEIGHT - 5} 20 #c82828\n")  # upright, the scan is 64 x 96 with the dark half at the top
    record = run().records["box/a.jpg"]
    assert (record.width, record.height) == (HEIGHT, WIDTH)
    stored = rgb(record)
    assert redness(stored[:, :44]) > 60
    assert redness(stored[:10, 15:25]) > 80


# Marked pictures


@pytest.mark.parametrize("kind", ["copy", "noisy copy", "copy not quite opaque", "layer"])
@pytest.mark.parametrize("key", ["box/a.jpg", "c.png"])
def test_marks_count_on_a_grey_copy_and_on_a_transparent_picture(archive, run, kind, key):
    marks = (20, 30, RED_MARK), (75, 30, BLUE_MARK)
    noise = np.random.default_rng(1).integers(-6, 7, (HEIGHT, WIDTH))
    of = np.uint8(scan() + noise) if "noisy" in kind else None
    marked = layer_with(*marks) if kind == "layer" else copy_with(*marks, of=of)
    if "opaque" in kind:
        marked = np.dstack([marked, np.where(np.arange(WIDTH) == 1, 254, 255) * np.ones((HEIGHT, 1))]).astype(
            np.uint8
        )
    give(archive, png(marked), f"{key}.png")
    result = run()
    record = result.records[key]
    assert record.detail == "corrected by a marked picture"
    found = rgb(record)
    assert redness(found[:, :44]) > 60
    assert redness(found[:, 54:]) < -60
    assert result.summary["outcomes"]["colorized"] == 3


def test_a_neutral_mark_on_a_transparent_picture_takes_colour_away(archive, run):
    plain = rgb(run(hints=None, output=archive / "plain").records["box/a.jpg"])
    give(archive, png(layer_with((75, 30, (128, 128, 128)))), "box/a.jpg.png")
    found = rgb(run().records["box/a.jpg"])
    assert np.abs(redness(found[27:34, 72:79])) < 3
    assert np.abs(redness(found[:, 54:])) < 0.4 * np.abs(redness(plain[:, 54:]))


def test_a_neutral_point_takes_colour_away(archive, run):
    plain = rgb(run(hints=None, output=archive / "plain").records["box/a.jpg"])
    give(archive, "75 30 grey\n")
    found = rgb(run().records["box/a.jpg"])
    assert redness(plain[29:32, 74:77]) > 20
    assert redness(found[29:32, 74:77]) < 7


def test_a_picture_of_the_upright_size_is_read_as_it_is_shown():
    exif = Image.Exif()
    exif[0x0112] = 6
    layer = layer_with((5, 5, RED_MARK))  # upright, the mark is in the upper right corner
    found = hints.marks(png(layer, exif=exif), "a.png", np.zeros((WIDTH, HEIGHT), np.uint8), (HEIGHT, WIDTH))
    assert found.marked[:12, -12:].sum() == 49
    assert found.marked.sum() == 49


# Points


def marks(text, luma=None, size=SIZE):
    luma = scan() if luma is None else luma
    return hints.marks(text.encode(), "a.txt", luma, size)


@pytest.mark.parametrize(
    "name", ["#0000ff", "#00f", "blue", "Blue", "rgb(0, 0, 255)", "rgb(0%,0%,100%)", "hsl(240,100%,50%)"]
)
def test_colours_are_those_of_css(name):
    found = marks(f"20 30 {name}")
    assert found.planes[30, 20] == pytest.approx([128, -0.081312 * 255], abs=0.5)  # ITU-T T.871, section 7


def test_remarks_empty_lines_and_windows_line_ends_are_passed_over():
    found = marks("\ufeff# the sky\r\n\r\n  20\t30   red  \r\n")
    assert found.marked[30, 20]
    assert found.words == "corrected by 1 point"


def test_a_point_marks_a_dot_of_its_own_luma():
    luma = np.full((300, 300), 100, np.uint8)
    luma[:, 150:] = 200
    found = marks("149 100 red", luma, (300, 300))
    assert found.marked[100, 147:150].all()
    assert found.marked[98:103, 149].all()
    assert not found.marked[:, 150:].any()
    assert not found.marked[:, :140].any()


def test_points_close_together_keep_their_own_colours():
    luma = np.full((300, 300), 100, np.uint8)
    found = marks("100 100 red\n102 100 blue", luma, (300, 300))
    assert found.planes[100, 100, 1] > 100
    assert found.planes[100, 102, 0] > 100


def test_a_large_scan_is_solved_at_reduced_size():
    luma = np.zeros((3000, 4000), np.uint8)
    found = marks("3999 2999 red", luma, (16000, 12000))
    assert found.luma.size <= 1.01 * hints.GRID
    assert not found.marked[-1, -1]  # the point is at a quarter of each side
    assert found.marked.any()


# Bad hints

BAD = {
    "malformed": ("txt", "20 30\n", "line 1: '20 30' does not have the form: x y colour"),
    "negative": ("txt", "# one\n-1 5 red\n", "line 2: '-1 5 red' does not have the form"),
    "no colour": ("txt", "20 30 redd\n", "line 1: 'redd' is not a colour"),
    "beyond": ("txt", "20 30 rgb(999, 0, 0)\n", "is not a colour"),
    "with an alpha": ("txt", "20 30 #ff000080\n", "is not a colour"),
    "outside": ("txt", "10 10 red\n96 30 red\n", "line 2: 96, 30 is outside of the upright scan of 96 x 64"),
    "empty": ("txt", "# nothing yet\n", "the file has none"),
    "no text": ("txt", b"\xff\xfe2\x000\x00", "it is not UTF-8 text"),
    "another size": (
        "png",
        png(np.zeros((10, 20, 3), np.uint8)),
        "20 x 10 pixels, but the upright scan 96 x 64",
    ),
    "no marks": ("png", png(copy_with()), "the picture has no marks"),
    "nothing but transparent": ("png", png(layer_with()), "the picture has no marks"),
    "a colour picture": (
        "png",
        png(np.uint8(copy_with() * [1, 0.8, 0.6])),
        "most of the picture is coloured",
    ),
    "broken": ("png", png(copy_with((20, 30, RED_MARK)))[:150], "cannot be read as a PNG"),
    "damaged": ("png", damaged(png(copy_with((20, 30, RED_MARK)))), "cannot be read as a PNG"),
    "rows short": (
        "png",
        claiming(png(copy_with((20, 30, RED_MARK))[:-8]), HEIGHT),
        "rows that its header promises are missing",
    ),
    "another format": ("png", Path(__file__).read_bytes(), "cannot be read as a PNG"),
}


@pytest.fixture(scope="module")
def bad_run(tmp_path_factory, model):
    """A run on one scan for each kind of bad hints, and one scan with good hints."""
    from pipeline.colorize import main
    from tests.pipeline.conftest import Run

    folder = tmp_path_factory.mktemp("bad")
    for number, (ending, content, _) in enumerate([*BAD.values(), ("txt", "20 30 red", "")]):
        (folder / "in").mkdir(exist_ok=True)
        Image.fromarray(scan()).save(folder / f"in/{number}.png")
        give(folder, content, f"{number}.png.{ending}")
    arguments = ["--input", folder / "in", "--output", folder / "out", "--hints", folder / "hints"]
    arguments += ["--model", model, "--gallery_size", 0]
    return Run(main(list(map(str, arguments))), "", "", folder / "out")


@pytest.mark.parametrize("kind", BAD)
def test_bad_hints_affect_only_their_scan(bad_run, kind):
    record = bad_run.records[f"{list(BAD).index(kind)}.png"]
    assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.BAD_HINTS)
    assert record.detail.startswith("hints: ")
    assert BAD[kind][2] in record.detail
    assert bad_run.code == 0
    assert bad_run.records[f"{len(BAD)}.png"].outcome == Outcome.COLORIZED


def test_bad_hints_once_mended_are_taken(archive, run):
    give(archive, "20 30\n")
    assert run().latest["box/a.jpg"].reason == Reason.BAD_HINTS
    give(archive, "20 30 red\n")
    mended = run()
    assert mended.latest["box/a.jpg"].outcome == Outcome.COLORIZED
    assert mended.summary["kept"] == 2


def test_two_hints_files_for_one_scan_are_an_outcome(archive, run):
    give(archive, "20 30 red\n")
    give(archive, png(layer_with((20, 30, BLUE_MARK))), "box/a.jpg.png")
    record = run().records["box/a.jpg"]
    assert record.reason == Reason.BAD_HINTS
    assert record.detail == "hints: there are several: a.jpg.png and a.jpg.txt; keep one of them"


def test_hints_that_cannot_be_read_are_an_outcome_also_of_a_scan_that_was_current(archive, run):
    run()
    (archive / "hints/box/a.jpg.txt").symlink_to("/proc/self/mem")  # reading it fails, even for root
    record = run().latest["box/a.jpg"]
    assert record.reason == Reason.BAD_HINTS
    assert "cannot read" in record.detail


def test_a_scan_that_is_refused_keeps_its_own_reason(archive, run):
    (archive / "in/box/a.jpg").write_bytes(b"no picture")
    give(archive, "20 30\n")
    assert run().records["box/a.jpg"].reason == Reason.UNREADABLE


def test_hints_files_without_a_scan_are_reported(archive, run):
    unused = [give(archive, "1 1 red", "box/none.jpg.txt"), give(archive, b"x", "box/a.jpg.jpg")]
    unused.append(give(archive, "notes", "box/a.jpg"))  # has the name of the scan itself
    result = run()
    assert result.summary["unused_hints"] == sorted(map(str, unused))
    assert "3 hints files match no scan" in result.out
    assert all(str(file) in result.out for file in unused)
    assert result.summary["outcomes"]["colorized"] == 3


def test_hints_are_found_by_whatever_case_their_ending_has(archive, run):
    give(archive, "20 30 red\n", "box/a.jpg.TXT")
    assert run().records["box/a.jpg"].hints_sha256


# Bad folders


@pytest.mark.parametrize("folder", ["none", "in", "in/box", "out", "out/hints", "."])
def test_a_folder_that_is_missing_or_overlaps_is_one_line_before_any_work(archive, run, folder):
    if folder.startswith("out"):
        (archive / folder).mkdir(parents=True)
    result = run(hints=archive / folder)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert ("no such folder" if folder == "none" else "overlap") in result.err
    assert not (archive / "out/manifest").exists()


def test_an_empty_folder_of_hints_is_fine(archive, run):
    assert run().code == 0


# Cloud Storage and errors


def test_hints_can_be_in_cloud_storage(archive, run, cloud):
    storage.write(f"{cloud}/hints/box/a.jpg.txt", b"20 30 #c82828\n")
    storage.write(f"{cloud}/hints/none.txt", b"20 30 red\n")
    result = run(hints=f"{cloud}/hints")
    assert result.code == 0, result.err
    assert redness(rgb(result.records["box/a.jpg"])[:, :44]) > 60
    assert result.summary["unused_hints"] == [f"{cloud}/hints/none.txt"]
    missing = run(hints=f"{cloud}/other")
    assert (missing.code, missing.err.count("\n")) == (2, 1)


def test_the_hints_of_a_scan_are_listed_once_and_read_where_there_are_some(archive, monkeypatch):
    give(archive, "20 30 red\n")
    listed, read = [], []
    list_files, read_file = storage.list_files, storage.read
    monkeypatch.setattr(storage, "list_files", lambda uri: listed.append(uri) or list_files(uri))
    monkeypatch.setattr(storage, "read", lambda uri: read.append(uri) or read_file(uri))
    found = [(key, hint_files.identified(uri)) for key, uri in hint_files.listing(str(archive / "hints"))]
    assert [key for key, _ in found] == ["box/a.jpg"]
    assert (len(listed), len(read)) == (1, 1)


def test_a_folder_that_cannot_be_listed_is_the_jobs_error(monkeypatch):
    def fail(uri):
        raise PermissionError(13, "Permission denied", uri)

    monkeypatch.setattr(storage, "list_files", fail)
    with pytest.raises(JobError, match="cannot list /hints: Permission denied"):
        list(hint_files.listing("/hints"))


def test_a_refusal_names_the_hints():
    with pytest.raises(Refusal, match="line 1"):
        marks("here it is red")
