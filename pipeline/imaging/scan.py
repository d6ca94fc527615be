"""A master's bytes -> a Scan: decoded once, upright luma for the network, every refusal with its reason."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from pipeline import graft, icc, metadata, png
from pipeline.metadata import Carried, upright
from pipeline.opening import check_pages, check_size, opened, refusing
from pipeline.record import Reason, Refusal
from pipeline.settings import MAX_PIXELS

GUIDE_REDUCTION = 4  # the guide of chroma has a quarter of a big scan's sides
GUIDE_SIDE = 512  # pixels; a guide is not reduced below this longer side

# RMS distance of a*b* from their mean at the same lightness. Sepia prints re-encoded at JPEG quality 70 stay
# below 3.1, unevenly stained ones mostly below 4; nine of ten colour photographs lie above.
COLOR_SPREAD = 3.3
# A chart or a stamp beside a grey photograph: so much of it at most, of so much chroma at least, the rest so grey.
PART_SHARE, PART_CHROMA, PART_REST = 0.1, 8.0, 1.5
_ON_WHITE = "transparent parts were laid on white"
_SPREAD_SIDE = 128  # pixels: the picture is reduced to it first, so that noise does not count as colour


@dataclass(eq=False, slots=True)
class Scan:
    """A decoded master. Arrays are as stored; `orientation` says how a person sees them."""

    stored_size: tuple[int, int]  # width, height in pixels
    luma: np.ndarray | None  # uint8 [H, W], sRGB-coded Y'; None where the master's own JPEG luminance is kept
    guide: np.ndarray  # uint8 [h, w]: the same luma, at most GUIDE_REDUCTION times smaller
    jpeg: graft.Jpeg | None = None  # the master's own coded luminance
    orientation: int = 1  # EXIF 1...8; other than 1 only where the derivative carries it along
    carried: Carried = field(default_factory=Carried)  # what the master said of itself
    note: str = ""  # words for a person about what was assumed

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as a person sees the picture."""
        width, height = self.stored_size
        return (height, width) if self.orientation >= 5 else (width, height)


def read_scan(
    data: bytes,
    *,
    output_format: str,
    max_pixels: int,
    colorize_color: bool = False,
    announce: Callable[[int], None] = lambda pixels: None,
) -> Scan:
    """Decodes a master.

    Args:
      data: the whole file.
      output_format: a derivative that is "jpeg" keeps a grey JPEG's coded luminance; then only its guide is
        decoded, at a DCT scale.
      max_pixels: larger scans are refused before they are decoded.
      colorize_color: take the luma of pictures that already have colour, too.
      announce: called with the number of pixels before they are decoded.

    Raises:
      Refusal: with the reason and words for a person.
    """
    notes: list[str] = []
    with opened(data, max_pixels=max_pixels, notes=notes, announce=announce) as image:
        _check_fits(image.size, output_format)
        said = metadata.read(data, image.info)
        scan = _keep_jpeg(image, data, said.orientation) if output_format == "jpeg" else None
        if scan is None:
            if output_format == "jpeg":
                _decode_as_ycc(image)
            scan = _decode(image, colorize_color, said.orientation, notes)
    return _carrying(scan, said, output_format)


def _check_fits(size: tuple[int, int], output_format: str) -> None:
    if output_format == "jpeg" and max(size) > graft.LARGEST_SIDE:
        words = f"{size[0]} x {size[1]}: a JPEG has at most {graft.LARGEST_SIDE} pixels a side"
        raise Refusal(Reason.TOO_LARGE, f"{words}; --format png or tiff can hold it")


def _carrying(scan: Scan, said: metadata.Metadata, output_format: str) -> Scan:
    """The scan with what its derivative says of the master; what it cannot say is noted."""
    scan.carried = metadata.carry(
        said, format=output_format, size=scan.stored_size, orientation=scan.orientation
    )
    lost = [f"left out: {', '.join(scan.carried.lost)}"] if scan.carried.lost else []
    scan.note = "; ".join(filter(None, [scan.note, *lost]))
    return scan


@dataclass(frozen=True, eq=False, slots=True)
class Photograph:
    """A picture in its own colours."""

    rgb: np.ndarray  # uint8 [h, w, 3], upright, sRGB, reduced
    size: tuple[int, int]  # width, height in pixels of the upright original
    mode: str  # of the original's pixels, in Pillow's words


