"""Converts decoded samples of any depth to a Pillow image, for decoders other than Pillow's."""

import cv2
import numpy as np
from PIL import Image

CHANNELS = {"L": 1, "RGB": 3, "YCbCr": 3, "LAB": 3, "CMYK": 4}  # of each colour space, with Pillow's names
# In the `info` of an image: the same picture with 16 bits, uint16 [H, W] or [H, W, C], on white.
DEEP = "deep"
_ALPHA = {"": "", "straight": "A", "premultiplied": "a"}


def to_image(samples: np.ndarray, white: int, space: str, alpha: str = "") -> Image.Image:
    """Makes an image with 8 bits per sample, or with 16 bits for deep grey.

    Other deep pictures, except YCbCr, are in its `info`, too, as `DEEP`.

    Args:
      samples: uint8 or uint16 [H, W, C]: the channels of `space`, then alpha if there is one.
      white: sample value of full intensity. Larger samples are white, too.
      space: "L", "RGB", "YCbCr", "LAB" or "CMYK". Only the first two can have alpha.
      alpha: "", "straight" or "premultiplied".

    Returns:
      Mode "I;16" with white at 65 535 for grey of more than 8 bits; otherwise an 8-bit mode with white at 255.
    """
    deep = scaled(samples, white, 65535) if white > 255 and space != "YCbCr" else None
    if deep is not None and deep.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(deep[..., 0]))
    samples = scaled(samples, white, 255)
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(samples, -1, 0)]
    image = planes[0] if len(planes) == 1 else Image.merge(space + _ALPHA[alpha], planes)
    if deep is not None:
        image.info[DEEP] = on_white(deep, alpha) if alpha else deep
    return image


def on_white(samples: np.ndarray, alpha: str) -> np.ndarray:
    """Puts a picture with opacity on white.

    Args:
      samples: uint16 [H, W, 2] or [H, W, 4]: grey or RGB, then opacity.
      alpha: "straight" or "premultiplied".

    Returns:
      uint16 [H, W] or [H, W, 3].
    """
    *colors, opacity = cv2.split(samples)
    if alpha == "straight":
        colors = [cv2.multiply(color, opacity, scale=1 / 65535) for color in colors]
    whites = [cv2.add(color, ~opacity) for color in colors]
    return whites[0] if len(whites) == 1 else cv2.merge(whites)


def scaled(samples: np.ndarray, white: int, full: int) -> np.ndarray:
    """Scales samples of any shape so that `white` becomes `full`. Returns uint8, or uint16 if `full` is above 255."""
    dtype = np.uint8 if full <= 255 else np.uint16
    if white == full:
        return samples.astype(dtype, copy=False)
    ramp = np.rint(np.arange(white + 1) * (full / white)).astype(dtype)
    return ramp[np.minimum(samples, white)]
