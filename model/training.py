"""Training of a network that classifies chroma bins, on any Keras back end, in a folder that survives a kill."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from model import batches, color, losses
from model.networks import NETWORKS
from model.photos import Photo, Photos

CONFIG, OPTIONS, STATE = "network.json", "options.json", "state.weights.h5"


@dataclass(frozen=True)
class Options:
    """What a run is made from; saved beside it as `options.json`.

    Attributes:
        network: name in `model.networks.NETWORKS`.
        epochs, steps, batch: epochs of `steps` batches of `batch` pictures; a checkpoint after each epoch.
        sizes: heights and widths in pixels that batches are squashed to, multiples of the network's stride.
        rate: peak of the learning rate, reached after one epoch, then a cosine to zero.
        decay, clip: AdamW's weight decay, and the bound on the gradients' norm.
        uniform: parts of the uniform distribution in the rebalancing of bins (1 leaves bins unweighted).
        weights: how often a picture of a collection is drawn, against 1.
        seed: of everything random.
    """

    network: str = "fusion"
    epochs: int = 20
    steps: int = 250
    batch: int = 32
    sizes: tuple[int, ...] = (96, 128, 160, 192)
    rate: float = 2e-3
    decay: float = 1e-4
    clip: float = 1.0
    uniform: float = 0.5
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0


def fit_bins(photos: list[Photo], size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres [Q, 2] and their shares [Q] of the pixels of all photographs at `size` x `size`."""
    from model.photos import chroma

    pixels = [chroma(batches.resized(photo.pixels, size, size)).reshape(-1, 2) for photo in photos]
    return color.grid_bins(np.concatenate(pixels))


def train(photos: Photos, options: Options, output: str, callbacks: list = ()) -> keras.Model:
    """Trains, or goes on with, the run in the folder `output`, and returns the network.

    The folder gets `options.json`, `network.json` (bins and layer sizes) and, after each epoch,
    `state.weights.h5`: weights, optimiser and step. The last appears whole or not at all.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    network = NETWORKS[options.network]
    centres, shares = fit_bins(photos.train)
    config = network.Config(centres=tuple(map(tuple, centres.tolist())))
    write_json(folder / OPTIONS, dataclasses.asdict(options))
    write_json(folder / CONFIG, {**dataclasses.asdict(config), "shares": shares.tolist()})

    model = network.build(config)
    classifier = keras.Model(model.input, model.get_layer("logits").output)
    classifier.compile(
        optimizer=_optimizer(options),
        loss=losses.rebalanced_cross_entropy(centres, losses.rebalancing_weights(shares, options.uniform)),
        metrics=[_chroma_error(centres)],
        jit_compile=False,
    )
    classifier.optimizer.build(classifier.trainable_variables)
    state = folder / STATE
    if state.exists():
        classifier.load_weights(state)
    done = int(ops.convert_to_numpy(classifier.optimizer.iterations)) // options.steps
    classifier.fit(
        batches.TrainingBatches(
            photos.train,
            batches.picture_weights(photos.train, options.weights),
            sizes=options.sizes,
            batch=options.batch,
            steps=options.steps,
            scale=network.SCALE,
            seed=options.seed,
            epoch=done,
        ),
        validation_data=batches.WholePhotos(photos.validation, size=options.sizes[0], batch=64, scale=network.SCALE)
        if photos.validation
        else None,
        initial_epoch=done,
        epochs=options.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[Checkpoint(state), *callbacks],
    )
    return model


def _optimizer(options: Options) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        options.rate / 20,
        decay_steps=max(1, (options.epochs - 1) * options.steps),
        warmup_target=options.rate,
        warmup_steps=options.steps,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=options.decay, global_clipnorm=options.clip)


def _chroma_error(centres: np.ndarray):
    def chroma_error(chroma, logits):
        """Root of the mean squared a*b* distance of each picture [N], at the mean of the bins."""
        squares = ops.sum((color.annealed_mean(logits, centres) - chroma) ** 2, axis=-1)
        return ops.sqrt(ops.mean(squares, axis=(1, 2)))

    return chroma_error


class Checkpoint(keras.callbacks.Callback):
    """After each epoch the weights, the optimiser and its step, replaced as a whole."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        partial = self.path.with_name("partial.weights.h5")
        self.model.save_weights(partial, overwrite=True)
        os.replace(partial, self.path)


def write_json(path: Path, value) -> None:
    """Writes JSON, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load_network(folder: str, **changes) -> keras.Model:
    """The network of a run's folder with its newest weights; `changes` replace fields of its config."""
    options = json.loads((Path(folder) / OPTIONS).read_text(encoding="utf-8"))
    network = NETWORKS[options["network"]]
    saved = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    fields = {field.name: saved[field.name] for field in dataclasses.fields(network.Config)}
    model = network.build(network.Config(**{**fields, **changes}))
    keras.Model(model.input, model.get_layer("logits").output).load_weights(Path(folder) / STATE)
    return model
