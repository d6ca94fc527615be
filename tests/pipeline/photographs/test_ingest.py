"""Collections become clean training material: each picture is kept once or quarantined with a reason."""

import base64
import io
import json
import os
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from pipeline import storage
from pipeline.inputs import snapshot
from pipeline.photographs.ingest import Photograph, Quarantined, counts, ingest
from pipeline.photographs.settings import Ingestion
from pipeline.records.record import Outcome, Reason, Record
from tests.pipeline.codec.test_guard import DEADLY
from tests.pipeline.inputs.test_snapshot import lines, write_manifest
from tests.pipeline.photographs.test_duplicates import COPIES

SHARES = (0.4, 0.3, 0.3)


@dataclass
class Result:
    photographs: list[Photograph]
    quarantined: list[Quarantined]
    counts: dict

    @property
    def kept(self) -> dict[str, Photograph]:
        return {photograph.key: photograph for photograph in self.photographs}

    @property
    def left(self) -> dict[str, Quarantined]:
        return {one.record.key: one for one in self.quarantined}

    @property
    def parts(self) -> dict[str, str]:
        """Part by SHA-256 of the file."""
        kept = {one.sha256: one.part for one in self.photographs}
        return kept | {one.record.source_sha256: one.part for one in self.quarantined if one.part}


def run(manifests, folder: Path, **settings) -> Result:
    """Run the graph and read its output."""
    folder.mkdir(parents=True, exist_ok=True)

    def written(some, name, pack):
        to = beam.io.WriteToText(str(folder / name), shard_name_template="")
        return some | f"Pack{name}" >> beam.Map(pack) | f"Write{name}" >> to

    def pickled(one) -> str:
        return base64.b64encode(pickle.dumps(one)).decode()

    with beam.Pipeline(FnApiRunner()) as root:
        photographs, quarantined = ingest(root, manifests, Ingestion(**{"shares": SHARES, **settings}))
        written(photographs, "Photographs", pickled)
        written(quarantined, "Quarantined", pickled)
        written(counts(photographs, quarantined), "Counts", json.dumps)
    photographs, quarantined = (
        [pickle.loads(base64.b64decode(line)) for line in (folder / name).read_text().splitlines()]
        for name in ("Photographs", "Quarantined")
    )
    return Result(photographs, quarantined, json.loads((folder / "Counts").read_text()))


