"""Chroma as a local linear function of luma, so that it follows edges that are finer than its own grid.

Imports only NumPy and OpenCV, because the batch job's codec process uses it, too. It works with any two chroma
planes.
"""

import cv2
import numpy as np

# In units of the edge model's grid. They were chosen by CIEDE2000 on the true chroma of photographs, reduced to 24
# and 48 pixels a side: the error is 4 to 7 % below that of bilinear enlargement. A guided filter, which averages
# twice, is above it.
SOFTNESS = 1.3  # standard deviation of the blur that makes luma as soft as the chroma of a network
WINDOW = 5  # side of the windows in which chroma is regressed on luma
NOISE = 100.0  # variance of luma, in squared levels, below which luma tells little about chroma


def fit(luma: np.ndarray, planes: np.ndarray, softness: float = SOFTNESS) -> np.ndarray:
    """Fits the edge model, chroma = slope * luma + offset, on the grid of the chroma.

    The slope is found by regression (He and Sun 2015, "Fast Guided Filter") on luma that is blurred to the softness
    of the chroma. The offset is chosen such that the blurred luma reproduces the chroma exactly. Finer luma then
    adds the edges that the chroma has lost, and adds nothing where the two are unrelated.

    Args:
      luma: uint8 [h, w], the guide.
      planes: float32 [2, h, w].
      softness: blur of luma, in pixels; 0 for chroma that already follows every edge of this luma.

    Returns:
      float32 [h, w, 4]: slope and offset of the first plane, slope and offset of the second.
    """
    cb, cr = planes
    soft: np.ndarray = luma.astype(np.float32)
    if softness:
        soft = cv2.GaussianBlur(soft, (0, 0), softness)
    moments = cv2.blur(cv2.merge([soft, soft * soft, cb, cr, soft * cb, soft * cr]), (WINDOW, WINDOW))
    mean, square, mean_cb, mean_cr, with_cb, with_cr = cv2.split(moments)
    variance = square - mean * mean + NOISE
    slope_cb = (with_cb - mean * mean_cb) / variance
    slope_cr = (with_cr - mean * mean_cr) / variance
    return cv2.merge([slope_cb, cb - slope_cb * soft, slope_cr, cr - slope_cr * soft])


def apply(model: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Applies an edge model to finer luma uint8 [H, W]. Returns the two planes, float32 [H, W]."""
    height, width = luma.shape
    # One channel after the other: OpenCV enlarges four together in several times the time.
    cb_slope, cb_offset, cr_slope, cr_offset = (
        cv2.resize(part, (width, height)) for part in cv2.split(model)
    )
    guide = luma.astype(np.float32)
    cb = cv2.add(cv2.multiply(cb_slope, guide), cb_offset)
    cr = cv2.add(cv2.multiply(cr_slope, guide), cr_offset)
    return cb, cr
