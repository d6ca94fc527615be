"""Collections: expanding inputs to scans, and refusals before any work."""

import json
import os

import pytest

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs.collection import (
    base_folder,
    check_input,
    check_output,
    expand,
    expand_part,
    parts,
    split,
)
from pipeline.inputs.item import Item, check_key
from pipeline.records.record import Reason, Refusal


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tif", "box/b.tif", "box/c.jpg", "box/deep/d.tif", "other/e.tif"):
        storage.write(str(tmp_path / "in" / name), b"scan")
    return tmp_path / "in"


def keys(source):
    return [item.key for item in expand(str(source))]


# Inputs


def test_a_folder_is_expanded_to_its_files_with_relative_paths_as_keys(archive):
    items = list(expand(str(archive)))
    assert [item.key for item in items] == [
        "a.tif",
        "box/b.tif",
        "box/c.jpg",
        "box/deep/d.tif",
        "other/e.tif",
    ]
    assert items[1].source == f"{archive}/box/b.tif"
    assert items[1].size == 4
    assert items[1].version == str(os.stat(items[1].source).st_mtime_ns)


@pytest.mark.parametrize("written", ["in", "in/", "./in", "other/../in", "file://{}/in"])
def test_however_a_folder_is_written_its_keys_are_the_same(archive, written):
    assert keys(written.format(archive.parent)) == keys(archive)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tif", ["a.tif"]),
        ("*/*.tif", ["box/b.tif", "other/e.tif"]),
        ("**/*.tif", ["a.tif", "box/b.tif", "box/deep/d.tif", "other/e.tif"]),
        ("b*/**", ["box/b.tif", "box/c.jpg", "box/deep/d.tif"]),
        ("box/?.[jt]*", ["b.tif", "c.jpg"]),
        ("box/[!b].*", ["c.jpg"]),
        ("none/*", []),
        ("*.png", []),
    ],
)
def test_a_glob_is_expanded_with_keys_relative_to_its_fixed_folder(archive, pattern, expected):
    assert keys(f"{archive}/{pattern}") == expected
    assert keys(f"in/{pattern}") == expected


def test_a_glob_in_the_current_folder_has_keys_below_it(archive, monkeypatch):
    monkeypatch.chdir(archive)
    assert keys("*.tif") == ["a.tif"]
    assert base_folder("*.tif") == str(archive)


def test_a_glob_does_not_look_where_nothing_can_match(archive, monkeypatch):
    seen = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(str(path)) or real(path))
    keys(f"{archive}/b*/*.tif")
    assert seen == [str(archive), f"{archive}/box"]


def test_a_glob_follows_no_circle_of_links(archive):
    (archive / "box/up").symlink_to(archive)
    assert keys(f"{archive}/**/d.tif") == ["box/deep/d.tif"]


def test_a_folder_with_a_wildcard_in_its_name_is_a_folder(archive):
    (archive / "box").rename(archive / "box [1]")
    check_input(str(archive / "box [1]"))
    assert keys(archive / "box [1]") == ["b.tif", "c.jpg", "deep/d.tif"]


def test_a_prefix_and_a_glob_in_cloud_storage_have_keys_as_folders_do(archive, monkeypatch):
    def listed(folder, enter, **more):
        return (
            storage.FileInfo(f"gs://bucket/in/{key}", 4, "1") for key in ("a.tif", "box/b.tif", "box/c.jpg")
        )

    monkeypatch.setattr(storage, "list_files", listed)
    assert keys("gs://bucket/in") == ["a.tif", "box/b.tif", "box/c.jpg"]
    assert keys("gs://bucket/in/**/*.tif") == ["a.tif", "box/b.tif"]
    assert keys("gs://bucket/in/*.tif") == ["a.tif"]


def test_a_scan_that_vanishes_while_the_folder_is_listed_still_gets_its_record(archive):
    items = expand(str(archive))
    assert [next(items).key, next(items).key] == ["a.tif", "box/b.tif"]
    (archive / "box/c.jpg").unlink()
    assert next(items) == Item("box/c.jpg", f"{archive}/box/c.jpg")


# Manifests


def manifest(folder, *lines):
    path = folder / "todo.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_a_manifest_names_scans_wherever_they_lie(archive, tmp_path):
    source = manifest(
        tmp_path, {"source": f"{archive}/a.tif", "key": "first.tif"}, "", {"source": "/none/b.tif"}
    )
    assert list(expand(source)) == [
        Item("first.tif", f"{archive}/a.tif", 4, str((archive / "a.tif").stat().st_mtime_ns)),
        Item("none/b.tif", "/none/b.tif"),
    ]
    assert base_folder(source) is None


