"""Colours that an archivist gives for single scans: a text file or a marked picture a scan, in a folder of their own.

Of the scan `box/a.tif` these are `DIR/box/a.tif.txt`, with lines `x y colour`, or `DIR/box/a.tif.png`, a copy of the
scan with coloured marks or a transparent picture with nothing else.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageColor

from model import edges
from pipeline import chroma, metadata, png, storage
from pipeline.collections import Item, JobError, base_folder
from pipeline.pillow import open_image
from pipeline.record import Reason, Refusal

TEXT, PICTURE = ".txt", ".png"
GRID = 100_000  # pixels at which given colours are carried through the scan; a second's work
# How far a mark reaches; see `propagation.corrected`. Chosen by eye, and on 14 photographs that were given their own
# colours where the network erred most: with less, surfaces become spotty; with more, colours run into neighbours.
REACH = 1.0
CONTRAST = 55.0
POINT = 0.008  # radius of what a line of text marks, as a share of the longer side,
ALIKE = 12  # as far as its luma is within so many levels of the point's own
COLORED = (
    8  # levels between the channels of a pixel: more is a mark on a grey copy, traces of JPEG stay below
)
_BAND = 512  # rows of a marked picture looked at in one go
_UNREADABLE = "unreadable"  # in place of the digest of a file that cannot be read
_NO_KEY = "/"  # ends what is no key: keys are paths of files


@dataclass(frozen=True, slots=True)
class Hint:
    """A hints file as a listing has it."""

    uri: str
    sha256: str  # of its bytes


@dataclass(eq=False, slots=True)
class Marks:
    """Given colours on the grid at which they are carried through the scan, upright."""

    luma: np.ndarray  # uint8 [h, w], the scan's
    planes: np.ndarray  # float32 [h, w, 2]: Cb, Cr in 8-bit levels, where marked
    marked: np.ndarray  # bool [h, w]
    words: str  # how many of what, for the record


def check(folder: str, source: str, output: str) -> None:
    """Raises JobError unless the folder is there and apart from input and output. Folder and output are normalised."""
    try:
        there = storage.is_folder(folder)
    except OSError as error:
        raise JobError(f"cannot list {folder}: {error.strerror or error} (--hints)") from error
    if not there:
        raise JobError(f"no such folder: {folder} (--hints; with no hints at all, leave the option out)")
    for name, other in (("output", output), ("input", base_folder(source))):
        if other and (storage.contains(folder, other) or storage.contains(other, folder)):
            raise JobError(f"the hints in {folder} overlap the {name} {other}; choose a folder beside it")


def listing(folder: str) -> Iterator[tuple[str, str]]:
    """Key of the scan, and URI, of every file in the folder. What is no hints file has a key that no scan has.

    Raises JobError where the folder cannot be listed.
    """
    try:
        for info in storage.list_files(folder):
            relative = info.uri[len(folder) :].lstrip("/")
            ending = relative[-len(TEXT) :].lower()
            key = relative[: -len(TEXT)] if ending in (TEXT, PICTURE) else relative + _NO_KEY
            yield key, info.uri
    except OSError as error:
        raise JobError(f"cannot list {error.filename or folder}: {error.strerror or error}") from error


def identified(uri: str) -> Hint:
    """A hints file with its digest."""
    try:
        return Hint(uri, hashlib.sha256(storage.read(uri)).hexdigest())
    except OSError:
        return Hint(uri, _UNREADABLE)  # it is the scan's affair: reading it again gives the reason


def given(item: Item, hints: Iterable[Hint]) -> Item:
    """A scan with its hints. Several files for one scan count as one that cannot be read; see `read`."""
    hints = sorted(set(hints), key=lambda hint: hint.uri)
    digests = [hint.sha256 for hint in hints]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return dataclasses.replace(item, hints=tuple(hint.uri for hint in hints), hints_sha256=digest)


def read(item: Item) -> bytes:
    """The content of a scan's hints file. Raises Refusal where it has several, or the one cannot be read."""
    if len(item.hints) > 1:
        names = " and ".join(uri.rpartition("/")[2] for uri in item.hints)
        raise _refusal(f"there are several: {names}; keep one of them")
    (uri,) = item.hints
    try:
        return storage.read(uri)
    except OSError as error:
        raise _refusal(f"cannot read {uri}: {error.strerror or error}") from error


