"""Conversions on `keras.ops`: sRGB, Lab (D65, 2 degrees), luma, gamut and chroma bins.

Arrays are channels-last floats of any leading shape; sRGB is in 0..1, lightness L* in 0..100,
chroma (a*, b*) in Lab units. Formulas: IEC 61966-2-1 (sRGB), CIE 15 (Lab), ITU-R BT.601 (luma).
"""

import numpy as np
from keras import ops

from model.color.srgb import DARK, DELTA, GAIN, LUMA_WEIGHTS, OFFSET, POWER, RGB_TO_XYZ, SLOPE, WHITE


def srgb_to_linear(rgb):
    """Converts gamma-coded sRGB 0..1 to linear light 0..1, any shape."""
    rgb = ops.convert_to_tensor(rgb)
    knee = DARK * SLOPE
    return ops.where(rgb <= knee, rgb / SLOPE, ((ops.maximum(rgb, knee) + OFFSET) / GAIN) ** POWER)


def linear_to_srgb(linear):
    """Converts linear light to gamma-coded sRGB, any shape. Values outside 0..1 stay outside."""
    linear = ops.convert_to_tensor(linear)
    power = GAIN * ops.maximum(linear, DARK) ** (1 / POWER) - OFFSET
    return ops.where(linear <= DARK, linear * SLOPE, power)


def _matrix(values, like):
    return ops.cast(ops.convert_to_tensor(values), like.dtype)


def rgb_to_lab(rgb):
    """Converts sRGB 0..1 [..., 3] to Lab [..., 3]."""
    linear = srgb_to_linear(rgb)
    xyz = ops.matmul(linear, _matrix(RGB_TO_XYZ.T / WHITE, linear))
    f = _cube_root(xyz)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return ops.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab):
    """Converts Lab [..., 3] to sRGB [..., 3]. Colours outside the sRGB gamut give values outside 0..1."""
    lab = ops.convert_to_tensor(lab)
    y = (lab[..., 0] + 16) / 116
    f = ops.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = ops.where(f > DELTA, f**3, 3 * DELTA**2 * (f - 4 / 29))
    return linear_to_srgb(ops.matmul(xyz, _matrix(np.linalg.inv(RGB_TO_XYZ / WHITE[:, None]).T, xyz)))


def luma(rgb):
    """BT.601 luma Y' 0..1 [...] of sRGB 0..1 [..., 3], before Pillow's rounding to whole levels."""
    rgb = ops.convert_to_tensor(rgb)
    return ops.sum(rgb * _matrix(LUMA_WEIGHTS, rgb), axis=-1)


def luma_uint8(rgb: np.ndarray) -> np.ndarray:
    """Luma [...] uint8 of RGB [..., 3] uint8. Equals Pillow's `convert("L")` in every bit (its `L24` macro)."""
    weighted = rgb.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def lightness_of_grey(grey):
    """L* 0..100 of a neutral grey R = G = B = `grey` 0..1, any shape. This is the input of the networks."""
    return 116 * _cube_root(srgb_to_linear(grey)) - 16


def grey_of_lightness(lightness):
    """Inverse of `lightness_of_grey`: the neutral grey R = G = B 0..1 with L* `lightness` 0..100, any shape."""
    f = (ops.convert_to_tensor(lightness) + 16) / 116
    return linear_to_srgb(ops.where(f > DELTA, f**3, 3 * DELTA**2 * (f - 4 / 29)))


def _cube_root(t):
    """f(t) of CIE 15: the cube root, and a line below (6/29)^3."""
    return ops.where(t > DELTA**3, ops.maximum(t, DELTA**3) ** (1 / 3), t / (3 * DELTA**2) + 4 / 29)


def grid_bins(chroma: np.ndarray, step: float = 10.0, least: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Makes chroma bins of the colours that occur (Zhang, Isola and Efros 2016, section 2.1, on the given pictures).

    Args:
        chroma: [P, 2], Lab units.
        step: distance of neighbouring bin centres, Lab units.
        least: smallest share of the pixels that a bin must hold.

    Returns:
        Centres [Q, 2] float32 in lexical order, and their shares of the pixels [Q], which sum to 1.
    """
    cells, counts = np.unique(np.round(chroma / step).astype(np.int32), axis=0, return_counts=True)
    kept = counts >= max(1, least * len(chroma))
    return (cells[kept] * step).astype(np.float32), counts[kept] / counts[kept].sum()


def nearest_bins(chroma: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index [P] of the nearest of the centres [Q, 2] for each chroma [P, 2]."""
    # The squared norm of the chroma is the same for all centres and can be left out.
    return np.argmin((centres**2).sum(axis=1) - 2 * chroma @ centres.T, axis=1)


def squared_distances(chroma, centres):
    """Squared distances [..., Q] of chroma [..., 2] from bin centres [Q, 2]."""
    centres = ops.cast(ops.convert_to_tensor(centres), chroma.dtype)
    cross = ops.matmul(chroma, ops.transpose(centres))
    return ops.sum(chroma**2, -1, keepdims=True) - 2 * cross + ops.sum(centres**2, -1)


def soft_encode(chroma, centres, sigma: float = 5.0):
    """Soft assignment [..., Q] of chroma [..., 2] to bins: a Gaussian of width `sigma`, normalised to sum 1."""
    return ops.softmax(-squared_distances(chroma, centres) / (2 * sigma**2), axis=-1)


def annealed_mean(logits, centres, temperature: float = 1.0):
    """Chroma [..., 2] of logits [..., Q]: mean of the centres [Q, 2] under softmax(logits / T) (ibid., section 2.3)."""
    centres = ops.cast(ops.convert_to_tensor(centres), logits.dtype)
    return ops.matmul(ops.softmax(logits / temperature, axis=-1), centres)


def join(grey, chroma):
    """RGB 0..1 [..., 3] with exactly the luma `grey` 0..1 [...] and the chroma [..., 2].

    Colours outside the gamut are moved towards grey at constant luma. They are not clipped.
    """
    grey = ops.convert_to_tensor(grey)
    rgb = lab_to_rgb(ops.concatenate([lightness_of_grey(grey)[..., None], chroma], axis=-1))
    offset = rgb - luma(rgb)[..., None]
    room = ops.where(offset > 0, 1 - grey[..., None], grey[..., None])
    fits = ops.min(room / ops.maximum(ops.abs(offset), 1e-6), axis=-1, keepdims=True)
    return grey[..., None] + ops.minimum(fits, 1.0) * offset
