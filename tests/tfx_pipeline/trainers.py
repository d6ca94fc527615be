"""A faulty trainer: a replacement for `tfx_pipeline.trainer.run_fn` that exports a defective model."""

import dataclasses
from pathlib import Path

import tensorflow as tf

from model.card import SIGNATURE, read_card, weights_sha256, write_card
from tfx_pipeline import trainer


def without_confidence(arguments) -> None:
    """Export a model without `confidence`. The batch job needs this output; the quality gate does not."""
    trainer.run_fn(arguments)
    folder = Path(arguments.serving_model_dir)
    card = read_card(folder)
    loaded = tf.saved_model.load(str(folder))
    spoilt = tf.Module()
    spoilt.loaded = loaded
    spec = tf.TensorSpec((None, card.size, card.size, 1), tf.float32, name="lightness")

    @tf.function(input_signature=[spec])
    def serve(lightness):
        return {"chroma": loaded.signatures[SIGNATURE](lightness=lightness)["chroma"]}

    tf.saved_model.save(spoilt, str(folder), signatures={SIGNATURE: serve})
    write_card(folder, dataclasses.replace(card, weights_sha256=weights_sha256(folder)))
