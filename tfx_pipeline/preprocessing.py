"""The work of Transform: RGB photographs to uint8 Lab at the training size."""

from typing import Any

import tensorflow as tf

from model.color import conversion
from model.data import features

CARRIED = (
    *(features.KEY, features.SOURCE, features.SHA256, features.MODE),
    *(features.COLLECTION, features.ERA, features.LABELS),
)


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Entry point for TFT. `custom_config["side"]` is the height and width in pixels of the squashed pictures."""
    side = custom_config["side"]
    encode = lambda png: lab_png(png, side)  # noqa: E731
    lab = tf.map_fn(encode, tf.reshape(inputs[features.IMAGE], [-1]), fn_output_signature=tf.string)
    return {features.LAB: lab[:, None]} | {name: inputs[name] for name in CARRIED}


def lab_png(png: tf.Tensor, side: int) -> tf.Tensor:
    """Converts an RGB PNG to a PNG [side, side, 3] of uint8 Lab: L* x 255/100, a* + 128, b* + 128."""
    rgb = tf.cast(tf.io.decode_png(png, channels=3), tf.float32)
    rgb = tf.clip_by_value(tf.round(tf.image.resize(rgb, (side, side), method="area")), 0, 255) / 255
    lab = conversion.rgb_to_lab(rgb)
    scaled = tf.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], axis=-1)
    return tf.io.encode_png(tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8), compression=6)
