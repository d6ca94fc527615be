"""Storage: files are written completely or not at all, and listings are complete."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import storage


@pytest.fixture(params=["unnamed files", "named files"])
def filesystem(request, monkeypatch):
    """A file system with O_TMPFILE, and one without it."""
    if request.param == "named files":
        without_unnamed_files(monkeypatch)
    return request.param


def without_unnamed_files(monkeypatch):
    real = os.open

    def refuse(path, flags, *arguments, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no unnamed files here")
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)


def names(folder):
    return sorted(entry.name for entry in os.scandir(folder))


def uris(folder, **options):
    return [info.uri for info in storage.list_files(str(folder), **options)]


# Writing


def test_a_file_is_written_with_its_folders(tmp_path, filesystem):
    path = tmp_path / "box 1" / "folder" / "a.jpg"
    storage.write(str(path), b"whole")
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["a.jpg"]


def test_a_file_is_replaced(tmp_path, filesystem):
    path = tmp_path / "a"
    storage.write(str(path), b"old")
    storage.write(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_an_existing_file_can_be_kept(tmp_path, filesystem):
    path = tmp_path / "shard"
    storage.write(str(path), b"old", keep_existing=True)
    storage.write(str(path), b"new", keep_existing=True)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["shard"]


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path, filesystem):
    old = os.umask(0o027)
    try:
        storage.write(str(tmp_path / "a"), b"")
        storage.write(str(tmp_path / "a"), b"again")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_the_longest_name_that_the_file_system_has_can_be_written_and_replaced(tmp_path, filesystem):
    name = "ä" * 127
    for content in (b"old", b"new"):
        storage.write(str(tmp_path / name), content)
    assert (tmp_path / name).read_bytes() == b"new"


def test_a_folder_in_the_way_is_an_error_that_leaves_nothing_behind(tmp_path, filesystem):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.write(str(tmp_path / "a"), b"data")
    assert names(tmp_path) == ["a"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        storage.write(str(tmp_path / "a" / "b"), b"data")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, filesystem):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted: that takes root")
    try:
        storage.write(str(tmp_path / "a"), b"old")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            storage.write(str(tmp_path / "a"), bytes(1 << 20))
        assert (tmp_path / "a").read_bytes() == b"old"
        assert names(tmp_path) == ["a"]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_limit_on_file_size_leaves_nothing_behind(tmp_path, filesystem):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            storage.write(str(tmp_path / "a"), bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


WRITER = """
import itertools, sys
from pipeline import storage
print("ready", flush=True)
for turn in itertools.count():
    storage.write(f"{sys.argv[1]}/{turn % 3}", bytes([turn % 256]) * 3_000_000)
