"""Synthetic scans for the benchmarks, with the structure of a photograph. They are deterministic.

A scan shows sky, ridges and objects. Each has its own texture, shading, and hard or soft edges. The scene is blurred as
by a lens, and film grain is added. Detail and grain reach the scale of single pixels: an enlargement would compress
better and decode faster than a real scan. The default size of 3 megapixels takes about 1 MB as a grey JPEG of
quality 90.
"""

import io

import cv2
import numpy as np
from PIL import Image

RIDGES = 5
THINGS = 24
LENS = 0.6  # pixels: standard deviation of the blur of everything in focus
GRAIN = 10.0  # levels: standard deviation of the film's grain, before the scanner's blur
GRAIN_SIZE = 0.45  # pixels: standard deviation of the scanner's blur


def make_scan(seed: int, width: int = 2048, height: int = 1536) -> np.ndarray:
    """Luma of a scanned photograph, uint8 [height, width]. The same arguments give the same scan."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x / width, y / height
    scene = 215 - 70 * y - 25 * x + 9 * _texture(rng, width, height, 1.7)
    _add_ridges(scene, rng, y)
    _add_things(scene, rng)
    scene = cv2.GaussianBlur(scene, (0, 0), LENS)
    scene -= 45 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) * 2  # vignetting
    grain = rng.normal(0, GRAIN, (height, width)).astype(np.float32)
    scene += cv2.GaussianBlur(grain, (0, 0), GRAIN_SIZE)
    return np.uint8(np.rint(np.clip(scene, 0, 255)))


def grey_jpeg(luma: np.ndarray, quality: int = 90, **options) -> bytes:
    """A grey baseline JPEG, the most common format in archives."""
    return _encode(Image.fromarray(luma), "JPEG", quality=quality, **options)


def rgb_jpeg(luma: np.ndarray, quality: int = 90, **options) -> bytes:
    """A JPEG of three components whose chroma is neutral."""
    return _encode(Image.fromarray(luma).convert("RGB"), "JPEG", quality=quality, **options)


def grey_png(luma: np.ndarray) -> bytes:
    """A grey PNG, written fast at the expense of its size."""
    return _encode(Image.fromarray(luma), "PNG", compress_level=1)


def _add_ridges(scene: np.ndarray, rng: np.random.Generator, y: np.ndarray) -> None:
    """Add hills with hard outlines, one behind the other. Nearer hills are darker and rougher."""
    height, width = scene.shape
    for depth in np.linspace(0, 1, RIDGES):
        profile = 0.35 + 0.4 * depth + 0.05 * _outline(rng, width)
        texture = _texture(rng, width, height, 1.4 - 0.3 * depth)
        ridge = 165 - 85 * depth + 40 * (y - profile) + (8 + 15 * depth) * texture
        np.copyto(scene, ridge, where=y > profile)


def _add_things(scene: np.ndarray, rng: np.random.Generator) -> None:
    """Add round and angular objects, shaded from one side. Some are out of focus."""
    height, width = scene.shape
    for _ in range(THINGS):
        radius = round(min(width, height) * rng.uniform(0.02, 0.12)) + 2
        side = 2 * radius + 1
        across, down = (np.float32(axis) for axis in np.meshgrid(*[np.linspace(-1, 1, side)] * 2))
        shade = rng.uniform(40, 190) - 45 * across - 30 * down + 12 * _texture(rng, side, side, 1.2)
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
        u = np.cos(angle) * across + np.sin(angle) * down
        v = (np.cos(angle) * down - np.sin(angle) * across) / stretch
        extent = np.hypot(u, v) if rng.random() < 0.6 else abs(u) + abs(v)
        inside = np.float32(extent < 0.95)
        if rng.random() < 0.3:
            inside = cv2.GaussianBlur(inside, (0, 0), 1 + radius / 12)
        left, top = rng.integers(0, width - side), rng.integers(height // 4, height - side)
        window = scene[top : top + side, left : left + side]
        window += inside * (shade - window)


def _texture(rng: np.random.Generator, width: int, height: int, slope: float) -> np.ndarray:
    """float32 [height, width] with mean 0 and deviation 1: random phases and a 1/f**slope amplitude spectrum.

    Natural scenes have a slope near 1 (Field 1987, "Relations between the statistics of natural images").
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = frequency**-slope * np.exp(2j * np.pi * rng.random(frequency.shape))
    texture = np.fft.irfft2(spectrum, (height, width))
    return np.float32(texture / texture.std())


def _outline(rng: np.random.Generator, width: int) -> np.ndarray:
    """Height of a ridge, float32 [width] with deviation 1."""
    return _texture(rng, width, 1, 1.3)[0]


def _encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
