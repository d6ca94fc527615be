"""Trains the GANs of `networks.gan`, on any Keras back end.

Each step trains the discriminators once, on pictures of the generator, and then the generator once, with frozen
discriminators. In pix2pix (Isola et al. 2017, section 3) the L1 loss of chroma / 128 has 100 times the weight of
the adversarial loss. In Wallner's multiscale variant it has the weight 1, and each discriminator has 3.33 for its
features and 0.33 for its score.
"""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from model.files import replacing
from model.networks import gan
from model.training import losses

RATE, MOMENTUM = 2e-4, 0.5  # learning rate and first beta of Adam, for both variants
WEIGHTS = {
    "pix2pix": {"chroma_error": 100.0, "adversarial": 1.0},
    "multiscale": {"chroma_error": 1.0, "adversarial": 0.33, "features": 3.33},
}


class StateError(ValueError):
    """A checkpoint does not fit these networks; the message is one line for a person."""


class Adversary:
    """A generator and its discriminators in training.

    Attributes:
        generator: lightness [N, H, W, 1] to chroma [N, H, W, 2], from `networks.gan.build`.
        discriminators: from `networks.gan.discriminators`.
    """

    def __init__(self, generator: keras.Model, config: gan.Config, rate: float = RATE):
        """`config` is that of `generator`; `rate` is the learning rate of both optimisers."""
        self.generator, self.discriminators = generator, gan.discriminators(config)
        lightness = keras.Input((None, None, 1), name="given_lightness")
        chroma = keras.Input((None, None, 2), name="given_chroma")
        made = keras.Input((None, None, 2), name="made_chroma")
        least_squares = config.variant == "multiscale"
        number = gan.SCALES if least_squares else 1

        def judged(chroma) -> list:
            return keras.tree.flatten(self.discriminators(_Picture()(lightness, chroma)))

        def figure(name: str, loss, *tensors):
            return _Figure(loss, name=name, dtype="float32")(*tensors)

        judge = losses.least_squares_discriminator if least_squares else losses.adversarial_discriminator
        real, scores = judged(chroma), judged(made)
        self._critic = keras.Model(
            [lightness, chroma, made],
            {"discriminator": figure("discriminator", _summed(judge), real[:number], scores[:number])},
        )

        persuade = losses.least_squares_generator if least_squares else losses.adversarial_generator
        colored = generator(lightness)
        scores = judged(colored)
        figures = {
            "chroma_error": figure("chroma_error", _scaled_error, chroma, colored),
            "adversarial": figure("adversarial", _summed(persuade), scores[:number]),
        }
        if least_squares:
            maps = [_by_discriminator(found[number:]) for found in (real, scores)]
            figures["features"] = figure("features", _summed(losses.feature_matching), *maps)
        self._combined = keras.Model([lightness, chroma], figures)
        # In training mode, with dropout and batch statistics, so that both steps see the same pictures.
        self._sampler = keras.Model(lightness, _InTraining(generator)(lightness))

        self.discriminators.trainable = True
        _compile(self._critic, {"discriminator": 1.0}, rate)
        self.discriminators.trainable = False
        _compile(self._combined, WEIGHTS[config.variant], rate)
        self._steps = keras.Variable(0, dtype="int32", trainable=False)

    def step(self, lightness: np.ndarray, chroma: np.ndarray) -> dict[str, float]:
        """Trains the discriminators and the generator once on one batch.

        Args:
            lightness: [N, H, W, 1] float32, L* 0..100.
            chroma: [N, H, W, 2] float32, the truth in Lab units.

        Returns:
            Unweighted losses before the step: `discriminator`, `adversarial`, `chroma_error` (the mean absolute
            error of chroma / 128), and for `multiscale` also `features`. The losses of several discriminators are
            summed.
        """
        made = self._sampler.predict_on_batch(lightness)
        # Set at each step, because a function is traced again for pictures of another size, and reads it then.
        self.discriminators.trainable = True
        found = _train(self._critic, [lightness, chroma, made])
        self.discriminators.trainable = False
        self._steps.assign_add(1)
        return found | _train(self._combined, [lightness, chroma])

    @property
    def steps(self) -> int:
        """Number of steps, including those before a loaded checkpoint. Loss scaling may have skipped some."""
        return int(ops.convert_to_numpy(self._steps))

    def save(self, path: str | os.PathLike) -> None:
        """Writes a checkpoint atomically, as a NumPy archive (`.npz`).

        It has the weights of all networks, both optimisers with their steps, and the random state of dropout.
        """
        path = Path(path)
        arrays = {
            name: ops.convert_to_numpy(variable)
            for part, variables in self._state().items()
            for name, variable in _numbered(part, variables)
        }
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)

    def load(self, path: str | os.PathLike) -> None:
        """Restores a checkpoint of `save`. Raises StateError if it belongs to other networks or is broken."""
        _assign(path, self._state())

    def _state(self) -> dict[str, list]:
        return {
            "generator": self.generator.variables,
            "discriminators": self.discriminators.variables,
            "generator_optimizer": self._combined.optimizer.variables,
            "discriminator_optimizer": self._critic.optimizer.variables,
            "steps": [self._steps],
        }