def marks(data: bytes, uri: str, guide: np.ndarray, size: tuple[int, int]) -> Marks:
    """What a hints file says about a scan.

    Args:
      data: its content.
      uri: its name tells of which kind it is.
      guide: uint8 [H, W], the scan's luma, upright, of any size.
      size: width and height of the upright scan in pixels.

    Raises:
      Refusal: BAD_HINTS, with words that say where the file is wrong.
    """
    from model.traditional import propagation  # loads SciPy, which scans without hints need not wait for

    luma = propagation.reduced(guide, GRID)
    if uri.lower().endswith(TEXT):
        points = list(_points(data, size))
        planes, marked = _around(points, luma, size)
        count = f"{len(points)} point" + "s" * (len(points) != 1)
    else:
        planes, marked = _painted(data, luma.shape, size)
        count = "a marked picture"
    return Marks(luma, planes, marked, f"corrected by {count}")


def correct(model: np.ndarray, marks: Marks) -> np.ndarray:
    """An edge model float32 [h, w, 4] of the scan's chroma, upright, that follows the marks where they reach."""
    from model.traditional import propagation

    height, width = marks.luma.shape
    base = np.stack(edges.apply(model, marks.luma), axis=-1)
    wanted = propagation.corrected(
        marks.luma, base, marks.planes, marks.marked, reach=REACH, contrast=CONTRAST
    )
    change = np.ascontiguousarray(np.moveaxis(wanted - base, -1, 0), np.float32)
    return cv2.resize(model, (width, height)) + edges.fit(marks.luma, change, softness=0)


def _points(data: bytes, size: tuple[int, int]) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """x, y and Cb, Cr of each line."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _refusal("it is no text in UTF-8") from error
    lines = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise _refusal("there are none in it; delete the file to have the network's own colours")
    for number, line in lines:
        found = re.fullmatch(r"([0-9]{1,9})\s+([0-9]{1,9})\s+(\S.*)", line)
        if not found:
            raise _refusal(f"line {number}: {line[:60]!r} is not of the form: x y colour")
        x, y = int(found[1]), int(found[2])
        if x >= size[0] or y >= size[1]:
            raise _refusal(
                f"line {number}: {x}, {y} lies outside the upright scan of {size[0]} x {size[1]} pixels"
            )
        color = _color(found[3])
        if color is None:
            raise _refusal(f"line {number}: {found[3][:40]!r} is no colour (#rrggbb or a CSS name)")
        yield x, y, tuple(chroma.rgb_to_ycc(np.float32(color)))


def _color(name: str) -> tuple[int, int, int] | None:
    try:
        color = ImageColor.getrgb(name)
    except ValueError:
        return None
    # With an alpha, what is meant is unclear; Pillow also takes rgb(999, 0, 0).
    return color if len(color) == 3 and all(0 <= level <= 255 for level in color) else None


def _around(points: list, luma: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each point as a dot of its own luma; a place in several dots has the colour of the nearest."""
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
    from model.traditional import propagation

    pixels = _pixels(data, size)
    seen_through = 2 * np.count_nonzero(pixels[..., 3] == 0) > size[0] * size[1]
    y, x, colors = [], [], []
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        rgb = band[..., :3]
        is_mark = band[..., 3] > 0
        if not seen_through:
            is_mark &= rgb.max(axis=-1) - rgb.min(axis=-1) > COLORED
        rows, columns = np.nonzero(is_mark)
        y.append(rows + top)
        x.append(columns)
        colors.append(chroma.rgb_to_ycc(np.float32(rgb[rows, columns])))
    y, x, colors = map(np.concatenate, (y, x, colors))
    if not len(y):
        raise _refusal("the picture has no marks: paint them in colour (grey ones on a transparent picture)")
    if not seen_through and 2 * len(y) > size[0] * size[1]:
        raise _refusal("most of the picture is in colour: marks go on a grey copy or a transparent picture")
    return propagation.gathered(y, x, colors, pixels.shape[:2], grid)


def _pixels(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """RGBA uint8 [H, W, 4] of a picture that has the scan's size."""
    try:
        with open_image(data, ["PNG"]) as image:
            _check_size(
                image.size, size, {size, size[::-1]}
            )  # before its pixels are decoded, for its orientation
            turned = metadata.orientation(image)
            _check_size(image.size, size, {size if turned < 5 else size[::-1]})
            rgba = image.convert("RGBA")
            if not png.is_whole(data, image):
                raise _refusal("rows of the picture are missing that its header promises")
            return metadata.upright(np.asarray(rgba), turned)
    except Refusal:
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise _refusal(f"the picture cannot be read as a PNG ({type(error).__name__})") from error


def _check_size(own: tuple[int, int], size: tuple[int, int], allowed: set[tuple[int, int]]) -> None:
    if own not in allowed:
        raise _refusal(f"the picture has {own[0]} x {own[1]} pixels, the upright scan {size[0]} x {size[1]}")


def _refusal(words: str) -> Refusal:
    return Refusal(Reason.BAD_HINTS, f"hints: {words}")
