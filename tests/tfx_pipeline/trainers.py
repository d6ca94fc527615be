"""Faulty trainers: replacements for `tfx_pipeline.trainer.run_fn` that export a defective model."""

import dataclasses
from pathlib import Path

import tensorflow as tf

from model.card import SIGNATURE, read_card, weights_sha256, write_card
from tfx_pipeline import trainer

_GREEDY_MB = 1500


def without_confidence(arguments) -> None:
    """Export a model without `confidence`. The batch job needs this output; the quality gate does not."""
    _reexport(arguments, lambda answer, _: {"chroma": answer["chroma"]})


def greedy(arguments) -> None:
    """Export a model that allocates far too much memory."""

    def waste(answer, lightness):
        numbers = _GREEDY_MB * 2**20 // 4
        waste = tf.random.uniform([numbers]) + lightness[0, 0, 0, 0]
        return answer | {"chroma": answer["chroma"] + 0 * tf.reduce_max(waste)}

    _reexport(arguments, waste)


def _reexport(arguments, change) -> None:
    trainer.run_fn(arguments)
    folder = Path(arguments.serving_model_dir)
    card = read_card(folder)
    loaded = tf.saved_model.load(str(folder))
    spoilt = tf.Module()
    spoilt.loaded = loaded
    spec = tf.TensorSpec((None, card.size, card.size, 1), tf.float32, name="lightness")

    @tf.function(input_signature=[spec])
    def serve(lightness):
        return change(loaded.signatures[SIGNATURE](lightness=lightness), lightness)

    tf.saved_model.save(spoilt, str(folder), signatures={SIGNATURE: serve})
    write_card(folder, dataclasses.replace(card, weights_sha256=weights_sha256(folder)))
