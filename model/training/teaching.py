"""What a network learns from another one: its distributions of colour, and what it sees in a picture.

The distributions are the target of `losses.distilled_cross_entropy` (Hinton, Vinyals and Dean 2015). What it sees are
its features: those of the learner are to say as much, up to a linear map (FitNets, Romero et al. 2015).
"""

from functools import partial

import keras
import numpy as np
from keras import layers, ops

FEATURES = ("sixteenth", "coarse")  # layers of a network that teaches or learns by them, too
_HINT = 0.5  # weight of a layer's features in the loss, next to the cross-entropy
_MEMORY = 0.95  # of a batch's statistics, from one step to the next
_RIDGE = 1e-3  # of the mean variance of the learner's features


def taught(part: keras.Model, teacher: keras.Model, weights: np.ndarray) -> keras.Model:
    """`part`, whose output are logits [N, h, w, Q], with those of a teacher behind them, [N, h, w, 2Q].

    `teacher` gives logits of what is in pictures; the loss weighs bins by `weights` [Q], and so do its logits then.
    Where both networks have the layers `FEATURES`, the model has a loss of its own for each of them.
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
    """Logits and features of a network that stays as it is, and that is no part of the weights of what it teaches."""

    def __init__(self, network: keras.Model, weights: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        network.trainable = False
        self.shapes = [output.shape for output in network.outputs]
        self.outputs = partial(
            network, training=False
        )  # Keras would save with this layer what it finds in it
        self.offset = np.log(weights).astype("float32")

    def call(self, lightness):
        logits, *features = keras.tree.flatten(self.outputs(lightness))
        return [ops.add(logits, self.offset), *features]

    def compute_output_shape(self, shape):
        return self.shapes  # JAX cannot follow sizes that are not known yet


class Hint(layers.Layer):
    """Passes logits on; in training it adds how little a network's features tell of those of its teacher.

    That is the share of their variance, each channel of the teacher's counting alike, which the best linear map from
    [N, h, w, K] to [N, h, w, M] leaves: 0 where nothing is missing, 1 where nothing is known. The map is that of
    ridge regression on the last batches, and no gradient flows into it.
    """

    def build(self, logits_shape, own_shape, its_shape):
        # The regression's normal equations.
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
            known, wanted = (_standing_alone(features) for features in (own, its))
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


def _standing_alone(features):
    """Features [N, h, w, K] as [N * h * w, K], less their mean."""
    flat = ops.reshape(features, (-1, features.shape[-1]))
    return flat - ops.mean(flat, axis=0)
