"""Decoded samples of any depth as a Pillow image, for the decoders that Pillow does not bring."""

import numpy as np
from PIL import Image

CHANNELS = {"L": 1, "RGB": 3, "YCbCr": 3, "CMYK": 4}  # of a colour space, in Pillow's words
_ALPHA = {"": "", "straight": "A", "premultiplied": "a"}


def to_image(samples: np.ndarray, white: int, space: str, alpha: str = "") -> Image.Image:
    """An image of 8 bits a sample, or of 16 bits if it is deep grey.

    Args:
      samples: uint8 or uint16 [H, W, C]: the channels of `space`, then alpha if there is one.
      white: the sample value that stands for full intensity. Larger samples count as white.
      space: "L", "RGB", "YCbCr" or "CMYK"; only the first two may have alpha.
      alpha: "", "straight" or "premultiplied".

    Returns:
      Mode "I;16" with white at 65 535 for grey of more than 8 bits; otherwise an 8-bit mode with white at 255.
    """
    deep = white > 255 and space == "L" and not alpha
    samples = scaled(samples, white, 65535 if deep else 255)
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(samples, -1, 0)]
    return planes[0] if len(planes) == 1 else Image.merge(space + _ALPHA[alpha], planes)


def scaled(samples: np.ndarray, white: int, full: int) -> np.ndarray:
    """Samples of any shape -> uint8, or uint16 where `full` is more than 255, with `white` at `full`."""
    dtype = np.uint8 if full <= 255 else np.uint16
    if white == full:
        return samples.astype(dtype, copy=False)
    ramp = np.rint(np.arange(white + 1) * (full / white)).astype(dtype)
    return ramp[np.minimum(samples, white)]
