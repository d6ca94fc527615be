"""Bags as input: the fixity of each scan is checked before it is decoded; a bag that is no bag stops the job."""

import hashlib

import bagit
import pytest

from pipeline import storage
from pipeline.batch import joining
from pipeline.codec.settings import Settings
from pipeline.errors import JobError
from pipeline.inputs import bags, collection
from pipeline.records.record import Reason
from tests.pipeline.conftest import jpeg, make_archive, picture


@pytest.fixture
def bag(tmp_path):
    """A bag of six files that bagit has made."""
    folder = make_archive(tmp_path / "bag", 4)
    (folder / "50%\n.jpg").write_bytes(jpeg(picture(5)))
    (folder / "notes.txt").write_text("of an archivist")
    bagit.make_bag(str(folder), checksums=["md5", "sha512"])
    return folder


def signed_again(bag):
    """Writes tag manifests that fit the tag files."""
    for algorithm in ("md5", "sha512"):
        lines = [
            f"{hashlib.new(algorithm, path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(bag.glob("[!t]*.txt"))
        ]
        (bag / f"tagmanifest-{algorithm}.txt").write_text("".join(lines))


def test_the_scans_of_a_bag_are_colourised_with_their_paths_below_data_as_keys(bag, tmp_path, colorize):
    run = colorize(bag, tmp_path / "out")
    assert run.code == 0, run.err
    assert {key: str(record.reason) for key, record in run.records.items()} == {
        **{f"box0/scan000{number}.jpg": "" for number in range(4)},
        "50%\n.jpg": "",
        "notes.txt": "not_an_image",
    }
    again = colorize(bag, tmp_path / "out")
    assert "6  of these were up to date already" in again.out


def test_damaged_missing_and_unlisted_scans_become_records_with_a_reason(bag, tmp_path, colorize):
    damaged, missing, unlisted = (bag / "data" / "box0" / f"scan000{n}.jpg" for n in (0, 1, 9))
    data = bytearray(damaged.read_bytes())
    data[-20] ^= 1  # it still decodes
    damaged.write_bytes(data)
    missing.unlink()
    unlisted.write_bytes(jpeg(picture(9)))
    run = colorize(bag, tmp_path / "out")
    assert run.code == 0, run.err
    reasons = {key: record.reason for key, record in run.records.items() if record.reason}
    assert reasons == {
        "box0/scan0000.jpg": Reason.FIXITY,
        "box0/scan0001.jpg": Reason.MISSING,
        "box0/scan0009.jpg": Reason.FIXITY,
        "notes.txt": Reason.NOT_AN_IMAGE,
    }
    assert "in the manifest of its bag" in run.records["box0/scan0000.jpg"].detail
    assert run.records["box0/scan0009.jpg"].detail == "no manifest of its bag lists it"
    assert not (tmp_path / "out" / "box0" / "scan0000.jpg_color.jpg").exists()


def test_every_manifest_counts(bag, tmp_path, colorize):
    lines = (bag / "manifest-md5.txt").read_text().splitlines()
    changed = ["0" * 32 + line[32:] if "scan0002" in line else line for line in lines]
    (bag / "manifest-md5.txt").write_text("\n".join(changed))
    signed_again(bag)
    record = colorize(bag, tmp_path / "out").records["box0/scan0002.jpg"]
    assert (record.reason, record.detail[:4]) == (Reason.FIXITY, "md5 ")


def spoilt(bag, how):
    """Spoils a bag. Returns what the job says about it."""
    manifest = bag / "manifest-sha512.txt"
    if how == "tag":
        (bag / "bag-info.txt").write_text("Source-Organization: somebody else\n")
        return "is damaged: bag-info.txt does not have the"
    if how == "tag file missing":
        (bag / "bag-info.txt").unlink()
        return "is not complete"
    if how == "version":
        (bag / "bagit.txt").write_text("BagIt-Version: 2.0\nTag-File-Character-Encoding: UTF-8\n")
        return "is not a bag of a version"
    if how == "encoding":
        (bag / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-16\n")
        return "only UTF-8 is read"
    if how == "no manifest":
        for path in bag.glob("manifest-*.txt"):
            path.unlink()
        return "has no manifest"
    if how == "outside":
        manifest.write_text(f"{'0' * 128}  data/../../secret.jpg\n")
    elif how == "line":
        manifest.write_text("nonsense\n")
    else:
        manifest.write_bytes(b"0" * 128 + b"  data/\xe9.jpg\n")
    signed_again(bag)
    return {
        "outside": "which is not below data",
        "line": "line 1, is not a sha512",
        "latin1": "line 1, is not UTF-8",
    }[how]


@pytest.mark.parametrize(
    "how", ["tag", "tag file missing", "version", "encoding", "no manifest", "outside", "line", "latin1"]
)
def test_a_bag_that_is_none_stops_the_job_with_one_line(bag, tmp_path, colorize, how):
    words = spoilt(bag, how)
    run = colorize(bag, tmp_path / "out")
    assert run.code == 2
    assert words in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_output_must_not_be_in_the_bag(bag, colorize):
    assert colorize(bag, bag / "out").code == 2


def test_a_bag_in_a_bucket(bucket, bag, tmp_path, colorize):
    place = f"{bucket}/bags/one"
    for path in bag.rglob("*"):
        if path.is_file() and "\n" not in path.name:
            storage.write(f"{place}/{path.relative_to(bag)}", path.read_bytes())
    storage.write(f"{place}/data/box0/scan0001.jpg", jpeg(picture(77)))
    run = colorize(place, tmp_path / "out")
    assert run.code == 0, run.err
    reasons = {key: str(record.reason) for key, record in run.records.items() if record.reason}
    assert reasons == {"box0/scan0001.jpg": "fixity", "50%\n.jpg": "missing", "notes.txt": "not_an_image"}


def test_the_digests_travel_with_the_scans_to_workers_on_a_cluster(bag):
    source = collection.resolved(str(bag))
    (part,) = collection.parts(source)
    assert list(collection.split(source, part)) == [part]
    items = list(collection.expand_part(source, part))
    assert all(item.digests.split()[0].startswith("sha512:") for item in items)
    (joined,) = [joining.packed_item(item, "/out", "jpeg") for item in items if item.key.endswith("0.jpg")]
    found = {"items": [joined[1]], "records": [], "derivatives": []}
    (task,) = joining.tasks((joined[0], found), Settings(output="/out", run="r"), "stale")
    assert task.item.digests == next(item.digests for item in items if item.key.endswith("0.jpg"))


def test_names_are_read_as_the_rfc_and_as_bagit_writes_them(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    names = {"a%b": "a%25b", "c%d": "c%d", "e\nf": "e%0Af", "g%\nh": "g%%0ah"}
    for name in names:
        (tmp_path / "data" / name).write_text(name)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()} *data/{names[name]}\n" for name in names]
    (tmp_path / "manifest-sha256.txt").write_text("".join(lines))
    bags.check(str(tmp_path))
    found = {file.path: bool(file.digests) and file.info.size > 0 for file in bags.files(str(tmp_path))}
    assert found == {"a%b": True, "c%d": True, "e\nf": True, "g%\nh": True}


def test_a_digest_of_another_length_is_damage(tmp_path):
    (tmp_path / "manifest-sha256.txt").write_text("abc  data/a\n")
    with pytest.raises(JobError, match="line 1"):
        list(bags.files(str(tmp_path)))