def test_a_manifest_line_without_a_key_has_the_whole_path_as_its_key(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "stat", lambda uri: None)
    assert keys(manifest(tmp_path, {"source": "gs://bucket/a/b.tif"})) == ["bucket/a/b.tif"]


@pytest.mark.parametrize("source", ["loop", "nul\0byte", "n" * 300])
def test_a_scan_that_cannot_even_be_looked_at_stops_no_listing(tmp_path, source):
    (tmp_path / "loop").symlink_to("loop")
    (item,) = expand(manifest(tmp_path, {"source": f"{tmp_path}/{source}", "key": "a"}))
    assert item == Item("a", f"{tmp_path}/{source}")


BAD_LINES = [
    "{",
    "[1]",
    '{"key": "a"}',
    '{"source": 1}',
    '{"source": "/a.tif", "key": 3}',
    "[" * 100_000,
    "hello",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_names_no_scan_is_an_item_with_its_number_and_a_reason(tmp_path, line):
    source = manifest(tmp_path, {"source": "/a.tif"}, "", line, {"source": "/b.tif"})
    first, bad, last = expand(source)
    assert (first.source, last.source) == ("/a.tif", "/b.tif")
    assert (bad.reason, bad.source) == (Reason.BAD_LINE, f"{source}:3")
    assert bad.detail.startswith("line 3: ")
    assert "\n" not in bad.detail


def test_a_line_in_another_encoding_is_a_bad_line(tmp_path):
    path = tmp_path / "todo.jsonl"
    path.write_bytes(b'{"source": "/a.tif"}\n{"source": "/caf\xe9.tif"}\n')
    assert [item.reason for item in expand(str(path))] == ["", Reason.BAD_LINE]


@pytest.mark.parametrize("line", [*BAD_LINES[:5], "[" * 100_000])
def test_a_file_without_a_valid_line_is_not_a_manifest(tmp_path, line):
    with pytest.raises(JobError, match=r"todo\.jsonl is not a manifest: line 1: "):
        list(expand(manifest(tmp_path, line, line)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_manifest_in_another_unicode_encoding_is_one_clear_line(tmp_path, encoding):
    path = tmp_path / "todo.jsonl"
    path.write_text('{"source": "/a.tif"}\n{"source": "/b.tif"}\n', encoding=encoding)
    with pytest.raises(JobError, match=f"it is {encoding[:6].upper()}; save it as UTF-8"):
        list(expand(str(path)))


def test_a_binary_file_is_not_a_manifest(tmp_path):
    path = tmp_path / "todo.jsonl"
    path.write_bytes(b"PK\x03\x04" + bytes(range(200)) * 10)
    with pytest.raises(JobError, match="it is a binary file"):
        list(expand(str(path)))


def test_a_byte_order_mark_of_utf_8_is_fine(tmp_path):
    path = tmp_path / "todo.jsonl"
    path.write_text('{"source": "/a.tif"}\n', encoding="utf-8-sig")
    assert keys(path) == ["a.tif"]


@pytest.mark.parametrize("key", ["\ud83d", "box/\ud800.jpg"])
def test_a_key_with_half_of_a_surrogate_pair_is_a_bad_key(tmp_path, key):
    (item,) = expand(manifest(tmp_path, {"source": "/a.jpg", "key": key}))
    with pytest.raises(Refusal) as caught:
        check_key(item.key)
    assert caught.value.reason == Reason.BAD_KEY


def test_surrogate_escapes_of_a_utf_8_name_are_decoded(tmp_path):
    escaped = "".join(chr(0xDC00 + byte) for byte in "é".encode())
    (item,) = expand(manifest(tmp_path, {"source": f"/{escaped}.jpg", "key": f"{escaped}.jpg"}))
    assert (item.source, item.key) == ("/é.jpg", "é.jpg")


@pytest.mark.parametrize("source", ["https://archive.example/a.jpg", "ftp://bucket/a.jpg", "HTTP://a/b.jpg"])
def test_an_unsupported_source_is_reported(tmp_path, source):
    (item,) = expand(manifest(tmp_path, {"source": source, "key": "a.jpg"}))
    assert (item.reason, item.source) == (Reason.UNSUPPORTED_SOURCE, source)
    assert "download the file" in item.detail


def test_relative_sources_are_relative_to_the_folder_of_the_manifest(archive, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "lists").mkdir()
    source = manifest(tmp_path / "lists", {"source": "../in/a.tif"}, {"source": "b.tif", "key": "b.tif"})
    first, second = expand(source)
    assert (first.source, first.size) == (f"{archive}/a.tif", 4)
    assert second.source == f"{tmp_path}/lists/b.tif"


def test_only_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/archivist")
    home, file = expand(manifest(tmp_path, {"source": "~/a.tif"}, {"source": "~odd.tif"}))
    assert home.source == "/home/archivist/a.tif"
    assert file.source == f"{tmp_path}/~odd.tif"


def test_relative_sources_are_relative_to_a_manifest_in_cloud_storage(cloud):
    storage.write(f"{cloud}/lists/todo.jsonl", b'{"source": "../in/a.tif"}\n{"source": "b.tif"}\n')
    storage.write(f"{cloud}/in/a.tif", b"1234")
    first, second = expand(f"{cloud}/lists/todo.jsonl")
    assert (first.source, first.size, first.key) == (f"{cloud}/in/a.tif", 4, "archive/in/a.tif")
    assert second.source == f"{cloud}/lists/b.tif"


# Refusals before any work


@pytest.mark.parametrize(
    "source",
    [
        "none",
        "in/a.tif",
        "none.jsonl",
        "in/none",
        "gs://",
        "gs:///a",
        "gs://buck*/a",
        "https://a/b",
        "ftp://a/b",
        "s3://",
        "s3:///a",
        "s3://buck*/a",
    ],
)
def test_an_input_that_is_not_there_is_one_clear_line(archive, source):
    with pytest.raises(JobError) as caught:
        check_input(source)
    assert source in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["in", "in/", "in/*.tif", "in/none/*.tif", "gs://bucket", "gs://bucket/a/*", "s3://bucket/a"]
)
def test_an_input_that_may_be_there_is_not_refused(archive, source):
    check_input(source)


def test_a_folder_that_cannot_be_listed_is_one_clear_line(archive, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(JobError, match=r"cannot list .*/in: Permission denied"):
        keys(archive)


@pytest.mark.parametrize("output", ["in", "in/out", "in/../in/x", ".", "link", "link/out"])
def test_an_output_that_overlaps_the_input_is_refused(archive, output):
    (archive.parent / "link").symlink_to("in")
    for source in ("in", "in/*.tif"):
        with pytest.raises(JobError, match="overlaps"):
            check_output(source, output)


def split_twice(source) -> list[str]:
    """Keys of an input that is listed in parts, as on a cluster."""
    first = [part for whole in parts(source) for part in split(source, whole)]
    second = [part for one in first for part in split(source, one)]
    assert len(set(second)) == len(second)
    return [item.key for part in second for item in expand_part(source, part)]


@pytest.mark.parametrize("pattern", ["", "/**/*.tif", "/box/*", "/*/deep/*.tif"])
@pytest.mark.parametrize("where", ["here", "cloud"])
def test_the_parts_of_an_input_have_its_scans_once_each(archive, cloud, where, pattern):
    (archive / ".hidden").mkdir()
    (archive / ".hidden" / "x.tif").write_bytes(b"")
    os.symlink(archive, archive / "box" / "deep" / "circle")
    os.symlink(archive / "other", archive / "box" / "link")
    source = str(archive) + pattern
    if where == "cloud":
        for item in expand(str(archive)):
            storage.write(f"{cloud}/parts/{item.key}", b"scan")
        storage.write(f"{cloud}/parts/.hidden/x.tif", b"scan")
        source = f"{cloud}/parts{pattern}"
    assert sorted(split_twice(source)) == sorted(keys(source)) != []


@pytest.mark.parametrize("where", ["here", "cloud"])
def test_a_glob_of_manifests_names_their_scans(tmp_path, cloud, where):
    folder = str(tmp_path) if where == "here" else f"{cloud}/several"
    for name in ("a", "b"):
        storage.write(f"{folder}/{name}.jsonl", json.dumps({"source": f"/{name}.jpg"}).encode())
    storage.write(f"{folder}/c.txt", b"no manifest")
    source = f"{folder}/*.jsonl"
    check_input(source)
    assert sorted(keys(source)) == sorted(split_twice(source)) == ["a.jpg", "b.jpg"]


def test_a_glob_without_manifests_is_a_mistake(tmp_path):
    with pytest.raises(JobError, match="no such manifest"):
        check_input(f"{tmp_path}/*.jsonl")


def test_an_output_that_holds_the_input_through_a_link_is_refused(archive):
    (archive.parent / "outer").mkdir()
    (archive.parent / "outer/in").symlink_to(archive)
    check_output("outer/in", "out")
    with pytest.raises(JobError, match="overlaps"):
        check_output("in/box", "outer/in")


@pytest.mark.parametrize(
    ("source", "output"), [("in", "in2"), ("in", "gs://in"), ("gs://b/in", "gs://b/out"), ("a.jsonl", "in")]
)
def test_an_output_beside_the_input_is_fine(archive, source, output):
    check_output(source, output)


def test_overlap_in_cloud_storage_is_refused():
    with pytest.raises(JobError):
        check_output("gs://b/in/**/*.tif", "gs://b/in/out")
