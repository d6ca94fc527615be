"""Losses as pure functions on `keras.ops`.

Each takes truth and prediction and returns a number for each picture, [N].

Planes are any targets [N, h, w, K]; chroma is in Lab units. Functions with settings return a loss. Adversarial
losses take the scores of a discriminator, [N, ...] for its patches; `model.training.adversarial` sums them with
weights.
"""

import keras
import numpy as np
from keras import ops

from model.color import conversion


def mae(truth, prediction):
    """Mean absolute error [N] of planes (the L1 of Isola et al. 2017, equation 3)."""
    return _mean(ops.abs(ops.subtract(prediction, truth)))


def mse(truth, prediction):
    """Mean squared error [N] of planes."""
    return _mean(ops.subtract(prediction, truth) ** 2)


def huber(truth, prediction, delta: float = 1.0):
    """Huber loss [N] of planes: half of the squared error up to `delta`, in units of the planes, and linear beyond.

    Huber 1964. With `delta` 1 it is the smooth L1 loss of Zhang et al. 2017.
    """
    error = ops.abs(ops.subtract(prediction, truth))
    square = ops.minimum(error, delta)
    return _mean(0.5 * square**2 + delta * (error - square))


def rebalancing_weights(shares: np.ndarray, uniform: float = 0.5) -> np.ndarray:
    """Weights [Q] of the bins from their shares [Q] of the training pixels. The mean weight of a pixel is 1.

    Rare colours have larger weights: the inverse of a mix of the shares and `uniform` parts of the uniform
    distribution (Zhang et al. 2016, section 2.2, who take 0.5). With 1 all bins have the same weight.
    """
    weights = 1 / ((1 - uniform) * shares + uniform / len(shares))
    return (weights / np.sum(shares * weights)).astype(np.float32)


def rebalanced_cross_entropy(centres: np.ndarray, weights: np.ndarray):
    """Returns the loss [N] of (chroma [N, h, w, 2], logits [N, h, w, Q]) of Zhang et al. 2016, equation 2.

    Args:
        centres: of the bins, [Q, 2], Lab units.
        weights: of the bins, [Q].
    """

    def loss(chroma, logits):
        target = conversion.soft_encode(chroma, centres)
        crossed = -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.mean(_expected(weights, target) * crossed, axis=(1, 2))

    return loss


def distilled_cross_entropy(centres: np.ndarray, weights: np.ndarray, share: float):
    """Returns `rebalanced_cross_entropy` with a teacher: loss [N] of (chroma [N, h, w, 2], logits [N, h, w, 2Q]).

    The first Q logits are those of the learner, the others those of the teacher. The target is a mix: `share` of it
    is the distribution of the teacher, the rest the bins of the true chroma (Hinton, Vinyals and Dean 2015,
    temperature 1).
    """

    def loss(chroma, logits):
        learner, teacher = ops.split(logits, 2, axis=-1)
        truth = conversion.soft_encode(chroma, centres)
        target = share * ops.softmax(teacher, axis=-1) + (1 - share) * truth
        crossed = -ops.sum(target * ops.log_softmax(learner, axis=-1), axis=-1)
        return ops.mean(_expected(weights, truth) * crossed, axis=(1, 2))

    return loss


def adversarial_generator(generated):
    """Loss [N] of a generator from the logits of its pictures: -log of the probability that they are real.

    It does not saturate when the discriminator is sure (Goodfellow et al. 2014, section 3; Isola et al. 2017, 3.3).
    """
    return _mean(ops.softplus(-ops.convert_to_tensor(generated)))


def adversarial_discriminator(real, generated):
    """Loss [N] of a discriminator from its logits: half of the binary cross-entropy (Isola et al. 2017, 3.3)."""
    real, generated = ops.convert_to_tensor(real), ops.convert_to_tensor(generated)
    return (_mean(ops.softplus(-real)) + _mean(ops.softplus(generated))) / 2


def least_squares_generator(generated):
    """Loss [N] of a generator from scores: the squared distance from 1.

    Mao et al. 2017, equation 9, with a = 0 and b = c = 1, without the factor 1/2.
    """
    return _mean((ops.convert_to_tensor(generated) - 1) ** 2)


def least_squares_discriminator(real, generated):
    """Loss [N] of a discriminator from scores: half of the squared distances from 1 and from 0 (ibid.)."""
    return (_mean((ops.convert_to_tensor(real) - 1) ** 2) + _mean(ops.convert_to_tensor(generated) ** 2)) / 2


def feature_matching(real, generated):
    """Mean absolute error [N] between two lists of feature maps of a discriminator; all maps have the same weight.

    Wang et al. 2018 (pix2pixHD), section 3.2, divided by the number of maps. The maps of real pictures get no
    gradient.
    """
    errors = [mae(ops.stop_gradient(one), other) for one, other in zip(real, generated, strict=True)]
    return sum(errors) / len(errors)


def perceptual(extractor: keras.Model):
    """Returns the perceptual loss [N] of two RGB pictures [N, H, W, 3]: the distance of their feature maps.

    Features are normalised to length 1 over the channels at each position, so that no layer outweighs the others.
    Squared distances are averaged over positions, then over maps (Zhang et al. 2018, equation 1, without learned
    weights).

    Args:
        extractor: returns one or several feature maps of RGB 0..1. Its own scaling of the input is one of its layers.
    """

    def loss(truth, prediction):
        pairs = zip(_features(extractor, truth), _features(extractor, prediction), strict=True)
        errors = [ops.mean(ops.sum((other - one) ** 2, axis=-1), axis=(1, 2)) for one, other in pairs]
        return sum(errors) / len(errors)

    return loss


def _features(extractor: keras.Model, rgb) -> list:
    maps = keras.tree.flatten(extractor(rgb, training=False))
    # The constant keeps the gradient finite where all features are zero.
    return [one / ops.sqrt(ops.sum(one**2, axis=-1, keepdims=True) + 1e-8) for one in maps]


def _expected(weights: np.ndarray, target):
    """Weights [N, h, w] of pixels with the bin distributions [N, h, w, Q]."""
    return ops.sum(ops.multiply(target, weights), axis=-1)


def _mean(values):
    """Mean [N] over all axes except the first."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))
