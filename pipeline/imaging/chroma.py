"""Chroma between network and scan: tiles, colour at constant luma, edges, gamut.

Luma is BT.601 Y' in 8-bit levels (0...255), as in Pillow's `convert("L")`. Chroma is a*b* in Lab units from the
network, and Cb, Cr offsets in 8-bit levels (0 is neutral) for a file.
"""

import cv2
import numpy as np

from model.color import edges
from model.color.srgb import (
    DARK,
    DELTA,
    GAIN,
    LIGHTNESS,
    LUMA_WEIGHTS,
    OFFSET,
    POWER,
    RGB_TO_XYZ,
    SLOPE,
    WHITE,
)
from pipeline.imaging.icc import Tone

MAX_SQUASH = 2.0  # a longer picture is seen in overlapping square tiles
TILE_STEP = 0.75  # of a tile's side, at most
# Tiles of a long picture: their number for each `side` x `side` pixels of the picture, and their limits.
TILES_A_SQUARE, FEW_TILES, MANY_TILES = 6, 16, 512
DEEP = 257  # 16-bit levels in an 8-bit level
GRID = 2  # pixels of the canvas for each value of the edge model (`model.color.edges`), on each axis

# R, G, B minus Y' = _TO_RGB @ (Cb, Cr): the BT.601 / JFIF equations.
_TO_RGB = np.array([[0, 1.402], [-0.344136, -0.714136], [1.772, 0]], np.float32)
_LUMA = np.array([LUMA_WEIGHTS], np.float32)
_TO_YCC = np.array([[0, 0, 1], [1, 0, 0]], np.float32) - _LUMA  # of RGB: Cb, Cr
_TO_YCC /= np.array([[1.772], [1.402]], np.float32)
_XYZ_TO_RGB = (np.linalg.inv(RGB_TO_XYZ) * WHITE).astype(np.float32)  # of XYZ over the white
_KNEE, _DARK = np.float32(DELTA), np.float32(DARK)

_STEEPNESS = np.asarray(np.gradient(LIGHTNESS), np.float32)  # L* per level

_WITH_LEVEL = np.arange(256, dtype=np.float32)
_LEAST = np.float32(1 / 512)  # level; less room counts as none
_ROOM_ABOVE = 1 / np.maximum(255 - _WITH_LEVEL, 0.5)  # room for a positive offset of R, G or B
_ROOM_BELOW = -1 / np.maximum(_WITH_LEVEL, 0.5)


def canvas_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of the network's view of a picture: a square, unless this would squash it by more than 2:1.

    A longer picture has `side` pixels across. Along, its number of tiles is limited by its number of pixels.
    """
    long, short = max(width, height), min(width, height)
    if long <= MAX_SQUASH * short:
        return side, side
    tiles = np.clip(TILES_A_SQUARE * long * short // side**2, FEW_TILES, MANY_TILES)
    length = min(round(side * long / short), int(side * (1 + TILE_STEP * (tiles - 1))))
    return (length, side) if width > height else (side, length)


def view(luma: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes the canvas and the tiles for the network from the luma of a picture.

    Args:
      luma: uint8 [H, W], upright.

    Returns:
      canvas uint8 [h, w] and tiles uint8 [K, side, side].
    """
    height, width = luma.shape
    size = canvas_size(width, height, side)
    smaller = size[0] <= width and size[1] <= height
    canvas = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return canvas, np.stack([canvas[window] for window in _windows(size[::-1], side)])


def count_tiles(canvas_shape: tuple[int, ...], side: int) -> int:
    """Number of tiles of a canvas [h, w]."""
    return sum(1 for _ in _windows((canvas_shape[0], canvas_shape[1]), side))


def join_tiles(tiles: np.ndarray, canvas_shape: tuple[int, int]) -> np.ndarray:
    """Joins the chroma of tiles, float [K, S, S, 2], to that of the canvas, float32 [h, w, 2]. Overlaps are blended."""
    if len(tiles) == 1:
        return tiles[0].astype(np.float32)
    side, along = tiles.shape[1], int(canvas_shape[1] > canvas_shape[0])
    ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
    windows = list(_windows(canvas_shape, side))
    weights = np.zeros(canvas_shape[along], np.float32)
    for window in windows:
        weights[window[along]] += ramp
    height, width = canvas_shape
    total = np.zeros(
        (height, 2 * width), np.float32
    )  # a* and b* side by side make rows that NumPy multiplies fast
    for (rows, columns), tile in zip(windows, tiles.reshape(-1, side, 2 * side), strict=True):
        share = ramp / weights[(rows, columns)[along]]
        part = total[rows, 2 * columns.start : 2 * columns.stop]
        part += tile.astype(np.float32) * (np.repeat(share, 2) if along else share[:, None])
    return total.reshape(height, width, 2)