def read_color(
    data: bytes,
    *,
    max_pixels: int,
    min_side: int,
    side: int,
    announce: Callable[[int], None] = lambda pixels: None,
) -> Photograph:
    """Decodes a picture in its own colours.

    Args:
      data: the whole file.
      max_pixels: larger pictures are refused before they are decoded.
      min_side: pictures whose shorter side has fewer pixels are refused, too.
      side: pixels to which the shorter side is reduced where it is longer.
      announce: called with the number of pixels before they are decoded.

    Raises:
      Refusal: as `read_scan`, and `GREY` for pixels without colour.
    """
    with opened(data, max_pixels=max_pixels, min_side=min_side, announce=announce) as image:
        mode, size = image.mode, image.size
        profile, gamma = image.info.get("icc_profile"), png.gamma(image)
        if mode in ("1", "L", "LA", "La") or mode.startswith(("I", "F")):
            raise Refusal(Reason.GREY, f"its pixels are of the kind {mode!r}, without colour")
        scale = 2 * side / min(size)  # what a JPEG's decoder leaves is then reduced by area
        image.draft(mode, [round(scale * edge) for edge in size])
        image.load()
        orientation = metadata.orientation(image)  # now: Pillow turns a TIFF by itself
        if mode in ("P", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = _flatten(image, [])
        if image.mode not in ("CMYK", "RGB", "YCbCr"):
            raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the kind {mode!r} are not handled")
        image = _srgb(image, profile, [], gamma)
        rgb = _shrunk(upright(np.asarray(image), orientation), side)
        return Photograph(rgb, size if orientation < 5 else size[::-1], mode)


def _shrunk(rgb: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(rgb.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    size = [max(1, round(scale * edge)) for edge in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def from_image(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Scan:
    """The scan in a Pillow image, as `read_scan` would have it of a lossless file, colour or not.

    Of an image that `Image.open` has just opened, the file is read; of any other its pixels are taken.

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
        return _decode(image, True, metadata.orientation(image), [])


def color_spread(rgb: np.ndarray) -> float:
    """How far chroma is from being a function of lightness: about 0 for grey and for any tint.

    Args:
      rgb: uint8 [H, W, 3], sRGB.

    Returns:
      RMS distance in Lab units of each pixel's a*b* from the mean of its lightness, at 128 pixels a side.
    """
    lab = cv2.cvtColor(np.float32(_spread_view(rgb)) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    return float(np.sqrt(np.mean(_squared_deviation(lab, np.ones(len(lab), bool)))))


def is_grey_but_for_a_part(rgb: np.ndarray) -> bool:
    """Whether a grey or tinted picture has all its colour in a small part: a colour chart, a stamp, a label.

    Args:
      rgb: uint8 [H, W, 3], sRGB.
    """
    small = _spread_view(rgb)
    lab = cv2.cvtColor(np.float32(small) / 255, cv2.COLOR_RGB2LAB)
    flat, grey = lab.reshape(-1, 3), np.ones(small.shape[:2], bool)
    for _ in range(3):  # what is coloured shifts the means that it is measured against
        strong = _squared_deviation(flat, grey.ravel()).reshape(grey.shape) > PART_CHROMA**2
        grey = ~cv2.dilate(strong.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        if grey.mean() < 0.5:
            return False
    rest = np.sqrt(_squared_deviation(flat, grey.ravel())[grey.ravel()].mean())
    return bool(grey.mean() >= 1 - PART_SHARE and rest <= PART_REST)


def _spread_view(rgb: np.ndarray) -> np.ndarray:
    scale = _SPREAD_SIDE / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    size = [max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0])]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _squared_deviation(lab: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Squared distance [P] of each pixel's a*b* from the mean of its lightness, over the pixels that are counted."""
    level = np.clip(lab[:, 0] * (16 / 100), 0, 15).astype(np.intp)
    count = np.bincount(level[counted], minlength=16)
    square = np.zeros(len(lab))
    for chroma in (lab[:, 1], lab[:, 2]):
        mean = np.bincount(level[counted], chroma[counted], minlength=16) / np.maximum(count, 1)
        mean = np.where(count > 0, mean, chroma[counted].mean() if counted.any() else 0.0)
        square += (chroma - mean[level]) ** 2
    return square


def _keep_jpeg(image: Image.Image, data: bytes, orientation: int) -> Scan | None:
    """A scan whose coded luminance is kept, or None where this file must be composed from its pixels."""
    notes = []
    if image.format != "JPEG" or image.mode != "L":
        return None
    if icc.grey_curve(image.info.get("icc_profile"), notes) is not None:
        return None  # its levels are not sRGB's
    try:
        jpeg = graft.parse(data)
    except graft.NotGraftable:
        return None
    size = image.size
    reduction = _reduction(size)
    image.draft("L", (size[0] // reduction, size[1] // reduction))
    return Scan(size, None, np.asarray(image), jpeg, orientation, note="; ".join(notes))


def _decode_as_ycc(image: Image.Image) -> None:
    """Has a colour JPEG decoded no further than to its own luma and chroma, where these are sRGB's."""
    ycc = "jfif" in image.info or image.info.get("adobe_transform") == 1
    if image.format == "JPEG" and image.mode == "RGB" and ycc and icc.is_srgb(image.info.get("icc_profile")):
        image.draft("YCbCr", image.size)


def _decode(image: Image.Image, colorize_color: bool, orientation: int, notes: list[str]) -> Scan:
    stated = metadata.orientation(image)
    image.load()
    if image.format == "TIFF" and stated != 1:  # Pillow has turned it by itself
        orientation = 1
    luma = _deep_luma(image, notes) if image.mode.startswith("I") else _luma(image, colorize_color, notes)
    luma = np.ascontiguousarray(upright(luma, orientation))
    height, width = luma.shape
    return Scan((width, height), luma, _reduce(luma), note="; ".join(notes))


def _luma(image: Image.Image, colorize_color: bool, notes: list[str]) -> np.ndarray:
    """8-bit and 1-bit modes -> uint8 [H, W]."""
    profile, gamma = image.info.get("icc_profile"), png.gamma(image)
    if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La") or "transparency" in image.info:
        image = _flatten(image, notes)
    if image.mode in ("1", "L"):
        luma = np.asarray(image.convert("L"))
        curve = icc.gamma_curve(gamma) if gamma else icc.grey_curve(profile, notes)
        return luma if curve is None else cv2.LUT(luma, curve)
    if image.mode not in ("CMYK", "RGB", "YCbCr"):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the kind {image.mode!r} are not handled")
    if image.mode != "YCbCr":
        image = _srgb(image, profile, notes, gamma)
    if not colorize_color:
        small = image.reduce(max(1, max(image.size) // _SPREAD_SIDE)).convert("RGB")
        _check_grey(np.asarray(small), notes)
    return np.asarray(image.getchannel("Y") if image.mode == "YCbCr" else image.convert("L"))


def _srgb(
    image: Image.Image, profile: bytes | None, notes: list[str], gamma: float | None = None
) -> Image.Image:
    """CMYK, RGB or YCbCr -> RGB in sRGB, by its profile or its gamma."""
    if image.mode == "YCbCr":
        return image.convert("RGB")
    curve = icc.gamma_curve(gamma) if gamma else None
    return icc.to_srgb(image, profile, notes) if curve is None else image.point(list(curve) * 3)


def _check_grey(rgb: np.ndarray, notes: list[str]) -> None:
    """Raises Refusal for a picture in colour. Colour in a small part of a grey one is noted."""
    if color_spread(rgb) <= COLOR_SPREAD:
        return
    if is_grey_but_for_a_part(rgb):
        notes.append("a small part of it has colour (a colour chart, a stamp?); it was taken as grey")
        return
    raise Refusal(Reason.ALREADY_COLOR, "it has colour already (--color_scans colorize redoes it)")


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Palette and alpha -> L or RGB, on white paper where it is transparent."""
    grey = image.mode in ("L", "LA", "La", "1")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] < 255:
        notes.append(_ON_WHITE)
        paper = Image.new("RGBA", rgba.size, "white")
        rgba = Image.alpha_composite(paper, rgba)
    return rgba.convert("L" if grey else "RGB")


def _deep_luma(image: Image.Image, notes: list[str]) -> np.ndarray:
    """16-bit grey -> uint8 [H, W]: scaled by its full range, never clipped."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        kind = "signed" if deep.min() < 0 else "32-bit"
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{kind} integer pixels have no known white")
    ramp = np.arange(65536) * (255 / 65535)
    gamma = png.gamma(image)
    curve = icc.gamma_curve(gamma) if gamma else icc.grey_curve(image.info.get("icc_profile"), notes)
    if curve is not None:
        ramp = np.interp(ramp, np.arange(256), curve)
    ramp = np.uint8(np.rint(ramp))
    if (
        isinstance(level := image.info.get("transparency"), int)
        and 0 <= level <= 65535
        and (deep == level).any()
    ):
        notes.append(_ON_WHITE)
        ramp[level] = 255
    return ramp[deep]


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
