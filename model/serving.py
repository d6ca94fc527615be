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


def fit_knots(spreads: np.ndarray, number: int = 33) -> np.ndarray:
    """Quantiles [number] of the validation pictures' spreads [P], strictly increasing."""
    knots = np.quantile(spreads, np.linspace(0, 1, number))
    return np.maximum.accumulate(knots + np.arange(number) * 1e-4).astype(np.float32)


def confidence(spreads, knots):
    """Confidence [N] in 0..1 of spreads [N]: c means that a share c of the validation pictures was less sure."""
    passed = (spreads[:, None] - knots[:-1]) / (knots[1:] - knots[:-1])
    return 1 - ops.mean(ops.clip(passed, 0, 1), axis=-1)


def spreads(network: keras.Model, centres: np.ndarray, lightness: Iterable[np.ndarray]) -> np.ndarray:
    """Spread [P] of every picture of some batches of lightness [N, S, S, 1]."""
    classifier = keras.Model(network.input, network.get_layer("logits").output)
    found = (spread(classifier(batch, training=False), centres) for batch in lightness)
    return np.concatenate([ops.convert_to_numpy(batch) for batch in found])


class Colorizer(tf.Module):
    """A network behind the signature of the exported model."""

    def __init__(self, network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int):
        super().__init__()
        self.network = keras.Model(network.input, [network.output, network.get_layer("logits").output])
        self.centres, self.knots = np.asarray(centres, np.float32), np.asarray(knots, np.float32)
        self.size = size
        spec = tf.TensorSpec((None, size, size, 1), tf.float32, name="lightness")
        self.signature = tf.function(self._colorize, input_signature=[spec])

    def _colorize(self, lightness):
        chroma, logits = self.network(lightness, training=False)
        return {
            "chroma": tf.ensure_shape(chroma, (None, self.size, self.size, 2)),
            "confidence": confidence(spread(logits, self.centres), self.knots),
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
