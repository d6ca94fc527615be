"""Trains the small network by which the batch job recognises negatives.

    python -m model.negatives --photos photographs --output pipeline/imaging/negatives.npz

Each photograph becomes a grey positive or a negative, by chance, and is aged. The threshold is that which one positive
of 300 exceeds, of the validation photographs as they are and aged. The figures that are printed come from the test
photographs.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.training.options import OptionsError

SIDE = 64  # pixels; the network sees the picture squeezed to a square
# Filters, size and stride of the convolutions:
LAYERS = ((24, 5, 2), (48, 3, 2), (96, 3, 2), (144, 3, 2), (144, 3, 1))
FALSE_ALARMS = 1 / 300
BATCH = 64
_STORED = 96  # pixels of the photographs in memory


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m model.negatives",
        description="Train the small network that recognises negatives.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--photos", required=True, metavar="DIR", help="colour photographs; sub-folders are collections")
    add("--output", required=True, metavar="FILE", help="the weights (.npz)")
    add("--epochs", type=int, default=30, help="passes over the photographs (default: 30)")
    add("--rate", type=float, default=3e-3, help="highest learning rate (default: 0.003)")
    add("--seed", type=int, default=0, help="random seed (default: 0)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model.data.photos import PhotosError

    try:
        if arguments.epochs < 1:
            raise OptionsError(f"--epochs must be at least 1, got {arguments.epochs}")
        _train(arguments)
    except (PhotosError, OptionsError, OSError) as error:
        print(f"model.negatives: {error}", file=sys.stderr)
        return 2
    return 0


def _train(arguments: argparse.Namespace) -> None:
    import keras

    from model import default_model
    from model.data.photos import HELD_OUT, PhotosError, read_photos

    held_out = json.loads(Path(default_model(), HELD_OUT).read_text(encoding="utf-8"))
    photos = read_photos(arguments.photos, _STORED, held_out)
    if not (photos.validation and photos.test):  # they are other photographs
        photos = read_photos(arguments.photos, _STORED)
    if len(photos.train) < BATCH or not (photos.validation and photos.test):
        raise PhotosError(f"too few photographs in {arguments.photos}")
    keras.utils.set_random_seed(arguments.seed)
    network, rng = build(), np.random.default_rng(arguments.seed)
    steps = len(photos.train) // BATCH
    network.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(arguments.rate, arguments.epochs * steps),
            weight_decay=0.01,
        ),
        keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.02),
    )
    network.fit(
        batches([photo.pixels for photo in photos.train], rng),
        epochs=arguments.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=2,
    )
    positives = [
        _evidence(network, photos.validation, how, False, arguments.seed) for how in (plain, example)
    ]
    threshold = float(np.quantile(np.concatenate(positives), 1 - FALSE_ALARMS))
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.output, **arrays(network, threshold))
    _report(network, photos.test, threshold, arguments.seed)
    print(f"{arguments.output}: {network.count_params():,} parameters")


def example(pixels: np.ndarray, negative: bool, rng: np.random.Generator) -> np.ndarray:
    """Makes an old positive or negative of a photograph.

    Args:
      pixels: uint8 [H, W, 3], sRGB.
      negative: exchange light and dark, with a random contrast.

    Returns:
      uint8 [S, S], levels as in a scan.
    """
    from model.data import aging

    levels = aging.emulsion(pixels, rng)
    tall, wide = (int(side * rng.uniform(0.75, 1)) for side in levels.shape)
    top, left = (int(rng.integers(0, side + 1)) for side in (levels.shape[0] - tall, levels.shape[1] - wide))
    levels = levels[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        levels = levels[:, ::-1]
    if negative:
        levels = inverted(levels, math.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.25:  # a mount, or the clear or the dark edge of a plate
        margin = int(max(levels.shape) * rng.uniform(0.02, 0.12))
        level = int(rng.choice([rng.integers(0, 30), rng.integers(225, 256), rng.integers(0, 256)]))
        levels = np.pad(levels, margin, constant_values=level)
    aged = aging.aged((levels[..., None] / 2.55).astype(np.float32), rng)[..., 0]
    levels = np.rint(2.55 * aged).astype(np.uint8)
    return cv2.resize(levels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def plain(pixels: np.ndarray, negative: bool, rng: np.random.Generator) -> np.ndarray:
    """Makes a positive or negative as `example` does, but with nothing else changed."""
    from model.color import conversion

    levels = conversion.luma_uint8(pixels)
    if negative:
        levels = inverted(levels, math.exp(rng.uniform(-0.7, 0.7)))
    return cv2.resize(levels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def inverted(levels: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """Exchanges light and dark of levels uint8 [...], after a gamma."""
    return np.rint(255 * (1 - (levels / 255) ** gamma)).astype(np.uint8)


def batches(pictures: list[np.ndarray], rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields examples float32 [B, S, S, 1], 0...255, and 1 for negatives, float32 [B, 1], without an end."""
    while True:
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            negative = rng.random(BATCH) < 0.5
            chosen = order[start : start + BATCH]
            seen = [example(pictures[at], turned, rng) for at, turned in zip(chosen, negative, strict=True)]
            yield np.stack(seen)[..., None].astype(np.float32), negative[:, None].astype(np.float32)


