"""Training of a network, on any Keras back end, in a folder that survives a kill."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import ops

from model import losses, networks, objectives, teaching, warm_start
from model.adversarial import Adversary, load_generator
from model.batches import TrainingBatches, Views, WholePhotos, picture_weights
from model.bins import BINS, count_bins, fit_bins, read_bins
from model.files import replacing
from model.networks import NETWORKS
from model.options import Options, load, save, write_json
from model.photos import Photo, Photos
from model.warm_start import WarmStartError

OPTIONS, STATE, ADVERSARY, HISTORY = "options.json", "state.weights.h5", "state.npz", "history.json"
MODEL = "model"  # the folder in which the run is exported
SAVED_EVERY = 60.0  # seconds: what a kill may cost
_MEASURED = 8  # batches that a warm start takes its statistics from
# In the state: batches seen, of which loss scaling may have skipped some, and where dropout's numbers go on.
_STEP, _SEEDS = "step", "seeds"
# What may change from one sitting of a run to the next.
_FREE = {"epochs", "steps", "rate", "size", "temperature", "debias", "gain", "strength", "strength_reason"}


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
    like: str | None = None,
) -> None:
    """Trains, or goes on with, the run in the folder `output`.

    The folder gets `options.json`, `bins.json`, `history.json`, a list of each epoch's number, from 1, and figures,
    and, once a minute and after each epoch, `state.weights.h5`, or `state.npz` of a GAN: weights, optimisers and
    step. Each file appears whole or not at all.

    Args:
        photos: of which bins and validation are made, and, without `batches`, training batches.
        callbacks: get the figures `loss` and `chroma_error`, with `val_` before them those of validation. One that
            sets its model's `stop_training` after an epoch ends this sitting; a later one may go on.
        batches: a function of `batches.Views` and the step to begin at that gives endless batches, such as
            `records.training_batches` of some files; `photos.train` is then a sample of what it draws from.
        warm: folder of an exported model of the same architecture. A new run starts from its weights,
            and has its bins; one that goes on has its own weights.
        like: folder of an exported model whose bins a new run has, so that it can teach another that has them.

    Without `warm` and `like` the bins are those of `options.teacher`, if there is one; a run that goes on needs its
    teacher again.

    Raises RunError when the folder holds a run on other photographs or with other options, or can be no folder, and
    when the teacher cannot teach it; WarmStartError and CardError when `warm` is no model to start from;
    `extractors.ExtractorError` when a classifier's weights cannot be had.
    """
    objectives.check(options)
    network = NETWORKS[options.network]
    exported = None if warm is None else warm_start.read(warm)
    folder = Path(output)
    begin(options, folder, warm or like)
    centres, shares = _bins(photos.train, warm or like or options.teacher)
    _require_same_bins(folder, centres, shares)
    save(options, folder / OPTIONS)
    bins = {"centres": centres.tolist(), "shares": shares.tolist(), "uniform": options.uniform}
    write_json(folder / BINS, bins)

    config = objectives.config(options, centres)
    if is_begun(folder):
        config = objectives.unlearned(config)
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
    # An adversary's steps are written for one device.
    devices = contextlib.nullcontext() if options.network == "gan" else _devices()
    with _precision(options.precision), devices:
        model = network.build(config)
        if options.network == "gan":
            if exported is not None:
                raise WarmStartError("a GAN starts from no model: its discriminators would know nothing yet")
            adversary = Adversary(model, config, options.peak)
            _fit_adversary(adversary, options, batches, views, validation, folder, callbacks)
            return
        part, step = objectives.trained_part(model), 0
        if options.teacher:
            # Of what is in pictures, without the weights of the teacher's own loss.
            its = dataclasses.replace(options_of(options.teacher), debias=1.0)
            teacher, _ = trained(options.teacher, its)
            part = teaching.taught(part, objectives.trained_part(teacher), weights)
        _compile(part, options, objective)
        if (folder / STATE).exists():
            step = _load(part, folder / STATE)
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
                    History(folder / HISTORY),
                    Checkpoint(folder / STATE, SAVED_EVERY, start),
                    *callbacks,
                ],
            )

        epoch, begun = divmod(step, options.steps)
        if begun and epoch < options.epochs:
            fit(step, epoch, epoch + 1, options.steps - begun)
            _load(part, folder / STATE)  # `fit` has put the average in the weights' place at its end
            epoch += 1
        if epoch < options.epochs and not part.stop_training:
            fit(epoch * options.steps, epoch, options.epochs, options.steps)


def begin(options: Options, folder: Path, base: str | None = None) -> None:
    """Makes the folder of a run, before the time that reading photographs takes.

    Raises RunError where that cannot be, or a run with other options is in it, or there are no bins in the folder
    `base`, if given, or the teacher cannot teach them.
    """
    if base is not None:
        _centres(base)
    if options.teacher:
        _require_teacher(options, base or options.teacher)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} can be no folder of a run: {error.strerror}") from None
    if not (folder / OPTIONS).exists():
        return
    there, here = dataclasses.asdict(options_of(folder)), dataclasses.asdict(options)
    there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))  # tuples and lists are the same
    changed = [name for name in here if name not in _FREE and there[name] != here[name]]
    if changed:
        words = "; ".join(f"--{name} was {there[name]}, not {here[name]}" for name in changed)
        raise RunError(f"{folder} holds a run with other options ({words}); choose another folder")


def is_begun(folder: Path) -> bool:
    """Whether a run in the folder has weights of its own to go on with."""
    return any((folder / state).exists() for state in (STATE, ADVERSARY))


def options_of(folder: str | Path) -> Options:
    """Those of the run in a folder. Raises RunError where there are none of this version."""
    path = Path(folder, OPTIONS)
    try:
        return load(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is of no run of this version ({error}); choose another folder") from None


def _fit_adversary(
    adversary: Adversary,
    options: Options,
    batches: Callable,
    views: Views,
    validation: WholePhotos | None,
    folder: Path,
    callbacks: tuple,
) -> None:
    """What `fit` is for a network alone: epochs with figures, checkpoints and callbacks."""
    state, generator = folder / ADVERSARY, adversary.generator
    if state.exists():
        adversary.load(state)
    step, saved = adversary.steps, time.monotonic()
    stream = iter(batches(views, step))
    # What carries the folder elsewhere comes after what it is to carry.
    own = [
        History(folder / HISTORY),
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
    """The network of a run with its newest weights, as it decodes bins under `options`, and the bin centres [Q, 2].

    Where the run averages its weights, they are the averages. Batch norm is folded into the convolutions of a
    network that can do that: the result is for use, not for more training.
    """
    network = NETWORKS[options.network]
    bins = read_bins(output)
    centres = np.array(bins["centres"], np.float32)
    config = objectives.config(options, centres, temperature=options.temperature, gain=options.gain)
    config = objectives.unlearned(config)
    model = network.build(config)
    if options.network == "gan":
        load_generator(model, Path(output) / ADVERSARY)
        return model, centres
    # Weighted pixels teach a distribution proportional to weight times truth; in logits that is a sum.
    weights = losses.rebalancing_weights(np.array(bins["shares"]), options.uniform)
    part = objectives.trained_part(model)
    alone = dataclasses.replace(options, perceptual=0.0)  # its loss is not asked for
    _compile(part, alone, objectives.objective(alone, centres, weights))
    _load(part, Path(output) / STATE)
    part.optimizer.finalize_variable_values(part.trainable_variables)
    if objectives.classifies(options.network):
        kernel, offset = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([kernel, offset - options.debias * np.log(weights)])
    folded = network.fold(model, config) if hasattr(network, "fold") else model
    return folded, centres


def _bins(photos: list[Photo], folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Those of the photographs, or those in the folder of an exported model or a run."""
    if not folder:
        return fit_bins(photos)
    centres = _centres(folder)
    return centres, count_bins(photos, centres)


def _centres(folder: str) -> np.ndarray:
    try:
        return np.array(read_bins(folder)["centres"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder} has no chroma bins to take over ({error!r}); name another folder") from None


def _require_teacher(options: Options, base: str) -> None:
    """Raises RunError unless the teacher gives logits over the bins in `base` for what this run is trained on."""
    folder = options.teacher
    its = options_of(folder)
    if not objectives.classifies(its.network) or not Path(folder, STATE).exists():
        raise RunError(
            f"{folder} is no run of a network that could teach: it must be trained, over chroma bins"
        )
    if not np.array_equal(_centres(folder), _centres(base)):
        raise RunError(f"the teacher {folder} has other chroma bins; train it with --like {base}")
    stride = networks.stride(NETWORKS[its.network], objectives.config(its, np.zeros((1, 2))))
    if any(size % stride for size in options.sizes):
        raise RunError(f"--sizes must be multiples of {stride}, the stride of the teacher {folder}")


def _require_same_bins(folder: Path, centres: np.ndarray, shares: np.ndarray) -> None:
    if not (folder / BINS).exists():
        return
    bins = read_bins(folder)
    same = np.array_equal(bins["centres"], centres.tolist())
    # Another machine's OpenCV may count a pixel or two differently.
    if not same or not np.allclose(bins["shares"], shares, atol=1e-3):
        raise RunError(
            f"{folder} holds a run on other photographs, or with other bins (--warm, --like, --teacher); "
            "choose another folder"
        )


def _compile(part: keras.Model, options: Options, objective: objectives.Objective) -> None:
    part.compile(
        optimizer=_optimizer(options),
        loss=objective.loss,
        metrics=[objective.metric],
        # JAX does nothing as a whole without XLA; TensorFlow takes nine times as long for depthwise convolutions on a
        # CPU with it.
        jit_compile=keras.backend.backend() == "jax",
        auto_scale_loss=False,  # by what the policy now is; `_optimizer` goes by the run's own
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
    """Spreads batches over the devices of a kind where this machine has several (TensorFlow and JAX)."""
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
    # As Keras itself would, but also where the network is built in float32, to be exported.
    mixed = options.precision == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed else optimizer


def _load(part: keras.Model, path: Path) -> int:
    """Goes on where a `Checkpoint` was made, with weights, optimiser and dropout's numbers; returns its step."""
    with h5py.File(path) as file:
        if _STEP not in file:
            raise RunError(f"{path} is of no run of this version; choose another folder")
        part.load_weights(path)
        for number, seed in enumerate(_seeds(part)):
            seed.assign(file[f"{_SEEDS}/{number}"][()])
        return int(file[_STEP][()])


def _seeds(part: keras.Model) -> list:
    return [variable for variable in part.variables if variable.name == "seed_generator_state"]


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, and every `seconds` between, all that `_load` needs, replaced as a whole.

    Steps are counted from `step`, the one that a sitting begins at.
    """

    def __init__(self, path: Path, seconds: float, step: int):
        super().__init__()
        self.path, self.seconds, self.step, self.saved = path, seconds, step, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if time.monotonic() - self.saved >= self.seconds:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._save()

    def _save(self):
        with replacing(self.path) as partial:
            self.model.save_weights(partial, overwrite=True)
            with h5py.File(partial, "a") as file:
                file[_STEP] = self.step
                for number, seed in enumerate(_seeds(self.model)):
                    file[f"{_SEEDS}/{number}"] = ops.convert_to_numpy(seed)
        self.saved = time.monotonic()


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
