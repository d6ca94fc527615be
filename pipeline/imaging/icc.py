"""ICC profiles: conversion of masters to sRGB, and the sRGB profile of derivatives."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from model.color import srgb

UNUSABLE = "its ICC profile could not be used; taken as sRGB"  # for a record

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


def is_srgb(icc: bytes | None) -> bool:
    """Whether RGB pixels with this profile, or without one, are sRGB within one level."""
    try:
        return not icc or _changes_nothing(icc)
    except ImageCms.PyCMSError:
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
def _changes_nothing(icc: bytes) -> bool:
    cube = np.stack(np.meshgrid(*[_LEVELS[::17]] * 3), -1).reshape(64, 64, 3)
    return _near(np.asarray(_transform(icc, "RGB").apply(Image.fromarray(cube))), cube)


@functools.lru_cache(maxsize=64)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Transform to sRGB, relative colorimetric with black point compensation. Raises PyCMSError."""
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
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _near(levels: np.ndarray, others: np.ndarray) -> bool:
    return np.abs(levels.astype(np.int16) - others).max() <= 1