def photographs() -> dict[str, Image.Image]:
    """Quarters of the installed photographs, which do not overlap."""
    whole = {"astronaut": data.astronaut(), "cat": data.chelsea(), "coffee": data.coffee()}
    whole |= {"temple": load_sample_image("china.jpg"), "flower": load_sample_image("flower.jpg")}
    parts = {}
    for name, pixels in whole.items():
        height, width = (edge // 2 for edge in pixels.shape[:2])
        for number, (top, left) in enumerate([(0, 0), (0, width), (height, 0), (height, width)]):
            part = pixels[top : top + height, left : left + width]
            parts[f"{name}{number}"] = Image.fromarray(part)
    return parts


def sepia(image: Image.Image) -> Image.Image:
    toned = np.asarray(image.convert("L"))[..., None] * np.array([1.0, 0.86, 0.66])
    return Image.fromarray(toned.astype(np.uint8))


def page() -> Image.Image:
    from PIL import ImageDraw

    image = Image.new("RGB", (500, 400), (250, 244, 225))
    for y in range(30, 380, 14):
        ImageDraw.Draw(image).text(
            (20, y), "the quick brown fox jumps over the lazy dog " * 2, fill=(30, 40, 120)
        )
    return image


def drawing() -> Image.Image:
    image = Image.new("RGB", (300, 300), "white")
    image.paste((200, 30, 30), (60, 60, 180, 200))
    image.paste((30, 90, 200), (150, 120, 260, 260))
    return image


# Adds files that must be quarantined. The name of each file begins with the expected reason.
def spoil(album: Path, good: dict[str, Image.Image]) -> None:
    folder = album / "spoilt"
    folder.mkdir()
    (folder / "duplicate.jpg").write_bytes((album / "new" / "coffee0.jpg").read_bytes())
    smaller = good["coffee1"].resize((150, 100)).resize((225, 150))
    smaller.save(folder / "near_duplicate_small.jpg", quality=60)
    width, height = good["temple2"].size
    good["temple2"].crop((4, 3, width, height - 3)).save(folder / "near_duplicate_crop.png")
    good["cat0"].convert("L").save(folder / "grey_mode.png")
    good["cat1"].convert("L").convert("RGB").save(folder / "grey_rgb.png")
    sepia(good["cat2"]).save(folder / "grey_sepia.jpg")
    page().save(folder / "text_page.png")
    drawing().save(folder / "clip_art.png")
    good["flower1"].resize((127, 200)).save(folder / "too_small.jpg")
    good["flower2"].resize((900, 600)).save(folder / "too_large.jpg")
    (folder / "truncated.jpg").write_bytes((album / "new" / "flower3.jpg").read_bytes()[:3000])
    (folder / "unreadable.jpg").write_bytes(b"no picture")
    os.symlink(album / "nowhere", folder / "missing.jpg")


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    album = tmp_path_factory.mktemp("album")
    good = photographs()
    for number, (name, image) in enumerate(good.items()):
        file = album / ("old" if number % 3 == 0 else "new") / f"{name}.jpg"
        file.parent.mkdir(exist_ok=True)
        image.save(file, quality=92)
    spoil(album, good)
    return album


@pytest.fixture(scope="module")
def manifests(album, tmp_path_factory) -> list[str]:
    return snapshot.write([str(album)], str(tmp_path_factory.mktemp("manifests")))


@pytest.fixture(scope="module")
def result(manifests, tmp_path_factory) -> Result:
    return run(manifests, tmp_path_factory.mktemp("out"), max_pixels=300_000)


# Outcomes


def test_every_line_gives_one_photograph_or_one_quarantined_record(manifests, result):
    ends = [one.key for one in result.photographs] + [one.record.key for one in result.quarantined]
    assert sorted(ends) == sorted(line["key"] for line in lines(manifests))
    assert len(ends) == len(set(ends)) > 30


def test_each_picture_is_quarantined_for_its_own_reason(album, result):
    spoilt = {f"spoilt/{file.name}" for file in (album / "spoilt").iterdir()}
    kept = set(result.kept) & spoilt
    # Of two equal files, the one with the smaller key is kept; of near-duplicates, the one with more pixels.
    assert not kept
    for key in spoilt:
        record = result.left[key].record
        assert key.removeprefix("spoilt/").startswith(record.reason), (key, record)
        assert record.detail and "\n" not in record.detail
    assert set(result.left) == spoilt


def test_reasons_say_whether_the_file_or_its_content_is_at_fault(result):
    failed = {one.record.reason for one in result.quarantined if one.record.outcome == Outcome.FAILED}
    assert failed == {"missing", "unreadable", "truncated", "too_small", "too_large"}


def test_a_photograph_says_where_it_is_from_and_what_it_was(album, result):
    photograph = result.kept["new/flower3.jpg"]
    file = album / "new" / "flower3.jpg"
    with Image.open(file) as image:
        assert (photograph.width, photograph.height, photograph.mode) == (*image.size, "RGB")
    assert (photograph.source, photograph.collection, photograph.era) == (str(file), "new", "unknown")
    assert photograph.colorfulness > 10


def test_pixels_are_upright_srgb_with_the_short_side_asked_for(tmp_path):
    whole = Image.fromarray(data.astronaut()[:, :400])
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    whole.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "a.png", exif=exif)
    found = run(snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out", side=100)
    [photograph] = found.photographs
    assert (photograph.width, photograph.height) == (400, 512)
    image = Image.open(io.BytesIO(photograph.image))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (100, 128))
    expected = np.asarray(whole.resize((100, 128), Image.Resampling.BOX), np.float32)
    assert np.abs(np.asarray(image, np.float32) - expected).mean() < 2


def test_quarantined_is_one_line_that_reads_as_a_record(result):
    for one in result.quarantined:
        line = one.to_json()
        assert "\n" not in line
        assert Record.from_json(line) == one.record
        assert json.loads(line)["collection"] == "spoilt"


