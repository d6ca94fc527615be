"""Chroma as a local linear function of luma, so that it can follow edges finer than its own grid.

Knows numpy and OpenCV only: the batch job's codec process uses it, too. Planes are any two chroma planes.
"""

import cv2
import numpy as np

# Of the edge model, in its own grid. Chosen by CIEDE2000 on photographs' own chroma, reduced to 24 and 48 pixels
# a side: some 4 to 7 % under bilinear enlargement, where a guided filter, which averages twice, is over it.
SOFTNESS = 1.3  # standard deviation of the blur that makes luma as soft as the network's chroma
WINDOW = 5  # side of the windows in which chroma is regressed on luma
NOISE = 100.0  # luma variance, in levels squared, below which luma says little about chroma


def fit(luma: np.ndarray, planes: np.ndarray, softness: float = SOFTNESS) -> np.ndarray:
    """The edge model of chroma on its own grid.

    chroma = slope * luma + offset, where the slope is a regression's (He and Sun 2015, "Fast Guided Filter") on
    luma as soft as the chroma, and the offset such that soft luma gives the very chroma back. So finer luma adds
    the edges that chroma has lost, and nothing where the two have nothing in common.

    Args:
      luma: uint8 [h, w], the guide.
      planes: float32 [2, h, w].
      softness: 0 for chroma that follows every edge of this luma already: luma of this size gives it back as it is.

    Returns:
      float32 [h, w, 4]: slope and offset of the first plane, slope and offset of the second.
    """
    cb, cr = planes
    soft = np.float32(luma)
    if softness:
        soft = cv2.GaussianBlur(soft, (0, 0), softness)
    moments = cv2.blur(cv2.merge([soft, soft * soft, cb, cr, soft * cb, soft * cr]), (WINDOW, WINDOW))
    mean, square, mean_cb, mean_cr, with_cb, with_cr = cv2.split(moments)
    variance = square - mean * mean + NOISE
    slope_cb = (with_cb - mean * mean_cb) / variance
    slope_cr = (with_cr - mean * mean_cr) / variance
    return cv2.merge([slope_cb, cb - slope_cb * soft, slope_cr, cr - slope_cr * soft])


def apply(model: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A model's coefficients, enlarged, meet finer luma uint8 [H, W] -> the two planes, float32 [H, W]."""
    height, width = luma.shape
    cb_slope, cb_offset, cr_slope, cr_offset = cv2.split(cv2.resize(model, (width, height)))
    guide = np.float32(luma)
    cb = cv2.add(cv2.multiply(cb_slope, guide), cb_offset)
    cr = cv2.add(cv2.multiply(cr_slope, guide), cr_offset)
    return cb, cr
