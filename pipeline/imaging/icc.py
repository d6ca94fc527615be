"""ICC profiles: conversion of masters to sRGB, and the profiles of derivatives.

A derivative is sRGB. Only if the coded luminance of a master with a grey profile is kept, the derivative has a profile
with the primaries of sRGB and the tone curve of the master (`Tone`).
"""

import functools
import io
import struct
from dataclasses import dataclass

import cv2
import imagecodecs
import numpy as np
from PIL import Image, ImageCms

from model.color import srgb

UNUSABLE = "its ICC profile could not be used; taken as sRGB"  # for a record

_LARGEST_CURVE = 2**18  # bytes
_LEVELS = np.arange(256, dtype=np.uint8)


def grey_curve(icc: bytes | None, notes: list[str]) -> np.ndarray | None:
    """Curve uint8 [256] from the levels of a grey picture to sRGB, or None if no level changes by more than 1.

    For the profile of an RGB space, it is the curve of its greys. An unusable profile is noted in `notes`.
    """
    if not icc:
        return None
    try:
        return _grey_curve(icc)
    except ImageCms.PyCMSError:
        notes.append(UNUSABLE)
        return None


@functools.lru_cache(maxsize=64)
def gamma_curve(gamma: float) -> np.ndarray | None:
    """Curve uint8 [256] from the levels of a file with this gamma to sRGB; None for about 0.45455, the gamma of sRGB.

    Light is the level to the power of 1 / gamma (ISO/IEC 15948, 12.9).
    """
    if abs(gamma / 0.45455 - 1) < 0.05:
        return None
    light = (_LEVELS / 255.0) ** (1 / gamma)
    return np.rint(255 * srgb.encoded(light)).astype(np.uint8)


def to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """Converts RGB, CMYK or L*a*b* to sRGB by its profile. An unusable profile is noted in `notes`.

    L*a*b* (D50) needs no profile. An RGB picture may have the profile of a grey space, as in a grey WebP. Its curve is
    then applied to each channel.
    """
    if image.mode == "LAB":
        return _transform(_lab_profile(), "LAB").apply(image)
    if icc:
        try:
            if image.mode == "RGB" and icc[16:20] == b"GRAY":
                curve = _grey_curve(icc)
                return image if curve is None else image.point(list(curve) * 3)
            transform = _transform(icc, image.mode)
            if not (image.mode == "RGB" and _changes_nothing(icc)):
                return transform.apply(image)
        except ImageCms.PyCMSError:
            notes.append(UNUSABLE)
    return image if image.mode == "RGB" else image.convert("RGB")


def deep_to_srgb(pixels: np.ndarray, mode: str, icc: bytes | None) -> np.ndarray:
    """Converts RGB, CMYK or L*a*b* to sRGB as `to_srgb` does. An unusable profile changes nothing.

    Args:
      pixels: uint16 [H, W, C]; full ink is 65 535, and L*a*b* is that of ICC 4.
      mode: "RGB", "CMYK" or "LAB".
      icc: profile.

    Returns:
      uint16 [H, W, 3].
    """
    if mode == "LAB":
        return _deep_transformed(pixels, mode, _lab_profile())
    plain = pixels if mode == "RGB" else _of_inks(pixels)
    if not icc or (mode == "RGB" and is_srgb(icc)):
        return plain
    try:
        if mode == "RGB" and icc[16:20] == b"GRAY":
            curve = _grey_curve(icc)
            return plain if curve is None else deep_curve(curve)[plain]
        _transform(icc, mode)
    except ImageCms.PyCMSError:
        return plain
    return _deep_transformed(pixels, mode, icc)


def _deep_transformed(pixels: np.ndarray, mode: str, icc: bytes) -> np.ndarray:
    flags, intent = imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION, imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC
    return imagecodecs.cms_transform(
        pixels, icc, srgb_profile(), colorspace=mode.lower(), outcolorspace="rgb", intent=intent, flags=flags
    )


def _of_inks(pixels: np.ndarray) -> np.ndarray:
    """RGB uint16 [H, W, 3] of CMYK uint16 [H, W, 4] without a profile, as Pillow converts it."""
    *inks, black = cv2.split(np.invert(pixels))
    return cv2.merge([cv2.multiply(ink, black, scale=1 / 65535) for ink in inks])


def deep_curve(curve: np.ndarray) -> np.ndarray:
    """Curve uint16 [65536] from a curve uint8 [256], interpolated."""
    return np.rint(257 * np.interp(np.arange(65536) / 257, np.arange(256), curve)).astype(np.uint16)


def is_srgb(icc: bytes | None) -> bool:
    """Whether RGB pixels with this profile, or without one, are sRGB within one level."""
    try:
        return not icc or _changes_nothing(icc)
    except ImageCms.PyCMSError:
        return False


@dataclass(frozen=True, eq=False)
class Tone:
    """An RGB space with the primaries of sRGB and another tone curve.

    Attributes:
      profile: ICC profile of the space.
      curve: uint8 [256], from its levels to those of sRGB.
      levels: float64 [256], the same without rounding.
    """

    profile: bytes
    curve: np.ndarray
    levels: np.ndarray

    def coded(self, srgb_levels: np.ndarray) -> np.ndarray:
        """Converts levels of sRGB, float [...], 0...255, to levels of the space, float64 [...], not rounded."""
        return np.interp(srgb_levels, self.levels, np.arange(256))


