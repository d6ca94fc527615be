"""Reads Lab TFRecords as training data: shards of `tf.train.Example`, compressed with gzip if named `.gz`.

The names of the features are in `model.data.features`. Records are read as a stream: shards need not fit into
memory. Only `SHUFFLED` serialized records are held, 110 to 150 MB for pictures of 224 x 224 pixels.
"""

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from model.data.batches import Views
from model.data.features import COLLECTION, KEY, LAB, SHA256
from model.data.photos import Photo, PhotosError

SHUFFLED = 2048  # records
SHARDS = 16  # read in turn, so that the pictures of a batch do not all come from one place


def decode_lab(png: bytes) -> np.ndarray:
    """Decodes a PNG of uint8 Lab (L* x 255/100, a* + 128, b* + 128) to RGB [H, W, 3] uint8.

    Raises PhotosError if it is not a picture.
    """
    lab = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB) if png else None
    if lab is None:
        raise PhotosError(f"the feature {LAB} of a record holds no PNG")
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def shards(patterns: Sequence[str]) -> list[str]:
    """Files that match the patterns, in a fixed order. Raises PhotosError if there are none."""
    files = sorted({file for pattern in patterns for file in tf.io.gfile.glob(pattern)})
    if not files:
        raise PhotosError(f"no record files: {', '.join(patterns) or 'no pattern given'}")
    return files


def read_photos(patterns: Sequence[str], limit: int) -> list[Photo]:
    """Returns the `limit` photographs with the smallest digests: a random sample that does not depend on the order.

    Reads every record once and holds `limit` of them in memory.

    Raises:
        PhotosError: there is no file or no record, or any record is damaged or has no `lab`.
    """
    chosen = heapq.nsmallest(limit, map(_features, _serialized(patterns)), key=_identity)
    if not chosen:
        raise PhotosError(f"the record files hold no record: {', '.join(patterns)}")
    return [
        Photo(_text(one, KEY), _text(one, COLLECTION), _text(one, SHA256), decode_lab(_bytes(one, LAB)))
        for one in chosen
    ]


def count(patterns: Sequence[str]) -> Counter:
    """Counts the records of each collection. Reads every record; raises PhotosError like `read_photos`."""
    return Counter(_text(_features(serialized), COLLECTION) for serialized in _serialized(patterns))


def training_batches(
    patterns: Sequence[str], views: Views, start: int = 0, *, weights: dict[str, float]
) -> tf.data.Dataset:
    """Returns endless batches of lightness and targets.

    In each pass every record occurs once, in a new order. With weights, it occurs with the probability of its
    weight over the greatest. The stream depends only on the records, the weights and the views: with `start` it
    continues where a stream from the beginning would be after so many batches. The records before are read, but not
    decoded.

    Args:
        patterns: of the record files.
        views: see `Views`.
        start: number of the first batch.
        weights: by collection; the default is 1.

    Raises:
        PhotosError: there is no file or no record, the first record has no `lab`, or all weights are 0. A damaged
            record later on ends the stream with TensorFlow's own error.
    """
    files = shards(patterns)
    _require_drawable(patterns, weights)
    stream = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files), views.seed)
        .interleave(_shard, cycle_length=SHARDS, num_parallel_calls=_cores(), deterministic=True)
    )
    stream = _weighed(stream.shuffle(SHUFFLED, views.seed).repeat(), weights, views.seed)
    indexed = stream.skip(start * views.batch).batch(views.batch).enumerate(start)
    planes = views.target(np.zeros((1, 1, 3), np.uint8)).shape[-1]

    def make(step, pngs):
        return views.of([decode_lab(png) for png in pngs], int(step), views.generator(int(step)))

    def decoded(step, serialized):
        png = tf.io.parse_example(serialized, {LAB: tf.io.FixedLenFeature((), tf.string)})[LAB]
        lightness, target = tf.numpy_function(make, (step, png), (tf.float32, tf.float32), stateful=False)
        lightness.set_shape((views.batch, None, None, 1))
        target.set_shape((views.batch, None, None, planes))
        return lightness, target

    return indexed.map(decoded, num_parallel_calls=_cores(), deterministic=True).prefetch(2)


def _weighed(stream: tf.data.Dataset, weights: dict[str, float], seed: int) -> tf.data.Dataset:
    """Keeps each serialized record with the probability of its collection's weight over the greatest weight."""
    if not weights:
        return stream
    greatest = max(1.0, *weights.values())
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(weights)),
            tf.constant([weight / greatest for weight in weights.values()], tf.float32),
        ),
        default_value=1 / greatest,
    )

    def kept(index, serialized):
        feature = {COLLECTION: tf.io.FixedLenFeature((), tf.string)}
        collection = tf.io.parse_single_example(serialized, feature)[COLLECTION]
        return tf.random.stateless_uniform((), tf.stack([seed, index])) < table.lookup(collection)

    return stream.enumerate().filter(kept).map(lambda index, serialized: serialized)


def _require_drawable(patterns: Sequence[str], weights: dict[str, float]) -> None:
    empty = True
    for serialized in _serialized(patterns):
        features, empty = _features(serialized), False
        if weights.get(_text(features, COLLECTION), 1.0) > 0:
            return
    lack = "hold no record" if empty else "hold only collections of weight 0"
    raise PhotosError(f"the record files {lack}: {', '.join(patterns)}")


def _shard(file) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file, tf.where(tf.strings.regex_full_match(file, r".*\.gz"), "GZIP", ""))


def _serialized(patterns: Sequence[str]) -> Iterator[bytes]:
    files = tf.data.Dataset.from_tensor_slices(shards(patterns))
    try:
        yield from files.interleave(
            _shard, cycle_length=SHARDS, num_parallel_calls=_cores()
        ).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise PhotosError(f"damaged record file among {', '.join(patterns)}: {error.message}") from error


def _features(serialized: bytes):
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        raise PhotosError("a record is not a tf.train.Example") from None
    if LAB not in features:
        raise PhotosError(
            f"a record has no feature {LAB}; it has: {', '.join(sorted(features)) or 'nothing'}"
        )
    return features


def _identity(features) -> tuple[str, str]:
    return _text(features, SHA256), _text(features, KEY)


def _bytes(features, name: str) -> bytes:
    values = features[name].bytes_list.value
    if len(values) != 1:
        raise PhotosError(f"a record has {len(values)} values of its feature {name}; it needs one")
    return values[0]


def _text(features, name: str) -> str:
    return _bytes(features, name).decode("utf-8")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
