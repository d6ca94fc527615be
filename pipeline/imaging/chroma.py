"""Chroma between the network's view and the scan: tiles, constant-luma colour, edges, gamut.

Luma is BT.601 Y' in 8-bit levels (0...255), as Pillow's `convert("L")` has it; chroma is a*b* in Lab units from
the network and Cb, Cr offsets in 8-bit levels (0: neutral) on the way to a file.
"""

import cv2
import numpy as np

from model import edges
from model.srgb import DARK, DELTA, GAIN, LIGHTNESS, LUMA_WEIGHTS, OFFSET, POWER, RGB_TO_XYZ, SLOPE, WHITE

MAX_SQUASH = 2.0  # a picture of a longer shape is seen as overlapping square tiles
TILE_STEP = 0.75  # of a tile's side, at most
# Tiles of a long picture: so many for each square of `side` pixels that it has, but not fewer and not more than these.
TILES_A_SQUARE, FEW_TILES, MANY_TILES = 6, 16, 512
GRID = 2  # canvas pixels a side, for each value of the edge model (`model.edges`): networks' chroma is coarser still

# R, G, B minus Y' = _TO_RGB @ (Cb, Cr): the BT.601 / JFIF equations.
_TO_RGB = np.float32([[0, 1.402], [-0.344136, -0.714136], [1.772, 0]])
_LUMA = np.float32([LUMA_WEIGHTS])
_TO_YCC = (np.float32([[0, 0, 1], [1, 0, 0]]) - _LUMA) / np.float32([[1.772], [1.402]])  # of RGB: Cb, Cr
_XYZ_TO_RGB = np.float32(np.linalg.inv(RGB_TO_XYZ) * WHITE)  # of XYZ over the white
_KNEE, _DARK = np.float32(DELTA), np.float32(DARK)

_STEEPNESS = np.float32(np.gradient(LIGHTNESS))  # L* per level

_WITH_LEVEL = np.arange(256, dtype=np.float32)
_ROOM_ABOVE = 1 / np.maximum(255 - _WITH_LEVEL, 0.5)  # what a positive R, G or B offset may fill
_ROOM_BELOW = -1 / np.maximum(_WITH_LEVEL, 0.5)


def canvas_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of the network's view of a picture: a square, unless that would squash it beyond 2:1.

    A longer picture is seen at the full `side` across, and along at most in as many tiles as its pixels are worth.
    """
    long, short = max(width, height), min(width, height)
    if long <= MAX_SQUASH * short:
        return side, side
    tiles = np.clip(TILES_A_SQUARE * long * short // side**2, FEW_TILES, MANY_TILES)
    length = min(round(side * long / short), int(side * (1 + TILE_STEP * (tiles - 1))))
    return (length, side) if width > height else (side, length)


def view(luma: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture's luma -> the network's canvas and the tiles it is shown in.

    Args:
      luma: uint8 [H, W], upright.

    Returns:
      canvas uint8 [h, w] and tiles uint8 [K, side, side].
    """
    height, width = luma.shape
    size = canvas_size(width, height, side)
    smaller = size[0] <= width and size[1] <= height
    canvas = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return canvas, np.stack([canvas[window] for window in _windows(canvas.shape, side)])


def join_tiles(tiles: np.ndarray, canvas_shape: tuple[int, int]) -> np.ndarray:
    """Chroma of tiles float [K, S, S, 2] -> of the canvas, float32 [h, w, 2], blended where tiles overlap."""
    if len(tiles) == 1:
        return np.float32(tiles[0])
    side = tiles.shape[1]
    ramp = np.float32(np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)))
    weight = ramp[:, None, None] if canvas_shape[0] > canvas_shape[1] else ramp[None, :, None]
    total = np.zeros((*canvas_shape, 2), np.float32)
    weights = np.zeros((*canvas_shape, 1), np.float32)
    for window, tile in zip(_windows(canvas_shape, side), tiles, strict=True):
        total[window] += weight * tile
        weights[window] += weight
    return total / weights


