"""Classification: the network of Zhang, Isola and Efros 2016, "Colorful Image Colorization".

It has eight blocks of 3x3 convolutions, some of them dilated, down to an eighth of the size. The bins are derived
from the training pictures; the paper has a table of 313 bins. Lightness is scaled to -1..1.
"""

from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import MOMENTUM, AnnealedMean, Enlarged, filters

STRIDE, SCALE = 8, 4


@dataclass(frozen=True)
class Config:
    """Configuration of the network.

    Attributes:
        centres: chroma bins (a*, b*) in Lab units, from the training pictures.
        temperature: of the annealed mean; the default is that of the paper. 1 gives the mean, values near 0 the mode.
        gain: factor on the decoded chroma.
        width: factor on all filters.
    """

    centres: tuple[tuple[float, float], ...]
    temperature: float = 0.38
    gain: float = 1.0
    width: float = 1.0


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]. The layer `logits` returns [N, H/4, W/4, bins]."""

    def convolved(x, count: int, **options):
        return layers.Conv2D(
            filters(count, config.width),
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            **options,
        )(x)

    def block(x, counts: tuple[int, ...], strides: int = 1, dilation_rate: int = 1):
        """Convolutions, the last one with the stride, and one batch norm after the last ReLU."""
        *others, last = counts
        for count in others:
            x = convolved(x, count, dilation_rate=dilation_rate)
        x = convolved(x, last, strides=strides, dilation_rate=dilation_rate)
        return layers.BatchNormalization(momentum=MOMENTUM)(x)

    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    x = block(x, (64, 64), strides=2)
    x = block(x, (128, 128), strides=2)
    x = block(x, (256, 256, 256), strides=2)
    x = block(x, (512, 512, 512))
    x = block(x, (512, 512, 512), dilation_rate=2)
    x = block(x, (512, 512, 512), dilation_rate=2)
    x = block(x, (512, 512, 512))
    x = layers.Conv2DTranspose(
        filters(256, config.width),
        4,
        strides=2,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
    )(x)
    x = convolved(convolved(x, 256), 256)
    logits = layers.Conv2D(len(config.centres), 1, dtype="float32", name="logits")(x)
    chroma = AnnealedMean(config.centres, config.temperature, config.gain, dtype="float32")(logits)
    return keras.Model(lightness, Enlarged(SCALE, name="chroma")(chroma))
