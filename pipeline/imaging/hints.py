"""Hints: colours that an archivist gives for a scan, and the correction of the network's colours.

A hints file is a text with lines `x y colour`, or a picture: a copy of the scan with coloured marks, or a
transparent picture with nothing but marks. `pipeline.inputs.hint_files` finds and reads the files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageColor

from model.color import edges
from pipeline.decoding import png
from pipeline.decoding.pillow import open_image
from pipeline.imaging import chroma
from pipeline.inputs.hint_files import TEXT
from pipeline.metadata.orientation import orientation_of, upright
from pipeline.records.record import Reason, Refusal

GRID = 100_000  # pixels; size for the propagation, which takes a second
# Reach of a mark; see `propagation.corrected`. Chosen by eye, and on 14 photographs with their true colours as
# hints where the error of the network was largest. Smaller values make surfaces spotty; with larger ones, colours
# run into neighbours.
REACH = 1.0
CONTRAST = 55.0
POINT = 0.008  # radius of a dot, as a share of the longer side
ALIKE = 12  # levels; largest difference of luma in a dot
COLORED = (
    8  # levels between the channels; a larger difference is a mark on a grey copy, JPEG artefacts are smaller
)
_BAND = 512  # rows of a marked picture that are searched in one step


@dataclass(eq=False, slots=True)
class Marks:
    """Given colours on the grid for their propagation, upright."""

    luma: np.ndarray  # uint8 [h, w], of the scan
    planes: np.ndarray  # float32 [h, w, 2]: Cb, Cr of the marks in 8-bit levels
    marked: np.ndarray  # bool [h, w]
    words: str  # number and kind of the hints, for the record


def marks(data: bytes, uri: str, guide: np.ndarray, size: tuple[int, int]) -> Marks:
    """Reads the marks of a hints file.

    Args:
      data: content of the file.
      uri: of the file; its extension tells its kind.
      guide: luma of the scan, uint8 [H, W], upright, of any size.
      size: width and height of the upright scan in pixels.

    Raises:
      Refusal: BAD_HINTS, with the place of the mistake.
    """
    from model.color import propagation  # loads SciPy, which scans without hints do not need

    luma = propagation.reduced(guide, GRID)
    if uri.lower().endswith(TEXT):
        points = list(_points(data, size))
        planes, marked = _around(points, luma, size)
        count = f"{len(points)} point" + "s" * (len(points) != 1)
    else:
        height, width = luma.shape
        planes, marked = _painted(data, (height, width), size)
        count = "a marked picture"
    return Marks(luma, planes, marked, f"corrected by {count}")


def correct(model: np.ndarray, marks: Marks) -> np.ndarray:
    """Corrects an edge model float32 [h, w, 4] of the chroma, upright, where marks reach."""
    from model.color import propagation

    height, width = marks.luma.shape
    base = np.stack(edges.apply(model, marks.luma), axis=-1)
    wanted = propagation.corrected(
        marks.luma, base, marks.planes, marks.marked, reach=REACH, contrast=CONTRAST
    )
    change = np.ascontiguousarray(np.moveaxis(wanted - base, -1, 0), np.float32)
    return cv2.resize(model, (width, height)) + edges.fit(marks.luma, change, softness=0)


def _points(data: bytes, size: tuple[int, int]) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """Yields x, y and (Cb, Cr) of each line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal("it is not UTF-8 text") from error
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines:
        raise _refusal("the file has none; delete it to get the colours of the network")
    for number, line in lines:
        found = re.fullmatch(r"([0-9]{1,9})\s+([0-9]{1,9})\s+(\S.*)", line)
        if not found:
            raise _refusal(f"line {number}: {line[:60]!r} does not have the form: x y colour")
        x, y = int(found[1]), int(found[2])
        if x >= size[0] or y >= size[1]:
            raise _refusal(
                f"line {number}: {x}, {y} is outside of the upright scan of {size[0]} x {size[1]} pixels"
            )
        color = _color(found[3])
        if color is None:
            raise _refusal(f"line {number}: {found[3][:40]!r} is not a colour (#rrggbb or a CSS name)")
        cb, cr = chroma.rgb_to_ycc(np.array(color, np.float32))
        yield x, y, (cb, cr)


def _color(name: str) -> tuple[int, int, int] | None:
    try:
        color = ImageColor.getrgb(name)
    except ValueError:
        return None
    # A colour with alpha is ambiguous. Pillow also accepts rgb(999, 0, 0).
    return color if len(color) == 3 and all(0 <= level <= 255 for level in color) else None


def _around(points: list, luma: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Makes a dot of similar luma of each point. A pixel in several dots has the colour of the nearest point."""
    height, width = luma.shape
    planes, nearest = np.zeros((height, width, 2), np.float32), np.full((height, width), np.inf)
    radius = POINT * max(luma.shape)
    reach = int(radius)
    for x, y, color in points:
        column, row = x * width // size[0], y * height // size[1]
        top, left = max(0, row - reach), max(0, column - reach)
        window = np.s_[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.ogrid[window]
        distance = np.hypot(rows[: height - top] - row, columns[:, : width - left] - column)
        alike = np.abs(luma[window].astype(int) - luma[row, column]) <= ALIKE
        own = (distance <= radius) & alike & (distance <= nearest[window])
        planes[window][own], nearest[window][own] = color, distance[own]
    return planes, np.isfinite(nearest)


def _painted(data: bytes, grid: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    from model.color import propagation

    pixels = _pixels(data, size)
    seen_through = 2 * np.count_nonzero(pixels[..., 3] == 0) > size[0] * size[1]
    found = []
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        rgb = band[..., :3]
        is_mark = band[..., 3] > 0
        if not seen_through:
            is_mark &= rgb.max(axis=-1) - rgb.min(axis=-1) > COLORED
        rows, columns = np.nonzero(is_mark)
        found.append((rows + top, columns, chroma.rgb_to_ycc(rgb[rows, columns].astype(np.float32))))
    y, x, colors = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if not len(y):
        raise _refusal(
            "the picture has no marks: paint them in colour (grey marks only on a transparent picture)"
        )
    if not seen_through and 2 * len(y) > size[0] * size[1]:
        raise _refusal(
            "most of the picture is coloured: paint marks on a grey copy or on a transparent picture"
        )
    return propagation.gathered(np.stack([y, x], axis=1), colors, pixels.shape[:2], grid)


def _pixels(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes a picture with the size of the scan to RGBA uint8 [H, W, 4]."""
    try:
        with open_image(data, ["PNG"]) as image:
            _check_size(
                image.size, size, {size, size[::-1]}
            )  # before its pixels are decoded for the orientation
            turned = orientation_of(image)
            _check_size(image.size, size, {size if turned < 5 else size[::-1]})
            rgba = image.convert("RGBA")
            if fault := png.fault(data, image):
                raise _refusal(f"the picture cannot be used: {fault.detail}")
            return upright(np.asarray(rgba), turned)
    except Refusal:
        raise
    except Exception as error:  # decoders raise any exception for broken files
        raise _refusal(f"the picture cannot be read as a PNG ({type(error).__name__})") from error


def _check_size(own: tuple[int, int], size: tuple[int, int], allowed: set[tuple[int, int]]) -> None:
    if own not in allowed:
        raise _refusal(
            f"the picture has {own[0]} x {own[1]} pixels, but the upright scan {size[0]} x {size[1]}"
        )


def _refusal(words: str) -> Refusal:
    return Refusal(Reason.BAD_HINTS, f"hints: {words}")
