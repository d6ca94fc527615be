"""Layers and functions that several networks share, mostly for decoding to chroma at full size."""

import functools
from collections.abc import Iterable

import keras
import numpy as np
from keras import layers, ops

from model.color import conversion, spaces

FEATURES = ("sixteenth", "coarse")  # layers with the features for distillation
MOMENTUM = 0.95  # of batch norm; averages over about twenty batches, which also suits short runs


def filters(count: int, width: float) -> int:
    """Number of filters in a paper times the `width` of a network, at least one."""
    return max(1, round(width * count))


class Enlarged(layers.Layer):
    """Enlarges height and width bilinearly by `factor`, a power of two.

    Unlike `UpSampling2D`, it works with sizes that TensorFlow does not know.
    """

    def __init__(self, factor: int, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        for _ in range(self.factor.bit_length() - 1):
            x = _doubled(_doubled(x, 1), 2)
        return x

    def compute_output_shape(self, shape):
        batch, height, width, channels = shape
        return (batch, height and self.factor * height, width and self.factor * width, channels)


def _doubled(x, axis: int):
    """Bilinear enlargement by 2 along one axis of [N, H, W, C], with aligned pixel centres and repeated edges."""
    x = ops.repeat(x, 2, axis=axis)
    if axis == 1:
        before = ops.concatenate([x[:, :1], x[:, :-1]], axis)
        after = ops.concatenate([x[:, 1:], x[:, -1:]], axis)
    else:
        before = ops.concatenate([x[:, :, :1], x[:, :, :-1]], axis)
        after = ops.concatenate([x[:, :, 1:], x[:, :, -1:]], axis)
    return x / 2 + (before + after) / 4


class AnnealedMean(layers.Layer):
    """Logits [..., Q] to chroma [..., 2]: `conversion.annealed_mean` times `gain`."""

    def __init__(self, centres, temperature: float, gain: float, **kwargs):
        super().__init__(**kwargs)
        self.centres = ops.convert_to_numpy(centres).astype("float32")
        self.temperature, self.gain = temperature, gain

    def call(self, logits):
        return self.gain * conversion.annealed_mean(logits, self.centres, self.temperature)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


class Decoded(layers.Layer):
    """Lightness [N, H, W, 1] and planes [N, H, W, K] of a colour space to chroma [N, H, W, 2] times `gain`."""

    def __init__(self, space: str, gain: float, **kwargs):
        super().__init__(**kwargs)
        self.space, self.gain = space, gain

    def call(self, lightness, planes):
        return self.gain * spaces.decode(lightness, planes, self.space)

    def compute_output_shape(self, lightness_shape, planes_shape):
        return (*lightness_shape[:-1], 2)


def regressed(lightness, x, config, scale: int = 1, last=None):
    """Adds the last layers of a regression network: `planes` (a convolution with tanh) and `chroma`.

    Args:
        lightness: input of the network, [N, H, W, 1].
        x: last features, [N, H/scale, W/scale, C], or smaller ones if `last` enlarges them.
        config: has `space` and `gain`.
        scale: factor of the bilinear enlargement of the planes.
        last: class of the convolution with its options; by default a 3x3 convolution.
    """
    last = last or functools.partial(layers.Conv2D, kernel_size=3, padding="same")
    planes = last(spaces.PLANES[config.space], activation="tanh", dtype="float32", name="planes")(x)
    large = Enlarged(scale)(planes) if scale > 1 else planes
    return Decoded(config.space, config.gain, dtype="float32", name="chroma")(lightness, large)


class SpectralConv2D(layers.Conv2D):
    """A convolution whose kernel, as a matrix, has the spectral norm 1 (Miyato et al. 2018, algorithm 1).

    `keras.layers.SpectralNormalization` writes the divided kernel back, and only in training. Frozen weights would
    change, too. On JAX, which computes gradients of the kernel itself, inference would differ from training.
    """

    def build(self, shape):
        super().build(shape)
        self.direction = self.add_weight(
            (self.filters,), initializer="random_normal", trainable=False, autocast=False, name="direction"
        )

    def call(self, x, training=False):
        kernel = ops.cast(self.kernel, "float32")
        matrix = ops.reshape(kernel, (-1, self.filters))
        fixed = ops.stop_gradient(matrix)
        left = _unit(ops.matmul(fixed, self.direction))
        right = _unit(ops.matmul(left, fixed))
        if training and self.trainable:
            self.direction.assign(right)
        norm = ops.sum(left * ops.matmul(matrix, right))
        x = self.convolution_op(x, ops.cast(kernel / ops.maximum(norm, 1e-12), self.compute_dtype))
        if self.use_bias:
            x = x + ops.cast(self.bias, x.dtype)
        return x if self.activation is None else self.activation(x)


def _unit(vector):
    return vector / ops.sqrt(ops.sum(vector**2) + 1e-12)


class SelfAttention(layers.Layer):
    """Self-attention over the positions of [N, H, W, C] (Zhang et al. 2019, "SAGAN", section 3).

    At first it has no effect. It needs memory for N (HW)^2 numbers.
    """

    def build(self, shape):
        channels = shape[-1]
        self.query, self.key, self.value = (
            SpectralConv2D(count, 1, use_bias=False, name=name)
            for name, count in (
                ("query", max(1, channels // 8)),
                ("key", max(1, channels // 8)),
                ("value", channels),
            )
        )
        for convolution in (self.query, self.key, self.value):
            convolution.build(shape)
        self.gamma = self.add_weight((), initializer="zeros", name="gamma")

    def call(self, x, training=False):
        count, height, width, channels = ops.shape(x)

        def places(convolution):
            y = convolution(x, training=training)
            return ops.reshape(y, (count, height * width, y.shape[-1]))

        likeness = ops.matmul(places(self.query), ops.transpose(places(self.key), (0, 2, 1)))
        seen = ops.matmul(ops.softmax(likeness), places(self.value))
        return x + self.gamma * ops.reshape(seen, (count, height, width, channels))

    def compute_output_shape(self, shape):
        return shape


def assign(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Sets the weights of a model by the names of its variables, such as `logits/bias`.

    Keras numbers layers without a name of their own through the whole process, so only the order of their numbers
    counts. Raises ValueError if names or shapes differ.
    """
    there = {name: weights[path] for path, name in _ranked(weights).items()}
    here = _ranked(variable.path for variable in model.weights)
    for variable in model.weights:
        name = here[variable.path]
        found = np.shape(there[name]) if name in there else "missing"
        if found != variable.shape:
            raise ValueError(f"{name} is {found} there, {variable.shape} here")
        variable.assign(there[name])
    if len(there) != len(model.weights):
        raise ValueError(f"{len(there)} weights there, {len(model.weights)} here")


def _ranked(paths: Iterable[str]) -> dict[str, str]:
    """Maps each path to the same path with the numbers of its layers counted from 0 for each name."""
    split = {path: [_numbered(part) for part in path.split("/")] for path in paths}
    numbers: dict[str, set[int]] = {}
    for parts in split.values():
        for base, number in parts:
            numbers.setdefault(base, set()).add(number)
    ranks = {base: {number: rank for rank, number in enumerate(sorted(its))} for base, its in numbers.items()}
    return {
        path: "/".join(
            f"{base}_{ranks[base][number]}" if len(ranks[base]) > 1 else base for base, number in parts
        )
        for path, parts in split.items()
    }


def _numbered(part: str) -> tuple[str, int]:
    """Splits `name_3` into name and number; 0 if there is none."""
    base, _, number = part.rpartition("_")
    return (base, int(number)) if base and number.isdecimal() else (part, 0)
