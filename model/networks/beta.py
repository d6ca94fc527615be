"""Beta: Wallner's autoencoder, which is meant to generalise: an encoder to 1/8 of the size, a decoder to 1/2.

Unlike the original, it scales lightness to -1..1 and enlarges chroma bilinearly from half of the size.
"""

from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import filters, regressed

STRIDE, SCALE = 8, 2


@dataclass(frozen=True)
class Config:
    """`space`: a key of `spaces.PLANES`. `gain`: factor on the chroma. `width`: factor on all filters."""

    space: str = "lab"
    gain: float = 1.0
    width: float = 1.0


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]."""

    def convolved(x, count: int, strides: int = 1):
        count = filters(count, config.width)
        return layers.Conv2D(count, 3, strides=strides, padding="same", activation="relu")(x)

    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    for count, strides in (
        (64, 1),
        (64, 2),
        (128, 1),
        (128, 2),
        (256, 1),
        (256, 2),
        (512, 1),
        (256, 1),
        (128, 1),
    ):
        x = convolved(x, count, strides)
    x = convolved(layers.UpSampling2D()(x), 64)
    x = convolved(layers.UpSampling2D()(x), 32)
    return keras.Model(lightness, regressed(lightness, x, config, SCALE))
