"""A master's bytes -> a Scan: decoded once, upright luma for the network, every refusal with its reason."""

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from pipeline import graft, icc, metadata, png
from pipeline.metadata import Carried, upright
from pipeline.record import Reason, Refusal

MIN_SIDE = 16  # pixels; below it there is no picture to speak of
GUIDE_REDUCTION = 4  # the guide of chroma has a quarter of a big scan's sides
GUIDE_SIDE = 512  # pixels; a guide is not reduced below this longer side

# RMS distance of a*b* from their mean at the same lightness. Sepia prints re-encoded at JPEG quality 70 stay
# below 3.1, unevenly stained ones mostly below 4; nine of ten colour photographs lie above.
COLOR_SPREAD = 3.3
_SPREAD_SIDE = 128  # pixels: the picture is reduced to it first, so that noise does not count as colour

_TRUNCATED = ("truncated", "not enough", "eof", "unexpected end", "incomplete")  # in a decoder's words

# TIFF 6.0 and its supplements.
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 255, 258, 262, 339


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


def read_scan(data: bytes, *, output_format: str, max_pixels: int, colorize_color: bool = False) -> Scan:
    """Decodes a master.

    Args:
      data: the whole file.
      output_format: a derivative that is "jpeg" keeps a grey JPEG's coded luminance; then only its guide is
        decoded, at a DCT scale.
      max_pixels: larger scans are refused before they are decoded.
      colorize_color: take the luma of pictures that already have colour, too.

    Raises:
      Refusal: with the reason and words for a person.
    """
    with _opened(data, max_pixels) as image:
        _check_fits(image.size, output_format)
        said = metadata.read(data, image.info)
        scan = _keep_jpeg(image, data, said.orientation) if output_format == "jpeg" else None
        if scan is None:
            if output_format == "jpeg":
                _decode_as_ycc(image)
            scan = _decode(image, colorize_color, said.orientation)
    return _carrying(scan, said, output_format)


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


def read_color(data: bytes, *, max_pixels: int, min_side: int, side: int) -> Photograph:
    """Decodes a picture in its own colours.

    Args:
      data: the whole file.
      max_pixels: larger pictures are refused before they are decoded.
      min_side: pictures whose shorter side has fewer pixels are refused, too.
      side: pixels to which the shorter side is reduced where it is longer.

    Raises:
      Refusal: as `read_scan`, and `GREY` for pixels without colour.
    """
    with _opened(data, max_pixels) as image:
        mode, profile = image.mode, image.info.get("icc_profile")
        width, height = size = image.size
        if min(size) < min_side:
            raise Refusal(Reason.TOO_SMALL, f"{width} x {height}: a side is under {min_side} pixels")
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
        image = icc.to_srgb(image, profile, []) if image.mode != "YCbCr" else image.convert("RGB")
        rgb = _shrunk(upright(np.asarray(image), orientation), side)
        return Photograph(rgb, size if orientation < 5 else size[::-1], mode)


