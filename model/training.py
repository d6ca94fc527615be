"""Training of a network that classifies chroma bins, on any Keras back end, in a folder that survives a kill."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops

from model import color, losses, warm_start
from model.batches import TrainingBatches, WholePhotos, picture_weights
from model.bins import BINS, count_bins, fit_bins, read_bins
from model.networks import NETWORKS
from model.options import Options, OptionsError, check, save, write_json
from model.photos import Photo, Photos
from model.warm_start import Exported

OPTIONS, STATE, HISTORY = "options.json", "state.weights.h5", "history.json"
_MEASURED = 8  # batches that a warm start takes its statistics from


class RunError(ValueError):
    """Why a run cannot go on in its folder, in one line for a person."""


def train(
    photos: Photos,
    options: Options,
    output: str,
    callbacks: tuple = (),
    *,
    batches: Callable | None = None,
    warm: str | None = None,
) -> None:
    """Trains, or goes on with, the run in the folder `output`.

    The folder gets `options.json`, `bins.json` and, after each epoch, `state.weights.h5`: weights,
    optimiser and step; `history.json`: a list of each epoch's number, from 1, and figures. Each file
    appears whole or not at all.

    Args:
        photos: of which bins and validation are made, and, without `batches`, training batches.
        callbacks: get the figures `loss` and `chroma_error`, with `val_` before them those of validation.
        batches: a function of the epoch to begin at that gives endless batches of lightness and chroma,
            such as `records.training_batches`; `photos.train` is then a sample of what it draws from.
        warm: folder of an exported model of the same architecture. A new run starts from its weights,
            and has its bins; one that goes on has its own weights.

    Raises RunError when the folder holds a run on other photographs, WarmStartError and CardError when
    `warm` is no model to start from.
    """
    network = NETWORKS[options.network]
    check(options, network.STRIDE)
    exported = None if warm is None else warm_start.read(warm)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    centres, shares = _bins(photos.train, exported)
    _require_same_bins(folder, centres, shares)
    save(options, folder / OPTIONS)
    bins = {"centres": centres.tolist(), "shares": shares.tolist(), "uniform": options.uniform}
    write_json(folder / BINS, bins)

    keras.utils.set_random_seed(options.seed)
    config = _config(options, centres)
    model = network.build(config)
    classifier = _classifier(model)
    weights = losses.rebalancing_weights(shares, options.uniform)
    classifier.compile(
        optimizer=_optimizer(options),
        loss=losses.rebalanced_cross_entropy(centres, weights),
        metrics=[_chroma_error(centres)],
        jit_compile=False,  # XLA takes nine times as long for depthwise convolutions on a CPU.
    )
    classifier.optimizer.build(classifier.trainable_variables)
    from_photos = functools.partial(_photo_batches, photos.train, options, network.SCALE)
    if (folder / STATE).exists():
        classifier.load_weights(folder / STATE)
    elif exported is not None:
        views = from_photos(0)
        lightness = (views[index][0] for index in range(_MEASURED))
        warm_start.begin(network, model, config, exported, weights, lightness)
    done = int(ops.convert_to_numpy(classifier.optimizer.iterations)) // options.steps
    classifier.fit(
        (batches or from_photos)(done),
        validation_data=_validation(photos, options, network.SCALE),
        initial_epoch=min(done, options.epochs),
        epochs=options.epochs,
        steps_per_epoch=options.steps,
        shuffle=False,
        verbose=0,
        callbacks=[History(folder / HISTORY), Checkpoint(folder / STATE), *callbacks],
    )


def trained(output: str, options: Options) -> tuple[keras.Model, np.ndarray]:
    """The network of a run with its newest weights, as it decodes bins under `options`, and the bin centres [Q, 2].

    Batch norm is folded into the convolutions: the network is for use, not for more training.
    """
    network = NETWORKS[options.network]
    bins = read_bins(output)
    config = _config(options, bins["centres"], temperature=options.temperature, gain=options.gain)
    model = network.build(config)
    _classifier(model).load_weights(Path(output) / STATE)
    # Weighted pixels teach a distribution proportional to weight times truth; in logits that is a sum.
    weights = losses.rebalancing_weights(np.array(bins["shares"]), options.uniform)
    kernel, offset = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, offset - options.debias * np.log(weights)])
    return network.fold(model, config), np.array(bins["centres"], np.float32)


def _bins(photos: list[Photo], exported: Exported | None) -> tuple[np.ndarray, np.ndarray]:
    if exported is None:
        return fit_bins(photos)
    return exported.centres, count_bins(photos, exported.centres)


def _require_same_bins(folder: Path, centres: np.ndarray, shares: np.ndarray) -> None:
    if not (folder / BINS).exists():
        return
    bins = read_bins(folder)
    same = np.array_equal(bins["centres"], centres.tolist())
    # Another machine's OpenCV may count a pixel or two differently.
    if not same or not np.allclose(bins["shares"], shares, atol=1e-3):
        raise RunError(f"{folder} holds a run on other photographs; choose another folder")


def _config(options: Options, centres, **decoding):
    pairs = tuple((float(a), float(b)) for a, b in centres)
    try:
        return NETWORKS[options.network].Config(centres=pairs, **options.layers, **decoding)
    except TypeError as error:
        raise OptionsError(f"--layers does not fit the network {options.network}: {error}") from None


def _classifier(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("logits").output)


def _photo_batches(photos: list[Photo], options: Options, scale: int, epoch: int) -> TrainingBatches:
    return TrainingBatches(
        photos,
        picture_weights(photos, options.weights),
        sizes=options.sizes,
        batch=options.batch,
        steps=options.steps,
        scale=scale,
        seed=options.seed,
        epoch=epoch,
        aging=options.aging,
    )


def _validation(photos: Photos, options: Options, scale: int):
    if not photos.validation:
        return None
    return WholePhotos(photos.validation, size=min(options.sizes), batch=64, scale=scale)


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


class History(keras.callbacks.Callback):
    """After each epoch its figures, behind those of the epochs before, a killed part of the run included."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        # An epoch that was killed between this and its checkpoint is here already, and comes again.
        before = json.loads(self.path.read_text(encoding="utf-8"))[:epoch] if self.path.exists() else []
        figures = {name: float(value) for name, value in (logs or {}).items()}
        write_json(self.path, [*before, {"epoch": epoch + 1, **figures}])
