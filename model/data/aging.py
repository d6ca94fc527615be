"""Artificial ageing of training inputs: the effects of emulsion, lens, light, time and scanner.

`emulsion` makes the grey picture and `aged` degrades it. Neither changes the colours that are to be learned.
Lengths are shares of the short side, so that they have the same effect at every training size. The ranges were
chosen by eye on contact sheets; they were not measured on a collection.
"""

import functools

import cv2
import numpy as np
from keras import ops

from model.color import conversion

# Lowest and highest sensitivity to linear red, green and blue light, before the three are scaled to sum 1.
PANCHROMATIC = ((0.15, 0.25, 0.20), (0.45, 0.50, 0.45))  # all colours, but blue more than the eye
ORTHOCHROMATIC = ((0.00, 0.30, 0.40), (0.05, 0.60, 0.70))  # from the 1880s on: reds and skin are dark
BLUE_SENSITIVE = ((0.00, 0.00, 1.00), (0.03, 0.15, 1.00))  # wet plates, early paper: skies are white
EMULSIONS: tuple[tuple[tuple | None, float], ...] = (  # with their probabilities; None stands for BT.601 luma
    (None, 0.30),
    (PANCHROMATIC, 0.35),
    (ORTHOCHROMATIC, 0.20),
    (BLUE_SENSITIVE, 0.15),
)

_STEPS = 4096  # of linear light: enough to reproduce every neutral level
_LINEAR = ops.convert_to_numpy(conversion.srgb_to_linear(np.arange(256) / 255)).astype(np.float32)
_ENCODED = np.rint(255 * ops.convert_to_numpy(conversion.linear_to_srgb(np.linspace(0, 1, _STEPS)))).astype(
    np.uint8
)


def emulsion(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Luma [H, W] uint8 of RGB [H, W, 3] uint8 as a random emulsion of `EMULSIONS` records it. Greys do not change.

    It is either BT.601 luma or a random mix of linear light from the ranges above.
    """
    sensitivity, _ = EMULSIONS[rng.choice(len(EMULSIONS), p=[share for _, share in EMULSIONS])]
    if sensitivity is None:
        return conversion.luma_uint8(pixels)
    return recorded(pixels, rng.uniform(*sensitivity))


def recorded(pixels: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
    """Luma [H, W] uint8 of RGB [H, W, 3] uint8 for a sensitivity [3] to linear light, which is scaled to sum 1."""
    weights = np.asarray(sensitivity, np.float32) / np.sum(sensitivity)
    light = cv2.transform(cv2.LUT(pixels, _LINEAR), weights[None])
    return _ENCODED[np.clip(np.rint((_STEPS - 1) * light), 0, _STEPS - 1).astype(np.uint16)]


def aged(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Makes lightness [H, W, 1] float32, 0..100, look old: applies each of `EFFECTS` with its probability, in order."""
    plane = lightness[..., 0]
    for effect, share in EFFECTS:
        if rng.random() < share:
            plane = effect(plane, rng)
    return plane[..., None]


def blurred(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Defocus of lightness [H, W]: a Gaussian blur of 0.2 to 0.9 % of the short side."""
    return _limited(_gaussian(lightness, rng.uniform(0.002, 0.009) * min(lightness.shape)))


def unevenly_lit(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light on lightness [H, W]: up to 35 % less in the corners, and up to 12 % more or less at an edge.

    The darkening grows with the square of the distance from a centre in the middle half of the picture.
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
    """Film grain on lightness [H, W]: 0.5 to 4.5 units of L* in the middle tones, none in black and white.

    The grain is noise, blurred by a Gaussian of 0 to 0.6 % of the short side.
    """
    size, strength = rng.uniform(0, 0.006) * min(lightness.shape), rng.uniform(0.5, 4.5)
    # Uniform noise takes a quarter of the time of normal noise; after the blur there is no difference.
    noise = _gaussian(rng.random(lightness.shape, np.float32) - np.float32(0.5), size)
    noise *= strength / (2500 * cv2.norm(noise) / noise.size**0.5)
    return _limited(lightness + noise * (lightness * (100 - lightness)))


def faded(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fading of lightness [H, W]: a gamma of 0.7 to 1.4, black at 0 to 30, white at 70 to 100."""
    gamma, black, white = np.exp(rng.uniform(-0.35, 0.35)), rng.uniform(0, 30), rng.uniform(70, 100)
    return _limited(black + (white - black) * cv2.pow(lightness / 100, gamma))


def compressed(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression of lightness [H, W] with quality 20 to 80."""
    levels = np.rint(lightness * 2.55).astype(np.uint8)
    encoded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 81))])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE).astype(np.float32) / np.float32(2.55)


# In the order in which they happen: lens, light, negative, print, scan.
EFFECTS = ((blurred, 0.35), (unevenly_lit, 0.45), (grainy, 0.6), (faded, 0.7), (compressed, 0.3))


def _gaussian(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma) if sigma > 0.2 else plane


def _limited(lightness: np.ndarray) -> np.ndarray:
    return np.clip(lightness, 0, 100).astype(np.float32, copy=False)


@functools.cache
def _axis(size: int) -> np.ndarray:
    return np.linspace(-1, 1, size, dtype=np.float32)
