"""A master's bytes -> a Scan: decoded once, upright luma for the network, every refusal with its reason."""

import io
import functools
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from pipeline import graft
from pipeline.record import Reason, Refusal

MIN_SIDE = 16  # pixels; below it there is no picture to speak of
GUIDE_REDUCTION = 4  # the guide of chroma has a quarter of a big scan's sides
GUIDE_SIDE = 512  # pixels; a guide is not reduced below this longer side

# RMS distance of a*b* from their mean at the same lightness. Sepia prints re-encoded at JPEG quality 70 stay
# below 3.1, unevenly stained ones mostly below 4; nine of ten colour photographs lie above.
COLOR_SPREAD = 3.3

ORIENTATION_TAG = 0x0112
_DESCRIPTIVE_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)  # document, description, make ... copyright
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262

Image.MAX_IMAGE_PIXELS = None  # `read_scan` has its own limit, with its own reason

_TRANSPOSE = {  # EXIF orientation -> what shows the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(eq=False, slots=True)
class Scan:
    """A decoded master. Arrays are as stored; `orientation` says how a person sees them."""

    stored_size: tuple[int, int]  # width, height in pixels
    luma: np.ndarray | None  # uint8 [H, W], sRGB-coded Y'; None where the master's own JPEG luminance is kept
    guide: np.ndarray  # uint8 [h, w]: the same luma, at most GUIDE_REDUCTION times smaller
    jpeg: "graft.Jpeg | None" = None  # the master's own coded luminance
    orientation: int = 1  # EXIF 1...8; other than 1 only where the derivative carries it along
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
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
    if not data:
        raise Refusal(Reason.UNREADABLE, "the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check(image, max_pixels)
            scan = output_format == "jpeg" and _graftable(image, data)
            return scan or _decode(image, colorize_color)
    except Refusal:
        raise
    except Image.UnidentifiedImageError as error:
        raise Refusal(Reason.UNREADABLE, "no image format that is known here") from error
    except MemoryError as error:
        raise Refusal(Reason.TOO_LARGE, "decoding it took more memory than there is") from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        truncated = any(sign in words.lower() for sign in ("truncated", "not enough", "eof", "unexpected end"))
        raise Refusal(Reason.TRUNCATED if truncated else Reason.UNREADABLE, words) from error


def from_image(image: Image.Image) -> Scan:
    """The scan in a Pillow image, as `read_scan` would have it of a lossless file, colour or not."""
    return _decode(image, colorize_color=True)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, ...] -> as a person sees them."""
    return _turn(array, orientation)


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `upright`."""
    return _turn(array, {6: 8, 8: 6}.get(orientation, orientation))


def color_spread(rgb: np.ndarray) -> float:
    """How far chroma is from being a function of lightness: about 0 for grey and for any tint.

    Args:
      rgb: uint8 [H, W, 3], sRGB.

    Returns:
      RMS distance in Lab units of each pixel's a*b* from the mean of its lightness, at 128 pixels a side.
    """
    scale = 128 / max(rgb.shape[:2])
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


def _check(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Refusal(Reason.TOO_LARGE, f"{width} x {height} is more than --max_pixels {max_pixels}")
    if min(width, height) < MIN_SIDE:
        raise Refusal(Reason.TOO_SMALL, f"{width} x {height}: a side is under {MIN_SIDE} pixels")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a camera's JPEG with extras
        pages = _pages(image)
        if pages > 1:
            raise Refusal(Reason.MULTIPAGE, f"{pages} pages in one file: split it, a page a file")


def _pages(image: Image.Image) -> int:
    """Frames, less the reduced-size copies that a TIFF may carry."""
    if image.format != "TIFF":
        return image.n_frames
    pages = 0
    for frame in range(image.n_frames):
        image.seek(frame)
        pages += not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1
    image.seek(0)
    return pages


def _graftable(image: Image.Image, data: bytes) -> Scan | None:
    """A scan whose coded luminance is kept, or None where this JPEG must be composed from its pixels."""
    if image.format != "JPEG" or image.mode != "L":
        return None
    notes = []
    curve = _curve_or_note(image.info.get("icc_profile"), notes)
    if curve is not None and curve is not _IDENTITY:
        return None
    try:
        jpeg = graft.parse(data)
    except graft.NotGraftable:
        return None
    size = image.size
    exif = image.info.get("exif", b"")
    orientation = _orientation(image)
    xmp, dpi = image.info.get("xmp", b""), image.info.get("dpi")
    reduction = _reduction(size)
    image.draft("L", (-(-size[0] // reduction), -(-size[1] // reduction)))
    guide = np.asarray(image)
    return Scan(size, None, guide, jpeg, orientation, exif, xmp, dpi, "; ".join(notes))


def _decode(image: Image.Image, colorize_color: bool) -> Scan:
    image.load()
    info, notes = dict(image.info), []
    orientation = _orientation(image)
    exif = _upright_exif(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        luma = _deep_luma(image, info.get("icc_profile"), notes)
    else:
        luma = _luma(image, info, colorize_color, notes)
    luma = np.ascontiguousarray(upright(luma, orientation))
    height, width = luma.shape
    return Scan((width, height), luma, _reduce(luma), None, 1, exif,
                _bytes(info.get("xmp") or info.get("XML:com.adobe.xmp")), info.get("dpi"), "; ".join(notes))


def _luma(image: Image.Image, info: dict, colorize_color: bool, notes: list[str]) -> np.ndarray:
    """8-bit and 1-bit modes -> uint8 [H, W]."""
    icc = info.get("icc_profile")
    if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La") or "transparency" in info:
        image = _flatten(image, notes)
    if image.mode in ("1", "L"):
        luma = np.asarray(image.convert("L"))
        return _with_grey_profile(luma, icc, notes)
    if image.mode in ("CMYK", "RGB", "YCbCr"):
        rgb = _to_srgb(image, icc, notes)
        if not colorize_color and color_spread(np.asarray(rgb)) > COLOR_SPREAD:
            raise Refusal(Reason.ALREADY_COLOR, "it has colour already (--color_scans colorize redoes it)")
        return np.asarray(rgb.convert("L"))
    raise Refusal(Reason.UNSUPPORTED_MODE, f"pixels of the kind {image.mode!r} are not handled")


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Palette and alpha -> L or RGB, on white paper where it is transparent."""
    grey = image.mode in ("L", "LA", "La", "1")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] < 255:
        notes.append("transparent parts were laid on white")
        paper = Image.new("RGBA", rgba.size, "white")
        rgba = Image.alpha_composite(paper, rgba)
    return rgba.convert("L" if grey else "RGB")


def _deep_luma(image: Image.Image, icc: bytes | None, notes: list[str]) -> np.ndarray:
    """9- to 16-bit grey -> uint8 [H, W]: scaled by its full range, never clipped."""
    deep = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = int(np.max(tags.get(_BITS_PER_SAMPLE, 16)))
    if image.mode == "I" and (bits > 16 or deep.min() < 0 or deep.max() > 65535):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{max(bits, 17)}-bit integer pixels have no known white")
    white = (1 << min(bits, 16)) - 1
    ramp = np.arange(white + 1) * (255 / white)
    curve = _curve_or_note(icc, notes)
    if curve is not None:
        ramp = np.interp(ramp, np.arange(256), curve)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow leaves to us at this depth
        ramp = ramp[::-1]
    return np.uint8(np.rint(ramp))[np.minimum(deep, white)]


def _with_grey_profile(luma: np.ndarray, icc: bytes | None, notes: list[str]) -> np.ndarray:
    curve = _curve_or_note(icc, notes)
    return luma if curve is None or curve is _IDENTITY else cv2.LUT(luma, curve)


def _curve_or_note(icc: bytes | None, notes: list[str]) -> np.ndarray | None:
    if not icc:
        return None
    try:
        return _grey_curve(icc)
    except ImageCms.PyCMSError:
        notes.append("its ICC profile could not be used; taken as sRGB")
        return None


_IDENTITY = np.arange(256, dtype=np.uint8)


@functools.lru_cache(maxsize=64)
def _grey_curve(icc: bytes) -> np.ndarray:
    """uint8 [256]: a grey profile's levels -> sRGB levels; the identity where they differ by at most 1.

    Raises:
      ImageCms.PyCMSError: a broken profile, or none for grey.
    """
    ramp = Image.fromarray(_IDENTITY[None])
    curve = np.asarray(_cms(icc, "L").apply(ramp))[0, :, 1]
    return _IDENTITY if np.abs(np.int16(curve) - _IDENTITY).max() <= 1 else np.ascontiguousarray(curve)


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    if icc and image.mode in ("RGB", "CMYK"):
        try:
            transform = _cms(icc, image.mode)
            return image.convert("RGB") if transform is None else transform.apply(image)
        except ImageCms.PyCMSError:
            notes.append("its ICC profile could not be used; taken as sRGB")
    return image.convert("RGB")


@functools.lru_cache(maxsize=64)
def _cms(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB, relative colorimetric with black point compensation; None where nothing would change."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except OSError as error:
        raise ImageCms.PyCMSError(error) from error
    transform = ImageCms.buildTransform(
        profile, ImageCms.createProfile("sRGB"), mode, "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "RGB":
        cube = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3), -1).reshape(64, 64, 3)
        same = np.asarray(transform.apply(Image.fromarray(cube)))
        if np.abs(np.int16(same) - cube).max() <= 1:
            return None
    return transform


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or the tag is nonsense."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in _TRANSPOSE else 1


def _upright_exif(image: Image.Image) -> bytes:
    """The EXIF block with its orientation set to upright, empty where there is none to keep."""
    try:
        exif = image.getexif()
        if image.format == "TIFF":  # its "EXIF" is the file's own directory, strip offsets and all
            directory, exif = exif, Image.Exif()
            exif.update({tag: directory[tag] for tag in _DESCRIPTIVE_TAGS if tag in directory})
        if not exif:
            return b""
        exif[ORIENTATION_TAG] = 1
        return exif.tobytes()
    except Exception:
        return b""


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """`_TRANSPOSE` for arrays; a view."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


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


def _bytes(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
