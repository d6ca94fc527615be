"""Reading, cleaning and splitting a folder of photographs. Near-duplicates never fall in different parts."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from skimage import data

from model.data import photos
from pipeline.photographs import duplicates
from pipeline.photographs.reading import read_color
from tests.model.conftest import landscape
from tests.pipeline.imaging.test_scan import WIDE_RGB

SIGNATURE = len(duplicates.signature(landscape(0)))


def test_subfolders_are_collections_and_grey_and_broken_pictures_are_counted(album):
    read = photos.read_photos(album)
    kept = read.train + read.validation + read.test
    assert Counter(photo.collection for photo in kept) == {"coast": 15, "hills": 15}
    assert read.grey == {"coast": 1}
    assert read.broken == {"hills": 1}


def test_files_directly_in_the_folder_belong_to_a_collection_of_its_name(tmp_path):
    Image.fromarray(landscape(1)).save(tmp_path / "one.png")
    read = photos.read_photos(tmp_path)
    assert {photo.collection for photo in read.train + read.validation + read.test} == {tmp_path.name}


def test_pictures_are_reduced_to_the_side_asked_for_and_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(landscape(1, 60, 120)).save(tmp_path / "one.jpg", exif=exif)
    read = photos.read_photos(tmp_path, side=30)
    (photo,) = read.train + read.validation + read.test
    assert photo.pixels.shape == (60, 30, 3)
    assert photo.pixels.dtype == np.uint8


@pytest.mark.parametrize("content", ["missing", "empty", "grey"])
def test_a_folder_without_photographs_is_one_clear_line(tmp_path, content):
    folder = tmp_path / "photos"
    if content != "missing":
        folder.mkdir()
    if content == "grey":
        Image.new("RGB", (32, 32), (90, 90, 90)).save(folder / "grey.png")
    with pytest.raises(photos.PhotosError) as error:
        photos.read_photos(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_grey_and_a_tinted_picture_count_as_grey_and_photographs_do_not(tmp_path):
    grey = np.repeat(data.camera()[..., None], 3, axis=-1)
    noise = np.random.default_rng(0).integers(-2, 3, grey.shape[:2])[..., None]
    pictures = {
        "grey": grey,
        "noisy": np.clip(grey + noise, 0, 255).astype(np.uint8),
        "sepia": np.uint8(grey * np.array([1, 0.9, 0.75])),
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    read = photos.read_photos(tmp_path)
    assert {photo.path for part in photos.PARTS for photo in getattr(read, part)} == {
        "astronaut.png",
        "coffee.png",
    }
    assert read.grey == {tmp_path.name: 3}


def test_a_photograph_is_read_by_its_profile_as_the_pipeline_reads_it(tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "wide.png", icc_profile=WIDE_RGB)
    read = photos.read_photos(tmp_path, side=512)
    (photo,) = read.train + read.validation + read.test
    found = read_color((tmp_path / "wide.png").read_bytes(), max_pixels=10**7, min_side=16, side=512)
    assert np.array_equal(photo.pixels, found.rgb)
    assert np.abs(np.int16(photo.pixels) - data.astronaut()).mean() > 3


def test_near_duplicates_fall_in_the_same_part():
    rng = np.random.default_rng(0)
    digests = [rng.bytes(32).hex() for _ in range(600)]
    signatures = [rng.bytes(SIGNATURE) for _ in range(200)]
    parts = photos.split(digests, signatures * 3)
    assert parts[:200] == parts[200:400] == parts[400:]


def test_the_split_is_about_80_10_10_and_depends_on_contents_alone(album, tmp_path):
    rng = np.random.default_rng(1)
    digests = [rng.bytes(32).hex() for _ in range(4000)]
    signatures = [rng.bytes(SIGNATURE) for _ in range(4000)]
    parts = photos.split(digests, signatures)
    shares = Counter(parts)
    assert shares["train"] == pytest.approx(3200, abs=100)
    assert shares["validation"] == pytest.approx(400, abs=70)
    order = rng.permutation(4000)
    assert photos.split([digests[i] for i in order], [signatures[i] for i in order]) == [
        parts[i] for i in order
    ]

    renamed = tmp_path / "renamed"
    for number, file in enumerate(sorted(album.rglob("*.png"), reverse=True)):
        os.makedirs(renamed / file.parent.name, exist_ok=True)
        shutil.copy(file, renamed / file.parent.name / f"{number}.png")
    one, other = photos.read_photos(album), photos.read_photos(renamed)
    for part in photos.PARTS:
        assert {p.digest for p in getattr(one, part)} == {p.digest for p in getattr(other, part)}


def test_photographs_are_unseen_only_if_both_runs_held_them_out():
    one = {"validation": ["a", "b", "c"], "test": ["d", "e", "f"]}
    other = {"validation": ["a", "d"], "test": ["b", "e", "g"]}
    assert photos.unseen(one, other) == {"validation": ["a", "b", "d"], "test": ["e"]}
    assert photos.unseen(other, one) == photos.unseen(one, other)


def test_a_run_that_starts_from_a_model_holds_out_only_what_that_model_has_never_seen():
    rng = np.random.default_rng(2)
    digests = [rng.bytes(32).hex() for _ in range(6)]
    alone = [rng.bytes(SIGNATURE) for _ in range(6)]
    signatures = [
        *alone[:4],
        alone[0],
        alone[3],
    ]  # the last two are copies of a training photograph and of a held-out one
    held_out = {
        "validation": [digests[1][:16], digests[5][:16]],
        "test": [digests[2][:16], digests[3][:16], digests[4][:16]],
    }
    parts = photos.split(digests, signatures, held_out)
    assert parts == ["train", "validation", "test", "validation", "train", "validation"]