def to_ycc(luma: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Cb, Cr of the colour with this luma and this a*b*.

    Its Lab lightness differs from that of a grey with the same luma. It is found by two Newton steps with the slope
    of greys.

    Args:
      luma: uint8 [H, W].
      ab: float32 [H, W, 2], Lab units.

    Returns:
      float32 [2, H, W], not yet limited to the gamut.
    """
    luma = np.asarray(luma)
    target, slope = luma.astype(np.float32), cv2.LUT(luma, _STEEPNESS)
    lightness = cv2.LUT(luma, LIGHTNESS)
    a, b = ab[..., 0] * np.float32(1 / 500), ab[..., 1] * np.float32(-1 / 200)
    for _ in range(2):
        own = cv2.transform(_lab_to_rgb(lightness, a, b), _LUMA)
        lightness = np.clip(lightness + slope * (target - own), 0, 100)
    return np.stack(cv2.split(cv2.transform(_lab_to_rgb(lightness, a, b), _TO_YCC)))


def rgb_to_ycc(rgb: np.ndarray) -> np.ndarray:
    """Converts R, G, B in levels, float32 [..., 3], to Cb, Cr float32 [..., 2]."""
    return rgb @ _TO_YCC.T


def apply_model(model: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Applies an edge model of Cb, Cr to finer luma uint8 [H, W].

    Returns Cb, Cr float32 [H, W], inside of the gamut.
    """
    return limit(luma, *edges.apply(model, luma))


def limit(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduces chroma at constant luma and hue until R, G and B are in 0...255.

    Args:
      luma: uint8 or uint16 [H, W].
      cb, cr: float32 [H, W], in 8-bit levels.
    """
    if luma.dtype == np.uint8:
        above, below = cv2.LUT(luma, _ROOM_ABOVE), cv2.LUT(luma, _ROOM_BELOW)
    else:
        level = luma.astype(np.float32) * np.float32(1 / DEEP)
        above, below = 1 / np.maximum(255 - level, _LEAST), -1 / np.maximum(level, _LEAST)
    # Share of the room that the largest offset needs; above 1 it is out of gamut.
    red, blue = cr * _TO_RGB[0, 1], cb * _TO_RGB[2, 0]
    green = cv2.addWeighted(cb, float(_TO_RGB[1, 0]), cr, float(_TO_RGB[1, 1]), 0)
    high = cv2.multiply(cv2.max(cv2.max(red, green), blue), above)
    low = cv2.multiply(cv2.min(cv2.min(red, green), blue), below)
    share = cv2.max(cv2.max(high, low), 1.0)  # type: ignore[call-overload]  # the stub lacks scalars
    return cv2.divide(cb, share), cv2.divide(cr, share)


def recode(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray, tone: Tone) -> tuple[np.ndarray, np.ndarray]:
    """Converts chroma of sRGB to an RGB space with another tone curve.

    The colour keeps its hue and saturation, and the luma of that space becomes that of the grey. It is found by two
    Newton steps with the slope of greys, as in `to_ycc`.

    Args:
      luma: uint8 [H, W], in levels of sRGB.
      cb, cr: float32 [H, W], in levels of sRGB, inside of the gamut.

    Returns:
      Cb, Cr float32 [H, W] in levels of the space, inside of its gamut.
    """
    grey, level = tone.coded(luma), luma.astype(np.float32)
    slope = np.interp(grey, np.arange(256), np.gradient(tone.levels))
    offsets = np.stack([cb, cr], -1) @ _TO_RGB.T
    for _ in range(2):
        coded = tone.coded(level[..., None] + offsets)
        level = (level + slope * (grey - coded @ _LUMA[0])).astype(np.float32)
    ycc = rgb_to_ycc(tone.coded(level[..., None] + offsets).astype(np.float32))
    return limit(
        np.rint(grey).astype(np.uint8), *(np.ascontiguousarray(plane) for plane in np.moveaxis(ycc, -1, 0))
    )


def to_rgb(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """Converts uint8 or uint16 luma and float32 Cb, Cr, in 8-bit levels and inside of the gamut, to RGB [H, W, 3]."""
    green = cv2.addWeighted(cb, float(_TO_RGB[1, 0]), cr, float(_TO_RGB[1, 1]), 0)
    offsets = (cr * _TO_RGB[0, 1], green, cb * _TO_RGB[2, 0])
    if luma.dtype == np.uint8:
        return cv2.merge([cv2.add(offset, luma, dtype=cv2.CV_8U) for offset in offsets])
    deep = luma.astype(np.float32)
    return cv2.merge([cv2.add(offset * np.float32(DEEP), deep, dtype=cv2.CV_16U) for offset in offsets])


def colorfulness(rgb: np.ndarray) -> float:
    """Colourfulness of sRGB uint8 [H, W, 3] (Hasler and Suesstrunk 2003, M3): 0 for grey, about 50 if vivid."""
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float32), -1, 0)
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
    """Converts L*, a*/500 and -b*/200 to sRGB float32 [H, W, 3] in levels, which may be outside of 0...255.

    Both curves are a power above their knee and linear below. The linear part is added for values below the knee.
    """
    fy = (lightness + np.float32(16)) * np.float32(1 / 116)
    f = cv2.merge([fy + a, fy, fy + b])
    power = np.maximum(f, _KNEE)
    xyz = power * power * power + np.float32(3 * _KNEE**2) * np.minimum(f - _KNEE, 0)
    linear = cv2.transform(xyz, _XYZ_TO_RGB)
    curved = cv2.pow(np.maximum(linear, _DARK), 1 / POWER) * np.float32(255 * GAIN)
    return curved + (np.float32(255 * SLOPE) * np.minimum(linear - _DARK, 0) - np.float32(255 * OFFSET))