def test_counts_match_the_results(manifests, result):
    found = result.counts
    assert found["pictures"] == len(lines(manifests))
    assert found["kept"] == len(result.photographs) == sum(found["eras"].values())
    assert found["parts"] == Counter(one.part for one in result.photographs)
    assert found["collections"] == Counter(one.collection for one in result.photographs)
    assert found["quarantined"] == Counter(one.record.reason for one in result.quarantined)
    assert found["quarantined_by_collection"] == {"spoilt": len(result.quarantined)}


def test_a_collection_in_cloud_storage_is_read_there_and_its_labels_stay_with_it(cloud, tmp_path):
    for name in ("cat3", "coffee0"):
        data = io.BytesIO()
        photographs()[name].save(data, "PNG")
        storage.write(f"{cloud}/album/{name}.png", data.getvalue())
    storage.write(f"{cloud}/album/broken.png", b"no picture")
    labels = {"held": "north", "process": "dye transfer"}
    said = [
        {"source": f"{cloud}/album/{name}.png", "labels": labels}
        for name in ("cat3", "coffee0", "broken", "none")
    ]
    listed = write_manifest(tmp_path / "listed.jsonl", *said)
    for source, expected in ((f"{cloud}/album", ()), (listed, ("held=north", "process=dye transfer"))):
        found = run(snapshot.write([source], f"{cloud}/manifests"), tmp_path / "out")
        assert {Path(one.source).stem: one.labels for one in found.photographs} == dict.fromkeys(
            ("cat3", "coffee0"), expected
        )
    assert found.counts["quarantined"] == {"missing": 1, "unreadable": 1}


# Duplicates


def test_of_equal_files_the_smallest_key_stays_and_is_named(result):
    left = result.left["spoilt/duplicate.jpg"]
    assert "new/coffee0.jpg" in left.record.detail
    assert left.record.source_sha256 == result.kept["new/coffee0.jpg"].sha256


