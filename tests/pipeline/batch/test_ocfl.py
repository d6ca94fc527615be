"""archive-colorize ocfl: a storage root that ocfl-py validates, in versions, after kills, and with strange names."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.batch import lease, ocfl, verification
from pipeline.colorize import main
from pipeline.records import manifest
from pipeline.records.record import Record
from tests.pipeline.batch.test_paged_files import document, leaves
from tests.pipeline.certificates import certify
from tests.pipeline.conftest import ROOT, environment, jpeg, make_archive, make_output, picture

OCFL_PY = ROOT / ".venv-ocfl" / "bin" / "python"
# Its commands do not count invalid objects of a valid root.
VALIDATE = """
import json, sys, ocfl
root = ocfl.StorageRoot(root=sys.argv[1])
valid = root.validate(log_warnings=True)
print(json.dumps([valid, root.num_objects, root.good_objects, root.errors]))
"""
LEFTOVER = ".archive-colorize-0123456789abcdef"


def validated(root):
    """What ocfl-py says: whether the root is valid, the number of its objects, of valid ones, and of remarks.

    All objects have the remark that the user of a version has no address (W008). It is left out.
    """
    if not OCFL_PY.exists():
        pytest.skip("ocfl-py is missing: make .venv-ocfl/ready")
    run = subprocess.run([OCFL_PY, "-c", VALIDATE, root], capture_output=True, text=True, check=True)
    valid, number, good, said = json.loads(run.stdout)
    remarks = [line for _, lines in said for line in lines.splitlines() if "[W008]" not in line]
    return valid, number, good, remarks


def objects(root):
    """Inventories of a storage root by id, after its validation."""
    paths = list(root.rglob("0=ocfl_object_1.1"))
    assert validated(root) == (True, len(paths), len(paths), [])
    found = {}
    for path in paths:
        inventory = json.loads((path.parent / "inventory.json").read_text())
        assert path.parent == root / ocfl.object_path(inventory["id"])
        found[inventory["id"]] = inventory
    return found


def files(root, inventory, version=""):
    """The files of a version, the last one by default, by the names that the inventory gives them."""
    state = inventory["versions"][version or inventory["head"]]["state"]
    place = root / ocfl.object_path(inventory["id"])
    return {
        name: (place / inventory["manifest"][digest][0]).read_bytes()
        for digest, names in state.items()
        for name in names
    }


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def export(output, root, capsys, code=0):
    """The last line of the command."""
    capsys.readouterr()
    assert main(["ocfl", str(output), str(root)]) == code
    return capsys.readouterr().out.splitlines()[-1]


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """An archive of four scans, one of them broken, and its output."""
    return make_output(tmp_path_factory.mktemp("finished"), model, 3)


def test_an_output_becomes_a_storage_root_with_an_object_for_each_derivative(finished, tmp_path, capsys):
    root = tmp_path / "root"
    assert export(finished / "out", root, capsys) == "objects: 3 new, 0 with a new version, 0 as they were"
    found = objects(root)
    records = {record.key: record for record in manifest.latest(str(finished / "out"))}
    assert sorted(found) == [f"file://{finished}/in/#box0/scan000{number}.jpg_color" for number in range(3)]
    for identity, inventory in found.items():
        key = identity.partition("#")[2].removesuffix("_color")
        record, version = records[key], inventory["versions"]["v1"]
        packed = files(root, inventory)
        assert sorted(packed) == ["record.json", f"{Path(key).name}_color.jpg"]
        assert packed[f"{Path(key).name}_color.jpg"] == Path(record.derivative).read_bytes()
        assert Record.from_json(packed["record.json"]) == record
        assert version["created"] == record.finished
        assert version["user"]["name"].startswith("archive-colorize ")
        assert inventory["fixity"] == {"sha256": {record.derivative_sha256: ["v1/content/derivative.jpg"]}}
    assert not list(root.rglob(".*"))


def test_ocfl_py_notices_a_changed_file(finished, tmp_path, capsys):
    root = tmp_path / "root"
    export(finished / "out", root, capsys)
    next(root.rglob("derivative.jpg")).write_bytes(b"changed")
    _, number, good, remarks = validated(root)
    assert (number, good) == (3, 2)
    assert any("[E092a]" in line for line in remarks)


def test_nothing_is_written_if_nothing_has_changed(finished, tmp_path, capsys):
    output = shutil.copytree(finished / "out", tmp_path / "moved")  # as a whole, to another place
    root = tmp_path / "root"
    export(finished / "out", root, capsys)
    before = snapshot(root)
    assert export(output, root, capsys) == "objects: 0 new, 0 with a new version, 3 as they were"
    assert snapshot(root) == before


def test_another_option_makes_a_second_version(finished, colorize, tmp_path, capsys):
    output, root = shutil.copytree(finished / "out", tmp_path / "out"), tmp_path / "root"
    export(output, root, capsys)
    first = objects(root)
    before = snapshot(root)
    # The records change, and the derivative of one scan, too.
    assert colorize(finished / "in", output, "--digests", "md5", "--date", "2026-12-02").code == 0
    (tmp_path / "one.jsonl").write_text(
        json.dumps({"source": f"{finished}/in/box0/scan0001.jpg", "key": "box0/scan0001.jpg"})
    )
    assert colorize(tmp_path / "one.jsonl", output, "--format", "png").code == 0
    words = export(output, root, capsys)
    assert words == "objects: 0 new, 3 with a new version, 0 as they were"
    for identity, inventory in objects(root).items():
        assert inventory["head"] == "v2"
        assert files(root, inventory, "v1") == files(root, first[identity])
        assert inventory["versions"]["v1"] == first[identity]["versions"]["v1"]
        ending = "png" if "scan0001" in identity else "jpg"
        derivative = output / f"{identity.partition('#')[2]}.{ending}"
        assert files(root, inventory)[derivative.name] == derivative.read_bytes()
    inventories = {path for path in before if path.name.startswith("inventory") and path.parent.name != "v1"}
    assert {path: now for path, now in snapshot(root).items() if path in before.keys() - inventories} == {
        path: then for path, then in before.items() if path not in inventories
    }


def test_content_that_is_there_is_not_copied_again(finished, colorize, tmp_path, capsys):
    outputs = [tmp_path / name for name in ("first", "again")]
    root = tmp_path / "root"
    for output in outputs:
        assert colorize(finished / "in", output, "--date", "2026-12-02").code == 0
        export(output, root, capsys)
    for inventory in objects(root).values():
        place = root / ocfl.object_path(inventory["id"])
        assert os.listdir(place / "v2" / "content") == ["record.json"]
        assert len(files(root, inventory)) == 2


def test_files_that_are_not_as_recorded_are_named_and_not_packed(finished, tmp_path, capsys):
    output, root = shutil.copytree(finished / "out", tmp_path / "out"), tmp_path / "root"
    changed, missing, empty = sorted(output.rglob("*_color.jpg"))
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    missing.unlink()
    empty.write_bytes(b"")
    assert main(["ocfl", str(output), str(root)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"changed: {changed}",
        f"missing: {missing}",
        f"changed: {empty}",
    ]
    assert last == "objects: 0 new, 0 with a new version, 0 as they were, 3 not packed: 2 changed, 1 missing"
    assert not objects(root)
    shutil.copytree(finished / "out", output, dirs_exist_ok=True)
    assert export(output, root, capsys).startswith("objects: 3 new")
    assert len(objects(root)) == 3


def test_sidecars_are_packed_and_compared(finished, colorize, tmp_path, capsys):
    output, root = tmp_path / "out", tmp_path / "root"
    certified = certify(tmp_path)
    assert colorize(finished / "in", output, *certified.options, "--c2pa", "sidecar").code == 0
    sidecar = sorted(output.rglob("*.c2pa"))[0]
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole + b"!")
    words = "objects: 2 new, 0 with a new version, 0 as they were, 1 not packed: 1 changed"
    assert export(output, root, capsys, 1) == words
    sidecar.write_bytes(whole)
    export(output, root, capsys)
    for inventory in objects(root).values():
        assert sorted(Path(name).suffix for name in files(root, inventory)) == [".c2pa", ".jpg", ".json"]
        assert len(inventory["fixity"]["sha256"]) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_an_export_that_ends_at_any_file_is_completed_by_the_same_command(
    version, finished, colorize, tmp_path, capsys, monkeypatch
):
    """Between any two files, with a half-written file, and what other options have left."""
    monkeypatch.setattr(verification, "READERS", 1)
    output, start, write = tmp_path / "out", tmp_path / "start", storage.write
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"source": f"{finished}/in/box0/scan0001.jpg", "key": "scan0001.jpg"}))
    assert colorize(one, output, "--date", "2026-12-02").code == 0
    if version == 2:
        export(output, start, capsys)
        assert colorize(one, output, "--format", "png", "--date", "2026-12-02").code == 0

    ends = 0
    while True:
        root = tmp_path / f"root{ends}"
        if version == 2:
            shutil.copytree(start, root)
        left = ends

        def failing(uri, data, root=root, **more):
            nonlocal left
            if uri.startswith(f"{root}/") and lease.FILE not in uri:
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), uri)
            write(uri, data, **more)

        with monkeypatch.context() as patched:
            patched.setattr(storage, "write", failing)
            code = main(["ocfl", str(output), str(root)])
        if code == 0:
            break
        assert code == 1
        assert capsys.readouterr().err.count("\n") == 1
        for place in root.glob("*/*/*/*scan*"):
            (place / LEFTOVER).write_bytes(b"half")
            (place / f"v{version}").mkdir(exist_ok=True)
            (place / f"v{version}" / "content").mkdir(exist_ok=True)
            (place / f"v{version}" / "content" / "derivative.tif").write_bytes(b"of other options")
        export(output, root, capsys)
        (inventory,) = objects(root).values()
        assert inventory["head"] == f"v{version}"
        (derivative,) = output.glob("*_color.png" if version == 2 else "*_color.jpg")
        assert files(root, inventory)[derivative.name] == derivative.read_bytes()
        ends += 1
    assert ends == {1: 3 + 1 + 2 + 4, 2: 2 + 4}[version]


KILLED = """
import os, signal, sys
from pipeline import storage
from pipeline.colorize import main

