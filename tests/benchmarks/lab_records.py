"""Encodings of training pictures, and the speed of the input pipeline relative to training.

    python -m tests.benchmarks.lab_records        takes a few minutes

The pictures are 224 x 224 crops of the sample photographs that other packages install. The rates in the table are
based on the CPU time of all threads. The ratios are based on wall time, with all cores. They compare two input
pipelines with the training of the default network on prepared batches: `records.training_batches`, which reads, decodes
and augments records, and `batches.TrainingBatches`, which takes photographs from memory. Training and both pipelines
alternate in one run, and the results are medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
import tensorflow as tf

from model.color import conversion
from model.data import records
from model.data.batches import TrainingBatches, Views, picture_weights
from model.data.features import COLLECTION, KEY, LAB, SHA256
from model.data.photos import Photo, Photos
from model.measuring import metrics
from model.networks import NETWORKS
from model.training import fit
from model.training.options import Options
from pipeline.demo import ADMIRAL, ASTRONAUT, CAT, COFFEE, DAHLIA, MOTORCYCLE, ROCKET, TEMPLE
from tests.lab import encode_lab

SIDE = 224
SHARDS = 4
LEAST = 3  # times the speed of training


@dataclass(frozen=True)
class Encoding:
    name: str
    compression: str  # of the TFRecord file
    encode: Callable[[np.ndarray], bytes]  # RGB [S, S, 3] uint8
    decode: Callable[[bytes], np.ndarray]  # returns RGB [S, S, 3] uint8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    pictures = list(_crops(arguments.pictures))
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'encoding':32}{'bytes':>9}{'encode ms':>11}{'records/s':>11}{'dE00':>7}")
        for encoding in ENCODINGS:
            print(_row(encoding, pictures[:100], Path(folder, "table")))
        made, learned = _rates(pictures, Path(folder), arguments.rounds)
    for material, rate in made.items():
        print(
            f"{material}: {rate / learned:.1f} times the speed of training (minimum {LEAST}): "
            f"{rate:.0f} pictures/s, training {learned:.0f} pictures/s"
        )


def _crops(number: int) -> Iterator[np.ndarray]:
    """Square crops of the sample photographs in rotation, between half and all of the shorter side."""
    photographs = [np.asarray(one.open()) for one in SAMPLES]
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = photographs[index % len(photographs)]
        height, width = pixels.shape[:2]
        side = int(min(height, width) * rng.uniform(0.5, 1))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        part = pixels[top : top + side, left : left + side]
        yield cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _row(encoding: Encoding, pictures: list[np.ndarray], file: Path) -> str:
    started = time.process_time()
    encoded = [encoding.encode(pixels) for pixels in pictures]
    encoding_time = (time.process_time() - started) / len(pictures)
    _write(file, encoded, encoding.compression)
    started = time.process_time()
    shard = tf.data.TFRecordDataset(str(file), encoding.compression)
    decoded = [encoding.decode(content) for content in shard.as_numpy_iterator()]
    rate = len(pictures) / (time.process_time() - started)
    pairs = list(zip(pictures, decoded, strict=True))[:16]
    labs = (conversion.rgb_to_lab(np.stack(column) / 255) for column in zip(*pairs, strict=True))
    losses = metrics.ciede2000(*labs)
    bytes_a_record = file.stat().st_size // len(pictures)
    return (
        f"{encoding.name:32}{bytes_a_record:9}{1000 * encoding_time:11.1f}{rate:11.0f}{np.mean(losses):7.2f}"
    )


def _write(file: Path, contents: list[bytes], compression: str) -> None:
    with tf.io.TFRecordWriter(str(file), compression) as writer:
        for content in contents:
            writer.write(content)


def _rates(pictures: list[np.ndarray], folder: Path, rounds: int) -> tuple[dict[str, float], float]:
    """Median pictures per second of each input pipeline, and of training."""
    options = Options(epochs=rounds + 1, steps=15)
    photos = [Photo(str(index), "samples", f"{index:064x}", pixels) for index, pixels in enumerate(pictures)]
    for index in range(SHARDS):
        _write(folder / f"{index}.gz", [_example(photo) for photo in photos[index::SHARDS]], "GZIP")
    views = Views(options.sizes, options.batch, NETWORKS[options.network].SCALE)
    streams = {
        "records": records.training_batches([str(folder / "*.gz")], views, weights={}).as_numpy_iterator(),
        "photographs": iter(TrainingBatches(photos, picture_weights(photos, {}), views)),
    }
    ready = ReadyMade([next(streams["records"]) for _ in range(options.steps)])
    turns = Turns(streams, options)
    album = Photos(train=photos[:50], validation=[], test=[], grey={}, broken={})
    fit.train(album, options, str(folder / "run"), (turns,), batches=lambda views, start: ready)
    # The first epoch builds the graph.
    made = {material: statistics.median(rates[1:]) for material, rates in turns.made.items()}
    return made, statistics.median(turns.learned[1:])


def _example(photo: Photo) -> bytes:
    values = {
        KEY: photo.path.encode(),
        COLLECTION: photo.collection.encode(),
        SHA256: photo.digest.encode(),
        LAB: encode_lab(photo.pixels),
    }
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[it])) for name, it in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


class ReadyMade(keras.utils.PyDataset):
    """A fixed list of batches, repeated without end."""

    num_batches = None

    def __init__(self, batches: list):
        super().__init__()
        self.batches = batches

    def __getitem__(self, index: int):
        return self.batches[index % len(self.batches)]


class Turns(keras.callbacks.Callback):
    """Times each epoch. After each epoch, takes the same number of batches from each stream and times that."""

    BUFFERED = 8  # maximum number of prefetched batches in a stream; these are not timed

    def __init__(self, streams: dict[str, Iterator], options: Options):
        super().__init__()
        self.streams, self.options = streams, options
        self.made, self.learned = {material: [] for material in streams}, []

    def on_epoch_begin(self, epoch, logs=None):
        time.sleep(1)  # time for the streams to fill their buffers
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        pictures = self.options.steps * self.options.batch
        self.learned.append(pictures / (self.ended - self.started))
        for material, stream in self.streams.items():
            for _ in range(self.BUFFERED):
                next(stream)
            started = time.perf_counter()
            for _ in range(self.options.steps):
                next(stream)
            self.made[material].append(pictures / (time.perf_counter() - started))
            time.sleep(1)


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)


def _rgb(lab: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _file(suffix: str, pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(suffix, pixels, settings)[1].tobytes()


def _pixels(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _raw(content: bytes) -> np.ndarray:
    return _rgb(np.frombuffer(content, np.uint8).reshape(SIDE, SIDE, 3))


def _float_lab(rgb: np.ndarray) -> bytes:
    return _lab(rgb.astype(np.float32) / 255).tobytes()


def _float_rgb(content: bytes) -> np.ndarray:
    rgb = _rgb(np.frombuffer(content, np.float32).reshape(SIDE, SIDE, 3))
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
SAMPLES = (ASTRONAUT, CAT, COFFEE, ROCKET, MOTORCYCLE, TEMPLE, DAHLIA, ADMIRAL)
ENCODINGS = (
    Encoding("PNG of Lab, in gzip", "GZIP", encode_lab, records.decode_lab),
    Encoding("PNG of Lab", "", encode_lab, records.decode_lab),
    Encoding(
        "JPEG of RGB, quality 95, 4:4:4",
        "",
        lambda rgb: _file(".jpg", rgb[..., ::-1], *JPEG),
        lambda content: cv2.cvtColor(_pixels(content), cv2.COLOR_BGR2RGB),
    ),
    Encoding(
        "WebP of Lab, lossless",
        "",
        lambda rgb: _file(".webp", _lab(rgb), cv2.IMWRITE_WEBP_QUALITY, 101),
        lambda content: _rgb(_pixels(content)),
    ),
    Encoding("uint8 Lab, in gzip", "GZIP", lambda rgb: _lab(rgb).tobytes(), _raw),
    Encoding("float32 Lab", "", _float_lab, _float_rgb),
)


if __name__ == "__main__":
    main()
