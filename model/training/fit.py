"""Trains a network on any Keras back end. A killed run can be continued from its folder."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from model import networks
from model.data.batches import TrainingBatches, Views, WholePhotos, picture_weights
from model.data.bins import BINS, read_bins
from model.data.photos import Photos
from model.networks import NETWORKS
from model.training import checkpoints, losses, objectives, run_folder, teaching, warm_start
from model.training.adversarial import Adversary, load_generator
from model.training.options import Options, save, write_json
from model.training.warm_start import WarmStartError

SAVED_EVERY = 60.0  # seconds between checkpoints; a kill loses at most this much work
_MEASURED = 8  # batches from which a warm start takes its statistics


def train(
    photos: Photos,
    options: Options,
    output: str,
    callbacks: tuple = (),
    *,
    batches: Callable | None = None,
    warm: str | None = None,
    like: str | None = None,
) -> None:
    """Trains a new run in the folder `output`, or continues the run in it.

    The folder gets `options.json`, `bins.json`, and `history.json`, a list with the number (from 1) and the figures
    of each epoch. Once a minute and after each epoch it gets a checkpoint of weights, optimisers and step,
    `state.weights.h5` or, for a GAN, `state.npz`. All files are written atomically.

    Args:
        photos: for the bins and for validation and, without `batches`, for the training batches.
        options: of the run.
        output: folder of the run.
        callbacks: receive the figures `loss` and `chroma_error`, and `val_loss` and `val_chroma_error`. A callback
            may set `stop_training` of its model after an epoch; the run can be continued later.
        batches: function of `batches.Views` and the first step that returns endless batches, such as
            `records.training_batches` of some files. `photos.train` is then a sample of their pictures.
        warm: folder of an exported model of the same architecture. A new run starts with its weights and its bins; a
            continued run has its own.
        like: folder of an exported model. A new run has the bins of this model, so that one can teach the other.

    Without `warm` and `like`, the bins are those of `options.teacher`, if there is one. A continued run needs its
    teacher again.

    Raises:
        RunError: the folder holds a run on other photographs or with other options, or cannot be made; or the
            teacher does not fit.
        WarmStartError, CardError: `warm` is not a model to start from.
        ExtractorError: the weights of a classifier cannot be loaded.
    """
    objectives.check(options)
    network = NETWORKS[options.network]
    exported = None if warm is None else warm_start.read(warm)
    folder = Path(output)
    run_folder.begin(options, folder, warm or like)
    centres, shares = run_folder.bins_of(photos.train, warm or like or options.teacher)
    run_folder.require_same_bins(folder, centres, shares)
    save(options, folder / run_folder.OPTIONS)
    bins = {"centres": centres.tolist(), "shares": shares.tolist(), "uniform": options.uniform}
    write_json(folder / BINS, bins)

    config = objectives.config(options, centres)
    if run_folder.is_begun(folder):
        config = objectives.without_pretrained(config)
    scale = networks.scale(network, config)
    weights = losses.rebalancing_weights(shares, options.uniform)
    objective = objectives.objective(options, centres, weights)
    views = Views(options.sizes, options.batch, scale, options.seed, options.aging, objective.target)
    if batches is None:
        chances = picture_weights(photos.train, options.weights)

        def batches(views: Views, start: int) -> Iterator:
            return iter(TrainingBatches(photos.train, chances, views, start))

    keras.utils.set_random_seed(options.seed)
    validation = _validation(photos, options, scale, objective.target)
    # The steps of a GAN run on one device.
    devices = contextlib.nullcontext() if options.network == "gan" else _devices()
    with _precision(options.precision), devices:
        model = network.build(config)
        if options.network == "gan":
            if exported is not None:
                raise WarmStartError(
                    "a GAN cannot start from a model, because its discriminators would be untrained"
                )
            adversary = Adversary(model, config, options.peak)
            _fit_adversary(adversary, options, batches, views, validation, folder, callbacks)
            return
        part, step = objectives.trained_part(model), 0
        if options.teacher:
            # With all of its rebalancing undone, the teacher predicts the unweighted distribution.
            its = dataclasses.replace(run_folder.options_of(options.teacher), debias=1.0)
            teacher, _ = trained(options.teacher, its)
            part = teaching.taught(part, objectives.trained_part(teacher), weights)
        _compile(part, options, objective)
        if (folder / run_folder.STATE).exists():
            step = checkpoints.restore(part, folder / run_folder.STATE)
        elif exported is not None:
            first = TrainingBatches(photos.train, picture_weights(photos.train, options.weights), views)
            lightness = (first[index][0] for index in range(_MEASURED))
            warm_start.begin(network, model, config, exported, weights, lightness)

        def fit(start: int, epoch: int, epochs: int, steps: int) -> None:
            part.fit(
                batches(views, start),
                validation_data=validation,
                initial_epoch=epoch,
                epochs=epochs,
                steps_per_epoch=steps,
                shuffle=False,
                verbose=0,
                callbacks=[
                    checkpoints.History(folder / run_folder.HISTORY),
                    checkpoints.Checkpoint(folder / run_folder.STATE, SAVED_EVERY, start),
                    *callbacks,
                ],
            )

        epoch, begun = divmod(step, options.steps)
        if begun and epoch < options.epochs:
            fit(step, epoch, epoch + 1, options.steps - begun)
            checkpoints.restore(
                part, folder / run_folder.STATE
            )  # at its end, `fit` replaced the weights by their average
            epoch += 1
        if epoch < options.epochs and not part.stop_training:
            fit(epoch * options.steps, epoch, options.epochs, options.steps)


def _fit_adversary(
    adversary: Adversary,
    options: Options,
    batches: Callable,
    views: Views,
    validation: WholePhotos | None,
    folder: Path,
    callbacks: tuple,
) -> None:
    """Trains a GAN, with epochs, figures, checkpoints and callbacks as in `keras.Model.fit`."""
    state, generator = folder / run_folder.ADVERSARY, adversary.generator
    if state.exists():
        adversary.load(state)
    step, saved = adversary.steps, time.monotonic()
    stream = iter(batches(views, step))
    # Callbacks may copy the folder, so they come after the history and the checkpoint.
    own = [
        checkpoints.History(folder / run_folder.HISTORY),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: adversary.save(state)),
    ]
    listeners = keras.callbacks.CallbackList([*own, *callbacks], model=generator)
    listeners.on_train_begin()
    generator.stop_training = False
    for epoch in range(step // options.steps, options.epochs):
        listeners.on_epoch_begin(epoch)
        figures = []
        for index in range(step % options.steps, options.steps):
            figures.append(adversary.step(*(np.asarray(part) for part in next(stream))))
            if time.monotonic() - saved >= SAVED_EVERY:
                adversary.save(state)
                saved = time.monotonic()
            listeners.on_train_batch_end(index)
        step = (epoch + 1) * options.steps
        logs = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
        if validation is not None:
            logs["val_chroma_error"] = float(np.mean(_errors(generator, validation)))
        listeners.on_epoch_end(epoch, logs)
        if generator.stop_training:
            break
    listeners.on_train_end()


def _errors(generator: keras.Model, validation: WholePhotos) -> list[float]:
    """Mean absolute error of chroma / 128 for each batch of validation pictures."""
    pairs = (validation[index] for index in range(len(validation)))
    return [
        np.abs(generator.predict_on_batch(lightness) - chroma).mean() / 128 for lightness, chroma in pairs
    ]


def trained(output: str, options: Options) -> tuple[keras.Model, np.ndarray]:
    """Returns the network of a run with its latest weights, and the bin centres [Q, 2].

    If the run averages its weights, the averages are taken. Batch norm is folded into the convolutions if the network
    supports it; the result is for inference, not for training.

    Args:
        output: folder of the run.
        options: of the run; they determine how bins are decoded.
    """
    network = NETWORKS[options.network]
    bins = read_bins(output)
    centres = np.array(bins["centres"], np.float32)
    config = objectives.config(options, centres, temperature=options.temperature, gain=options.gain)
    config = objectives.without_pretrained(config)
    model = network.build(config)
    if options.network == "gan":
        load_generator(model, Path(output) / run_folder.ADVERSARY)
        return model, centres
    # A weighted loss teaches a distribution proportional to weight times truth; for logits this is a sum.
    weights = losses.rebalancing_weights(np.array(bins["shares"]), options.uniform)
    part = objectives.trained_part(model)
    alone = dataclasses.replace(options, perceptual=0.0)  # its loss is not needed
    _compile(part, alone, objectives.objective(alone, centres, weights))
    checkpoints.restore(part, Path(output) / run_folder.STATE)
    part.optimizer.finalize_variable_values(part.trainable_variables)
    if objectives.classifies(options.network):
        kernel, offset = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([kernel, offset - options.debias * np.log(weights)])
    folded = network.fold(model, config) if hasattr(network, "fold") else model
    return folded, centres


def _compile(part: keras.Model, options: Options, objective: objectives.Objective) -> None:
    part.compile(
        optimizer=_optimizer(options),
        loss=objective.loss,
        metrics=[objective.metric],
        # JAX needs XLA to compile a step. With XLA, TensorFlow takes nine times as long for depthwise convolutions
        # on a CPU.
        jit_compile=keras.backend.backend() == "jax",
        auto_scale_loss=False,  # this would follow the current policy; `_optimizer` follows the options
    )
    part.optimizer.build(part.trainable_variables)


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _devices(kind: str = "GPU") -> contextlib.AbstractContextManager:
    """Distributes batches over the devices of a kind if this machine has several (TensorFlow and JAX)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        return (
            tf.distribute.MirroredStrategy(devices).scope() if len(devices) > 1 else contextlib.nullcontext()
        )
    devices = []
    if keras.backend.backend() == "jax":
        devices = [name for name in keras.distribution.list_devices() if name.startswith(kind.lower())]
    return (
        keras.distribution.DataParallel(devices=devices).scope()
        if len(devices) > 1
        else contextlib.nullcontext()
    )


def _validation(photos: Photos, options: Options, scale: int, target: Callable):
    if not photos.validation:
        return None
    return WholePhotos(photos.validation, size=min(options.sizes), batch=64, scale=scale, target=target)


def _optimizer(options: Options) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        options.peak / 20,
        decay_steps=max(1, (options.epochs - 1) * options.steps),
        warmup_target=options.peak,
        warmup_steps=options.steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=options.decay,
        global_clipnorm=options.clip,
        use_ema=options.average > 0,
        ema_momentum=options.average,
    )
    # Keras does the same, but not for a network that is built in float32 for the export.
    mixed = options.precision == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed else optimizer
