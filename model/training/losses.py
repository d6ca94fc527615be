"""Losses as pure functions on `keras.ops`: of truth and prediction, a number for each picture, [N].

Planes are any targets [N, h, w, K]; chroma is in Lab units. What takes settings gives a loss. Adversarial losses
take the scores of a discriminator, [N, ...] for its patches; the networks of a GAN add them up by weight.
"""

import keras
import numpy as np
from keras import ops

from model import color


def mae(truth, prediction):
    """Mean absolute error [N] of planes (the L1 of Isola et al. 2017, equation 3)."""
    return _mean(ops.abs(ops.subtract(prediction, truth)))


def mse(truth, prediction):
    """Mean squared error [N] of planes."""
    return _mean(ops.subtract(prediction, truth) ** 2)


def huber(truth, prediction, delta: float = 1.0):
    """Huber's loss [N] of planes: half the square of an error up to `delta`, in the planes' unit, and linear beyond.

    Huber 1964; with `delta` 1 the smooth L1 of Zhang et al. 2017.
    """
    error = ops.abs(ops.subtract(prediction, truth))
    square = ops.minimum(error, delta)
    return _mean(0.5 * square**2 + delta * (error - square))


def rebalancing_weights(shares: np.ndarray, uniform: float = 0.5) -> np.ndarray:
    """Weight [Q] of each bin from its share [Q] of the training pixels; the mean over pixels is 1.

    Rare colours weigh more: the inverse of the shares mixed with `uniform` parts of the uniform
    distribution (Zhang et al. 2016, section 2.2; theirs is 0.5, and 1 weighs all bins alike).
    """
    weights = 1 / ((1 - uniform) * shares + uniform / len(shares))
    return (weights / np.sum(shares * weights)).astype(np.float32)


def rebalanced_cross_entropy(centres: np.ndarray, weights: np.ndarray):
    """Loss [N] of (chroma [N, h, w, 2] in Lab units, logits [N, h, w, Q]) (Zhang et al. 2016, equation 2).

    `weights` [Q] are those of the bins.
    """

    def loss(chroma, logits):
        target = color.soft_encode(chroma, centres)
        crossed = -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.mean(_expected(weights, target) * crossed, axis=(1, 2))

    return loss


def distilled_cross_entropy(centres: np.ndarray, weights: np.ndarray, share: float):
    """Loss [N] of (chroma [N, h, w, 2] in Lab units, logits [N, h, w, 2Q]): `rebalanced_cross_entropy` with a teacher.

    The first Q logits learn, the others are the teacher's: its distribution makes `share` of the target, the bins
    of the true chroma the rest (Hinton, Vinyals and Dean 2015, at the temperature 1).
    """

    def loss(chroma, logits):
        learner, teacher = ops.split(logits, 2, axis=-1)
        truth = color.soft_encode(chroma, centres)
        target = share * ops.softmax(teacher, axis=-1) + (1 - share) * truth
        crossed = -ops.sum(target * ops.log_softmax(learner, axis=-1), axis=-1)
        return ops.mean(_expected(weights, truth) * crossed, axis=(1, 2))

    return loss


def adversarial_generator(generated):
    """Loss [N] of a generator by the logits of its pictures: -log of their chance to be real.

    It does not saturate where the discriminator is sure (Goodfellow et al. 2014, section 3; Isola et al. 2017, 3.3).
    """
    return _mean(ops.softplus(-ops.convert_to_tensor(generated)))


def adversarial_discriminator(real, generated):
    """Loss [N] of a discriminator by its logits: binary cross-entropy, halved (Isola et al. 2017, section 3.3)."""
    real, generated = ops.convert_to_tensor(real), ops.convert_to_tensor(generated)
    return (_mean(ops.softplus(-real)) + _mean(ops.softplus(generated))) / 2


def least_squares_generator(generated):
    """Loss [N] of a generator by scores: squared distance from 1.

    Mao et al. 2017, equation 9, with a = 0 and b = c = 1, but for its factor 1/2.
    """
    return _mean((ops.convert_to_tensor(generated) - 1) ** 2)


def least_squares_discriminator(real, generated):
    """Loss [N] of a discriminator by scores: half the squared distances from 1 and from 0 (ibid.)."""
    return (_mean((ops.convert_to_tensor(real) - 1) ** 2) + _mean(ops.convert_to_tensor(generated) ** 2)) / 2


def feature_matching(real, generated):
    """Mean absolute error [N] of two lists of a discriminator's feature maps, each map counting alike.

    Wang et al. 2018 (pix2pixHD), section 3.2, over the number of maps. No gradient flows into the real pictures' maps.
    """
    errors = [mae(ops.stop_gradient(one), other) for one, other in zip(real, generated, strict=True)]
    return sum(errors) / len(errors)


def perceptual(extractor: keras.Model):
    """Loss [N] of two RGB pictures [N, H, W, 3]: how far their feature maps in `extractor` lie apart.

    Features are scaled to length 1 over the channels at each place, so that no layer outweighs the others; squared
    distances are averaged over places, then over maps (Zhang et al. 2018, equation 1, without learned weights).
    `extractor` gives one feature map or several, of RGB as it comes: the scaling that it wants is a layer of it.
    """

    def loss(truth, prediction):
        pairs = zip(_features(extractor, truth), _features(extractor, prediction), strict=True)
        errors = [ops.mean(ops.sum((other - one) ** 2, axis=-1), axis=(1, 2)) for one, other in pairs]
        return sum(errors) / len(errors)

    return loss


def _features(extractor: keras.Model, rgb) -> list:
    maps = keras.tree.flatten(extractor(rgb, training=False))
    # The constant keeps the gradient finite where a rectifier has left nothing.
    return [one / ops.sqrt(ops.sum(one**2, axis=-1, keepdims=True) + 1e-8) for one in maps]


def _expected(weights: np.ndarray, target):
    """Weight [N, h, w] of pixels whose shares of the bins are [N, h, w, Q]."""
    return ops.sum(ops.multiply(target, weights), axis=-1)


def _mean(values):
    """Mean [N] over all axes but the first."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))
