"""Exports a trained network as the SavedModel that the batch job runs. Needs TensorFlow."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from model.card import SIGNATURE
from model.color import conversion, fading

_FAINT = 1.0  # Lab units, squared; less chroma counts as certain, because there is nothing to fade


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


def certainty(logits, centres):
    """Certainty [N, h, w] of each place, 0..1: the share of the expected squared chroma that the mean chroma has.

    It is near 1 where the likely bins have one colour or none, and near 0 where they have many.

    Args:
        logits: [N, h, w, Q].
        centres: bin centres [Q, 2], Lab units.
    """
    centres = np.asarray(centres, np.float32)
    squares = np.concatenate([centres, (centres**2).sum(axis=-1, keepdims=True)], axis=-1)
    moments = conversion.annealed_mean(logits, squares)
    return (ops.sum(moments[..., :2] ** 2, axis=-1) + _FAINT) / (moments[..., 2] + _FAINT)


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
    """A network with what it knows about its errors: lightness [N, H, W, 1] to a dict.

    `chroma` is [N, H, W, 2] in Lab units. `uncertainty` [N] is the `spread` of the chroma bins, or `negative_chroma`
    for a network without bins. With bins, there is also the `certainty` [N, H, W] of each place.
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
        if not self.classifies:
            return {"chroma": chroma, "uncertainty": negative_chroma(chroma)}
        sure = certainty(found["logits"], self.centres)
        return {
            "chroma": chroma,
            "uncertainty": spread(found["logits"], self.centres),
            "certainty": ops.image.resize(sure[..., None], ops.shape(chroma)[1:3])[..., 0],
        }


def uncertainties(network: keras.Model, centres: np.ndarray, lightness: Iterable[np.ndarray]) -> np.ndarray:
    """Uncertainties [P] of all pictures in batches of lightness [N, S, S, 1]."""
    model = WithUncertainty(network, centres)
    return np.concatenate([ops.convert_to_numpy(model(batch)["uncertainty"]) for batch in lightness])


class Colorizer(tf.Module):
    """A network with the signature of an exported model. Its kernels are stored in half precision."""

    def __init__(self, network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int):
        super().__init__()
        model = WithUncertainty(network, centres)
        knots = np.asarray(knots, np.float32)
        spec = tf.TensorSpec((None, size, size, 1), tf.float32, name="lightness")
        model(tf.zeros((1, size, size, 1)))  # makes its variables
        fixed = [*model.trainable_variables, *model.non_trainable_variables]
        self.stored = [_stored(variable) for variable in fixed]

        @tf.function(input_signature=[spec])
        def colorize(lightness):
            wide = [tf.cast(it, variable.dtype) for it, variable in zip(self.stored, fixed, strict=True)]
            trainable = len(model.trainable_variables)
            found, _ = model.stateless_call(wide[:trainable], wide[trainable:], lightness)
            result = {
                "chroma": tf.ensure_shape(found["chroma"], (None, size, size, 2)),
                "confidence": confidence(found["uncertainty"], knots),
            }
            if model.classifies:
                result["certainty"] = tf.ensure_shape(found["certainty"], (None, size, size))
            return result

        self.signature = colorize


def _stored(variable: keras.Variable) -> tf.Variable:
    """A variable for the file: kernels as float16, everything else, such as the moments of a batch norm, as it is."""
    value = ops.convert_to_numpy(variable)
    half = value.ndim > 1 and value.dtype == np.float32 and np.abs(value).max() < np.finfo(np.float16).max
    return tf.Variable(value.astype(np.float16) if half else value, trainable=False, name=variable.path)


def export(
    network: keras.Model, centres: np.ndarray, knots: np.ndarray, size: int, folder: str | Path
) -> None:
    """Saves a network for pictures of `size` x `size` pixels into `folder`. `model.card` describes the signature."""
    module = Colorizer(network, centres, knots, size)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.signature})


def load(folder: str | Path, calm: float = 0.0):
    """Loads an exported model as a function from lightness [N, S, S, 1] to chroma [N, S, S, 2] and confidence [N].

    Where the certainty is below `calm`, chroma is faded; see `model.color.fading`.
    """
    loaded = tf.saved_model.load(str(folder))

    def predictor(lightness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A signature does not keep its model alive: the closure must hold the loaded model.
        found = loaded.signatures[SIGNATURE](lightness=tf.constant(lightness))
        chroma = found["chroma"].numpy()
        if calm:
            chroma = fading.faded(chroma, found["certainty"].numpy(), calm)
        return chroma, found["confidence"].numpy()

    return predictor


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Weights of an exported network by layer and name, such as `logits/bias`. Batch norm is folded into them.

    Those that are stored in half precision are widened to float32.
    """
    loaded = tf.saved_model.load(str(folder))  # a signature does not keep the variables alive
    variables = loaded.signatures[SIGNATURE].graph.variables
    return {variable.name.removesuffix(":0"): _widened(variable.numpy()) for variable in variables}


def _widened(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values
