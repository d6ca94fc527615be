"""Metrics as pure functions on `keras.ops`. RGB is sRGB 0..1; Lab has its usual units.

Metrics of the shape [N] take pictures [N, H, W, C] and return one number for each.
"""

import numpy as np
from keras import ops
from scipy.stats import spearmanr

from model.color import conversion

# Luma per pixel. It is hardly visible as an edge, and lies between two whole levels, so that rounding has no effect.
FLAT = 2.5 / 255
GREY = 5  # a third of 15, which the raters of Hasler and Suesstrunk called slightly colourful
FARTHEST = 150  # Lab units in the a*b* plane: the last threshold of `raw_accuracy`
_BROWN = np.radians(20), np.radians(80)  # hue in the a*b* plane, from brick to mustard
_COLORED, _DARK = 8, 75  # Lab units: least chroma and largest lightness of brown
_QUANTISATION = 1 / (12 * 255**2)  # mean squared error of rounding to 8 bits


def chroma_rmse(truth, chroma):
    """Root mean squared error [N] in Lab units over both planes of chroma [N, H, W, 2]."""
    return ops.sqrt(ops.mean((chroma - truth) ** 2, axis=(1, 2, 3)))


def colorfulness(rgb):
    """Colourfulness [N] of RGB [N, H, W, 3] (Hasler and Suesstrunk 2003, equation 10; 8-bit units, 0 is grey)."""
    rgb = 255 * ops.convert_to_tensor(rgb)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    opponents = ops.stack([red - green, (red + green) / 2 - blue], axis=-1)
    deviation = ops.sqrt(ops.sum(ops.var(opponents, axis=(1, 2)), axis=-1))
    return deviation + 0.3 * ops.sqrt(ops.sum(ops.mean(opponents, axis=(1, 2)) ** 2, axis=-1))


