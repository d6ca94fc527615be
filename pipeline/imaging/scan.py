"""Decodes a master once to a Scan: its luma, its metadata, or the reason to refuse it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.decoding import png
from pipeline.decoding.errors import refusing
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.decoding.opening import check_pages, check_size, opened
from pipeline.decoding.samples import DEEP, scaled
from pipeline.imaging import graft, icc, luminance
from pipeline.imaging.grey import SIDE as GREY_SIDE
from pipeline.imaging.grey import check_grey
from pipeline.imaging.mark import Mark
from pipeline.metadata import embedded
from pipeline.metadata.embedded import Carried
from pipeline.metadata.orientation import orientation_of, upright
from pipeline.records.record import Reason, Refusal

GUIDE_REDUCTION = 4  # largest reduction of the guide for chroma
GUIDE_SIDE = 512  # pixels; smallest longer side of a reduced guide
LARGEST_SIDES = {"jpeg": graft.LARGEST_SIDE, "webp": 16_383}  # pixels
_ON_WHITE = "transparent parts were made white"


@dataclass(eq=False, slots=True)
class Scan:
    """A decoded master. Arrays are as stored; `orientation` tells how to turn them upright."""

    stored_size: tuple[int, int]  # width, height in pixels
    luma: np.ndarray | None  # uint8 [H, W], sRGB-coded Y'; None if the coded luminance of the master is kept
    guide: np.ndarray  # uint8 [h, w]: the luma in sRGB, at most GUIDE_REDUCTION times smaller
    jpeg: graft.Jpeg | None = None  # coded luminance of the master
    tone: icc.Tone | None = None  # of the coded luminance, if it is not that of sRGB
    orientation: int = 1  # EXIF 1...8; not 1 only if the derivative has the same orientation
    carried: Carried = field(default_factory=Carried)  # metadata of the master for the derivative
    note: str = ""  # remarks for people
    deep: np.ndarray | None = None  # uint16 [H, W]: the same luma, if the master has more than 8 bits

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright picture."""
        width, height = self.stored_size
        return (height, width) if self.orientation >= 5 else (width, height)


def read_scan(
    data: bytes,
    *,
    output_format: str,
    max_pixels: int,
    colorize_color: bool = False,
    announce: Callable[[int], None] = lambda pixels: None,
    kept: Collection[str] = (),
    mark: Mark | None = None,
    negative: bool = False,
) -> Scan:
    """Decodes a master.

    Args:
      data: the whole file.
      output_format: for "jpeg", the coded luminance of a JPEG is kept, and only the guide is decoded, reduced.
      max_pixels: larger scans are refused before they are decoded.
      colorize_color: accept pictures that have colour.
      announce: called with the number of pixels before they are decoded.
      kept: metadata that the caller carries over itself, in the words of `Carried.lost`.
      mark: of the derivative. Then the coded luminance is not kept.
      negative: the master is a negative, and the scan becomes its positive.

    Raises:
      Refusal: with the reason and words for people.
    """
    notes: list[str] = []
    with opened(data, max_pixels=max_pixels, notes=notes, announce=announce, deep=True) as image:
        _check_fits(image.size, output_format)
        metadata = embedded.read(data, image.info)
        scan = None
        if output_format == "jpeg" and mark is None and not negative:
            scan = _keep_jpeg(image, data, metadata.orientation, colorize_color)
        if scan is None:
            if output_format == "jpeg" and _is_ycc(image):
                image.draft("YCbCr", image.size)
            scan = _decode(image, colorize_color, metadata.orientation, notes)
        if negative:
            _invert(scan)
        size = scan.stored_size if mark is None else mark.size(scan.stored_size)
        _check_fits(size, output_format)
    return _carrying(scan, metadata, output_format, size, kept)


def _invert(scan: Scan) -> None:
    """Exchanges light and dark."""
    assert scan.luma is not None
    scan.luma, scan.guide = ~scan.luma, ~scan.guide
    scan.deep = None if scan.deep is None else ~scan.deep


def _check_fits(size: tuple[int, int], output_format: str) -> None:
    limit = LARGEST_SIDES.get(output_format)
    if limit and max(size) > limit:
        words = f"{size[0]} x {size[1]}: the sides of a {output_format.upper()} have at most {limit} pixels"
        raise Refusal(Reason.TOO_LARGE, f"{words}; --format png or tiff can hold it")


