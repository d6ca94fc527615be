"""Finds the pictures in a scan: inside of a border or a mount, or among the text of a page."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.records.record import Reason, Refusal

_SIDE = 720  # pixels; longer scans are reduced first, so that screens of print and noise disappear

# A border: largest deviation of a level from that of the border, smallest share of such pixels in a line, smallest
# share of the border in the area of the scan, smallest number of sides, smallest share of the picture in each side.
_EVEN, _LINE, _BORDER, _SIDES, _INSIDE = 16, 0.97, 0.04, 3, 0.25

_BLANK = 5.0  # levels; larger deviation of a blank page from its large-scale mean

# Text: the paper is light, fills a share of the page, and hardly anything is brighter; ink is darker by some levels. In
# strips of the page, rows with ink (lines) are between rows without (gaps); lines are low and fill a share of the page.
_LIGHT, _PAPER, _NEAR, _BRIGHTER, _INK = 140, 0.4, 22, 0.02, 45
_STRIPS, _LINE_INK, _GAP_INK, _LINE_HEIGHT, _IN_LINES = 8, 0.1, 0.05, 0.04, 0.35
# Drawings in lines, at half the size and after a blur, which makes grey of dots: width of the thickest strokes and
# length of the shortest, in shares of the long side; depth of a stroke; without strokes, smallest share of light paper,
# and largest share of areas that are darker by the depth of ink; smallest share of paper. In a grid of cells: share of
# ink if strokes cross one, and smallest share of such cells.
_DOTS, _STROKE, _LENGTH, _DEPTH, _EMPTY, _AREAS, _BARE = 0.87, 0.018, 0.0125, 26, 0.95, 0.2, 0.3
_CELLS, _CELL_INK, _CROSSED = (10, 10), 0.02, 0.4
# A picture in text, in shares of the long side: window in which paper is counted, gaps that are closed, smallest side.
_WINDOW, _CLOSE, _OPEN = 0.02, 0.01, 0.04
# Largest share of paper in a window; smallest area, filled share of the rectangle, share of half-tones.
_COVERED, _AREA, _FILLED, _TONES = 0.45, 0.008, 0.6, 0.25

_WORDS = {
    Reason.BLANK_PAGE: "nothing is on it",
    Reason.TEXT_PAGE: "it has rows of strokes on paper, like text",
    Reason.LINE_DRAWING: "it has thin strokes everywhere on paper, like a map",
}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in shares, 0...1, of the height and the width of a scan."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def area(self) -> float:
        """Share of the area of the scan."""
        return (self.bottom - self.top) * (self.right - self.left)

    def of(self, plane: np.ndarray) -> np.ndarray:
        """The part of a plane [H, W, ...] in this rectangle, at least one pixel. Returns a view."""
        height, width = plane.shape[:2]
        top, left = min(round(self.top * height), height - 1), min(round(self.left * width), width - 1)
        return plane[
            top : max(top + 1, round(self.bottom * height)), left : max(left + 1, round(self.right * width))
        ]

    def around(self, part: "Box") -> "Box":
        """A box of the scan, from a box of the part in this rectangle."""
        height, width = self.bottom - self.top, self.right - self.left
        down, across = (part.top, part.bottom), (part.left, part.right)
        return Box(*(self.top + height * at for at in down), *(self.left + width * at for at in across))

    def within(self, other: "Box") -> bool:
        """Whether its centre is in another box."""
        down, across = (self.top + self.bottom) / 2, (self.left + self.right) / 2
        return other.top < down < other.bottom and other.left < across < other.right


WHOLE = Box(0, 1, 0, 1)


def outermost(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The boxes that are not inside of a larger one, in reading order from the top."""
    apart: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.area):
        if not any(box.within(larger) for larger in apart):
            apart.append(box)
    return tuple(sorted(apart, key=lambda box: (box.top, box.left)))


def find(luma: np.ndarray) -> tuple[tuple[Box, ...], str]:
    """Finds the pictures in a scan.

    Args:
      luma: uint8 [H, W], upright.

    Returns:
      Their places, and a remark for people; the remark is empty if the whole scan is the picture.

    Raises:
      Refusal: it is a page of text or a drawing in lines, without pictures, or blank.
    """
    kind, framed, small = _seen(luma)
    box = framed or WHOLE
    if kind is None:
        return (box,), "its border was left without colour" if framed else ""
    blank = kind == Reason.BLANK_PAGE
    boxes = () if blank else tuple(box.around(picture) for picture in illustrations(box.of(small)))
    if not boxes:
        raise Refusal(kind, f"{_WORDS[kind]} (--layout whole colours it all the same)")
    name = "page with text" if kind == Reason.TEXT_PAGE else "drawing in lines"
    return boxes, f"a {name}: only {len(boxes)} picture{'s' * (len(boxes) > 1)} in it got colour"


