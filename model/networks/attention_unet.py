"""The generator of Wallner's GAN: a U-Net of convolutions with spectral norm and one self-attention.

Unlike the original, it scales lightness to -1..1. The attention works at a quarter of the size. Its memory grows
with the fourth power of the side of the picture: 4 MB for 128 x 128 pixels, 67 MB for 256 x 256.
"""

import functools
from dataclasses import dataclass

import keras
from keras import layers

from model.networks.layers import SelfAttention, SpectralConv2D, filters, regressed

SCALE = 1


@dataclass(frozen=True)
class Config:
    """Configuration of the network.

    Attributes:
        space: a key of `spaces.PLANES`.
        gain: factor on the chroma.
        width: factor on all filters.
        depth: how often the size is halved, at least 3; Wallner takes 6.
    """

    space: str = "lab"
    gain: float = 1.0
    width: float = 1.0
    depth: int = 6

    def __post_init__(self):
        if self.depth < 3:
            raise ValueError(f"the depth of a U-Net with attention must be at least 3, got {self.depth}")

    @property
    def stride(self) -> int:
        return 2**self.depth


STRIDE = Config().stride


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]."""
    counts = [filters(min(128 * 2**level, 512), config.width) for level in range(config.depth)]

    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    skips = []
    for count in counts:
        x = SpectralConv2D(count, 4, strides=2, padding="same", kernel_initializer="he_normal")(x)
        x = layers.LeakyReLU(0.2)(x)
        skips.append(x)
    for level in reversed(range(config.depth - 1)):
        x = layers.UpSampling2D()(x)
        x = SpectralConv2D(counts[level], 4, padding="same", activation="relu")(x)
        x = layers.Concatenate()([x, skips[level]])
        if level == 1:
            x = SelfAttention(name="attention")(x)
    last = functools.partial(layers.Conv2D, kernel_size=7, padding="same")
    return keras.Model(lightness, regressed(lightness, layers.UpSampling2D()(x), config, last=last))