def brown(lab):
    """Share [N] of pixels of Lab [N, H, W, 3] that are brown or dark orange, the colour of a network that is unsure."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    hue = ops.arctan2(b, a)
    warm = (hue > _BROWN[0]) & (hue < _BROWN[1]) & (ops.square(a) + ops.square(b) > _COLORED**2)
    return ops.mean(ops.cast(warm & (lightness < _DARK), "float32"), axis=(1, 2))


def is_grey(rgb):
    """1.0 for each RGB picture [N, H, W, 3] that looks grey, by its colourfulness, and 0.0 for others: [N]."""
    found = colorfulness(rgb)
    return ops.cast(found < GREY, found.dtype)


def raw_accuracy(truth, chroma):
    """Raw accuracy [N], 0..1, of chroma [N, H, W, 2] in Lab units: the area under its curve (AuC).

    The curve is the share of pixels within a distance from the truth in the a*b* plane, over distances from 0 to
    150; its area is normalised (Zhang et al. 2016, section 3.1). The area equals the mean of max(1 - distance /
    150, 0), so that no sweep over distances is needed.
    """
    distance = ops.sqrt(ops.sum(ops.subtract(chroma, truth) ** 2, axis=-1))
    return ops.mean(ops.maximum(1 - distance / FARTHEST, 0.0), axis=(1, 2))


def psnr(truth, rgb):
    """Peak signal-to-noise ratio [N] in dB of two RGB pictures [N, H, W, 3], over all channels; the peak is 1.

    It is at most 58.9 dB, the value of rounding to 8 bits, because equal pictures would have an infinite ratio.
    """
    error = ops.mean((ops.convert_to_tensor(truth) - rgb) ** 2, axis=(1, 2, 3))
    return -10 / np.log(10) * ops.log(ops.maximum(error, _QUANTISATION))


def ssim(truth, rgb):
    """Structural similarity [N] of two RGB pictures [N, H, W, 3], at least 11 x 11 (Wang et al. 2004, section III).

    The mean over channels and over all windows inside the picture; windows have 11 x 11 pixels, weighted by a
    Gaussian of 1.5 pixels.
    """
    one, other = ops.convert_to_tensor(truth), ops.convert_to_tensor(rgb)
    planes = ops.concatenate([one, other, one * one, other * other, one * other], axis=-1)
    mean1, mean2, square1, square2, product = ops.split(_gaussian(planes), 5, axis=-1)
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean1 * mean2 + c1) * (2 * (product - mean1 * mean2) + c2)
    energy = (mean1**2 + mean2**2 + c1) * (square1 - mean1**2 + square2 - mean2**2 + c2)
    return ops.mean(alike / energy, axis=(1, 2, 3))


def _gaussian(planes):
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = ops.cast(ops.convert_to_tensor(weights / weights.sum()), planes.dtype)
    for shape in ((11, 1, 1, 1), (1, 11, 1, 1)):
        kernel = ops.tile(ops.reshape(weights, shape), (1, 1, planes.shape[-1], 1))
        planes = ops.depthwise_conv(planes, kernel, padding="valid", data_format="channels_last")
    return planes


def luma_drift(grey, rgb):
    """Mean difference [N] in 8-bit levels between luma [N, H, W], 0..1, and the luma of RGB [N, H, W, 3], rounded."""
    levels = ops.round(255 * ops.clip(rgb, 0, 1))
    return ops.mean(ops.abs(conversion.luma(levels) - 255 * ops.convert_to_tensor(grey)), axis=(1, 2))


def bleeding(grey, chroma):
    """Mean gradient [N] of chroma [N, H, W, 2], in Lab units per pixel, where luma [N, H, W], 0..1, is flat.

    Luma is flat where its gradient is below `FLAT`. Colour that changes there runs over the edges of its object. The
    result is 0 if nothing is flat.
    """
    slope = ops.sqrt(_squared_gradient(ops.convert_to_tensor(grey)[..., None]))
    change = ops.sqrt(_squared_gradient(ops.convert_to_tensor(chroma)))
    flat = ops.cast(slope < FLAT, change.dtype)
    return ops.sum(change * flat, axis=(1, 2)) / ops.maximum(ops.sum(flat, axis=(1, 2)), 1.0)


def _squared_gradient(planes):
    """Squares of forward differences [N, H-1, W-1] of [N, H, W, C], summed over both axes and the planes."""
    here = planes[:, :-1, :-1]
    return ops.sum((planes[:, 1:, :-1] - here) ** 2 + (planes[:, :-1, 1:] - here) ** 2, axis=-1)


def ciede2000(one, other):
    """CIEDE2000 colour difference [...] of Lab [..., 3] (Sharma, Wu and Dalal 2005, equations 2 to 22)."""
    one, other = ops.convert_to_tensor(one), ops.convert_to_tensor(other)
    l1, a1, b1 = one[..., 0], one[..., 1], one[..., 2]
    l2, a2, b2 = other[..., 0], other[..., 1], other[..., 2]
    mean_c7 = ((ops.hypot(a1, b1) + ops.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * ops.sqrt(mean_c7 / (mean_c7 + 25.0**7))
    c1, c2 = ops.hypot(stretch * a1, b1), ops.hypot(stretch * a2, b2)
    h1, h2 = _degrees(b1, stretch * a1), _degrees(b2, stretch * a2)

    colored = c1 * c2 > 0
    turn, total = h2 - h1, h1 + h2
    # The formula is discontinuous for opposite hues; the margin keeps them on the side of the published values.
    near = ops.abs(turn) <= 180 + 1e-9
    turn = ops.where(near, turn, ops.where(turn > 0, turn - 360, turn + 360))
    turn = ops.where(colored, turn, 0.0)
    middle = ops.where(near, total / 2, ops.where(total < 360, total / 2 + 180, total / 2 - 180))
    hue = ops.where(colored, middle, total)

    dl, dc, dh = l2 - l1, c2 - c1, 2 * ops.sqrt(c1 * c2) * ops.sin(_radians(turn / 2))
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * ops.cos(_radians(hue - 30))
        + 0.24 * ops.cos(_radians(2 * hue))
        + 0.32 * ops.cos(_radians(3 * hue + 6))
        - 0.20 * ops.cos(_radians(4 * hue - 63))
    )
    turned = 60 * ops.exp(-(((hue - 275) / 25) ** 2))
    rotation = 2 * ops.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * ops.sin(_radians(turned))
    sl = 1 + 0.015 * (lightness - 50) ** 2 / ops.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    dl, dc, dh = dl / sl, dc / sc, dh / sh
    return ops.sqrt(ops.maximum(dl**2 + dc**2 + dh**2 - rotation * dc * dh, 0.0))


def _degrees(y, x):
    return (ops.arctan2(y, x) * (180 / np.pi)) % 360


def _radians(degrees):
    return degrees * (np.pi / 180)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two series [P]; NaN if one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def bootstrap(statistic, *series: np.ndarray, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of `statistic(*series)`. All series [P] are resampled together."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(series[0]), len(series[0])) for _ in range(rounds))
    values = [statistic(*(one[chosen] for one in series)) for chosen in drawn]
    lower, upper = np.percentile(values, (2.5, 97.5))
    return float(lower), float(upper)
