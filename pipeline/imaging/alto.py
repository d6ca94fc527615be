"""Reads where the pictures of a page are from its ALTO file (Library of Congress, versions 1 to 4)."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from pipeline.imaging.layout import Box, outermost

# Values of TYPE, in lower case, of composed blocks that are pictures; there is no fixed list.
_PICTURES = {"illustration", "illustrations", "image", "photo", "photograph", "picture"}
_PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}
_ALIKE = 1.05  # largest factor between the proportions of page and scan
_SMALLEST = 0.001  # of the page; smaller pictures are ornaments


class AltoError(ValueError):
    """A file is not ALTO, or does not say where its pictures are. The message is for people."""


def pictures(
    data: bytes, *, size: tuple[int, int], dpi: tuple[float, float] | None = None, page: int = 1
) -> tuple[Box, ...]:
    """Places of the pictures, in reading order from the top. Those inside of another one are left out.

    Args:
      data: the file.
      size: width and height in pixels of the upright scan.
      dpi: resolution of the upright scan, across and down; needed if the file measures in millimetres or inches and its
        page has no size.
      page: number of the page in the file, from 1.

    Raises:
      AltoError: with the reason.
    """
    root = _root(data)
    if _name(root) != "alto":
        raise AltoError(f"its root is {_name(root)}, and not alto")
    pages = [element for element in root.iter() if _name(element) == "Page"]
    if not 1 <= page <= len(pages):
        raise AltoError(f"it has {len(pages)} pages, and not page {page}")
    units = [(element.text or "").strip() for element in root.iter() if _name(element) == "MeasurementUnit"]
    found = pages[page - 1]
    width, height = _page_size(found, units[0] if units else "pixel", size, dpi)
    boxes = [_box(element, width, height) for element in _blocks(found)]
    if boxes and not any(box.area for box in boxes):
        raise AltoError("its pictures are outside of its page")
    return outermost(box for box in boxes if box.area >= _SMALLEST)


def _root(data: bytes) -> ElementTree.Element:
    try:
        try:
            return ElementTree.fromstring(data)
        except (LookupError, ValueError):  # an encoding that the parser does not know
            declared = re.match(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)", data)
            if not declared:
                raise
            return ElementTree.fromstring(data.decode(declared[1].decode()))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise AltoError(f"it is no XML that can be read ({error})") from None


def _name(element: ElementTree.Element) -> str:
    """Name without the namespace, which differs between the versions."""
    return element.tag.rpartition("}")[2]


def _page_size(
    page: ElementTree.Element, unit: str, size: tuple[int, int], dpi: tuple[float, float] | None
) -> tuple[float, float]:
    """Width and height of the page in the unit of the file."""
    width, height = _number(page, "WIDTH"), _number(page, "HEIGHT")
    if width and height:
        across, down = dpi or (1.0, 1.0)  # pixels need not be squares
        proportions = (size[0] / size[1], size[0] / across / (size[1] / down))
        if not any(1 / _ALIKE < width / height / scan < _ALIKE for scan in proportions):
            raise AltoError("its page has other proportions than the upright scan")
        return width, height
    if unit == "pixel":
        return size
    if unit not in _PER_INCH:
        raise AltoError(f"its unit is {unit}")
    if not dpi:
        raise AltoError(f"it measures in {unit}, its page has no size, and the scan has no resolution")
    return size[0] / dpi[0] * _PER_INCH[unit], size[1] / dpi[1] * _PER_INCH[unit]


def _blocks(page: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for element in page.iter():
        composed = _name(element) == "ComposedBlock" and element.get("TYPE", "").lower() in _PICTURES
        if (composed or _name(element) == "Illustration") and element.get("WIDTH") and element.get("HEIGHT"):
            yield element


def _box(element: ElementTree.Element, width: float, height: float) -> Box:
    left, top = (_number(element, name, float("-inf")) or 0.0 for name in ("HPOS", "VPOS"))
    right, bottom = left + (_number(element, "WIDTH") or 0.0), top + (_number(element, "HEIGHT") or 0.0)
    return Box(
        *(min(1.0, max(0.0, share)) for share in (top / height, bottom / height, left / width, right / width))
    )


def _number(element: ElementTree.Element, name: str, least: float = 0.0) -> float | None:
    """A finite number that is not less than `least`; None if there is none."""
    text = element.get(name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (math.isfinite(number) and number >= least):
        raise AltoError(f"the {name} of its {_name(element)} is {text!r}")
    return number
