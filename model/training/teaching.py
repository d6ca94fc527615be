"""Distillation: a network learns from the predictions and the features of another network.

The predictions are part of the target of `losses.distilled_cross_entropy` (Hinton, Vinyals and Dean 2015). The
features are hints: those of the learner should predict those of the teacher by a linear map (FitNets, Romero et al.
2015).
"""

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from model.networks.layers import FEATURES

_HINT = 0.5  # weight of the features of a layer in the loss; the cross-entropy has 1
_MEMORY = 0.95  # momentum of the moving average of statistics
_RIDGE = 1e-3  # regularisation, in units of the mean variance of the learner's features


def taught(part: keras.Model, teacher: keras.Model, weights: np.ndarray) -> keras.Model:
    """Joins a learner and a teacher: the logits of both, [N, h, w, 2Q].

    If both networks have the layers `FEATURES`, the model also has a loss for each of these layers.

    Args:
        part: the learner, which returns logits [N, h, w, Q].
        teacher: returns logits [N, h, w, Q] of the unweighted distribution.
        weights: of the bins in the loss, [Q]. They are added to the logits of the teacher.
    """
    own, its = (_features(network) for network in (part, teacher))
    both = bool(own and its)
    network = keras.Model(teacher.input, [teacher.output, *(its if both else [])])
    theirs, *seen = Teacher(network, weights, dtype="float32", name="teacher")(part.input)
    logits = part.output
    if both:
        for name, mine, teachers in zip(FEATURES, own, seen, strict=True):
            logits = Hint(dtype="float32", name=f"hint_{name}")(logits, mine, teachers)
    return keras.Model(part.input, layers.Concatenate(dtype="float32")([logits, theirs]))


def _features(network: keras.Model) -> list:
    found = {layer.name: layer.output for layer in network.layers if layer.name in FEATURES}
    return [found[name] for name in FEATURES] if len(found) == len(FEATURES) else []


class Teacher(layers.Layer):
    """Logits and features of a frozen network. Its weights are not part of the weights of the model around it."""

    def __init__(self, network: keras.Model, weights: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        network.trainable = False
        self.shapes = [output.shape for output in network.outputs]
        self.outputs = partial(
            network, training=False
        )  # hides the network from Keras, which would save it with this layer
        self.offset = np.log(weights).astype("float32")

    def call(self, lightness):
        logits, *features = keras.tree.flatten(self.outputs(lightness))
        return [ops.add(logits, self.offset), *features]

    def compute_output_shape(self, shape):
        return self.shapes  # JAX cannot infer unknown sizes


class Hint(layers.Layer):
    """Adds a loss: the share of the variance of the teacher's features that the learner's cannot predict linearly.

    The share is 0 if the best linear map from [N, h, w, K] to [N, h, w, M] predicts everything, and 1 if it
    predicts nothing; all channels of the teacher have the same weight. The map is found by ridge regression on the
    last batches and gets no gradient. The layer returns its first input unchanged.
    """

    def build(self, logits_shape, own_shape, its_shape):
        # Normal equations of the regression.
        wide = own_shape[-1]
        shapes = {"variance": (wide, wide), "covariance": (wide, its_shape[-1])}
        self.variance, self.covariance = (
            self.add_weight(
                shape=shape,
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="mean",
                name=name,
            )
            for name, shape in shapes.items()
        )

    def call(self, logits, own, its, training=False):
        if training:
            known, wanted = (_centred(features) for features in (own, its))
            wanted = wanted / (ops.std(wanted, axis=0) + keras.config.epsilon())
            count = ops.cast(ops.shape(known)[0], known.dtype)
            for kept, now in ((self.variance, known), (self.covariance, wanted)):
                now = ops.stop_gradient(ops.matmul(ops.transpose(known), now) / count)
                kept.assign(_MEMORY * kept + (1 - _MEMORY) * now)
            ridge = _RIDGE * ops.mean(ops.diagonal(self.variance)) * ops.eye(own.shape[-1])
            linear = ops.stop_gradient(ops.solve(self.variance + ridge, self.covariance))
            self.add_loss(_HINT * ops.mean((wanted - ops.matmul(known, linear)) ** 2))
        return logits

    def compute_output_shape(self, logits_shape, own_shape, its_shape):
        return logits_shape


def _centred(features):
    """Features [N, h, w, K] as [N * h * w, K], minus their mean."""
    flat = ops.reshape(features, (-1, features.shape[-1]))
    return flat - ops.mean(flat, axis=0)
