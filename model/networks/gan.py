"""Generative adversarial networks: any network as the generator, and the discriminators.

`pix2pix` is that of Isola et al. 2017 with 70x70 patches. `multiscale` is Wallner's, with spectral norm and
self-attention in three discriminators, for the picture, a half and a quarter of it. `model.training.adversarial`
trains them on the decoded `chroma` at full size, whatever the generator predicts.

The batch norm of the paper is replaced by a norm of each picture, as in `unet`.
"""

from dataclasses import dataclass, field

import keras
from keras import layers

from model.networks import unet
from model.networks.generators import GENERATORS
from model.networks.layers import SelfAttention, SpectralConv2D, filters

VARIANTS = {"pix2pix": "unet", "multiscale": "attention_unet"}  # and their generators
SCALES = 3  # discriminators of `multiscale`


@dataclass(frozen=True)
class Config:
    """Configuration of generator and discriminators.

    Attributes:
        variant: a key of `VARIANTS`.
        generator: a key of `GENERATORS`; the default depends on the variant.
        generator_config: fields of the generator's `Config` that differ from its defaults. A classifying generator
            needs `centres`.
        gain: factor on the chroma.
        width: factor on the filters of the discriminators.
    """

    variant: str = "pix2pix"
    generator: str | None = None
    generator_config: dict = field(default_factory=dict)
    gain: float = 1.0
    width: float = 1.0

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {self.variant}")
        if self.generator is not None and self.generator not in GENERATORS:
            raise ValueError(f"the generator must be one of {', '.join(GENERATORS)}, got {self.generator}")

    @property
    def network(self):
        """Module of the generator."""
        return GENERATORS[self.generator or VARIANTS[self.variant]]

    @property
    def network_config(self):
        """`Config` of the generator. Raises TypeError if `generator_config` does not fit it."""
        return self.network.Config(**{**self.generator_config, "gain": self.gain})

    @property
    def stride(self) -> int:
        return getattr(self.network_config, "stride", self.network.STRIDE)


STRIDE, SCALE = Config().stride, 1


def build(config: Config) -> keras.Model:
    """The generator: lightness [N, H, W, 1] to chroma [N, H, W, 2]."""
    return config.network.build(config.network_config)


def discriminators(config: Config) -> keras.Model:
    """Pictures [N, H, W, 3], lightness and chroma scaled to -1..1, to scores, which are higher for real pictures.

    `pix2pix` returns a map of logits [N, H/8, W/8, 1]. `multiscale` returns a list: three maps of scores, for the
    picture, a half and a quarter of it; then four feature maps, before their activation, for each of them.
    """
    picture = keras.Input((None, None, 3), name="picture")
    if config.variant == "pix2pix":
        return keras.Model(picture, _patches(picture, config.width))
    scores, maps, x = [], [], picture
    for number in range(SCALES):
        x = x if number == 0 else layers.AveragePooling2D(2)(x)
        score, features = _spectral(x, config.width, attending=1 if number == 0 else 0)
        scores.append(score)
        maps += features
    return keras.Model(picture, [*scores, *maps])


def _patches(x, width: float):
    for count, strides in ((64, 2), (128, 2), (256, 2), (512, 1)):
        x = layers.Conv2D(
            filters(count, width),
            4,
            strides=strides,
            padding="same",
            use_bias=count == 64,
            kernel_initializer=unet.small(),
        )(x)
        if count != 64:
            x = layers.GroupNormalization(groups=-1)(x)
        x = layers.LeakyReLU(0.2)(x)
    return layers.Conv2D(
        1, 4, padding="same", kernel_initializer=unet.small(), dtype="float32", name="score"
    )(x)


def _spectral(x, width: float, attending: int):
    """A map of scores, and the features of four convolutions. The one numbered `attending` is followed by attention."""
    features = []
    for number, (count, strides) in enumerate(((64, 2), (128, 2), (256, 2), (512, 1))):
        x = SpectralConv2D(
            filters(count, width), 4, strides=strides, padding="same", kernel_initializer="he_normal"
        )(x)
        features.append(x)
        x = layers.LeakyReLU(0.2)(x)
        if number == attending:
            x = SelfAttention()(x)
    return SpectralConv2D(1, 4, padding="same", dtype="float32")(x), features
