"""A small fusion network: local features, a global branch, a decoder with skip connections, chroma bins.

The global branch follows Iizuka et al. 2016, the bins and the annealed mean follow Zhang et al. 2016, and the
separable blocks follow MobileNet. The network is made for one CPU core: most arithmetic is in 1x1 convolutions at a
quarter of the size or less. With the features of an ImageNet classifier as its encoder, it can be the teacher of
one without.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import layers, ops

from model.networks import extractors
from model.networks.layers import FEATURES, MOMENTUM, AnnealedMean, Enlarged, assign

STRIDE = 32
SCALE = 4  # the logits have a quarter of the input's height and width


@dataclass(frozen=True)
class Config:
    """Configuration of the network.

    Attributes:
        centres: chroma bins (a*, b*) in Lab units, from the training pictures.
        temperature: of the annealed mean. 1 gives the mean, values near 0 the mode.
        gain: factor on the decoded chroma.
        stem: filters at 1/2 of the size.
        stages: (filters, blocks) at 1/4, 1/8, 1/16 and 1/32 of the size.
        fused: filters where local and global features are fused, at 1/16.
        decoder: (filters, blocks) at 1/8 and 1/4.
        extractor: a key of `extractors.EXTRACTORS`, whose features replace `stem` and `stages` and are trained
            further; empty for none.
        weights: of the extractor; see `extractors.pyramid`.
        dropout: share of the global features, and of the last features, that is dropped in training.
        folded: batch norm (except that of an extractor) is part of the convolutions; see `fold`.
    """

    centres: tuple[tuple[float, float], ...]
    temperature: float = 1.0
    gain: float = 1.0
    stem: int = 32
    stages: tuple[tuple[int, int], ...] = ((96, 2), (192, 3), (384, 3), (512, 2))
    fused: int = 256
    decoder: tuple[tuple[int, int], ...] = ((256, 2), (160, 2))
    extractor: str = ""
    weights: str = extractors.IMAGENET
    dropout: float = 0.0
    folded: bool = False

    def __post_init__(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {self.dropout}")
        if self.extractor:
            extractors.check(self.extractor)

    def extract(self) -> keras.Model:
        """Lightness [N, H, W, 1] to the features of a classifier at four sizes; see `extractors.pyramid`."""
        return extractors.pyramid(self.extractor, self.weights, MOMENTUM)


def build(config: Config) -> keras.Model:
    """Lightness [N, H, W, 1] to chroma [N, H, W, 2]. The layer `logits` returns [N, H/4, W/4, bins].

    Raises `extractors.ExtractorError` if the weights of the classifier cannot be loaded.
    """

    numbers = itertools.count()

    def normalised(convolution, x):
        convolution.name, convolution.use_bias = f"convolution_{next(numbers)}", config.folded
        y = convolution(x)
        return (
            y
            if config.folded
            else layers.BatchNormalization(momentum=MOMENTUM, name=f"{convolution.name}_norm")(y)
        )

    def separable(x, filters: int, strides: int = 1):
        y = normalised(layers.DepthwiseConv2D(3, strides=strides, padding="same"), x)
        y = normalised(layers.Conv2D(filters, 1), layers.ReLU()(y))
        return layers.ReLU()(layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y)

    def encoded(lightness):
        x = layers.Rescaling(1 / 50, offset=-1)(lightness)
        x = layers.ReLU()(normalised(layers.Conv2D(config.stem, 3, strides=2, padding="same"), x))
        for filters, blocks in config.stages:
            x = separable(x, filters, strides=2)
            for _ in range(blocks - 1):
                x = separable(x, filters)
            yield x

    lightness = keras.Input((None, None, 1), name="lightness")
    if config.extractor:
        encoded = config.extract()
    quarter, eighth, sixteenth, coarse = encoded(lightness)
    sixteenth, coarse = (
        layers.Identity(name=name)(features)
        for name, features in zip(FEATURES, (sixteenth, coarse), strict=True)
    )

    scene = layers.Dropout(config.dropout)(layers.GlobalAveragePooling2D()(coarse))
    scene = layers.Dense(config.fused, activation="relu", name="scene_hidden")(scene)
    scene = layers.Reshape((1, 1, config.fused))(layers.Dense(config.fused, name="scene")(scene))
    x = layers.ReLU()(layers.Add()([normalised(layers.Conv2D(config.fused, 1), sixteenth), scene]))
    for skip, (filters, blocks) in zip((eighth, quarter), config.decoder, strict=True):
        # Nearest neighbours are enough: the depthwise convolution after them can smooth.
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skip])
        for _ in range(blocks):
            x = separable(x, filters)

    x = layers.SpatialDropout2D(config.dropout)(x)
    logits = layers.Conv2D(len(config.centres), 1, dtype="float32", name="logits")(x)
    chroma = AnnealedMean(config.centres, config.temperature, config.gain, dtype="float32")(logits)
    return keras.Model(lightness, Enlarged(SCALE, name="chroma")(chroma))


def fold(model: keras.Model, config: Config) -> keras.Model:
    """Folds batch norm into the convolutions of a trained network. The function stays the same and costs less."""
    folded = build(_folded(config))
    for target in folded.layers:
        if not target.weights:
            continue
        source = model.get_layer(target.name)
        if not target.name.startswith("convolution"):
            target.set_weights(source.get_weights())
            continue
        norm = model.get_layer(f"{target.name}_norm")
        gamma, beta, mean, variance = norm.get_weights()
        scale = gamma / (variance + norm.epsilon) ** 0.5
        (kernel,) = source.get_weights()
        depthwise = isinstance(source, layers.DepthwiseConv2D)
        target.set_weights([kernel * (scale[:, None] if depthwise else scale), beta - mean * scale])
    return folded


def unfold(model: keras.Model, config: Config, weights: dict[str, np.ndarray], lightness: Iterable) -> None:
    """Sets the weights of `model` so that it computes the function of a folded network; the inverse of `fold`.

    Batch norm gets the statistics of the folded convolutions on batches of `lightness`, and the scale and offset
    that undo them. Training, which uses the statistics of each batch, then starts near the same function.

    Args:
        model: network of `config`.
        config: not folded.
        weights: of the folded network by layer and name, such as `logits/bias`.
        lightness: batches [N, H, W, 1].

    Raises:
        ValueError: names or shapes do not fit `config`.
    """
    folded = build(_folded(config))
    assign(folded, weights)
    statistics = _statistics(folded, lightness)
    for source in folded.layers:
        if not source.weights:
            continue
        target = model.get_layer(source.name)
        if source.name not in statistics:
            target.set_weights(source.get_weights())
            continue
        kernel, offset = source.get_weights()
        mean, variance = statistics[source.name]
        target.set_weights([kernel])
        norm = model.get_layer(f"{source.name}_norm")
        norm.set_weights([(variance + norm.epsilon) ** 0.5, mean, mean - offset, variance])


def _folded(config: Config) -> Config:
    return replace(config, folded=True, weights=extractors.RANDOM)  # all weights are set later


def _statistics(folded: keras.Model, lightness: Iterable) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance [channels] of the output of each convolution that had a batch norm, by name."""
    names = [layer.name for layer in folded.layers if layer.name.startswith("convolution")]
    probe = keras.Model(folded.input, [folded.get_layer(name).output for name in names])
    pixels, sums = 0, [np.zeros((2, 1))] * len(names)
    for batch in lightness:
        pixels += np.size(batch)
        for index, output in enumerate(probe(batch, training=False)):
            mean, variance = (ops.convert_to_numpy(moment) for moment in ops.moments(output, (0, 1, 2)))
            sums[index] = sums[index] + np.size(batch) * np.stack([mean, variance + mean**2])
    moments = {name: total / pixels for name, total in zip(names, sums, strict=True)}
    return {name: (mean, np.maximum(square - mean**2, 0)) for name, (mean, square) in moments.items()}
