"""One picture at a time, for notebooks: the batch job's own code, without the job.

from pipeline.notebook import colorize_image
colorize_image(Image.open("scan.tif"))
"""

import functools

import numpy as np
from PIL import Image

from model import default_model
from model.card import read_card
from pipeline import chroma, derivative
from pipeline.inference import Network, local_copy
from pipeline.scan import from_image


def colorize_image(
    image: Image.Image, model: str | None = None, strength: float | None = None
) -> Image.Image:
    """Colours a picture.

    Args:
      image: of any mode that the job takes; only its luma counts.
      model: folder of an exported model, local or gs:// (default: the one that ships with this package).
      strength: factor on the network's chroma (default: what the model's card advises).

    Returns:
      RGB, upright, of the picture's size; its luma is the picture's.

    Raises:
      Refusal: a picture that the job would refuse. CardError, ModelError: a model that it would.
    """
    network, side, default_strength = _network(model or default_model())
    scan = from_image(image)
    canvas, tiles = chroma.view(scan.guide, side)
    predicted, _ = network.predict(tiles)
    if not np.isfinite(predicted).all():
        raise ValueError("the network's chroma is not finite")
    edges, _ = derivative.paint(scan, canvas, predicted, default_strength if strength is None else strength)
    return derivative.compose(scan, edges)


@functools.lru_cache(maxsize=2)
def _network(model: str) -> tuple[Network, int, float]:
    folder = local_copy(model)
    card = read_card(folder)
    return Network(folder, card.size, batch_size=1), card.size, card.default_strength