def load_generator(generator: keras.Model, path: str | os.PathLike) -> None:
    """Sets the weights of `generator` from a checkpoint of `Adversary.save`.

    Raises StateError like `Adversary.load`.
    """
    _assign(path, {"generator": generator.variables})


class _Picture(layers.Layer):
    """Lightness [N, H, W, 1] and chroma [N, H, W, 2] to the input of a discriminator, [N, H, W, 3] in -1..1."""

    def call(self, lightness, chroma):
        return ops.concatenate([lightness / 50 - 1, chroma / 128], axis=-1)


class _Figure(layers.Layer):
    """A loss as a layer: from tensors, or lists of tensors, to a number for each picture, [N]."""

    def __init__(self, loss, **kwargs):
        super().__init__(**kwargs)
        self.loss = loss

    def call(self, *tensors):
        return self.loss(*tensors)


class _InTraining(layers.Layer):
    """A network that always runs in training mode, whatever the mode of the model around it."""

    def __init__(self, network: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def call(self, lightness):
        return self.network(lightness, training=True)

    def compute_output_shape(self, shape):
        return self.network.compute_output_shape(shape)


def _summed(loss):
    """Makes a loss of lists, with one entry for each discriminator, from a loss of one discriminator."""
    return lambda *lists: sum(loss(*entries) for entries in zip(*lists, strict=True))


def _by_discriminator(maps: list) -> list[list]:
    each = len(maps) // gan.SCALES
    return [maps[start : start + each] for start in range(0, len(maps), each)]


def _scaled_error(truth, chroma):
    return losses.mae(truth / 128, chroma / 128)


def _compile(model: keras.Model, weights: dict[str, float], rate: float) -> None:
    model.compile(
        keras.optimizers.Adam(rate, beta_1=MOMENTUM),
        loss=dict.fromkeys(weights, _itself),
        loss_weights=weights,
        # XLA is slow for some convolutions on a CPU, but JAX cannot compile without it.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)


def _itself(_, figure):
    return figure


def _train(model: keras.Model, inputs: list[np.ndarray]) -> dict[str, float]:
    nothing = np.zeros(len(inputs[0]), np.float32)
    figures = model.train_on_batch(inputs, dict.fromkeys(model.output, nothing), return_dict=True)
    if len(model.output) == 1:
        return {name: float(figures["loss"]) for name in model.output}
    return {name: float(figures[f"{name}_loss"]) for name in model.output}


def _numbered(part: str, variables: list):
    return ((f"{part}/{number}", variable) for number, variable in enumerate(variables))


def _assign(path: str | os.PathLike, parts: dict[str, list]) -> None:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name.split("/")[0] in parts}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StateError(f"{path} is not a checkpoint, or it is broken: {error}") from None
    expected = {name: variable for part in parts for name, variable in _numbered(part, parts[part])}
    for name in sorted(expected.keys() | found.keys()):
        there = found[name].shape if name in found else "missing"
        here = tuple(expected[name].shape) if name in expected else "missing"
        if there != here:
            raise StateError(f"{path} belongs to other networks: {name} is {there} there, {here} here")
    for name, variable in expected.items():
        variable.assign(found[name])
