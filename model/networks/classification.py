"""Classification: the network of Zhang, Isola and Efros 2016, "Colorful Image Colorization", over data-derived bins.

Eight blocks of 3x3 convolutions, dilated where the features stay at an eighth of the size. The bins are those of
the training pictures, not the paper's table of 313. Lightness is scaled to -1..1.
"""

from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import MOMENTUM, AnnealedMean, Enlarged, filters

STRIDE, SCALE = 8, 4


@dataclass(frozen=True)
class Config:
    """What the network is built from.

    Attributes:
        centres: chroma bins (a*, b*) in Lab units, from the training pictures.
        temperature: of the annealed mean, the paper's by default; 1 is the mean, towards 0 the mode.
        gain: factor on the chroma so decoded.
        width: factor on all filters.
    """

    centres: tuple[tuple[float, float], ...]
    temperature: float = 0.38
    gain: float = 1.0
    width: float = 1.0


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]; the layer `logits` gives [N, H/4, W/4, bins]."""

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
        """Convolutions, the last of which has the stride, and one batch norm behind its ReLU."""
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
