"""Generative adversarial networks: any network as the generator, and the discriminators that it is trained against.

`pix2pix` is that of Isola et al. 2017 with its 70x70 patches; `multiscale` is Wallner's, with spectral norm and
self-attention in three discriminators, for the picture, a half and a quarter of it. `model.adversarial` trains them:
on the `chroma` itself, decoded and at full size, whatever the generator predicts.

The paper's batch norm is one of each picture by itself, as in `unet`.
"""

from dataclasses import dataclass, field

import keras
from keras import layers

from model.networks import alpha, attention_unet, beta, classification, fusion, fusion_small, unet
from model.networks.layers import SelfAttention, SpectralConv2D, filters

GENERATORS = {
    "alpha": alpha,
    "beta": beta,
    "fusion": fusion,
    "fusion_small": fusion_small,
    "classification": classification,
    "unet": unet,
    "attention_unet": attention_unet,
}
OWN = {"pix2pix": "unet", "multiscale": "attention_unet"}
SCALES = 3  # discriminators of `multiscale`


@dataclass(frozen=True)
class Config:
    """What generator and discriminators are built from.

    Attributes:
        variant: a key of `OWN`.
        generator: a key of `GENERATORS`, by default the variant's own.
        generator_config: fields of the generator's `Config` that differ from its defaults; one that classifies
            needs its `centres` here.
        gain: factor on the chroma.
        width: factor on the discriminators' filters.
    """

    variant: str = "pix2pix"
    generator: str | None = None
    generator_config: dict = field(default_factory=dict)
    gain: float = 1.0
    width: float = 1.0

    def __post_init__(self):
        if self.variant not in OWN:
            raise ValueError(f"the variant must be one of {', '.join(OWN)}, got {self.variant}")
        if self.generator is not None and self.generator not in GENERATORS:
            raise ValueError(f"the generator must be one of {', '.join(GENERATORS)}, got {self.generator}")

    @property
    def network(self):
        """The generator's module."""
        return GENERATORS[self.generator or OWN[self.variant]]

    @property
    def network_config(self):
        """The generator's own `Config`. Raises TypeError where `generator_config` does not fit it."""
        return self.network.Config(**{**self.generator_config, "gain": self.gain})

    @property
    def stride(self) -> int:
        return getattr(self.network_config, "stride", self.network.STRIDE)


STRIDE, SCALE = Config().stride, 1


def build(config: Config) -> keras.Model:
    """The generator: lightness [N, H, W, 1] to chroma [N, H, W, 2]."""
    return config.network.build(config.network_config)


def discriminators(config: Config) -> keras.Model:
    """From pictures [N, H, W, 3], lightness and chroma scaled to -1..1, to scores, the higher the realer.

    `pix2pix`: one map of logits [N, H/8, W/8, 1]. `multiscale`: for the picture, its half and its quarter first a
    map of scores each, then four feature maps each, before their activation: a list of three and twelve.
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
    """A map of scores, and the features of four convolutions, the one numbered `attending` with attention behind it."""
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