def _carrying(
    scan: Scan,
    metadata: embedded.Metadata,
    output_format: str,
    size: tuple[int, int],
    kept: Collection[str],
) -> Scan:
    """Adds the metadata for a derivative of this size. Metadata that it cannot have are noted."""
    format = "tiff" if output_format == "ptif" else output_format
    scan.carried = embedded.carry(metadata, format=format, size=size, orientation=scan.orientation)
    if lost := [words for words in scan.carried.lost if words not in kept]:
        scan.note = "; ".join(filter(None, [scan.note, f"left out: {', '.join(lost)}"]))
    return scan


def from_image(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Scan:
    """Makes a scan from a Pillow image, as `read_scan` does for a lossless file. The image may have colour.

    If `Image.open` has just opened the image, its file is read; otherwise its pixels are taken.

    Raises:
      Refusal: as `read_scan`.
    """
    file, loaded = getattr(image, "fp", None), not getattr(image, "tile", None)
    if file is not None and not loaded and image.tell() == 0:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        return read_scan(data, output_format="png", max_pixels=max_pixels, colorize_color=True)
    check_pages(image)
    check_size(*image.size, max_pixels)
    with refusing():
        return _decode(image, True, orientation_of(image), [])


def _keep_jpeg(image: Image.Image, data: bytes, orientation: int, colorize_color: bool) -> Scan | None:
    """A scan whose coded luminance is kept, or None if the derivative must be composed from pixels.

    The chroma of a master that is taken as grey is empty or a tint. It is left out, as it is from every other master.
    """
    notes: list[str] = []
    grey = image.format == "JPEG" and image.mode == "L"
    if not (grey or _is_ycc(image)):
        return None
    tone = None
    if grey and icc.grey_curve(profile := image.info.get("icc_profile"), notes) is not None:
        tone = icc.grey_tone(profile)  # its levels are not those of sRGB
        if tone is None:
            return None
    try:
        jpeg = luminance.parse(data)
    except graft.NotGraftable:
        return None
    size = image.size
    reduction = _reduction(size)
    image.draft("L" if grey else "YCbCr", (size[0] // reduction, size[1] // reduction))
    if not (grey or colorize_color):
        _check_grey(image, notes)
    guide = np.asarray(image if grey else image.getchannel("Y"))
    if tone is not None:
        guide = cv2.LUT(guide, tone.curve)
    return Scan(size, None, guide, jpeg, tone, orientation, note="; ".join(notes))


def _is_ycc(image: Image.Image) -> bool:
    """Whether a colour JPEG is coded as luma and chroma of sRGB. The files of cameras have no marker that says so."""
    if image.format != "JPEG" or image.mode != "RGB":
        return False
    if "jfif" in image.info:
        ycc = True
    elif "adobe_transform" in image.info:
        ycc = image.info["adobe_transform"] == 1
    else:
        ycc = [component[0] for component in cast(JpegImageFile, image).layer] == [1, 2, 3]
    return ycc and icc.is_srgb(image.info.get("icc_profile"))


def _check_grey(image: Image.Image, notes: list[str]) -> None:
    """Raises Refusal for a picture in colour, RGB or YCbCr. Colour in a small part of a grey picture is noted."""
    small = image.reduce(max(1, max(image.size) // GREY_SIDE)).convert("RGB")
    check_grey(np.asarray(small), notes)


def _decode(image: Image.Image, colorize_color: bool, orientation: int, notes: list[str]) -> Scan:
    stated = orientation_of(image)
    image.load()
    if image.format == "TIFF" and stated != 1:  # Pillow has turned it already
        orientation = 1
    deep = None
    if image.mode.startswith("I"):
        luma, deep = _deep_luma(image, notes)
    else:
        luma = _luma(image, colorize_color, notes)
        if (pixels := image.info.get(DEEP)) is not None:
            deep = _luma_of_deep(pixels, image)
            luma = scaled(deep, 65535, 255)
    if deep is not None:
        deep = np.ascontiguousarray(upright(deep, orientation))
    luma = np.ascontiguousarray(upright(luma, orientation))
    height, width = luma.shape
    return Scan((width, height), luma, _reduce(luma), note="; ".join(notes), deep=deep)


def _luma(image: Image.Image, colorize_color: bool, notes: list[str]) -> np.ndarray:
    """Luma uint8 [H, W] of an image with 8 or fewer bits per sample."""
    profile, gamma = image.info.get("icc_profile"), png.gamma(image)
    if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La") or "transparency" in image.info:
        image = flatten(image, notes)
    if image.mode in ("1", "L"):
        luma = np.asarray(image.convert("L"))
        curve = icc.gamma_curve(gamma) if gamma else icc.grey_curve(profile, notes)
        return luma if curve is None else cv2.LUT(luma, curve)
    if image.mode not in ("CMYK", "LAB", "RGB", "YCbCr"):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the mode {image.mode!r} are not supported")
    if image.mode != "YCbCr":
        image = to_srgb(image, profile, notes, gamma)
    if not colorize_color:
        _check_grey(image, notes)
    return np.asarray(image.getchannel("Y") if image.mode == "YCbCr" else image.convert("L"))


def to_srgb(
    image: Image.Image, profile: bytes | None, notes: list[str], gamma: float | None = None
) -> Image.Image:
    """Converts CMYK, L*a*b*, RGB or YCbCr to sRGB, by its profile or its gamma."""
    if image.mode == "YCbCr":
        return image.convert("RGB")
    curve = icc.gamma_curve(gamma) if gamma else None
    return icc.to_srgb(image, profile, notes) if curve is None else image.point(list(curve) * 3)


def flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Converts palettes and alpha to L or RGB. Transparent parts become white."""
    grey = image.mode in ("L", "LA", "La", "1")
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    lowest, _ = cast(tuple[int, int], rgba.getchannel("A").getextrema())  # of one channel
    if lowest < 255:
        notes.append(_ON_WHITE)
        paper = Image.new("RGBA", rgba.size, "white")
        rgba = Image.alpha_composite(paper, rgba)
    return rgba.convert("L" if grey else "RGB")


def _deep_luma(image: Image.Image, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Luma of 16-bit grey, as uint8 and uint16 [H, W]. It is scaled by the full range and never clipped."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        kind = "signed" if deep.min() < 0 else "32-bit"
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{kind} integer pixels have no known white")
    ramp = np.arange(65536) * (255 / 65535)
    gamma = png.gamma(image)
    curve = icc.gamma_curve(gamma) if gamma else icc.grey_curve(image.info.get("icc_profile"), notes)
    if curve is not None:
        ramp = np.interp(ramp, np.arange(256), curve)
    levels, deep_levels = np.rint(ramp).astype(np.uint8), np.rint(257 * ramp).astype(np.uint16)
    if (
        isinstance(level := image.info.get("transparency"), int)
        and 0 <= level <= 65535
        and (deep == level).any()
    ):
        notes.append(_ON_WHITE)
        levels[level], deep_levels[level] = 255, 65535
    return levels[deep], deep_levels[deep]


def _luma_of_deep(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Luma uint16 [H, W] of grey [H, W], or of the colours of an image [H, W, C], uint16, with its profile or gamma."""
    gamma, profile = png.gamma(image), image.info.get("icc_profile")
    grey = pixels.ndim == 2
    curve = icc.gamma_curve(gamma) if gamma else icc.grey_curve(profile, []) if grey else None
    if curve is not None:
        pixels = icc.deep_curve(curve)[pixels]
    elif not (gamma or grey):
        mode = image.mode if image.mode in ("CMYK", "LAB") else "RGB"
        pixels = icc.deep_to_srgb(pixels, mode, profile)
    return pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _reduction(size: tuple[int, int]) -> int:
    reduction = 1
    while reduction < GUIDE_REDUCTION and max(size) / (2 * reduction) >= GUIDE_SIDE:
        reduction *= 2
    return reduction


def _reduce(luma: np.ndarray) -> np.ndarray:
    height, width = luma.shape
    reduction = _reduction((width, height))
    if reduction == 1:
        return luma
    size = (-(-width // reduction), -(-height // reduction))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
