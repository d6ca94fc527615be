"""Objects in Cloud Storage and S3, on real servers over HTTP, with a proxy that makes calls fail."""

import mmap
import os
import sys

import pytest

from pipeline import storage
from pipeline.errors import JobError
from pipeline.inputs import collection
from pipeline.storage import gcs, s3


def test_an_object_is_written_replaced_read_and_deleted(bucket):
    uri = f"{bucket}/round/trip é.jpg"
    storage.write(uri, b"old")
    storage.write(uri, b"newer")
    assert storage.read(uri) == b"newer"
    info = storage.stat(uri)
    assert (info.uri, info.size) == (uri, 5)
    storage.delete(uri)
    storage.delete(uri)
    assert storage.stat(uri) is None


def test_a_file_that_is_mapped_into_memory_becomes_an_object(bucket, tmp_path):
    content = os.urandom(9 << 20)
    (tmp_path / "large.tif").write_bytes(content)
    with (
        open(tmp_path / "large.tif", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        storage.write(f"{bucket}/large.tif", data)
        storage.write(f"{bucket}/large.tif", data)
    assert storage.read(f"{bucket}/large.tif") == content


def test_objects_are_listed_below_their_folder_alone(bucket):
    for name in ("b.tif", "a/x.tif", "a.tif", ".hidden", "a/.hidden/x"):
        storage.write(f"{bucket}/list/{name}", b"123")
    storage.write(f"{bucket}/list2/a.tif", b"")
    found = list(storage.list_files(f"{bucket}/list"))
    assert [info.uri for info in found] == [f"{bucket}/list/{name}" for name in ("a.tif", "a/x.tif", "b.tif")]
    assert {info.size for info in found} == {3}
    assert all(info.version for info in found)


def test_a_prefix_with_objects_is_a_folder(bucket):
    storage.write(f"{bucket}/folder/a/b.tif", b"")
    assert storage.is_folder(f"{bucket}/folder/a")
    assert not storage.is_folder(f"{bucket}/fold")


def test_an_object_that_is_not_there_is_missing_as_a_file_would_be(bucket):
    with pytest.raises(FileNotFoundError):
        storage.read(f"{bucket}/none")


def test_errors_of_the_store_are_errors_of_a_file(bucket):
    other = f"{storage.scheme(bucket)}no-such-bucket/a"
    with pytest.raises(FileNotFoundError):
        list(storage.list_files(other))
    with pytest.raises(FileNotFoundError):
        storage.write(other, b"")


def test_folders_are_listed_without_those_below_them(bucket):
    for name in ("a/x/1", "a/2", "b/3", ".c/4", "5"):
        storage.write(f"{bucket}/folders/{name}", b"")
    assert list(storage.list_folders(f"{bucket}/folders")) == [f"{bucket}/folders/{name}" for name in "ab"]
    found = storage.list_files(f"{bucket}/folders/a", below=False)
    assert [info.uri for info in found] == [f"{bucket}/folders/a/2"]


def test_a_listing_of_many_pages_is_whole(strict_bucket):
    bucket = strict_bucket
    for number in range(1005):
        storage.write(f"{bucket}/pages/{number:04}", b"")
    assert listed(f"{bucket}/pages") == [f"{bucket}/pages/{number:04}" for number in range(1005)]


def test_records_with_one_name_are_written_once(strict_bucket):
    storage.write(f"{strict_bucket}/once.jsonl", b"same", keep_existing=True)
    version = storage.stat(f"{strict_bucket}/once.jsonl").version
    storage.write(f"{strict_bucket}/once.jsonl", b"same", keep_existing=True)
    assert storage.stat(f"{strict_bucket}/once.jsonl").version == version


def test_a_conditional_write_replaces_only_the_expected_version(strict_bucket):
    uri = f"{strict_bucket}/lease"
    storage.write(uri, b"first", over="")
    version = storage.stat(uri).version
    with pytest.raises(FileExistsError):
        storage.write(uri, b"second", over="")
    storage.write(uri, b"second", over=version)
    with pytest.raises(FileExistsError):
        storage.write(uri, b"third", over=version)
    assert storage.read(uri) == b"second"


def test_an_object_that_an_earlier_try_wrote_is_kept(cloud, monkeypatch):
    from google.api_core import exceptions
    from google.cloud.storage import Blob

    asked = []

    def upload(blob, data, content_type, if_generation_match=None, retry=None):
        asked.append(if_generation_match)
        raise exceptions.PreconditionFailed("there is one")

    monkeypatch.setattr(Blob, "upload_from_string", upload)  # the emulator ignores the condition
    storage.write(f"{cloud}/shard.jsonl", b"new", keep_existing=True)
    assert asked == [0]


def listed(uri):
    return [info.uri for info in storage.list_files(uri)]


@pytest.mark.parametrize("answer", [503, 429, 500, "hang up", "cut", "slow"])
def test_a_call_that_fails_once_is_tried_again(bucket, flaky, answer):
    uri = f"{bucket}/flaky/{answer}/a.jsonl"
    calls = {
        "upload": lambda: storage.write(uri, b"one\ntwo\n"),
        "stat": lambda: storage.stat(uri),
        "read": lambda: storage.read(uri),
        "list": lambda: listed(uri.rpartition("/")[0]),
        "delete": lambda: storage.delete(uri),
    }
    answers = {}
    for wanted, call in calls.items():
        flaky.fail(wanted, 1, answer=answer)
        answers[wanted] = call()
        assert call() == answers[wanted], "the connection is not usable any more"
    assert flaky.failed == list(calls)
    assert (answers["stat"].size, answers["read"], answers["list"]) == (8, b"one\ntwo\n", [uri])
    assert storage.stat(uri) is None


@pytest.mark.parametrize("keyword", [{"keep_existing": True}, {"over": ""}])
def test_a_conditional_upload_is_tried_again_too(bucket, flaky, keyword):
    uri = f"{bucket}/flaky/{next(iter(keyword))}"
    flaky.fail("upload")
    storage.write(uri, b"data", **keyword)
    assert (storage.read(uri), flaky.failed) == (b"data", ["upload"])


def test_an_upload_too_long_for_one_request_is_tried_again(bucket, flaky):
    data = os.urandom(9 << 20)
    flaky.fail("upload", 2 if storage.is_gcs(bucket) else 1)
    storage.write(f"{bucket}/flaky/long", data)
    assert storage.read(f"{bucket}/flaky/long") == data
    assert flaky.failed == ["upload"]


def test_a_bucket_that_stays_busy_is_an_error_in_the_end(bucket, flaky, monkeypatch):
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 1)
    monkeypatch.setattr(s3, "_ATTEMPTS", 2)
    for function in (gcs._retry, s3._client):
        function.cache_clear()
    for _ in range(20):
        flaky.fail("read")
    try:
        with pytest.raises(OSError, match="503"):
            storage.read(f"{bucket}/flaky/busy")
    finally:
        for function in (gcs._retry, s3._client):
            function.cache_clear()


@pytest.mark.parametrize("code", [403, 401])
def test_a_forbidden_bucket_is_an_error_without_another_try(bucket, flaky, code):
    flaky.fail("read", answer=code)
    with pytest.raises(OSError, match="flaky/forbidden") as raised:
        storage.read(f"{bucket}/flaky/forbidden")
    assert "\n" not in str(raised.value)
    assert flaky.failed == ["read"]


@pytest.mark.parametrize(
    ("start", "module", "package"),
    [("gs://", "google.cloud.storage", "'google-cloud-storage<3'"), ("s3://", "boto3", "boto3")],
)
def test_a_missing_client_is_one_clear_error(monkeypatch, start, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(OSError, match=f"pip install {package}"):
        storage.read(f"{start}archive/a")
    with pytest.raises(JobError, match=f"cannot use {start}archive/scans: .*pip install {package}"):
        collection.check_reachable(f"{start}archive/scans")


def test_the_lines_of_an_object_are_read_in_chunks(bucket, flaky, monkeypatch):
    for module in (gcs, s3):
        monkeypatch.setattr(module, "_CHUNK", 256 << 10)
    lines = [b"%07d" % number + b"x" * 93 + b"\n" for number in range(10_000)]
    storage.write(f"{bucket}/lines", b"".join(lines))
    flaky.fail("read", 3, answer="cut")
    assert list(storage.lines(f"{bucket}/lines")) == lines
    assert flaky.failed == ["read"]
    with pytest.raises(FileNotFoundError):
        next(storage.lines(f"{bucket}/none"))