def grey_tone(icc: bytes | None) -> Tone | None:
    """The RGB space with the tone curve of a grey profile; None if there is none, or Little CMS sees another curve."""
    try:
        return _grey_tone(icc) if icc and icc[16:20] == b"GRAY" else None
    except (ImageCms.PyCMSError, struct.error, ArithmeticError, ValueError):
        return None


def is_of_derivatives(icc: bytes | None) -> bool:
    """Whether it is a profile that this module makes."""
    if not icc or icc == srgb_profile():
        return bool(icc)
    try:
        return icc == _with_curve(_tags(icc)[b"rTRC"])
    except (KeyError, struct.error):
        return False


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB profile of Little CMS, without its date, so that equal work gives equal bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes([7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])  # 2000-01-01, ICC.1 section 7.2.8
    profile[84:100] = bytes(16)  # the profile ID, an optional checksum
    return bytes(profile)


@functools.cache
def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@functools.lru_cache(maxsize=64)
def _grey_curve(icc: bytes) -> np.ndarray | None:
    ramp = Image.fromarray(_LEVELS[None])
    try:
        curve = _transform(icc, "L").apply(ramp)
    except ImageCms.PyCMSError:
        curve = _transform(icc, "RGB").apply(ramp.convert("RGB"))
    curve = np.asarray(curve.convert("L"))[0]
    return None if _near(curve, _LEVELS) else curve


@functools.lru_cache(maxsize=64)
def _grey_tone(icc: bytes) -> Tone | None:
    tag = _tags(icc).get(b"kTRC", b"")
    light = _light(tag)
    if not (light[0] < 0.5 < light[-1] and len(tag) <= _LARGEST_CURVE):
        return None
    levels = 255 * srgb.encoded((light - light[0]) / (1 - light[0]))  # black point compensation
    if not (np.isfinite(levels).all() and (np.diff(levels) >= 0).all()):
        return None
    ramp = Image.fromarray(_LEVELS[None])
    profile, curve = _with_curve(tag), np.rint(levels).clip(0, 255).astype(np.uint8)
    theirs = np.asarray(_transform(icc, "L").apply(ramp))
    ours = np.asarray(_transform(profile, "RGB").apply(ramp.convert("RGB")))
    return Tone(profile, curve, levels) if _near(theirs, ours) and _near(ours[0, :, 1], curve) else None


def _light(tag: bytes) -> np.ndarray:
    """Linear light float64 [256] of the levels by a `curv` or `para` tag (ICC.1, 10.6 and 10.18)."""
    level = _LEVELS / 255
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        values = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count < 2:
            return level ** (values[0] / 256 if count else 1)
        return np.interp(level, np.linspace(0, 1, count), values / 65535)
    (kind,) = struct.unpack_from(">H", tag, 8)
    if tag[:4] != b"para" or kind > 4:
        raise ValueError("not a tone curve")
    count = (1, 3, 4, 5, 7)[kind]
    numbers = [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)]
    g, a, b, c, d, e, f = numbers + [0.0] * (7 - count)
    if kind == 0:
        a = 1.0
    elif kind < 3:
        d, e, f, c = -b / a, c, c, 0.0
    return np.where(level >= d, np.maximum(a * level + b, 0) ** g + e, c * level + f)


def _tags(icc: bytes) -> dict[bytes, bytes]:
    """The tags of a profile by their signatures (ICC.1, 7.3). Raises struct.error."""
    (count,) = struct.unpack_from(">I", icc, 128)
    table = [struct.unpack_from(">4sII", icc, 132 + 12 * n) for n in range(min(count, 100))]
    return {name: icc[start : start + size] for name, start, size in table}


def _with_curve(tag: bytes) -> bytes:
    """The sRGB profile with another tone curve for all three channels."""
    text = "Primaries of sRGB, tone curve of the grey master".encode("utf-16-be")
    name = b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(text), 28) + text
    tags = _tags(srgb_profile()) | {b"desc": name} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tag)
    table, data, start = [], b"", 132 + 12 * len(tags)
    places: dict[bytes, int] = {}  # of data that tags have in common
    for signature, content in tags.items():
        if content not in places:
            places[content] = start + len(data)
            data += content + bytes(-len(content) % 4)
        table.append(struct.pack(">4sII", signature, places[content], len(content)))
    whole = srgb_profile()[4:128] + struct.pack(">I", len(tags)) + b"".join(table) + data
    return struct.pack(">I", len(whole) + 4) + whole


@functools.lru_cache(maxsize=64)
def _changes_nothing(icc: bytes) -> bool:
    cube = np.stack(np.meshgrid(*[_LEVELS[::17]] * 3), -1).reshape(64, 64, 3)
    return _near(np.asarray(_transform(icc, "RGB").apply(Image.fromarray(cube))), cube)


@functools.lru_cache(maxsize=64)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Transform to sRGB, relative colorimetric with black point compensation. Raises PyCMSError.

    For grey, Little CMS would interpolate between few levels, and be wrong by up to ten in the dark.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except OSError as error:
        raise ImageCms.PyCMSError(error) from error
    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0),
    )


def _near(levels: np.ndarray, others: np.ndarray) -> bool:
    return np.abs(levels.astype(np.int16) - others).max() <= 1
