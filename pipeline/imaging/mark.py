"""A visible mark: one line of text in a corner of a derivative, or in a band below the picture.

The font is DejaVu Sans, which the package matplotlib brings. Text in a script that the font lacks is refused.
"""

import functools
import importlib.util
import os
import unicodedata
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from pipeline.errors import JobError
from pipeline.records.record import Reason, Refusal

BELOW = "below"
PLACES = ("bottom-right", "bottom-left", "top-right", "top-left", BELOW)
MISSING = "--mark needs the font of matplotlib: pip install matplotlib (the extra mark)"

_PAPER, _INK = 24, 235  # grey levels
_SHARE = 0.02  # of the longer side, for the size of the font
_SMALLEST = 7  # pixels; smaller letters cannot be read
_INVISIBLE = {"Zs", "Cf"}  # spaces, and characters that steer the direction of writing


@dataclass(frozen=True)
class Mark:
    """A text and its place, one of `PLACES`."""

    text: str
    place: str

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the marked picture, from those of the picture. Raises Refusal if it is too small."""
        width, height = size
        _, label_height = _label(self.text, size).size
        return (width, height + label_height) if self.place == BELOW else size

    def stamped(self, pixels: np.ndarray) -> np.ndarray:
        """A copy of an upright picture [H, W] or [H, W, 3], uint8 or uint16, with the mark; a band makes it higher."""
        height, width = pixels.shape[:2]
        unit = 257 if pixels.dtype == np.uint16 else 1
        label = np.asarray(_label(self.text, (width, height))).astype(pixels.dtype) * unit
        marked = self._room(pixels, label.shape[0], _PAPER * unit)
        rows, columns = self._box((height, width), (label.shape[0], label.shape[1]))
        marked[rows, columns] = label if pixels.ndim == 2 else label[..., None]
        return marked

    def neutral(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A copy of a plane of chroma, uint8 [⌈H/2⌉, ⌈W/2⌉], that is grey (128) where the mark is.

        Args:
          plane: of the picture without a mark.
          size: W and H, width and height of that picture.
        """
        label_width, label_height = _label(self.text, size).size
        more = -(-self.size(size)[1] // 2) - plane.shape[0]
        marked = self._room(plane, more, 128)
        if self.place != BELOW:
            rows, columns = self._box((size[1], size[0]), (label_height, label_width))
            marked[rows.start // 2 : -(-rows.stop // 2), columns.start // 2 : -(-columns.stop // 2)] = 128
        return marked

    def _room(self, pixels: np.ndarray, rows: int, level: int) -> np.ndarray:
        """A copy with a band of a grey level below it, if the mark needs one."""
        below = [(0, rows if self.place == BELOW else 0)] + [(0, 0)] * (pixels.ndim - 1)
        return np.pad(pixels, below, constant_values=level)

    def _box(self, shape: tuple[int, int], label: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a label [h, w] on a picture [H, W]."""
        (height, width), (rows, columns) = shape, label
        top = height if self.place == BELOW else 0 if self.place.startswith("top") else height - rows
        left = width - columns if self.place.endswith("right") else 0
        return slice(top, top + rows), slice(left, left + columns)


def check(text: str) -> None:
    """Checks that a text can be drawn.

    Raises:
      JobError: the font is not installed, or has no glyph for a character.
    """
    path = _font_file()
    if not path:
        raise JobError(MISSING)
    from fontTools.ttLib import TTFont

    with TTFont(path) as font:
        known = font.getBestCmap()
    visible = [char for char in text if unicodedata.category(char) not in _INVISIBLE]
    lacking = [char for char in dict.fromkeys(visible) if ord(char) not in known]
    if lacking or not visible:
        named = ", ".join(f"{char} (U+{ord(char):04X})" for char in lacking[:5]) or "an empty text"
        raise JobError(f"--mark {text!r} cannot be drawn: DejaVu Sans has no {named}")
    if any(unicodedata.bidirectional(char) in ("R", "AL") for char in text) and not features.check("raqm"):
        raise JobError(f"--mark {text!r} cannot be drawn: this Pillow cannot write from right to left")


@functools.lru_cache(maxsize=1)
def _font_file() -> str:
    """Path of the font; empty if matplotlib is not installed. The package itself is not loaded."""
    spec = importlib.util.find_spec("matplotlib")
    folder = spec.submodule_search_locations if spec else None
    path = os.path.join(next(iter(folder)), "mpl-data", "fonts", "ttf", "DejaVuSans.ttf") if folder else ""
    return path if os.path.isfile(path) else ""


@functools.lru_cache(maxsize=8)
def _label(text: str, size: tuple[int, int]) -> Image.Image:
    """The text on its ground, a grey image, for a picture of this width and height. Raises Refusal."""
    width, height = size
    pixels = max(_SMALLEST, round(_SHARE * max(size)))
    while True:
        font = ImageFont.truetype(_font_file(), pixels)
        left, _, right, _ = font.getbbox(text)
        ascent, descent = font.getmetrics()
        margin = max(2, pixels // 2)
        label = (int(right - left) + 2 * margin, ascent + descent + margin)
        if label[0] <= width and label[1] <= height // 2:
            break
        if pixels <= _SMALLEST:
            raise Refusal(Reason.TOO_SMALL, f"the --mark does not fit legibly into {width} x {height} pixels")
        pixels = max(_SMALLEST, min(pixels - 1, pixels * width // label[0]))
    image = Image.new("L", label, _PAPER)
    ImageDraw.Draw(image).text((margin - left, margin // 2), text, fill=_INK, font=font)
    return image
