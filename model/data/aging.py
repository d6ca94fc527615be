"""Ageing of training inputs: what emulsion, lens, light, time and scanner did to archive photographs.

`emulsion` makes the grey picture, `aged` wears it out; neither touches the colours that are to be learned.
Lengths are shares of the picture's short side, so that they mean the same at every training size. The ranges
are chosen by eye, on contact sheets, and not measured on a collection.
"""

import functools

import cv2
import numpy as np
from keras import ops

from model import color

# Sensitivity to linear red, green and blue light, lowest and highest, before the three are scaled to sum 1.
PANCHROMATIC = ((0.15, 0.25, 0.20), (0.45, 0.50, 0.45))  # all colours, blue more than the eye does
ORTHOCHROMATIC = ((0.00, 0.30, 0.40), (0.05, 0.60, 0.70))  # from the 1880s: reds and skin come out dark
BLUE_SENSITIVE = ((0.00, 0.00, 1.00), (0.03, 0.15, 1.00))  # wet plates, early paper: skies come out white
EMULSIONS = ((None, 0.30), (PANCHROMATIC, 0.35), (ORTHOCHROMATIC, 0.20), (BLUE_SENSITIVE, 0.15))

_STEPS = 4096  # of linear light: fine enough that every neutral level is found again
_LINEAR = np.float32(ops.convert_to_numpy(color.srgb_to_linear(np.arange(256) / 255)))
_ENCODED = np.uint8(np.rint(255 * ops.convert_to_numpy(color.linear_to_srgb(np.linspace(0, 1, _STEPS)))))


def emulsion(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Luma [H, W] uint8 of RGB [H, W, 3] uint8 as some emulsion would have recorded it; greys stay as they are.

    Plain BT.601 luma or a random mix of linear light from the ranges above, by the shares of `EMULSIONS`.
    """
    sensitivities, shares = zip(*EMULSIONS, strict=True)
    sensitivity = sensitivities[rng.choice(len(shares), p=shares)]
    return color.luma_uint8(pixels) if sensitivity is None else recorded(pixels, rng.uniform(*sensitivity))


def recorded(pixels: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
    """Luma [H, W] uint8 of RGB [H, W, 3] uint8 under a sensitivity [3] to linear light, scaled to sum 1."""
    weights = np.asarray(sensitivity, np.float32) / np.sum(sensitivity)
    light = cv2.transform(cv2.LUT(pixels, _LINEAR), weights[None])
    return _ENCODED[np.clip(np.rint((_STEPS - 1) * light), 0, _STEPS - 1).astype(np.uint16)]


def aged(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W, 1] float32, 0..100, as of an old photograph: each of `EFFECTS` at its share, in order."""
    plane = lightness[..., 0]
    for effect, share in EFFECTS:
        if rng.random() < share:
            plane = effect(plane, rng)
    return plane[..., None]


def blurred(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W] out of focus: a Gaussian of 0.2 to 0.9 % of the short side."""
    return _limited(_gaussian(lightness, rng.uniform(0.002, 0.009) * min(lightness.shape)))


def unevenly_lit(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W] under uneven light: up to 35 % less in the corners, and up to 12 % more or less at an edge.

    The darkening grows with the square of the distance from a centre that lies within the middle half.
    """
    height, width = lightness.shape
    y, x = _axis(height)[:, None], _axis(width)[None]
    (top, left), (down, across) = rng.uniform(-0.5, 0.5, 2), rng.uniform(-0.12, 0.12, 2)
    corner = (1 + abs(top)) ** 2 + (1 + abs(left)) ** 2
    loss = rng.uniform(0, 0.35) / corner
    rows = 1 + down * y - loss * (y - top) ** 2
    columns = across * x - loss * (x - left) ** 2
    return _limited(lightness * (rows + columns).astype(np.float32))


def grainy(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W] with the grain of film: 0.5 to 4.5 units of L* in the middle tones, none in black and white.

    Grains are noise under a Gaussian of 0 to 0.6 % of the short side.
    """
    size, strength = rng.uniform(0, 0.006) * min(lightness.shape), rng.uniform(0.5, 4.5)
    # Uniform noise takes a quarter of the time of normal noise, and blurred it is as good as normal.
    noise = _gaussian(rng.random(lightness.shape, np.float32) - np.float32(0.5), size)
    noise *= strength / (2500 * cv2.norm(noise) / noise.size**0.5)
    return _limited(lightness + noise * (lightness * (100 - lightness)))


def faded(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W] of a pale or yellowed print: a gamma of 0.7 to 1.4, black at 0 to 30, white at 70 to 100."""
    gamma, black, white = np.exp(rng.uniform(-0.35, 0.35)), rng.uniform(0, 30), rng.uniform(70, 100)
    return _limited(black + (white - black) * cv2.pow(lightness / 100, gamma))


def compressed(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W] as a JPEG of quality 20 to 80 keeps it: soft, in blocks, ringing at edges."""
    levels = np.rint(lightness * 2.55).astype(np.uint8)
    encoded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 81))])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE).astype(np.float32) / np.float32(2.55)


# In the order in which they happened: lens, light, negative, print, scan.
EFFECTS = ((blurred, 0.35), (unevenly_lit, 0.45), (grainy, 0.6), (faded, 0.7), (compressed, 0.3))


def _gaussian(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma) if sigma > 0.2 else plane


def _limited(lightness: np.ndarray) -> np.ndarray:
    return np.clip(lightness, 0, 100).astype(np.float32, copy=False)


@functools.cache
def _axis(size: int) -> np.ndarray:
    return np.linspace(-1, 1, size, dtype=np.float32)
