"""Exports a trained network as the SavedModel that the batch job runs. Needs TensorFlow."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from model.card import SIGNATURE


def spread(logits, centres):
    """Expected error [N] of each picture in Lab units: the root mean square distance of the bins from their mean.

    Args:
        logits: [N, h, w, Q].
        centres: bin centres [Q, 2], Lab units.
    """
    shares = ops.softmax(logits, axis=-1)
    centres = ops.cast(ops.convert_to_tensor(centres), logits.dtype)
    mean = ops.matmul(shares, centres)
    squares = ops.matmul(shares, ops.sum(centres**2, axis=-1, keepdims=True))[..., 0]
    return ops.sqrt(ops.maximum(ops.mean(squares - ops.sum(mean**2, axis=-1), axis=(1, 2)), 0))


def negative_chroma(chroma):
    """Minus the mean distance from grey [N] of each picture of chroma [N, H, W, 2], Lab units.

    This is the uncertainty of a regression network, which has no distribution over bins: it predicts colours closer
    to grey where it is unsure.
    """
    return -ops.mean(ops.sqrt(ops.sum(ops.square(chroma), axis=-1)), axis=(1, 2))


def quantiles(uncertainties: np.ndarray, number: int = 33) -> np.ndarray:
    """Quantiles [number], strictly increasing, of the uncertainties [P] of the validation pictures."""
    knots = np.quantile(uncertainties, np.linspace(0, 1, number))
    return np.maximum.accumulate(knots + np.arange(number) * 1e-4).astype(np.float32)


def confidence(uncertainty, knots):
    """Confidence [N] in 0..1 for uncertainty [N]: c means that a share c of the validation pictures was less certain.

    `knots` [K] are the `quantiles` of the validation pictures.
    """
    passed = (uncertainty[:, None] - knots[:-1]) / (knots[1:] - knots[:-1])
    return 1 - ops.mean(ops.clip(passed, 0, 1), axis=-1)


class WithUncertainty(keras.Model):
    """A network with its uncertainty: lightness [N, H, W, 1] to chroma [N, H, W, 2] and uncertainty [N].

    The uncertainty is the `spread` of the chroma bins, or `negative_chroma` for a network without bins.
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
        return chroma, spread(found["logits"], self.centres) if self.classifies else negative_chroma(chroma)


def uncertainties(network: keras.Model, centres: np.ndarray, lightness: Iterable[np.ndarray]) -> np.ndarray:
    """Uncertainties [P] of all pictures in batches of lightness [N, S, S, 1]."""
    model = WithUncertainty(network, centres)
    return np.concatenate([ops.convert_to_numpy(model(batch)[1]) for batch in lightness])


class Colorizer(tf.Module):
    """A network with the signature of an exported model."""

    def __init__(self, network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int):
        super().__init__()
        self.network = WithUncertainty(network, centres)
        self.knots, self.size = np.asarray(knots, np.float32), size
        spec = tf.TensorSpec((None, size, size, 1), tf.float32, name="lightness")
        self.signature = tf.function(self._colorize, input_signature=[spec])

    def _colorize(self, lightness):
        chroma, uncertainty = self.network(lightness)
        return {
            "chroma": tf.ensure_shape(chroma, (None, self.size, self.size, 2)),
            "confidence": confidence(uncertainty, self.knots),
        }


def export(
    network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int, folder: str | Path
) -> None:
    """Saves a network for pictures of `size` x `size` pixels into `folder`. `model.card` describes the signature."""
    module = Colorizer(network, centres, knots, size)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.signature})


def load(folder: str | Path):
    """Loads an exported model as a function from lightness [N, S, S, 1] to chroma [N, S, S, 2] and confidence [N]."""
    loaded = tf.saved_model.load(str(folder))

    def predictor(lightness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A signature does not keep its model alive: the closure must hold the loaded model.
        found = loaded.signatures[SIGNATURE](lightness=tf.constant(lightness))
        return found["chroma"].numpy(), found["confidence"].numpy()

    return predictor


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Weights of an exported network by layer and name, such as `logits/bias`. Batch norm is folded into them."""
    loaded = tf.saved_model.load(str(folder))  # a signature does not keep the variables alive
    variables = loaded.signatures[SIGNATURE].graph.variables
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in variables}