"""


def test_a_writer_that_is_killed_leaves_no_half_file_under_any_name(tmp_path):
    for kill in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        writer.stdout.readline()
        stop = time.monotonic() + 0.02 + 0.01 * kill
        while time.monotonic() < stop:
            assert set(sizes(tmp_path)) <= {3_000_000}
        writer.kill()
        writer.wait()
        writer.stdout.close()
        for path in tmp_path.iterdir():
            content = path.read_bytes()
            assert content == content[:1] * 3_000_000, path


def sizes(folder):
    for entry in os.scandir(folder):
        try:
            yield entry.stat().st_size
        except FileNotFoundError:  # replaced in the meantime
            continue


def test_deleting_a_missing_file_is_not_an_error(tmp_path):
    storage.write(str(tmp_path / "a"), b"")
    storage.delete(str(tmp_path / "a"))
    storage.delete(str(tmp_path / "a"))
    assert names(tmp_path) == []


# Listing and reading


def test_listing_finds_every_file_once_in_order_with_its_size(tmp_path):
    for name in ("b/2.tif", "b/1.tif", "a.tif", "c.tif", "b/deep/er/x"):
        storage.write(str(tmp_path / name), name.encode())
    found = list(storage.list_files(str(tmp_path)))
    assert [info.uri.removeprefix(f"{tmp_path}/") for info in found] == [
        "a.tif",
        "b/1.tif",
        "b/2.tif",
        "b/deep/er/x",
        "c.tif",
    ]
    assert [info.size for info in found] == [5, 7, 7, 11, 5]
    assert found[0].version == str((tmp_path / "a.tif").stat().st_mtime_ns)
    assert found == list(storage.list_files(str(tmp_path)))


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in (".a.tif", ".git/b.tif", "c/.d/e.tif", "c/f.tif"):
        storage.write(str(tmp_path / name), b"")
    assert uris(tmp_path) == [f"{tmp_path}/c/f.tif"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    storage.write(str(tmp_path / "archive/box/a.tif"), b"")
    storage.write(str(tmp_path / "elsewhere/b.tif"), b"")
    (tmp_path / "archive/box/up").symlink_to(tmp_path / "archive")
    (tmp_path / "archive/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/self").symlink_to(".")
    folder = tmp_path / "archive"
    assert uris(folder) == [f"{folder}/box/a.tif", f"{folder}/other/b.tif"]


def test_a_link_that_leads_nowhere_is_listed_so_that_it_gets_a_record(tmp_path):
    (tmp_path / "gone.tif").symlink_to("nowhere.tif")
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    assert [(info.uri, info.size) for info in storage.list_files(str(tmp_path))] == [
        (f"{tmp_path}/gone.tif", -1),
        (f"{tmp_path}/loop.tif", -1),
    ]


def test_pipes_are_not_listed(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    assert uris(tmp_path) == []


def test_a_name_that_is_not_utf8_is_listed_and_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.tif"
    with open(path, "wb") as file:
        file.write(b"data")
    (uri,) = uris(tmp_path)
    assert os.fsencode(uri) == path
    assert storage.read(uri) == b"data"


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert uris(tmp_path / "none") == []


def test_folders_that_are_not_entered_are_not_listed(tmp_path):
    storage.write(str(tmp_path / "a/1"), b"")
    storage.write(str(tmp_path / "b/1"), b"")
    assert uris(tmp_path, enter=lambda folder: folder.endswith("/b")) == [f"{tmp_path}/b/1"]


def test_reading_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.read(str(tmp_path / "a"))
    assert storage.stat(str(tmp_path / "a")) is None
    assert storage.stat(str(tmp_path / "a/b")) is None


def test_contains_resolves_links_and_compares_whole_names(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert storage.contains(str(tmp_path / "a"), str(tmp_path / "link/b"))
    assert storage.contains(str(tmp_path / "link"), str(tmp_path / "a"))
    assert not storage.contains(str(tmp_path / "a"), str(tmp_path / "ab"))
    assert storage.contains("gs://bucket/a", "gs://bucket/a/b")
    assert not storage.contains("gs://bucket/a", "gs://bucket/ab")
    assert not storage.contains("/", "gs://bucket/a")


def test_paths_and_uris_are_normalized(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert storage.normalize("a/../b/") == f"{tmp_path}/b"
    assert storage.normalize("~/scans") == "/home/ada/scans"
    assert storage.normalize("file:///data/scans") == "/data/scans"
    assert storage.normalize("gs://bucket/scans/") == "gs://bucket/scans"


# Irregular files and conditional writes


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "folder"])
def test_devices_pipes_and_folders_are_not_read(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for read in (storage.read, lambda uri: list(storage.lines(uri))):
        with pytest.raises(OSError, match="not a regular file"):
            read(str(tmp_path / path))


def test_an_overlong_line_is_truncated(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LONGEST_LINE", 10)
    (tmp_path / "a").write_bytes(b"x" * 1000 + b"\nshort\n")
    assert list(storage.lines(str(tmp_path / "a"))) == [b"x" * 10, b"short\n"]


def test_a_conditional_write_replaces_only_the_expected_version(tmp_path, filesystem):
    uri = str(tmp_path / "folder" / "a")
    storage.write(uri, b"first", over="")
    version = storage.stat(uri).version
    with pytest.raises(FileExistsError):
        storage.write(uri, b"second", over="")
    os.utime(uri, ns=(1, 1))
    with pytest.raises(FileExistsError):
        storage.write(uri, b"second", over=version)
    storage.write(uri, b"second", over="1")
    assert storage.read(uri) == b"second"


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("https://a/b", "https"),
        ("S3://a", "S3"),
        ("gs://a", ""),
        ("file:///a", ""),
        ("/a://b", ""),
        ("a", ""),
    ],
)
def test_unsupported_uris_are_recognised_by_their_scheme(uri, scheme):
    assert storage.foreign_scheme(uri) == scheme


def test_hidden_files_are_listed_where_they_are_wanted(tmp_path):
    for name in ("a/.b/c", ".d", "e"):
        storage.write(str(tmp_path / name), b"")
    assert uris(tmp_path, hidden=True) == [f"{tmp_path}/{name}" for name in (".d", "a/.b/c", "e")]
    assert uris(tmp_path, prefix="a") == []
    assert uris(tmp_path, prefix="e") == [f"{tmp_path}/e"]