def build():
    """The network: from levels float32 [B, S, S, 1], 0...255, to the evidence for a negative, float32 [B, 1].

    It is the difference of one function of the inverted picture and of the picture itself.
    """
    import keras
    from keras import layers

    positive = keras.Sequential([layers.Input((SIDE, SIDE, 1))], name="positive")
    for filters, size, stride in LAYERS:
        positive.add(layers.Conv2D(filters, size, stride, "same", use_bias=False))
        positive.add(layers.BatchNormalization(momentum=0.97))
        positive.add(layers.ReLU())
    positive.add(layers.GlobalAveragePooling2D())
    positive.add(layers.Dense(1, use_bias=False))
    levels = layers.Input((SIDE, SIDE, 1))
    plane = layers.Rescaling(1 / 127.5, -1)(levels)
    return keras.Model(levels, layers.Subtract()([positive(-plane), positive(plane)]))


def arrays(network, threshold: float) -> dict[str, Any]:
    """The file of a network, in half precision; see `pipeline.imaging.negatives`. Kernels contain the normalisation."""
    *convolutions, _, dense = network.get_layer("positive").layers
    found: dict[str, Any] = {"side": np.float32(SIDE), "threshold": np.float32(threshold)}
    for number, (convolution, normalization) in enumerate(
        zip(convolutions[::3], convolutions[1::3], strict=True)
    ):
        scale, offset, mean, variance = normalization.get_weights()
        scale = scale / np.sqrt(variance + normalization.epsilon)
        found[f"kernel{number}"] = np.float16(scale * convolution.get_weights()[0])
        found[f"bias{number}"] = np.float16(offset - scale * mean)
        found[f"stride{number}"] = np.float16(convolution.strides[0])
    return found | {"dense": np.float16(dense.get_weights()[0])}


def _evidence(network, photos: list, how: Callable, negative: bool, seed: int) -> np.ndarray:
    """Evidence float [N] of positives or negatives that `plain` or `example` makes."""
    rng = np.random.default_rng(seed)
    seen = np.stack([how(photo.pixels, negative, rng) for photo in photos])[..., None]
    return network.predict(seen.astype(np.float32), batch_size=256, verbose=0)[:, 0]


def _report(network, photos: list, threshold: float, seed: int) -> None:
    """Prints the shares of negatives and of positives that are called negatives, by collection."""
    found = [
        _evidence(network, photos, how, negative, seed) > threshold
        for how in (plain, example)
        for negative in (True, False)
    ]
    collections = np.array([photo.collection for photo in photos])
    print(f"{'':20} {'':6} {'as they are':>20} {'aged':>20}")
    print(f"{'collection':20} {'test':>6}" + f"{'negatives':>11} {'positives':>9}" * 2)
    for name in [*sorted(set(collections)), ""]:
        its = collections == name if name else np.ones(len(photos), bool)
        print(f"{name or 'all':20} {its.sum():6}" + "".join(f"{np.mean(one[its]):10.1%}" for one in found))


if __name__ == "__main__":
    sys.exit(main())
