"""Training of a network that classifies chroma bins, on any Keras back end, in a folder that survives a kill."""

import json
import os
from pathlib import Path

import keras
import numpy as np
from keras import ops

from model import batches, color, losses
from model.networks import NETWORKS
from model.options import Options, OptionsError, check, save, write_json
from model.photos import Photo, Photos, chroma

OPTIONS, BINS, STATE = "options.json", "bins.json", "state.weights.h5"


class RunError(ValueError):
    """Why a run cannot go on in its folder, in one line for a person."""


def fit_bins(photos: list[Photo], size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres [Q, 2] and their shares [Q] of the pixels of all photographs at `size` x `size`."""
    pixels = [chroma(batches.resized(photo.pixels, size, size)).reshape(-1, 2) for photo in photos]
    return color.grid_bins(np.concatenate(pixels))


def train(photos: Photos, options: Options, output: str, callbacks: tuple = ()) -> None:
    """Trains, or goes on with, the run in the folder `output`.

    The folder gets `options.json`, `bins.json` and, after each epoch, `state.weights.h5`: weights,
    optimiser and step. Each appears whole or not at all. Raises RunError when the folder holds a run
    on other photographs.
    """
    network = NETWORKS[options.network]
    check(options, network.STRIDE)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    centres, shares = fit_bins(photos.train)
    bins = {"centres": centres.tolist(), "shares": shares.tolist()}
    if (folder / BINS).exists() and read_bins(folder)["centres"] != bins["centres"]:
        raise RunError(f"{output} holds a run on other photographs; choose another folder")
    save(options, folder / OPTIONS)
    write_json(folder / BINS, bins)

    keras.utils.set_random_seed(options.seed)
    classifier = _classifier(network.build(_config(options, centres)))
    classifier.compile(
        optimizer=_optimizer(options),
        loss=losses.rebalanced_cross_entropy(centres, losses.rebalancing_weights(shares, options.uniform)),
        metrics=[_chroma_error(centres)],
        jit_compile=False,  # XLA takes nine times as long for depthwise convolutions on a CPU.
    )
    classifier.optimizer.build(classifier.trainable_variables)
    if (folder / STATE).exists():
        classifier.load_weights(folder / STATE)
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
        validation_data=_validation(photos, options, network.SCALE),
        initial_epoch=min(done, options.epochs),
        epochs=options.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[Checkpoint(folder / STATE), *callbacks],
    )


def trained(output: str, options: Options) -> tuple[keras.Model, np.ndarray]:
    """The network of a run with its newest weights, as it decodes bins under `options`, and the bin centres [Q, 2].

    Batch norm is folded into the convolutions: the network is for use, not for more training.
    """
    network = NETWORKS[options.network]
    bins = read_bins(Path(output))
    config = _config(options, bins["centres"], temperature=options.temperature, gain=options.gain)
    model = network.build(config)
    _classifier(model).load_weights(Path(output) / STATE)
    # Weighted pixels teach a distribution proportional to weight times truth; in logits that is a sum.
    weights = losses.rebalancing_weights(np.array(bins["shares"]), options.uniform)
    kernel, offset = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, offset - options.debias * np.log(weights)])
    return network.fold(model, config), np.array(bins["centres"], np.float32)


def read_bins(folder: Path) -> dict[str, list]:
    """The chroma bins of a run: `centres` [Q, 2] in Lab units and `shares` [Q] of the training pixels."""
    return json.loads((folder / BINS).read_text(encoding="utf-8"))


def _config(options: Options, centres, **decoding):
    pairs = tuple((float(a), float(b)) for a, b in centres)
    try:
        return NETWORKS[options.network].Config(centres=pairs, **options.layers, **decoding)
    except TypeError as error:
        raise OptionsError(f"--layers does not fit the network {options.network}: {error}") from None


def _classifier(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("logits").output)


def _validation(photos: Photos, options: Options, scale: int):
    if not photos.validation:
        return None
    return batches.WholePhotos(photos.validation, size=min(options.sizes), batch=64, scale=scale)


def _optimizer(options: Options) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        options.rate / 20,
        decay_steps=max(1, (options.epochs - 1) * options.steps),
        warmup_target=options.rate,
        warmup_steps=options.steps,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=options.decay, global_clipnorm=options.clip)


def _chroma_error(centres: np.ndarray):
    def chroma_error(truth, logits):
        """Root mean square distance [N] in the a*b* plane, at the mean of the bins."""
        squares = ops.sum((color.annealed_mean(logits, centres) - truth) ** 2, axis=-1)
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