def is_page(luma: np.ndarray) -> bool:
    """Whether a scan, luma uint8 [H, W], is empty paper, a page with text, or a drawing in lines."""
    return _seen(luma)[0] is not None


def _seen(luma: np.ndarray) -> tuple[Reason | None, Box | None, np.ndarray]:
    """What a scan is, if it is no picture; the place inside of its border, if it has one; and its luma, reduced."""
    counts = _histogram(luma)
    if not (_has_even_edges(luma) or _may_be_paper(counts)):  # nearly all photographs
        return None, None, luma
    small = reduced(luma)
    if small is not luma:
        counts = _histogram(small)
    if _is_blank(small, counts):
        return Reason.BLANK_PAGE, None, small
    framed = inside(small)
    part = framed.of(small) if framed else small
    if is_text(part) if framed else _is_text(part, counts):
        return Reason.TEXT_PAGE, framed, small
    return Reason.LINE_DRAWING if is_line_drawing(part) else None, framed, small


def _may_be_paper(counts: np.ndarray) -> bool:
    """Whether levels with these counts [256] are light, and enough of one level for a blank page or a page of text."""
    paper = _quantile(counts, 0.75)
    return paper >= _LIGHT and _near(counts, paper) >= 0.8 * _PAPER * counts.sum()


def is_blank(luma: np.ndarray) -> bool:
    """Whether luma uint8 [h, w] is empty paper, perhaps unevenly lit."""
    return _is_blank(luma, _histogram(luma))


def _is_blank(luma: np.ndarray, counts: np.ndarray) -> bool:
    levels = np.arange(256)
    variance = counts @ (levels - counts @ levels / luma.size) ** 2 / luma.size
    if _quantile(counts, 0.5) < _LIGHT or variance > (4 * _BLANK) ** 2:
        return False
    light = cv2.resize(cv2.resize(luma, (12, 12), interpolation=cv2.INTER_AREA), luma.shape[::-1])
    detail = cv2.GaussianBlur(luma, (0, 0), 1.5).astype(np.float32) - light
    return bool(np.abs(detail).max() < 5 * _BLANK and detail.std() < _BLANK)


def is_text(luma: np.ndarray) -> bool:
    """Whether luma uint8 [h, w] is a page that is mostly paper, with lines of strokes and gaps between them."""
    return _is_text(luma, _histogram(luma))


def _is_text(luma: np.ndarray, counts: np.ndarray) -> bool:
    paper = _quantile(counts, 0.75)
    brighter = counts[paper + _NEAR + 1 :].sum()
    if paper < _LIGHT or _near(counts, paper) < _PAPER * luma.size or brighter > _BRIGHTER * luma.size:
        return False
    ink = (luma < paper - _INK).astype(np.float32)
    # Shares of ink in the rows of each strip:
    shares = cv2.resize(ink, (_STRIPS, len(ink)), interpolation=cv2.INTER_AREA)
    changes = np.count_nonzero(np.diff(shares > _LINE_INK, axis=0))
    if changes < _STRIPS * _IN_LINES / _LINE_HEIGHT:  # fewer than the highest lines would have
        return False
    return bool(np.mean([_in_lines(strip) for strip in shares.T]) > _IN_LINES)


def _in_lines(ink: np.ndarray) -> float:
    """Share of rows, with a share of ink [h] each, that belong to lines of text: rows with ink between rows without."""
    state = np.where(ink > _LINE_INK, 1, np.where(ink < _GAP_INK, 0, -1))
    known = np.flatnonzero(state >= 0)
    if not len(known):
        return 0.0
    filled = state[known[np.clip(np.searchsorted(known, np.arange(len(ink)), side="right") - 1, 0, None)]]
    edges = np.flatnonzero(np.diff(filled)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(filled)]]))
    ones = runs[1 - int(filled[0]) :: 2]
    high = ones[(ones >= 2) & (ones <= _LINE_HEIGHT * len(ink))]
    return float(2 * high.sum() / len(ink))


def is_line_drawing(luma: np.ndarray) -> bool:
    """Whether luma uint8 [h, w] is a map, a plan or another drawing: thin strokes nearly everywhere on light paper."""
    luma = cv2.GaussianBlur(cv2.pyrDown(luma), (0, 0), _DOTS)
    long = max(luma.shape)
    paper = cv2.morphologyEx(luma, cv2.MORPH_CLOSE, _square(_STROKE * long))  # without strokes
    counts = _histogram(paper)
    level = _quantile(counts, 0.75)
    light, dark = counts[_LIGHT:].sum(), counts[: level - _INK].sum()
    if level < _LIGHT or light < _EMPTY * paper.size or dark > _AREAS * paper.size:
        return False
    if _near(_histogram(luma), level) < _BARE * luma.size:  # as in heavy grain
        return False
    ink = (cv2.subtract(paper, luma) > _DEPTH).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=4)
    strokes = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= _LENGTH * long
    strokes[0] = False  # the paper
    cells = cv2.resize(strokes[parts].astype(np.float32), _CELLS, interpolation=cv2.INTER_AREA)
    return bool(np.mean(cells > _CELL_INK) > _CROSSED)


