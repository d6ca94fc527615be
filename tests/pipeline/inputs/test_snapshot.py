"""Snapshots: the contents of each collection are written to a manifest, which is rewritten only after a change."""

import json
import os
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs import snapshot


def lines(manifests) -> list[dict]:
    return [json.loads(line) for name in manifests for line in Path(name).open()]


def write_manifest(file: Path, *said: dict) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in said))
    return str(file)


def test_a_line_keeps_what_it_says_and_has_defaults_for_the_rest(tmp_path):
    full = {
        "source": str(tmp_path / "a.jpg"),
        "key": "box/a.jpg",
        "collection": "harbour",
        "era": "1960s",
        "group": "album 7",
        "labels": {"process": "dye transfer", "held": "north"},
    }
    bare = {"source": str(tmp_path / "b.jpg"), "key": "box/b.jpg"}
    top = {"source": str(tmp_path / "c.jpg"), "key": "c.jpg"}
    found = lines(
        snapshot.write([write_manifest(tmp_path / "mill.jsonl", full, bare, top)], str(tmp_path / "m"))
    )
    assert found[0].items() >= full.items()
    defaults = [(line["collection"], line["era"], line["group"], line["labels"]) for line in found[1:]]
    assert defaults == [("box", "unknown", "", {}), ("mill", "unknown", "", {})]


def test_a_folder_lists_its_pictures_with_size_and_version(tmp_path):
    file = tmp_path / "album" / "old" / "a.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"12345")
    (file.parent / "notes.txt").write_text("no picture")
    [line] = lines(snapshot.write([str(tmp_path / "album")], str(tmp_path / "m")))
    assert (line["key"], line["collection"]) == ("old/a.jpg", "old")
    assert (line["source_bytes"], line["source_version"]) == (5, str(file.stat().st_mtime_ns))


def test_a_prefix_in_cloud_storage_is_listed_and_its_manifest_can_be_written_there(cloud):
    for name in ("album/old/a.jpg", "album/new/b.jpg", "album/notes.txt", "another/c.jpg"):
        storage.write(f"{cloud}/{name}", name.encode())
    [manifest] = snapshot.write([f"{cloud}/album"], f"{cloud}/manifests")
    entries = list(snapshot.read(manifest))
    assert [entry.item.source for entry in entries] == [
        f"{cloud}/album/new/b.jpg",
        f"{cloud}/album/old/a.jpg",
    ]
    assert [entry.collection for entry in entries] == ["new", "old"]
    assert all(entry.item.size == 15 and entry.item.version for entry in entries)


def test_a_manifest_is_rewritten_only_if_it_changes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"1")
    sources, folder = [str(tmp_path / "one"), str(tmp_path / "two")], str(tmp_path / "m")
    before = {name: os.stat(name).st_mtime_ns for name in snapshot.write(sources, folder)}
    (tmp_path / "two" / "b.jpg").write_bytes(b"2")
    after = {name: os.stat(name).st_mtime_ns for name in snapshot.write(sources, folder)}
    assert [before[name] == after[name] for name in before] == [True, False]


def test_sources_with_the_same_name_have_a_manifest_each(tmp_path):
    for name in ("north/box", "south/box"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jpg").write_bytes(b"1")
    written = snapshot.write([str(tmp_path / "north/box"), str(tmp_path / "south/box")], str(tmp_path / "m"))
    assert len(set(written)) == len(list((tmp_path / "m").iterdir())) == 2


@pytest.mark.parametrize("fault", ["missing", "empty", "no json", "no source", "era", "labels"])
def test_a_source_that_cannot_be_used_is_one_line_that_names_it(tmp_path, fault):
    said = {
        "no json": "{",
        "no source": '{"key": "a"}',
        "era": '{"source": "/a.jpg", "era": 1960}',
        "labels": '{"source": "/a.jpg", "labels": ["a"]}',
        "empty": "",
    }
    source = tmp_path / "prints.jsonl"
    if fault != "missing":
        source.write_text(said[fault] + "\n")
    with pytest.raises(JobError) as error:
        snapshot.write([str(source)], str(tmp_path / "m"))
    assert "\n" not in str(error.value)
    assert "prints.jsonl" in str(error.value)
