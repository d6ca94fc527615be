"""Constants of sRGB, CIE Lab and luma, and the lightness of each grey level. Imports only NumPy.

Formulas: IEC 61966-2-1 (sRGB), CIE 15 (Lab, D65, 2 degrees), ITU-R BT.601 (luma).
"""

import numpy as np

RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])
DELTA = 6 / 29  # below it, the cube root of L*a*b* is replaced by a line
DARK = 0.0031308  # linear light below which sRGB is a line
SLOPE, GAIN, OFFSET, POWER = 12.92, 1.055, 0.055, 2.4  # SLOPE of this line; the others of the curve above it


def encoded(linear: np.ndarray) -> np.ndarray:
    """Converts linear light 0..1 to gamma-coded sRGB 0..1."""
    return np.where(linear <= DARK, linear * SLOPE, GAIN * np.maximum(linear, DARK) ** (1 / POWER) - OFFSET)


def _lightness() -> np.ndarray:
    level = np.arange(256) / 255
    linear = np.where(level <= DARK * SLOPE, level / SLOPE, ((level + OFFSET) / GAIN) ** POWER)
    root = np.where(linear > DELTA**3, np.cbrt(linear), linear / (3 * DELTA**2) + 4 / 29)
    return (116 * root - 16).astype(np.float32)


LIGHTNESS = _lightness()  # float32 [256]: L*, 0..100, of the grey of each level: the input of the networks
