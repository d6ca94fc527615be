"""Lab records: they decode to the original photographs, and each pass of the batches contains every record once."""

import itertools
import random

import cv2
import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from model import train
from model.card import read_card
from model.color import conversion
from model.data import features, records
from model.data.batches import Views
from model.data.photos import PhotosError, chroma
from model.measuring import metrics
from tests.lab import encode_lab
from tests.model.conftest import landscape


def stream_of(patterns, start: int = 0, *, weights: dict | None = None, **changes):
    views = Views(**{"sizes": (32, 64), "batch": 4, "scale": 4, "seed": 7, **changes})
    return records.training_batches(patterns, views, start, weights=weights or {})


def example(png: bytes | None, number: int, collection: str) -> bytes:
    values = {
        features.KEY: f"{number}.jpg".encode(),
        features.COLLECTION: collection.encode(),
        features.SHA256: f"{random.Random(number).getrandbits(256):064x}".encode(),
    } | ({} if png is None else {features.LAB: png})
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[it])) for name, it in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(path, examples) -> str:
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for one in examples:
            writer.write(one)
    return str(path)


def plain(number: int) -> np.ndarray:
    """A picture in a single colour, which identifies it after any crop and at any exposure."""
    lab = np.uint8([150, 108 + 5 * (number % 8), 118 + 5 * (number // 8)])
    return cv2.cvtColor(np.full((40, 40, 3), lab), cv2.COLOR_LAB2RGB)


COLORS = np.array([chroma(plain(number))[0, 0] for number in range(40)])


EXAMPLES = [
    example(encode_lab(plain(number)), number, ("coast", "hills")[number % 2]) for number in range(40)
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Pattern for three shards of unequal size, two of them gzipped. They hold 40 pictures of different colours."""
    folder = tmp_path_factory.mktemp("shards")
    write(folder / "0.gz", EXAMPLES[:25])
    write(folder / "1.gz", EXAMPLES[25:38])
    write(folder / "2", EXAMPLES[38:])
    return [str(folder / "*")]


def drawn(patterns, count: int, **changes) -> list[int]:
    """Numbers of the first `count` pictures of the stream."""
    stream = stream_of(patterns, **changes).as_numpy_iterator()
    colors = np.concatenate([colors[:, 2, 2] for _, colors in itertools.islice(stream, count // 4)])
    return [int(np.argmin(np.linalg.norm(COLORS - found, axis=1))) for found in colors]


def test_a_photograph_survives_its_record_but_for_rounding():
    photo = data.astronaut()[::2, ::2]
    back = records.decode_lab(encode_lab(photo))
    error = np.mean(metrics.ciede2000(conversion.rgb_to_lab(photo / 255), conversion.rgb_to_lab(back / 255)))
    assert error < 0.5


def test_the_png_holds_lightness_then_a_then_b():
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    lab = tf.io.decode_png(encode_lab(red)).numpy()[0, 0]
    # In Lab, sRGB red is L* 53.24, a* 80.09, b* 67.20.
    np.testing.assert_allclose(lab, [53.24 * 2.55, 80.09 + 128, 67.20 + 128], atol=1)


def test_the_same_photographs_are_read_in_any_order_of_records(shards, tmp_path):
    few = records.read_photos(shards, 7)
    turned = records.read_photos([write(tmp_path / "one.gz", sorted(EXAMPLES))], 7)
    assert [photo.path for photo in few] == [photo.path for photo in turned]
    assert [photo.digest for photo in few] == sorted(
        photo.digest for photo in records.read_photos(shards, 99)
    )[:7]


def test_a_photograph_keeps_its_name_its_collection_and_its_pixels(shards):
    photos = {photo.path: photo for photo in records.read_photos(shards, 40)}
    assert len(photos) == 40
    assert photos["13.jpg"].collection == "hills"
    np.testing.assert_allclose(photos["13.jpg"].pixels, plain(13), atol=3)


def test_records_are_counted_by_collection(shards):
    assert records.count(shards) == {"coast": 20, "hills": 20}


def test_each_pass_has_every_record_once_and_its_own_order(shards):
    numbers = drawn(shards, 80)
    assert sorted(numbers[:40]) == sorted(numbers[40:]) == list(range(40))
    assert numbers[:40] != numbers[40:]


def test_a_resumed_stream_goes_on_with_the_same_batches(shards):
    whole = list(itertools.islice(stream_of(shards).as_numpy_iterator(), 8))
    later = list(itertools.islice(stream_of(shards, 6).as_numpy_iterator(), 2))
    for expected, found in zip(whole[6:], later, strict=True):
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_seed_gives_another_order(shards):
    assert drawn(shards, 40) != drawn(shards, 40, seed=8)


def test_batches_have_the_declared_shapes(shards):
    stream = stream_of(shards)
    assert [spec.shape.as_list() for spec in stream.element_spec] == [[4, None, None, 1], [4, None, None, 2]]
    for lightness, colors in itertools.islice(stream.as_numpy_iterator(), 5):
        size = lightness.shape[1]
        assert size in (32, 64)
        assert colors.shape == (4, size // 4, size // 4, 2)
        assert lightness.dtype == colors.dtype == np.float32


def test_chroma_is_that_of_the_picture(tmp_path):
    pattern = [write(tmp_path / "one", [example(encode_lab(landscape(1)), 1, "coast")])]
    lightness, colors = next(stream_of(pattern).as_numpy_iterator())
    small = lightness[:, 2::4, 2::4, 0]
    middle = (small.max(axis=(1, 2), keepdims=True) + small.min(axis=(1, 2), keepdims=True)) / 2
    assert np.mean((small > middle) == (colors[..., 1] < 0)) > 0.95


def test_collections_are_drawn_by_their_weights(shards):
    numbers = np.array(drawn(shards, 1200, weights={"hills": 3}))
    assert np.mean(numbers % 2) == pytest.approx(3 / 4, abs=0.05)
    assert set(drawn(shards, 80, weights={"coast": 0})) == set(range(1, 40, 2))


@pytest.mark.parametrize(
    "read",
    [
        lambda patterns: records.read_photos(patterns, 3),
        lambda patterns: stream_of(patterns),
    ],
)
@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (None, "no record files"),
        ([], "no record"),
        ([example(None, 1, "coast")], "no feature lab"),
        ([b"\xff\xff"], "not a tf.train.Example"),
    ],
)
def test_records_that_cannot_be_trained_on_are_refused_in_one_line(read, examples, words, tmp_path):
    if examples is not None:
        write(tmp_path / "shard.gz", examples)
    with pytest.raises(PhotosError, match=words) as refused:
        read([str(tmp_path / "*")])
    assert "\n" not in str(refused.value)


def test_a_late_record_without_lab_is_found_by_reading_photographs(shards, tmp_path):
    bad = write(tmp_path / "bad", [example(None, 1, "coast")])
    with pytest.raises(PhotosError, match="no feature lab"):
        records.read_photos([*shards, bad], 3)


def test_a_truncated_shard_is_named_damaged(tmp_path):
    shard = tmp_path / "shard.gz"
    write(shard, EXAMPLES)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(PhotosError, match="damaged record file"):
        records.read_photos([str(shard)], 3)


def test_weights_that_leave_nothing_to_draw_are_refused(shards):
    with pytest.raises(PhotosError, match="only collections of weight 0"):
        stream_of(shards, weights={"coast": 0, "hills": 0})


def test_a_run_on_records_ends_in_a_model_whose_card_counts_them_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "SAMPLE", 4)
    pictures = [example(encode_lab(landscape(seed)), seed, "coast") for seed in range(12)]
    for part, its in (("train", pictures[:8]), ("validation", pictures[8:10]), ("test", pictures[10:])):
        (tmp_path / f"Split-{part}").mkdir()
        write(tmp_path / f"Split-{part}" / "shard-00000-of-00001.gz", its)
    layers = (
        '{"stem": 8, "stages": [[8, 1], [8, 1], [8, 1], [8, 1]], "fused": 8, "decoder": [[8, 1], [8, 1]]}'
    )
    small = [
        "--layers",
        layers,
        "--epochs",
        "1",
        "--steps",
        "2",
        "--batch",
        "2",
        "--sizes",
        "32",
        "--size",
        "32",
    ]
    assert train.main(["--records", str(tmp_path), "--output", str(tmp_path / "run"), *small]) == 0
    card = read_card(tmp_path / "run" / "model")
    assert {part: card.training[part] for part in ("train", "validation", "test")} == {
        "train": {"coast": 8},
        "validation": {"coast": 2},
        "test": {"coast": 2},
    }
    assert "8 for train" in capsys.readouterr().out
