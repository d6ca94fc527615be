"""Alpha: the minimal network of Wallner's first notebook, which memorises one picture.

It has eleven convolutions, down to an eighth of the size and back. Unlike the original, it scales lightness to -1..1.
"""

from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import regressed

STRIDE, SCALE = 8, 1


@dataclass(frozen=True)
class Config:
    """`space`: a key of `spaces.PLANES`. `gain`: factor on the chroma."""

    space: str = "lab"
    gain: float = 1.0


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]."""

    def convolved(x, filters: int, strides: int = 1):
        return layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")(x)

    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    for filters, strides in ((8, 2), (8, 1), (16, 1), (16, 2), (32, 1), (32, 2)):
        x = convolved(x, filters, strides)
    x = convolved(layers.UpSampling2D()(x), 32)
    x = convolved(layers.UpSampling2D()(x), 16)
    x = layers.UpSampling2D()(x)
    return keras.Model(lightness, regressed(lightness, x, config))