def _shrunk(rgb: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(rgb.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    size = [max(1, round(scale * edge)) for edge in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The one full picture of a file, of a size that is allowed; whatever is wrong with it becomes a Refusal."""
    if not data:
        raise Refusal(Reason.UNREADABLE, "the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _select_page(image)
            _check_size(image, max_pixels)
            # Its decoder makes up what is missing.
            if image.format == "JPEG2000" and not _is_whole_jpeg2000(data):
                raise Refusal(Reason.TRUNCATED, "the codestream's end is missing")
            yield image
            if image.format == "PNG" and not png.is_whole(data, image):
                raise Refusal(Reason.TRUNCATED, "rows that its header promises are missing")
    except Refusal:
        raise
    except Image.UnidentifiedImageError as error:
        raise Refusal(
            Reason.UNREADABLE, "no known kind of image, or one whose beginning is damaged"
        ) from error
    except Image.DecompressionBombError as error:
        raise Refusal(Reason.TOO_LARGE, str(error)) from error
    except MemoryError as error:
        raise Refusal(Reason.TOO_LARGE, "decoding it took more memory than there is") from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        truncated = any(sign in words.lower() for sign in _TRUNCATED)
        raise Refusal(Reason.TRUNCATED if truncated else Reason.UNREADABLE, words) from error


def from_image(image: Image.Image) -> Scan:
    """The scan in a Pillow image, as `read_scan` would have it of a lossless file, colour or not."""
    return _decode(image, colorize_color=True, orientation=metadata.orientation(image))


def color_spread(rgb: np.ndarray) -> float:
    """How far chroma is from being a function of lightness: about 0 for grey and for any tint.

    Args:
      rgb: uint8 [H, W, 3], sRGB.

    Returns:
      RMS distance in Lab units of each pixel's a*b* from the mean of its lightness, at 128 pixels a side.
    """
    scale = _SPREAD_SIDE / max(rgb.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0])]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(np.float32(rgb) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    level = np.clip(lab[:, 0] * (16 / 100), 0, 15).astype(np.intp)
    count = np.maximum(np.bincount(level, minlength=16), 1)
    square = 0.0
    for chroma in (lab[:, 1], lab[:, 2]):
        mean = np.bincount(level, chroma, minlength=16) / count
        square += np.mean((chroma - mean[level]) ** 2)
    return float(np.sqrt(square))


def _select_page(image: Image.Image) -> None:
    """Goes to the one full picture of the file. A TIFF may have reduced copies and masks beside it."""
    if image.format in ("MPO", "PSD"):  # a camera's JPEG with extras; layers, behind the picture they make up
        return
    frames = getattr(image, "n_frames", 1)
    pages = range(frames)
    if image.format == "TIFF" and frames > 1:
        pages = [frame for frame in pages if _is_page(image, frame)] or [0]
    if len(pages) > 1:
        raise Refusal(Reason.MULTIPAGE, f"{len(pages)} pages in one file: split it, a page a file")
    if frames > 1:
        image.seek(pages[0])


def _is_page(image: Image.Image, frame: int) -> bool:
    image.seek(frame)
    reduced_or_mask = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 0b101 or image.tag_v2.get(_SUBFILE_TYPE) == 2
    return not reduced_or_mask


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Refusal(Reason.TOO_LARGE, f"{width} x {height} is more than --max_pixels {max_pixels}")
    if min(width, height) < MIN_SIDE:
        raise Refusal(Reason.TOO_SMALL, f"{width} x {height}: a side is under {MIN_SIDE} pixels")


def _check_fits(size: tuple[int, int], output_format: str) -> None:
    if output_format == "jpeg" and max(size) > graft.LARGEST_SIDE:
        words = f"{size[0]} x {size[1]}: a JPEG has at most {graft.LARGEST_SIDE} pixels a side; --format png or tiff"
        raise Refusal(Reason.TOO_LARGE, f"{words} can hold it")


def _is_whole_jpeg2000(data: bytes) -> bool:
    """Whether a codestream (ITU-T T.800, A.4.4), bare or in the boxes of a JP2 (I.4), has its end."""
    end = b"\xff\xd9"
    if data.startswith(b"\xff\x4f"):
        return data.rstrip(b"\0").endswith(end)
    at = 0
    while at + 16 <= len(data):
        length, kind, long = struct.unpack_from(">I4sQ", data, at)
        stop = at + max(8, long if length == 1 else length) if length else len(data)
        if kind == b"jp2c":
            return stop <= len(data) and data[:stop].rstrip(b"\0").endswith(end)
        at = stop
    return False


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


def _decode(image: Image.Image, colorize_color: bool, orientation: int) -> Scan:
    stated = metadata.orientation(image)
    image.load()
    if image.format == "TIFF" and stated != 1:  # Pillow has turned it by itself
        orientation = 1
    notes = []
    deep = image.mode.startswith("I")
    luma = _deep_luma(image, notes) if deep else _luma(image, colorize_color, notes)
    luma = np.ascontiguousarray(upright(luma, orientation))
    height, width = luma.shape
    return Scan((width, height), luma, _reduce(luma), note="; ".join(notes))


def _luma(image: Image.Image, colorize_color: bool, notes: list[str]) -> np.ndarray:
    """8-bit and 1-bit modes -> uint8 [H, W]."""
    profile = image.info.get("icc_profile")
    if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La") or "transparency" in image.info:
        image = _flatten(image, notes)
    if image.mode in ("1", "L"):
        luma = np.asarray(image.convert("L"))
        curve = icc.grey_curve(profile, notes)
        return luma if curve is None else cv2.LUT(luma, curve)
    if image.mode not in ("CMYK", "RGB", "YCbCr"):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the kind {image.mode!r} are not handled")
    if image.mode != "YCbCr":
        image = icc.to_srgb(image, profile, notes)
    if not colorize_color:
        small = image.reduce(max(1, max(image.size) // _SPREAD_SIDE)).convert("RGB")
        if color_spread(np.asarray(small)) > COLOR_SPREAD:
            raise Refusal(Reason.ALREADY_COLOR, "it has colour already (--color_scans colorize redoes it)")
    return np.asarray(image.getchannel("Y") if image.mode == "YCbCr" else image.convert("L"))


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Palette and alpha -> L or RGB, on white paper where it is transparent."""
    grey = image.mode in ("L", "LA", "La", "1")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] < 255:
        notes.append("transparent parts were laid on white")
        paper = Image.new("RGBA", rgba.size, "white")
        rgba = Image.alpha_composite(paper, rgba)
    return rgba.convert("L" if grey else "RGB")


def _deep_luma(image: Image.Image, notes: list[str]) -> np.ndarray:
    """9- to 16-bit grey -> uint8 [H, W]: scaled by its full range, never clipped."""
    deep = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = int(np.max(tags.get(_BITS_PER_SAMPLE, 16)))
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    if signed or bits > 16 or deep.min() < 0 or deep.max() > 65535:
        kind = "signed" if signed or deep.min() < 0 else f"{max(bits, 17)}-bit"
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{kind} integer pixels have no known white")
    white = (1 << bits) - 1
    ramp = np.arange(white + 1) * (255 / white)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow leaves to us at this depth
        ramp = ramp[::-1]
    curve = icc.grey_curve(image.info.get("icc_profile"), notes)
    if curve is not None:
        ramp = np.interp(ramp, np.arange(256), curve)
    return np.uint8(np.rint(ramp))[np.minimum(deep, white)]


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
