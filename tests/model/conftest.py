"""Synthetic photographs: skies above ground, in colours that follow from the lightness, so that they can be learned."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image


def landscape(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """RGB [H, W, 3] uint8: a bright blue sky, a dark green ground with a jagged horizon, some noise."""
    rng = np.random.default_rng(seed)
    horizon = height * (
        0.5 + 0.2 * np.interp(np.arange(width), np.linspace(0, width, 7), rng.uniform(-1, 1, 7))
    )
    sky = np.arange(height)[:, None] < horizon
    rgb = np.where(sky[..., None], [110, 170, 240], [70, 110, 30]) + rng.normal(0, 6, (height, width, 1))
    rgb = rgb + rng.normal(0, 2.5, (height, width, 3))  # or its colour were all lightness, as a tint's is
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """A folder of 30 photographs in two collections, one grey one and one that is broken."""
    folder = tmp_path_factory.mktemp("album")
    for seed in range(30):
        collection = folder / ("coast", "hills")[seed % 2]
        collection.mkdir(exist_ok=True)
        Image.fromarray(landscape(seed)).save(collection / f"{seed}.png")
    grey = Image.fromarray(landscape(99)).convert("L").convert("RGB")
    grey.save(folder / "coast" / "grey.png")
    (folder / "hills" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder
