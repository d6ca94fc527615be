"""A small fusion network: local features, a global branch trained with them, a decoder with skips, chroma bins.

The global branch follows Iizuka et al. 2016, the bins and the annealed mean Zhang et al. 2016, the separable
blocks MobileNet. Built for one CPU core: most arithmetic is in 1x1 convolutions at a quarter of the size or less.
"""

from dataclasses import dataclass

import keras
from keras import layers, ops

from model import color

STRIDE = 32
SCALE = 4  # the logits have a quarter of the input's height and width


@dataclass(frozen=True)
class Config:
    """What the network is built from; `centres` are the chroma bins (a*, b*), `bias` is added to their logits.

    Attributes:
        centres: bin centres in Lab units, from the training pictures.
        bias: one number per bin, set after training: 0 leaves the rebalanced distribution as it was learned.
        temperature: of the annealed mean; 1 is the mean, towards 0 the mode.
        stem, stages: filters at a half of the size, then (filters, blocks) at 1/4, 1/8, 1/16 and 1/32.
        fused, decoder: filters where local and global features meet (1/16), then at 1/8 and at 1/4.
    """

    centres: tuple[tuple[float, float], ...]
    bias: tuple[float, ...] = ()
    temperature: float = 1.0
    stem: int = 32
    stages: tuple[tuple[int, int], ...] = ((96, 2), (192, 3), (384, 3), (512, 2))
    fused: int = 256
    decoder: tuple[tuple[int, int], ...] = ((256, 2), (160, 2))


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]; the layer `logits` gives [N, H/4, W/4, bins]."""
    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    x = layers.Conv2D(config.stem, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    features = []
    for filters, blocks in config.stages:
        x = separable(x, filters, strides=2)
        for _ in range(blocks - 1):
            x = separable(x, filters)
        features.append(x)
    quarter, eighth, sixteenth, coarse = features

    scene = layers.Dense(config.fused, activation="relu")(layers.GlobalAveragePooling2D()(coarse))
    scene = layers.Dense(config.fused)(scene)
    local = layers.Conv2D(config.fused, 1, use_bias=False)(sixteenth)
    x = layers.Add()([layers.BatchNormalization()(local), layers.Reshape((1, 1, config.fused))(scene)])
    x = layers.ReLU()(x)
    for skip, (filters, blocks) in zip((eighth, quarter), config.decoder, strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skip])
        for _ in range(blocks):
            x = separable(x, filters)

    logits = layers.Conv2D(len(config.centres), 1, dtype="float32", name="logits")(x)
    chroma = AnnealedMean(config.centres, config.bias, config.temperature, dtype="float32")(logits)
    return keras.Model(lightness, Smooth4(name="chroma")(chroma))


def separable(x, filters: int, strides: int = 1):
    """Depthwise 3x3 and 1x1 convolution with batch norm, ReLU, and the identity added where shapes allow."""
    y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(filters, 1, use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y)


class Smooth4(layers.Layer):
    """Twice doubles height and width, bilinearly; unlike `UpSampling2D` also where they are unknown to TensorFlow."""

    def call(self, x):
        for axis in (1, 2, 1, 2):
            x = _doubled(x, axis)
        return x

    def compute_output_shape(self, shape):
        batch, height, width, channels = shape
        return (batch, height and SCALE * height, width and SCALE * width, channels)


def _doubled(x, axis: int):
    """Bilinear x2 along one axis of [N, H, W, C], with pixel centres aligned and edges repeated."""
    x = ops.repeat(x, 2, axis=axis)
    if axis == 1:
        before, after = ops.concatenate([x[:, :1], x[:, :-1]], 1), ops.concatenate([x[:, 1:], x[:, -1:]], 1)
    else:
        before, after = ops.concatenate([x[:, :, :1], x[:, :, :-1]], 2), ops.concatenate([x[:, :, 1:], x[:, :, -1:]], 2)
    return x / 2 + (before + after) / 4


class AnnealedMean(layers.Layer):
    """Logits [..., Q] to chroma [..., 2]; see `color.annealed_mean`."""

    def __init__(self, centres, bias, temperature: float, **kwargs):
        super().__init__(**kwargs)
        self.centres = ops.convert_to_numpy(centres).astype("float32")
        self.bias = ops.convert_to_numpy(bias or (0.0,)).astype("float32")
        self.temperature = temperature

    def call(self, logits):
        return color.annealed_mean(logits + self.bias, self.centres, self.temperature)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)