def to_ycc(luma: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """The Cb, Cr of the colour that has this luma and this a*b*.

    Lab lightness at the same luma differs from a grey's; two Newton steps, with a grey's slope, find it.

    Args:
      luma: uint8 [H, W].
      ab: float32 [H, W, 2], Lab units.

    Returns:
      float32 [2, H, W], not yet limited to the gamut.
    """
    luma = np.asarray(luma)
    target, slope = np.float32(luma), cv2.LUT(luma, _STEEPNESS)
    lightness = cv2.LUT(luma, LIGHTNESS)
    a, b = ab[..., 0] * np.float32(1 / 500), ab[..., 1] * np.float32(-1 / 200)
    for _ in range(2):
        own = cv2.transform(_lab_to_rgb(lightness, a, b), _LUMA)
        lightness = np.clip(lightness + slope * (target - own), 0, 100)
    return np.stack(cv2.split(cv2.transform(_lab_to_rgb(lightness, a, b), _TO_YCC)))


def rgb_to_ycc(rgb: np.ndarray) -> np.ndarray:
    """Cb, Cr float32 [..., 2] of colours float32 [..., 3], R, G, B in levels."""
    return rgb @ _TO_YCC.T


def apply_model(model: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An edge model of Cb, Cr meets finer luma uint8 [H, W] -> Cb, Cr float32 [H, W], inside the gamut."""
    return limit(luma, *edges.apply(model, luma))


def limit(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales chroma toward neutral, at constant luma and hue, until R, G and B lie in 0...255.

    Args:
      luma: uint8 [H, W].
      cb, cr: float32 [H, W].
    """
    above, below = cv2.LUT(luma, _ROOM_ABOVE), cv2.LUT(luma, _ROOM_BELOW)
    # The share of the room that the farthest channel takes; over 1 is out of gamut.
    red, blue = cr * _TO_RGB[0, 1], cb * _TO_RGB[2, 0]
    green = cv2.addWeighted(cb, float(_TO_RGB[1, 0]), cr, float(_TO_RGB[1, 1]), 0)
    high = cv2.multiply(cv2.max(cv2.max(red, green), blue), above)
    low = cv2.multiply(cv2.min(cv2.min(red, green), blue), below)
    share = cv2.max(cv2.max(high, low), 1.0)
    return cv2.divide(cb, share), cv2.divide(cr, share)


def to_rgb(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """uint8 luma and float32 Cb, Cr, inside the gamut -> uint8 [H, W, 3]."""
    green = cv2.addWeighted(cb, float(_TO_RGB[1, 0]), cr, float(_TO_RGB[1, 1]), 0)
    offsets = (cr * _TO_RGB[0, 1], green, cb * _TO_RGB[2, 0])
    return cv2.merge([cv2.add(offset, luma, dtype=cv2.CV_8U) for offset in offsets])


def colorfulness(rgb: np.ndarray) -> float:
    """Hasler and Suesstrunk 2003, M3, of uint8 [H, W, 3] sRGB: 0 for grey, about 50 for a lively scene."""
    red, green, blue = np.moveaxis(np.float32(rgb), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def _offsets(length: int, side: int) -> list[int]:
    count = int(np.ceil((length - side) / (TILE_STEP * side))) + 1
    return [round(offset) for offset in np.linspace(0, length - side, count)]


def _windows(shape: tuple[int, int], side: int) -> list[tuple[slice, slice]]:
    return [
        (slice(top, top + side), slice(left, left + side))
        for top in _offsets(shape[0], side)
        for left in _offsets(shape[1], side)
    ]


def _lab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """L* and the already divided a*/500, -b*/200 -> sRGB float32 [H, W, 3] in levels, outside 0...255 if it must.

    Both curves are a power above their knee and linear below it; the linear part is added as what is below it.
    """
    fy = (lightness + np.float32(16)) * np.float32(1 / 116)
    f = cv2.merge([fy + a, fy, fy + b])
    power = np.maximum(f, _KNEE)
    xyz = power * power * power + np.float32(3 * _KNEE**2) * np.minimum(f - _KNEE, 0)
    linear = cv2.transform(xyz, _XYZ_TO_RGB)
    curved = cv2.pow(np.maximum(linear, _DARK), 1 / POWER) * np.float32(255 * GAIN)
    return curved + (np.float32(255 * SLOPE) * np.minimum(linear - _DARK, 0) - np.float32(255 * OFFSET))