write, left = storage.write, 100

def killed(uri, data, **more):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(uri, data, **more)

storage.write = killed
main(sys.argv[1:])
"""


def test_a_killed_export_is_completed_by_the_same_command(tmp_path, colorize, capsys):
    """The process has several objects in work, and leaves its lease."""
    output, root = tmp_path / "out", tmp_path / "root"
    assert colorize(make_archive(tmp_path / "in", 30), output).code == 0
    process = subprocess.run([sys.executable, "-c", KILLED, "ocfl", output, root], env=environment())
    assert process.returncode == -signal.SIGKILL
    assert (root / lease.FILE).exists()
    assert list(root.rglob("0=ocfl_object_1.1"))
    assert export(output, root, capsys).endswith(" as they were")
    assert len(objects(root)) == 30
    assert not list(root.rglob(".*"))


def test_names_of_every_kind(tmp_path, colorize, capsys):
    archive = tmp_path / "in"
    folder = archive / ("long" * 50) / ("ü" * 100)
    folder.mkdir(parents=True)
    for number, name in enumerate(
        ["50%.jpg", "Übergröße\n2.jpg", "a b?c#d.jpg", '"quote\\.jpg', "ü" * 120 + ".jpg"]
    ):
        (folder / name).write_bytes(jpeg(picture(number)))
    with open(os.fsencode(archive) + b"/latin1-\xe9.jpg", "wb") as file:
        file.write(jpeg(picture(8)))
    (archive / "book.tif").write_bytes(document(*leaves(1, 2)))
    output, root = tmp_path / "out", tmp_path / "root"
    run = colorize(archive, output)
    assert run.code == 0, run.err
    colorized = [record for record in run.records.values() if record.outcome == "colorized"]
    assert len(colorized) == 8
    export(output, root, capsys)
    found = objects(root)
    assert f"file://{archive}/#latin1-%E9.jpg_color" in found
    assert f"file://{archive}/#book.tif%23page%3D2_color" in found
    wanted = {ocfl.object_id(record): Path(record.derivative).read_bytes() for record in colorized}
    assert found.keys() == wanted.keys()
    for identity, inventory in found.items():
        packed = files(root, inventory)
        packed.pop("record.json")
        assert list(packed.values()) == [wanted[identity]]


def test_a_master_with_two_keys_has_two_objects():
    records = [
        Record("/scans/box/a.jpg", key)
        for key in ("a.jpg", "box/a.jpg", "b.jpg", "box/a.jpg/b.jpg", "a.jpg#page=1", "x.jpg")
    ] + [Record("gs://scans/box/a.jpg", "a.jpg")]
    assert [ocfl.object_id(record) for record in records] == [
        "file:///scans/box/#a.jpg_color",
        "file:///scans/#box/a.jpg_color",
        "file:///scans/box/a.jpg#b.jpg_color",
        "file:///scans/box/a.jpg#box/a.jpg/b.jpg_color",
        "file:///scans/box/#a.jpg%23page%3D1_color",
        "file:///scans/box/a.jpg#x.jpg_color",
        "gs://scans/box/#a.jpg_color",
    ]


def test_folders_of_objects_are_those_of_the_extension():
    """The examples of the extension 0003, and its limit of 100 characters."""
    long = "abcdefghij" * 10
    assert [ocfl.object_path(name) for name in ("object-01", "..hor/rib:le-$id", long, long + "a")] == [
        "3c0/ff4/240/object-01",
        "487/326/d8c/%2e%2ehor%2frib%3ale-%24id",
        f"{'/'.join(_tuples(long))}/{long}",
        "5cc/73e/648/" + long + "-5cc73e648fbcff136510e330871180922ddacf193b68fdeff855683a01464220",
    ]


def _tuples(text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest[:3], digest[3:6], digest[6:9]


def test_a_damaged_object_is_named_and_left_as_it_is(finished, colorize, tmp_path, capsys):
    output, root = shutil.copytree(finished / "out", tmp_path / "out"), tmp_path / "root"
    export(output, root, capsys)
    foreign, cut, rolled_back = sorted(path.parent for path in root.rglob("0=ocfl_object*"))
    (foreign / "inventory.json").write_text('{"id": "another"}')
    (cut / "inventory.json").write_bytes((cut / "inventory.json").read_bytes()[:-99])
    (rolled_back / "inventory.json").unlink()
    (rolled_back / "v2").mkdir()
    (rolled_back / "v2" / "inventory.json").write_text("{}")
    before = snapshot(root)
    assert colorize(finished / "in", output, "--format", "png").code == 0
    words = "objects: 0 new, 0 with a new version, 0 as they were, 3 not packed: 3 damaged object"
    assert export(output, root, capsys, 1) == words
    assert snapshot(root) == before


def test_an_inventory_of_another_program_is_extended(finished, colorize, tmp_path, capsys):
    """It may be spelt in another way, and have other versions."""
    output, root = shutil.copytree(finished / "out", tmp_path / "out"), tmp_path / "root"
    export(output, root, capsys)
    for inventory in objects(root).values():
        place = root / ocfl.object_path(inventory["id"])
        data = json.dumps(inventory, sort_keys=True, separators=(",", ":")).encode()
        for folder in (place, place / "v1"):
            (folder / "inventory.json").write_bytes(data)
            digest = hashlib.sha512(data).hexdigest()
            (folder / "inventory.json.sha512").write_text(f"{digest}  inventory.json\n")
    assert colorize(finished / "in", output, "--format", "png").code == 0
    assert "3 with a new version" in export(output, root, capsys)
    assert {inventory["head"] for inventory in objects(root).values()} == {"v2"}


def test_mistakes_are_told_in_one_line(finished, tmp_path, capsys):
    output = shutil.copytree(finished / "out", tmp_path / "out")
    used, layout, file = tmp_path / "used", tmp_path / "layout", tmp_path / "file"
    used.mkdir()
    (used / "notes.txt").write_text("of an archivist")
    export(output, layout, capsys)
    (layout / "ocfl_layout.json").write_text(
        '{"extension": "0002-flat-direct-storage-layout", "description": ""}'
    )
    file.write_text("")
    for where, root, words in (
        (output, used, f"is not an OCFL 1.1 storage root and has other files ({used}/notes.txt)"),
        (output, layout, "does not have the layout 0003"),
        (output, output / "ocfl", "must be apart"),
        (output, tmp_path, "must be apart"),
        (output, file, "it is not a folder"),
        (output, "https://example.org", "https:// is not supported"),
        (used, tmp_path / "root", f"no manifest in {used}; is it the --output of a run?"),
    ):
        before = snapshot(tmp_path)
        assert main(["ocfl", str(where), str(root)]) == 2
        out, err = capsys.readouterr()
        assert words in err
        assert err.count("\n") == 1
        assert not out
        assert snapshot(tmp_path) == before


def test_a_bag_is_packed_and_the_root_must_be_outside_of_it(finished, colorize, tmp_path, capsys):
    output = tmp_path / "bag"
    assert colorize(finished / "in", output, "--bag").code == 0
    assert main(["ocfl", str(output), str(output / "ocfl")]) == 2
    export(output, tmp_path / "root", capsys)
    assert len(objects(tmp_path / "root")) == 3


def test_only_one_export_at_a_time_and_it_can_be_stopped(finished, tmp_path, capsys, monkeypatch):
    output, root = finished / "out", tmp_path / "root"
    packed = ocfl.export(str(output), str(root))
    next(packed)
    assert main(["ocfl", str(output), str(root)]) == 2
    assert "another job" in capsys.readouterr().err
    assert main(["stop", str(root)]) == 0
    with pytest.raises(ocfl.JobError, match="stopped; run the same command again"):
        list(packed)
    assert not list(root.glob(".archive*"))
    export(output, root, capsys)
    assert len(objects(root)) == 3


def test_output_and_root_in_buckets(bucket, finished, tmp_path, colorize, capsys):
    output, root = f"{bucket}/packed/out", f"{bucket}/packed/root"
    assert colorize(finished / "in", output).code == 0
    assert export(output, root, capsys).startswith("objects: 3 new")
    assert colorize(finished / "in", output, "--format", "png").code == 0
    assert "3 with a new version" in export(output, root, capsys)
    assert "3 as they were" in export(output, root, capsys)
    copy = tmp_path / "copy"
    for info in storage.list_files(root):
        file = copy / info.uri[len(root) + 1 :]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(info.uri))
    assert len(objects(copy)) == 3
