"""Synthetic photographs of sky and ground. Their colours follow from the lightness, so a network can learn them."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image


def landscape(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """RGB [H, W, 3] uint8: a bright blue sky, dark green ground with a jagged horizon, and noise."""
    rng = np.random.default_rng(seed)
    horizon = height * (
        0.5 + 0.2 * np.interp(np.arange(width), np.linspace(0, width, 7), rng.uniform(-1, 1, 7))
    )
    sky = np.arange(height)[:, None] < horizon
    rgb = np.where(sky[..., None], [110, 170, 240], [70, 110, 30]) + rng.normal(0, 6, (height, width, 1))
    rgb = rgb + rng.normal(0, 2.5, (height, width, 3))  # without this, chroma depends on lightness alone
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """A folder of 30 colour photographs in two collections, a grey picture and a broken file."""
    folder = tmp_path_factory.mktemp("album")
    for seed in range(30):
        collection = folder / ("coast", "hills")[seed % 2]
        collection.mkdir(exist_ok=True)
        Image.fromarray(landscape(seed)).save(collection / f"{seed}.png")
    grey = Image.fromarray(landscape(99)).convert("L").convert("RGB")
    grey.save(folder / "coast" / "grey.png")
    (folder / "hills" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


@pytest.fixture
def eagerly():
    """Runs TensorFlow without graphs. A large network that is trained for a few steps is then tested much faster."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
