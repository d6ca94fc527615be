"""Targets of regression networks: the chroma planes of a separable colour space, or RGB.

Planes are scaled to -1..1 over the sRGB gamut. The output of a network is always Lab chroma at the luma of the scan.
Spaces: Lab (CIE 15, D65); YUV (ITU-R BT.601, U and V); HSV (a vector with the hue as its angle and the saturation as
its length, which has no discontinuity at red); RGB.
"""

import numpy as np
from keras import ops

from model.color import conversion

PLANES = {"lab": 2, "yuv": 2, "hsv": 2, "rgb": 3}
_LAB = 128.0
_U, _V = 0.492 * (1 - 0.114), 0.877 * (1 - 0.299)  # the largest values of any sRGB colour


def encode(rgb, space: str):
    """Converts sRGB 0..1 [..., 3] to planes [..., K] of `space`, a key of `PLANES`; its value is K."""
    rgb = ops.convert_to_tensor(rgb)
    if space == "lab":
        return conversion.rgb_to_lab(rgb)[..., 1:] / _LAB
    if space == "rgb":
        return 2 * rgb - 1
    if space == "yuv":
        luma = conversion.luma(rgb)
        return ops.stack([0.492 * (rgb[..., 2] - luma) / _U, 0.877 * (rgb[..., 0] - luma) / _V], axis=-1)
    return _hue_vector(rgb)


def decode(lightness, planes, space: str):
    """Converts planes [..., K] of `space` to Lab chroma [..., 2], at the luma of a grey of L* `lightness` [..., 1]."""
    if space == "lab":
        return _LAB * planes
    grey = conversion.grey_of_lightness(lightness)
    if space == "rgb":
        rgb = (planes + 1) / 2
        rgb = rgb + grey - conversion.luma(rgb)[..., None]
    elif space == "yuv":
        blue, red = _U / 0.492 * planes[..., :1] + grey, _V / 0.877 * planes[..., 1:] + grey
        rgb = ops.concatenate([red, (grey - 0.299 * red - 0.114 * blue) / 0.587, blue], axis=-1)
    else:
        pure = _pure_color(planes)
        rgb = pure * grey / conversion.luma(pure)[..., None]
    return conversion.rgb_to_lab(rgb)[..., 1:]


def _hue_vector(rgb):
    """Saturation times the cosine and sine of the hue, [..., 2] of sRGB [..., 3]."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value, least = ops.max(rgb, axis=-1), ops.min(rgb, axis=-1)
    span = value - least
    safe = ops.where(span > 0, span, 1.0)
    sixths = ops.where(
        value == red,
        (green - blue) / safe,
        ops.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    saturation = span / ops.where(value > 0, value, 1.0)
    angle = sixths * (np.pi / 3)
    return ops.stack([saturation * ops.cos(angle), saturation * ops.sin(angle)], axis=-1)


def _pure_color(vector):
    """sRGB colour [..., 3] of value 1 with the hue and saturation of a vector [..., 2]."""
    # Grey has no hue, and the gradient of its angle is NaN. It is treated as a faint red.
    across = ops.where(ops.max(ops.abs(vector), axis=-1) > 1e-6, vector[..., 0], 1e-6)
    saturation = ops.minimum(ops.hypot(across, vector[..., 1]), 1.0)[..., None]
    sixths = ops.arctan2(vector[..., 1], across)[..., None] * (3 / np.pi)
    turned = ops.mod(sixths + ops.cast(ops.convert_to_tensor([5.0, 3.0, 1.0]), vector.dtype), 6)
    return 1 - saturation * ops.clip(ops.minimum(turned, 4 - turned), 0, 1)
