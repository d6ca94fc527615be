"""Tags of a TIFF directory that say what its samples mean. Specification: TIFF 6.0, and Adobe's technical notes."""

from typing import TypeVar

import numpy as np
from tifffile import TiffPage

BITS, PHOTOMETRIC, ORIENTATION, COLOR_MAP, EXTRA_SAMPLES, ICC = 258, 262, 274, 320, 338, 34675
MIN_SAMPLE, MAX_SAMPLE, S_MIN_SAMPLE, S_MAX_SAMPLE = 280, 281, 340, 341

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4  # sample formats
UNCOMPRESSED, CCITT, OLD_JPEG, JPEG = 1, (2, 3, 4, 32771), 6, 7
LERC, WEBP, JPEG_2000, PNG, JPEG_XR, JPEG_XL = (
    34887,
    50001,
    (33003, 33004, 33005, 34712),
    34933,
    (22610, 34934),
    50002,
)
JPEG_2000_YCBCR = 33003  # Aperio's; its tag of RGB is wrong

_Default = TypeVar("_Default", bound=int | None)


def bits(page: TiffPage) -> tuple[int, ...]:
    """Bits of each sample, or once for all."""
    value = page.tags.valueof(BITS, default=1)
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def photometric(page: TiffPage) -> int:
    """Photometric interpretation from its tag; without a tag, that of libtiff."""
    default = (
        RGB if page.samplesperpixel >= 3 else MIN_IS_WHITE if page.compression in CCITT else MIN_IS_BLACK
    )
    return number(page, PHOTOMETRIC, default)


def number(page: TiffPage, tag: int, default: _Default) -> int | _Default:
    """First value of a tag as a whole number; the default if it is missing or not a number."""
    value = real(page, tag)
    return default if value is None else int(value)


def real(page: TiffPage, tag: int) -> float | None:
    """First value of a tag; None if it is missing or not a finite number."""
    value = page.tags.valueof(tag, default=None)
    value = value[0] if isinstance(value, tuple) and value else value
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else None
