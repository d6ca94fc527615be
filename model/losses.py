"""Losses as pure functions of truth and prediction, on `keras.ops`."""

import numpy as np
from keras import ops

from model import color


def rebalancing_weights(shares: np.ndarray, uniform: float = 0.5) -> np.ndarray:
    """Weight [Q] of each bin from its share [Q] of the training pixels; the mean over pixels is 1.

    Rare colours weigh more: the inverse of the shares mixed with `uniform` parts of the uniform
    distribution (Zhang et al. 2016, section 2.2; theirs is 0.5, and 1 weighs all bins alike).
    """
    weights = 1 / ((1 - uniform) * shares + uniform / len(shares))
    return (weights / np.sum(shares * weights)).astype(np.float32)


def rebalanced_cross_entropy(centres: np.ndarray, weights: np.ndarray):
    """Loss of (chroma [N, h, w, 2] in Lab units, logits [N, h, w, Q]): a scalar for each picture [N]."""

    def loss(chroma, logits):
        target = color.soft_encode(chroma, centres)
        weight = ops.sum(target * weights, axis=-1)
        crossed = -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.mean(weight * crossed, axis=(1, 2))

    return loss