def test_of_near_duplicates_the_largest_stays_and_is_named(tmp_path):
    image = photographs()["coffee0"]
    (tmp_path / "in").mkdir()
    for name, scale in {"a_small": 0.7, "b_large": 1, "c_small": 0.8}.items():
        image.resize([round(scale * edge) for edge in image.size]).save(tmp_path / "in" / f"{name}.jpg")
    found = run(snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out")
    assert set(found.kept) == {"b_large.jpg"}
    assert {one.record.reason for one in found.quarantined} == {Reason.NEAR_DUPLICATE}
    assert all("b_large.jpg" in one.record.detail for one in found.quarantined)


def test_a_copy_has_the_part_of_the_picture_that_is_kept(result):
    originals = {"near_duplicate_small.jpg": "coffee1", "near_duplicate_crop.png": "temple2"}
    parts = {Path(key).stem: one.part for key, one in result.kept.items()}
    for copy, original in originals.items():
        assert result.left[f"spoilt/{copy}"].part == parts[original]
    assert result.left["spoilt/duplicate.jpg"].part == parts["coffee0"]


def test_remote_copies_are_both_kept_in_one_part(tmp_path):
    """A copy that differs too much to be removed must still fall in the same part as its original."""
    (tmp_path / "in").mkdir()
    for name, image in photographs().items():
        width, height = image.size
        image.save(tmp_path / "in" / f"{name}.png")
        cut = image.crop((round(0.03 * width), 0, width, height - round(0.03 * height)))
        cut.save(tmp_path / "in" / f"{name}_cut.jpg", quality=90)
    found = run(snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out")
    assert len(found.kept) + len(found.left) == 40
    parts = {one.key: one.part for one in found.photographs}
    parts |= {one.record.key: one.part for one in found.quarantined if one.part}
    pairs = [(parts.get(f"{name}.png"), parts.get(f"{name}_cut.jpg")) for name in photographs()]
    assert [one for one, _ in pairs] == [other for _, other in pairs]
    assert {one for one, _ in pairs} >= {"train", "validation", "test"}


def test_all_copies_land_in_the_split_of_their_original(tmp_path):
    originals = photographs()
    del originals["temple1"]  # mostly sky: after recompression it is judged to be a drawing
    for name, image in originals.items():
        for kind, copy in {"original": lambda image: image, **COPIES}.items():
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            copy(image).save(tmp_path / "in" / kind / f"{name}.png")
    found = run(snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out", min_side=40)
    parts = {one.key: one.part for one in found.photographs}
    parts |= {one.record.key: one.part for one in found.quarantined}
    assert set(parts.values()) == {"train", "validation", "test"}
    astray = [key for key, part in parts.items() if part != parts[f"original/{Path(key).name}"]]
    assert len(parts) == (1 + len(COPIES)) * len(originals) and not astray


# The split


def test_all_parts_are_there_and_no_content_is_in_two(result):
    assert {one.part for one in result.photographs} == {"train", "validation", "test"}
    assert len({one.sha256 for one in result.photographs}) == len(result.photographs)


def test_the_split_depends_on_contents_alone(album, result, tmp_path):
    files = sorted(file for file in album.rglob("*") if file.is_file())
    said = [{"source": str(file), "key": f"{number}.jpg"} for number, file in enumerate(reversed(files))]
    sources = [write_manifest(tmp_path / "in" / f"{half}.jsonl", *said[half::2]) for half in (0, 1)]
    found = run(snapshot.write(sources, str(tmp_path / "m")), tmp_path / "out", max_pixels=300_000)
    assert found.parts == result.parts


def test_pictures_of_one_group_share_a_part_and_are_all_kept(album, tmp_path):
    files = sorted(album.glob("new/*.jpg")) + sorted(album.glob("old/*.jpg"))
    said = [
        {"source": str(file), "key": file.name, "collection": "c", "group": file.name[:3]} for file in files
    ]
    found = run(
        snapshot.write([write_manifest(tmp_path / "in.jsonl", *said)], str(tmp_path / "m")), tmp_path / "out"
    )
    assert len(found.kept) == len(files)
    parts = {}
    for photograph in found.photographs:
        parts.setdefault(photograph.group, set()).add(photograph.part)
    assert len(parts) == 5 and all(len(some) == 1 for some in parts.values())


def test_a_group_reaches_through_equal_files(album, tmp_path):
    """Two groups contain equal files, so all their pictures fall in one part."""
    names = ["astronaut1", "cat1", "temple1", "flower1", "coffee3"]
    files = [next(album.glob(f"*/{name}.jpg")) for name in names]
    shared = tmp_path / "shared.jpg"
    shared.write_bytes(files[2].read_bytes())
    groups = ["one", "one", "one", "two", "two"]
    said = [{"source": str(f), "collection": "c", "group": g} for f, g in zip(files, groups, strict=True)]
    said.append({"source": str(shared), "collection": "c", "group": "two"})
    found = run(
        snapshot.write([write_manifest(tmp_path / "in.jsonl", *said)], str(tmp_path / "m")), tmp_path / "out"
    )
    assert len(found.kept) == 5
    assert len(set(found.parts.values())) == 1


# Faults


def test_a_decoder_that_dies_costs_its_picture_only(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "in").mkdir()
    for name in ("coffee0", "cat3"):
        photographs()[name].save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "crashes.jpg").write_bytes(b"CRASHES")
    (tmp_path / "in" / "hangs.jpg").write_bytes(b"HANGS!!")
    found = run(
        snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out", codec_timeout=5
    )
    assert set(found.kept) == {"coffee0.png", "cat3.png"}
    reasons = {key: one.record.reason for key, one in found.left.items()}
    assert reasons == {"crashes.jpg": Reason.CODEC_CRASHED, "hangs.jpg": Reason.CODEC_TIMEOUT}


def test_nothing_fit_for_training_still_has_counts(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    found = run(snapshot.write([str(tmp_path / "in")], str(tmp_path / "m")), tmp_path / "out")
    assert (found.counts["pictures"], found.counts["kept"]) == (1, 0)
    assert found.counts["quarantined"] == {"unreadable": 1}
