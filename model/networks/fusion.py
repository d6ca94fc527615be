"""Fusion: an encoder, an embedding of the whole picture by a classifier, and a decoder of both.

This is Wallner's full version, with the decoder of Deep Koalarization (Baldassarre, Gonzalez Morin, Rodes-Guirao
2017). The embedding comes from a frozen classifier, or from the global branch of Iizuka et al. 2016, which is
trained jointly. Lightness is scaled to -1..1. Chroma is enlarged bilinearly from half of the size.
"""

from dataclasses import dataclass

import keras
from keras import layers

from model.networks import extractors
from model.networks.layers import filters, regressed

STRIDE, SCALE = 8, 2
JOINT = "joint"


@dataclass(frozen=True)
class Config:
    """Configuration of the network.

    Attributes:
        space: a key of `spaces.PLANES`.
        gain: factor on the chroma.
        extractor: a key of `extractors.EXTRACTORS`, or `joint`, which needs no published weights.
            `inception_resnet_v2`, which both sources use, costs more than the rest of the network.
        embedding: of a classifier: `logits` as in Deep Koalarization, or `probabilities` as in Wallner's version.
        weights: of a classifier: `imagenet` or a file; see `extractors.build`.
        width: factor on all filters except those of a classifier.
    """

    space: str = "lab"
    gain: float = 1.0
    extractor: str = JOINT
    embedding: str = "logits"
    weights: str = extractors.IMAGENET
    width: float = 1.0

    def __post_init__(self):
        if self.extractor != JOINT:
            extractors.check(self.extractor, self.embedding)

    def extract(self) -> keras.Model:
        """Lightness [N, H, W, 1] to the embedding [N, 1000] of the classifier; see `extractors.build`."""
        return extractors.build(self.extractor, self.weights, self.embedding)


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]. The layer `embedding` returns [N, K] for the whole picture.

    Raises `extractors.ExtractorError` if the weights of the classifier cannot be loaded.
    """

    def convolved(x, count: int, strides: int = 1):
        # Sixteen layers without normalisation: this initialisation keeps the variance of the features constant.
        return layers.Conv2D(
            filters(count, config.width),
            3,
            strides=strides,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)

    def dense(x, count: int, **options):
        return layers.Dense(
            filters(count, config.width), activation="relu", kernel_initializer="he_normal", **options
        )(x)

    lightness = keras.Input((None, None, 1), name="lightness")
    x = layers.Rescaling(1 / 50, offset=-1)(lightness)
    for count, strides in ((64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1)):
        x = convolved(x, count, strides)

    if config.extractor == JOINT:
        # Iizuka et al. flatten the features. Pooling allows pictures of any size.
        scene = x
        for count, strides in ((512, 2), (512, 1), (512, 2), (512, 1)):
            scene = convolved(scene, count, strides)
        scene = layers.GlobalAveragePooling2D()(scene)
        embedding = dense(dense(dense(scene, 1024), 512), 256, name="embedding")
    else:
        embedding = config.extract()(lightness)

    x = convolved(convolved(x, 512), 256)
    # A 1x1 convolution of features joined with a tiled embedding is the sum of a convolution of the features and a
    # dense layer of the embedding. So the embedding need not be tiled.
    fused = filters(256, config.width)
    local = layers.Conv2D(fused, 1, kernel_initializer="he_normal", name="fused_local")(x)
    whole = layers.Dense(fused, use_bias=False, name="fused_whole")(embedding)
    x = layers.ReLU()(layers.Add()([local, layers.Reshape((1, 1, fused))(whole)]))

    x = layers.UpSampling2D()(convolved(x, 128))
    x = convolved(convolved(x, 64), 64)
    x = convolved(layers.UpSampling2D()(x), 32)
    return keras.Model(lightness, regressed(lightness, x, config, SCALE))
