"""Colours single pictures in notebooks, with the code of the batch job.

from pipeline.notebook import colorize_image
colorize_image(Image.open("scan.tif"))
"""

import functools

import numpy as np
from PIL import Image

from model import MODELS, folder_of
from model.card import read_card
from pipeline.batch.inference import Network, local_copy
from pipeline.imaging import chroma, derivative
from pipeline.imaging.layout import WHOLE
from pipeline.imaging.scan import from_image


def colorize_image(
    image: Image.Image, model: str | None = None, strength: float | None = None, calm: float | None = None
) -> Image.Image:
    """Colours a picture.

    Args:
      image: of any mode that the job accepts. Only its luma is used.
      model: folder of an exported model, local, gs:// or s3://, or a name in `model.MODELS` (default: the first).
      strength: factor on the chroma of the network (default: from the model card).
      calm: certainty of a place below which its chroma fades (default: from the model card).

    Returns:
      RGB, upright, with the size and the luma of the picture.

    Raises:
      Refusal: the job would refuse this picture.
      CardError, ModelError: the job would refuse this model.
    """
    network, side, default_strength = _network(folder_of(model or MODELS[0]), calm)
    scan = from_image(image)
    canvas, tiles = chroma.view(scan.guide, side)
    predicted, _, _ = network.predict(tiles)
    if not np.isfinite(predicted).all():
        raise ValueError("the chroma of the network is not finite")
    edges, _ = derivative.paint(
        scan, [(WHOLE, canvas)], predicted, default_strength if strength is None else strength
    )
    return derivative.compose(scan, edges)


@functools.lru_cache(maxsize=2)
def _network(model: str, calm: float | None) -> tuple[Network, int, float]:
    folder = local_copy(model)
    card = read_card(folder)
    calm = card.default_calm or 0.0 if calm is None else calm
    return Network(folder, card.size, batch_size=1, calm=calm), card.size, card.default_strength