def illustrations(luma: np.ndarray) -> tuple[Box, ...]:
    """The pictures on a page of text, luma uint8 [h, w]: areas with little paper and with half-tones, unlike type."""
    height, width = luma.shape
    paper, long = _paper(luma), max(height, width)
    window = round(_WINDOW * long) | 1
    near = (np.abs(luma.astype(np.int16) - paper) <= _NEAR).astype(np.float32)
    covered = (cv2.blur(near, (window, window)) < _COVERED).astype(np.uint8)
    covered = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, _square(_CLOSE * long))
    covered = cv2.morphologyEx(covered, cv2.MORPH_OPEN, _square(_OPEN * long))
    number, _, stats, _ = cv2.connectedComponentsWithStats(covered)
    found = []
    for left, top, wide, high, area in stats[1:number]:
        part = luma[top : top + high, left : left + wide]
        tones = np.mean((part > 0.25 * paper) & (part < paper - 2 * _NEAR))
        if wide * high >= _AREA * luma.size and area > _FILLED * wide * high and tones > _TONES:
            found.append(Box(top / height, (top + high) / height, left / width, (left + wide) / width))
    return outermost(found)


def _square(side: float) -> np.ndarray:
    return np.ones((max(3, round(side)),) * 2, np.uint8)


def inside(luma: np.ndarray) -> Box | None:
    """The picture inside of an even border or mount, luma uint8 [h, w]; None if there is no border."""
    height, width = luma.shape
    if not _has_even_edges(luma):
        return None
    level = _level(_edges(luma))
    even = np.abs(luma.astype(np.int16) - level) <= _EVEN
    top, bottom = _lines(even)
    if top + bottom >= height:
        return None
    left, right = _lines(even[top : height - bottom].T)
    wide, high = width - left - right, height - top - bottom
    sides = sum(lines > 0.01 * max(height, width) for lines in (top, bottom, left, right))
    large = wide >= _INSIDE * width and high >= _INSIDE * height
    if sides < _SIDES or not large or wide * high > (1 - _BORDER) * luma.size:
        return None
    return Box(top / height, 1 - bottom / height, left / width, 1 - right / width)


def _has_even_edges(luma: np.ndarray) -> bool:
    """Whether enough sides of luma uint8 [H, W] are of one level, as those of a border are."""
    edges = _edges(luma)
    level = _level(edges)
    even = [np.mean(np.abs(edge.astype(np.int16) - level) <= _EVEN) >= _LINE for edge in edges]
    return sum(even) >= _SIDES


def _level(edges: list[np.ndarray]) -> int:
    return int(np.median(np.concatenate(edges)))


def _edges(luma: np.ndarray) -> list[np.ndarray]:
    """The levels along the four sides, reduced as in `reduced`, so that grain disappears."""
    deep = max(1, math.ceil(max(luma.shape) / _SIDE))
    strips = luma[:deep], luma[-deep:], luma[:, :deep].T, luma[:, -deep:].T
    return [
        cv2.resize(strip, (-(-strip.shape[1] // deep), 1), interpolation=cv2.INTER_AREA)[0]
        for strip in strips
    ]


def _lines(even: np.ndarray) -> tuple[int, int]:
    """Number of lines of a border at the beginning and at the end of a mask [lines, pixels]."""
    lines = even.mean(axis=1) >= _LINE
    picture = np.flatnonzero(~lines)
    return (int(picture[0]), int(len(lines) - 1 - picture[-1])) if len(picture) else (len(lines), 0)


def _paper(luma: np.ndarray) -> int:
    return _quantile(_histogram(luma), 0.75)


def _histogram(luma: np.ndarray) -> np.ndarray:
    return cv2.calcHist([luma], [0], None, [256], [0, 256]).ravel()


def _near(counts: np.ndarray, level: int) -> float:
    """Number of pixels near a level."""
    return float(counts[max(0, level - _NEAR) : level + _NEAR + 1].sum())


def _quantile(counts: np.ndarray, share: float) -> int:
    """The level at or below which this share of the pixels lies."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def reduced(luma: np.ndarray) -> np.ndarray:
    """Luma uint8 [h, w] of at most 720 pixels on the longer side, for `is_text` and the others."""
    scale = _SIDE / max(luma.shape)
    if scale >= 1:
        return luma
    height, width = (max(1, round(scale * side)) for side in luma.shape)
    return cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
