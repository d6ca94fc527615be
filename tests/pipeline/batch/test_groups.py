"""Film frames that belong together, from the command line to their derivatives."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import MODELS
from pipeline import demo
from pipeline.batch import worklist
from pipeline.codec.codec import Codec
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item, Neighbor
from tests.benchmarks import clips, flicker
from tests.pipeline.batch.test_faults import alive, children, wait_for
from tests.pipeline.batch.test_graph import plan_on_a_cluster, without_times
from tests.pipeline.conftest import jpeg, picture, start

LENGTH = 4  # frames of a shot, of a longer one
FILM = [frame for at, frame in enumerate(clips.frames(16, clips.SHOTS[:4])) if at % 16 < LENGTH]
FOLDER = ("--group_by", "folder", "--layout", "whole", "--date", "2026-11-28")
ONE = ("--direct_num_workers", 1)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A film of four shots. No test writes to it."""
    folder = tmp_path_factory.mktemp("film") / "in"
    flicker.write(FILM, folder / "reel")
    return folder


@pytest.fixture
def own(film, tmp_path) -> Path:
    """The same film, to be changed."""
    shutil.copytree(film, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="module")
def undisturbed(film, model, tmp_path_factory) -> dict[str, str]:
    """Digests of the derivatives of one worker."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    process = start("--input", film, "--output", output, "--model", model, "--gallery_size", 0, *FOLDER, *ONE)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return digests(output)


def digests(output: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in output.rglob("*_color.*")}


def name(number: int) -> str:
    return f"reel/frame{number}.jpg"


def test_colours_flicker_less_and_are_not_more_wrong(film, colorize, tmp_path):
    truth, found = [frame.rgb for frame in FILM], {}
    for kind, options in {"alone": FOLDER[2:], "group": FOLDER}.items():
        run = colorize(film, tmp_path / kind, *options, *ONE, "--model", MODELS[0])
        assert run.summary["outcomes"]["colorized"] == len(FILM)
        found[kind] = flicker.derivatives(tmp_path / kind / "reel")
    explained = flicker.flicker(FILM, [flicker.joined(frame) for frame in FILM])
    beyond = {kind: flicker.flicker(FILM, rgb) - explained for kind, rgb in found.items()}
    assert 0 < beyond["group"] < 0.6 * beyond["alone"]
    assert flicker.error(found["group"], truth) < flicker.error(found["alone"], truth)


def test_a_record_names_the_neighbours_of_the_same_shot(film, colorize, tmp_path):
    run = colorize(film, tmp_path / "out", *FOLDER, *ONE)
    assert run.records[name(1)].group == "reel"
    assert run.records[name(1)].neighbors == (name(0), name(2), name(3))
    assert run.records[name(4)].neighbors == (name(5), name(6)), "a cut is before it"
    used = [[int(key[10:-4]) for key in run.records[name(at)].neighbors] for at in range(len(FILM))]
    crossed, missed = flicker.cuts(FILM, used)
    assert crossed == 0 and missed <= 2


@pytest.mark.parametrize(
    "options", [("--direct_num_workers", 2), (*ONE, "--batch_size", 3), (*ONE, "--batch_size", 32)]
)
def test_the_bytes_do_not_depend_on_workers_or_batches(film, undisturbed, colorize, tmp_path, options):
    run = colorize(film, tmp_path / "out", *FOLDER, *options)
    assert run.code == 0, run.err
    assert digests(run.output) == undisturbed and len(undisturbed) == len(FILM)


def test_the_bytes_do_not_depend_on_what_is_done_already(film, model, undisturbed, colorize, tmp_path):
    """A killed job is continued, and then single frames are repeated."""
    output = tmp_path / "out"
    arguments = ("--input", film, "--output", output, "--gallery_size", 0, *FOLDER, "--direct_num_workers", 2)
    process = start(*arguments, "--model", model)
    assert wait_for(lambda: len(digests(output)) >= 4)
    family = children(process.pid)
    process.kill()
    process.communicate()
    assert wait_for(lambda: not alive(family), 60)
    again = colorize(film, output, *FOLDER, *ONE)
    assert again.code == 0, again.err
    assert digests(output) == undisturbed
    for number in (3, 4, 9):
        (output / f"{name(number)}_color.jpg").unlink()
    assert colorize(film, output, *FOLDER, *ONE).code == 0
    assert digests(output) == undisturbed


def repeated(colorize, source: Path, output: Path, *options) -> list[int]:
    """Runs the job. Returns the numbers of the frames that it has coloured."""
    run = colorize(source, output, *options, *ONE)
    assert run.code == 0, run.err
    last = run.summary["run"]
    return sorted(int(record.key[10:-4]) for record in run.latest.values() if record.run == last)


def test_frames_are_repeated_if_a_neighbour_changes(own, colorize, tmp_path):
    output = tmp_path / "out"
    assert repeated(colorize, own, output, *FOLDER) == [*range(16)]
    assert repeated(colorize, own, output, *FOLDER) == []
    file = own / name(6)
    Image.open(file).point(lambda level: level // 2).save(file)
    assert repeated(colorize, own, output, *FOLDER) == [4, 5, 6, 7, 8]
    file.unlink()
    assert repeated(colorize, own, output, *FOLDER) == [4, 5, 7, 8]
    shutil.copy(own / name(5), file)
    assert repeated(colorize, own, output, *FOLDER) == [4, 5, 6, 7, 8]
    assert repeated(colorize, own, output, *FOLDER[2:]) == [*range(16)], "they have no neighbours any more"


def test_a_derivative_without_a_record_is_adopted_with_its_neighbours(film, colorize, tmp_path):
    first = colorize(film, tmp_path / "out", *FOLDER, *ONE)
    records, before = first.records, digests(first.output)
    shutil.rmtree(first.output / "manifest")
    again = colorize(film, first.output, *FOLDER, *ONE)
    assert digests(first.output) == before
    for key, record in again.records.items():
        assert record.detail.startswith("adopted")
        assert (record.neighbors, record.group) == (records[key].neighbors, "reel")


def test_times_of_neighbours_change_no_byte_and_their_content_counts(own, colorize, tmp_path):
    first = colorize(own, tmp_path / "out", *FOLDER, *ONE)
    for at in range(len(FILM)):
        os.utime(own / name(at), (at, at))
    assert digests(colorize(own, tmp_path / "again", *FOLDER, *ONE).output) == digests(first.output)
    shutil.rmtree(first.output / "manifest")
    adopted = colorize(own, first.output, *FOLDER, *ONE).records.values()
    assert all(record.detail.startswith("adopted") for record in adopted)
    shutil.rmtree(first.output / "manifest")
    shutil.copy(own / name(5), own / name(6))
    last = colorize(own, first.output, *FOLDER, *ONE).records
    new = [at for at in range(len(FILM)) if not last[name(at)].detail.startswith("adopted")]
    assert new == [4, 5, 6, 7, 8]


def test_a_neighbour_that_cannot_be_read_costs_its_own_scan_alone(own, colorize, tmp_path):
    file = own / name(1)
    file.write_bytes(file.read_bytes()[:2000])
    run = colorize(own, tmp_path / "out", *FOLDER, *ONE)
    assert run.records[name(1)].reason == "truncated"
    for number, used in {0: (2,), 2: (0, 3), 3: (2,)}.items():
        record = run.records[name(number)]
        assert record.outcome == "colorized"
        assert f"not steadied with {name(1)}: " in record.detail
        assert record.neighbors == tuple(map(name, used))
    assert run.records[name(4)].detail == ""


def test_a_neighbour_that_the_network_fails_on_costs_its_own_scan_alone(own, colorize, tmp_path):
    Image.new("L", (400, 300), 255).save(own / name(1))
    run = colorize(own, tmp_path / "out", *FOLDER, *ONE)
    assert run.records[name(1)].reason == "model_error"
    assert run.records[name(2)].neighbors == (name(0), name(3))
    assert run.summary["outcomes"]["colorized"] == 15


def test_a_manifest_names_groups(film, colorize, tmp_path):
    lines = [{"source": str(film / name(at)), "key": f"{at}.jpg"} for at in range(6)]
    groups = {0: "first", 1: "first", 2: None, 3: "", 4: "second", 5: "second"}
    for at, group in groups.items():
        lines[at]["group"] = group
    lines.append({"source": str(film / name(6)), "key": "6.jpg", "group": 6})
    file = tmp_path / "film.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = colorize(file, tmp_path / "out", "--layout", "whole", *ONE)
    (bad,) = [record for record in run.records.values() if record.outcome == "failed"]
    assert (bad.reason, bad.detail) == ("bad_line", 'line 7: "group" must be text')
    assert run.records["0.jpg"].neighbors == ("1.jpg",)
    assert run.records["4.jpg"].neighbors == ("5.jpg",)
    assert (run.records["2.jpg"].group, run.records["2.jpg"].neighbors_sha256) == ("", "")
    assert run.records["3.jpg"].neighbors == ()


@pytest.mark.parametrize("options", [FOLDER, FOLDER[2:]])
def test_dead_letters_are_no_neighbours_of_each_other(film, colorize, tmp_path, options):
    output, letters = tmp_path / "out", tmp_path / "dead_letters.jsonl"
    first = colorize(film, output, *FOLDER, *ONE)
    failed = [first.records[name(at)].replace(outcome="failed") for at in (1, 2)]
    letters.write_text("".join(record.to_json() + "\n" for record in failed))
    again = colorize(letters, output, *options, *ONE, "--on_existing", "replace")
    for at in (1, 2):
        record = again.latest[name(at)]
        assert record.run == again.summary["run"]
        assert (record.group, record.neighbors, record.neighbors_sha256) == ("", (), "")
    assert repeated(colorize, film, output, *FOLDER) == [1, 2], "their neighbours are known now"
    assert colorize(film, output, *FOLDER, *ONE).summary["kept"] == len(FILM)


def test_stills_that_have_nothing_in_common_stay_as_they_are(colorize, tmp_path):
    archive = tmp_path / "in"
    archive.mkdir()
    for number, photograph in enumerate((demo.CAT, demo.COFFEE, demo.TEMPLE, demo.ADMIRAL, demo.ASTRONAUT)):
        photograph.open().convert("L").save(archive / f"page{number}.png")
    shipped = (*ONE, "--model", MODELS[0])
    together = colorize(archive, tmp_path / "together", "--group_by", "stem", *shipped)
    alone = colorize(archive, tmp_path / "alone", *shipped)
    for key, record in together.records.items():
        assert record.neighbors == () and record.neighbors_sha256
        pixels = [np.asarray(Image.open(one.derivative)) for one in (record, alone.records[key])]
        np.testing.assert_array_equal(*pixels)


def test_pages_and_frames_with_other_proportions_are_not_mixed(colorize, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    wide, luma = picture(1, 400, 100), picture(1, 300, 200)
    for number, data in enumerate([jpeg(luma), jpeg(luma), jpeg(wide), jpeg(wide)]):
        (folder / f"{number}.jpg").write_bytes(data)
    pages = [Image.fromarray(picture(seed, 300, 200)) for seed in (1, 2)]
    pages[0].save(folder / "4.tif", save_all=True, append_images=pages[1:])
    run = colorize(folder, tmp_path / "out", "--group_by", "folder", *ONE)
    found = {key: record.neighbors for key, record in run.records.items()}
    assert found == {
        "0.jpg": ("1.jpg",),
        "1.jpg": ("0.jpg",),
        "2.jpg": ("3.jpg",),
        "3.jpg": ("2.jpg",),
        "4.tif#page=1": (),
        "4.tif#page=2": (),
    }
    assert "not steadied with 4.tif: the file has several pictures" in run.records["3.jpg"].detail
    again = colorize(folder, tmp_path / "out", "--group_by", "folder", *ONE)
    assert again.summary["kept"] == again.summary["records"] == 6


def test_a_border_is_left_out_of_the_views_of_neighbours(film, tmp_path):
    """The view of a neighbour with the same pixels is that of the scan."""
    page = Image.new("L", (480, 380), 250)
    page.paste(Image.open(film / name(0)), (40, 40))
    for copy in ("0.png", "1.png"):
        page.save(tmp_path / copy)
    other = Neighbor(1, "1.png", str(tmp_path / "1.png"), 0, "")
    item = Item("0.png", str(tmp_path / "0.png"), neighbors=(other,))
    views = {}
    for layout in ("recognize", "whole"):
        codec = Codec(Settings(str(tmp_path / "out"), "run", side=64, layout=layout), lambda pixels: None)
        views[layout] = codec.open(item)
        np.testing.assert_array_equal(*views[layout].tiles)
    assert not np.array_equal(views["recognize"].tiles, views["whole"].tiles), "a border was found"


def test_workers_of_a_cluster_find_the_same_neighbours(film, tmp_path):
    settings = Settings(str(tmp_path / "out"), "run", model_sha256="0")
    lines = [{"source": str(path), "key": path.name} for path in sorted(film.rglob("*.jpg"))]
    for number, line in enumerate(lines):
        line["group"] = ("", "a", "b")[number % 3]
    manifest = tmp_path / "in.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source, group_by in ((film, "folder"), (film, "stem"), (manifest, ""), (manifest, "stem")):
        expected = list(worklist.tasks(str(source), settings, {}, "stale", group_by=group_by))
        there = tmp_path / f"{source.name}-{group_by}"
        there.mkdir()
        tasks, _ = plan_on_a_cluster(str(source), settings, None, there, group_by=group_by)
        assert {without_times(task) for task in tasks} == {
            without_times(worklist.packed(task).decode()) for task in expected
        }
        assert sum(bool(task.item.neighbors) for task in expected) >= 10


def test_a_few_tasks_in_a_row_are_one_line(tmp_path, film):
    settings = Settings(str(tmp_path / "out"), "run", model_sha256="0")
    written = dict(hints_folder=None, on_existing="stale", gallery_size=0, since="")
    together = worklist.write(str(tmp_path), str(film), settings, **written, group_by="folder")
    lines = list(worklist.read(together.file))
    tasks = [task for line in lines for task in worklist.together(line)]
    assert len(lines) == 1 and len(tasks) == together.todo == len(FILM)
    assert [task.item.key for task in tasks] == [name(at) for at in range(len(FILM))]
    assert isinstance(tasks[0].item, Item) and isinstance(tasks[0].item.neighbors[0], Neighbor)
    alone = worklist.write(str(tmp_path), str(film), settings, **written)
    assert len(list(worklist.read(alone.file))) == alone.todo == len(FILM)


def test_many_tasks_in_a_row_are_several_lines_and_scans_alone_have_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(worklist, "TOGETHER", 3)
    sizes = {"a": 1, "b": 7, "c": 1, "d": 2}  # folders, and their numbers of scans
    for folder, number in sizes.items():
        (tmp_path / "in" / folder).mkdir(parents=True)
        for at in range(number):
            (tmp_path / "in" / folder / f"{at}.jpg").write_bytes(b"")
    settings = Settings(str(tmp_path / "out"), "run", model_sha256="0")
    options = dict(hints_folder=None, on_existing="stale", gallery_size=0, since="", group_by="folder")
    written = worklist.write(str(tmp_path), str(tmp_path / "in"), settings, **options)
    lines = [[task.item.key for task in worklist.together(line)] for line in worklist.read(written.file)]
    assert lines == [
        ["a/0.jpg"],
        ["b/0.jpg", "b/1.jpg", "b/2.jpg"],
        ["b/3.jpg", "b/4.jpg", "b/5.jpg"],
        ["b/6.jpg"],
        ["c/0.jpg"],
        ["d/0.jpg", "d/1.jpg"],
    ]


def test_an_unknown_kind_of_group_stops_before_any_work(film, colorize, tmp_path):
    with pytest.raises(SystemExit) as caught:
        colorize(film, tmp_path / "out", "--group_by", "film")
    assert caught.value.code == 2 and not (tmp_path / "out").exists()
