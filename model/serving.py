"""Export of a trained network as the SavedModel that the batch job runs; needs TensorFlow."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from model.card import SIGNATURE


def spread(logits, centres):
    """Expected error [N] of each picture in Lab units: root mean square distance of the bins from their mean.

    `logits` [N, h, w, Q] and bin centres [Q, 2], at temperature 1.
    """
    shares = ops.softmax(logits, axis=-1)
    centres = ops.cast(ops.convert_to_tensor(centres), logits.dtype)
    mean = ops.matmul(shares, centres)
    squares = ops.matmul(shares, ops.sum(centres**2, axis=-1, keepdims=True))[..., 0]
    return ops.sqrt(ops.maximum(ops.mean(squares - ops.sum(mean**2, axis=-1), axis=(1, 2)), 0))


def paleness(chroma):
    """How little colour each picture [N] of chroma [N, H, W, 2] has: minus the mean distance from grey, Lab units.

    What a network that regresses has in place of a spread: it shrinks towards grey what it is unsure of.
    """
    return -ops.mean(ops.sqrt(ops.sum(ops.square(chroma), axis=-1)), axis=(1, 2))


def fit_knots(doubts: np.ndarray, number: int = 33) -> np.ndarray:
    """Quantiles [number] of the validation pictures' doubts [P], strictly increasing."""
    knots = np.quantile(doubts, np.linspace(0, 1, number))
    return np.maximum.accumulate(knots + np.arange(number) * 1e-4).astype(np.float32)


def confidence(doubts, knots):
    """Confidence [N] in 0..1 of doubts [N]: c means that a share c of the validation pictures was less sure."""
    passed = (doubts[:, None] - knots[:-1]) / (knots[1:] - knots[:-1])
    return 1 - ops.mean(ops.clip(passed, 0, 1), axis=-1)


class Doubting(keras.Model):
    """A network with what it doubts: lightness [N, H, W, 1] to chroma [N, H, W, 2] and doubt [N].

    Doubt is the spread of the chroma bins, or paleness where there are none.
    """

    def __init__(self, network: keras.Model, centres: np.ndarray):
        super().__init__()
        self.centres = np.asarray(centres, np.float32)
        self.classifies = "logits" in [layer.name for layer in network.layers]
        logits = {"logits": network.get_layer("logits").output} if self.classifies else {}
        self.network = keras.Model(network.input, {"chroma": network.output, **logits})

    def call(self, lightness):
        found = self.network(lightness, training=False)
        chroma = found["chroma"]
        return chroma, spread(found["logits"], self.centres) if self.classifies else paleness(chroma)


def doubts(network: keras.Model, centres: np.ndarray, lightness: Iterable[np.ndarray]) -> np.ndarray:
    """Doubt [P] about every picture of some batches of lightness [N, S, S, 1]."""
    doubting = Doubting(network, centres)
    return np.concatenate([ops.convert_to_numpy(doubting(batch)[1]) for batch in lightness])


class Colorizer(tf.Module):
    """A network behind the signature of the exported model."""

    def __init__(self, network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int):
        super().__init__()
        self.network = Doubting(network, centres)
        self.knots, self.size = np.asarray(knots, np.float32), size
        spec = tf.TensorSpec((None, size, size, 1), tf.float32, name="lightness")
        self.signature = tf.function(self._colorize, input_signature=[spec])

    def _colorize(self, lightness):
        chroma, doubt = self.network(lightness)
        return {
            "chroma": tf.ensure_shape(chroma, (None, self.size, self.size, 2)),
            "confidence": confidence(doubt, self.knots),
        }


def export(
    network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int, folder: str | Path
) -> None:
    """Saves a network for pictures of `size` x `size` into `folder`, as `model.card` describes the signature."""
    module = Colorizer(network, centres, knots, size)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.signature})


def load(folder: str | Path):
    """A function of lightness [N, S, S, 1] that gives chroma [N, S, S, 2] and confidence [N], by an exported model."""
    loaded = tf.saved_model.load(str(folder))

    def predictor(lightness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The function keeps no model alive, so the closure holds the whole of it.
        found = loaded.signatures[SIGNATURE](lightness=tf.constant(lightness))
        return found["chroma"].numpy(), found["confidence"].numpy()

    return predictor


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    """The weights of an exported model's network, batch norm folded in, by layer and name, such as `logits/bias`."""
    loaded = tf.saved_model.load(str(folder))  # named: the signature alone keeps no variable alive
    variables = loaded.signatures[SIGNATURE].graph.variables
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in variables}
