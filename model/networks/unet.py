"""The U-Net generator of pix2pix (Isola et al. 2017).

The paper normalises by the statistics of the current batch, also in inference, so that the colours of a picture
would depend on the other pictures in its batch. Here every picture is normalised by its own statistics, which is
the same for the paper's batches of one. The innermost features have no norm, because it would set a single pixel to
zero. Dropout acts only in training.
"""

import functools
from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import filters, regressed

SCALE = 1


@dataclass(frozen=True)
class Config:
    """Configuration of the network.

    Attributes:
        space: a key of `spaces.PLANES`.
        gain: factor on the chroma.
        width: factor on all filters.
        depth: how often the size is halved, at least 2. The paper takes 8, for 256 pixels and multiples of it.
    """

    space: str = "lab"
    gain: float = 1.0
    width: float = 1.0
    depth: int = 7

    def __post_init__(self):
        if self.depth < 2:
            raise ValueError(f"the depth of a U-Net must be at least 2, got {self.depth}")

    @property
    def stride(self) -> int:
        return 2**self.depth


STRIDE = Config().stride


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]."""

    def halved(x, count: int, bias: bool):
        return layers.Conv2D(count, 4, strides=2, padding="same", use_bias=bias, kernel_initializer=small())(
            x
        )

    doubled = functools.partial(layers.Conv2DTranspose, kernel_size=4, strides=2, padding="same")
    counts = [filters(min(64 * 2**level, 512), config.width) for level in range(config.depth)]

    lightness = keras.Input((None, None, 1), name="lightness")
    skips = [halved(layers.Rescaling(1 / 50, offset=-1)(lightness), counts[0], bias=True)]
    for count in counts[1:-1]:
        x = halved(layers.LeakyReLU(0.2)(skips[-1]), count, bias=False)
        skips.append(layers.GroupNormalization(groups=-1)(x))
    x = halved(layers.LeakyReLU(0.2)(skips[-1]), counts[-1], bias=True)

    x = layers.ReLU()(x)
    for number, skip in enumerate(reversed(skips)):
        x = doubled(skip.shape[-1], use_bias=False, kernel_initializer=small())(x)
        x = layers.GroupNormalization(groups=-1)(x)
        if number < 3:
            x = layers.Dropout(0.5)(x)
        x = layers.ReLU()(layers.Concatenate()([x, skip]))
    last = functools.partial(doubled, kernel_initializer=small())
    return keras.Model(lightness, regressed(lightness, x, config, last=last))


def small():
    """The initialiser of the paper. Each layer needs a new one: an initialiser repeats its values for equal shapes."""
    return keras.initializers.RandomNormal(stddev=0.02)
