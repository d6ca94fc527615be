"""Black and white of the samples of a TIFF: the range of their type, or the range that its tags state.

MinSampleValue and MaxSampleValue (TIFF 6.0, section 8) and SMinSampleValue and SMaxSampleValue (section 19) may state
a range, or the smallest and the largest sample that occur. For whole numbers without a sign, which have a range of
their own, they count only if no sample is beyond them, and if they are not just the samples that occur.
"""

import numpy as np
from tifffile import TiffPage

from pipeline.decoding import tags
from pipeline.decoding.samples import scaled
from pipeline.records.record import Reason, Refusal

_FORMATS = {
    tags.UNSIGNED: "integers",
    tags.SIGNED: "signed integers",
    tags.FLOAT: "floating point",
    tags.UNDEFINED: "undefined",
    5: "complex integers",
    6: "complex numbers",
}
# Bits of a sample, besides unsigned integers of up to 16.
_DEPTHS = {tags.UNSIGNED: (32, 64), tags.SIGNED: (8, 16, 32, 64), tags.FLOAT: (16, 24, 32, 64)}
_ROWS = 256  # that are floating-point numbers in memory at a time


def check(page: TiffPage) -> None:
    """Raises Refusal for samples whose numbers cannot be read."""
    depths, kind = tags.bits(page), page.sampleformat
    if len(set(depths)) > 1:
        words = f"its samples differ in depth: {', '.join(map(str, depths))} bits"
        raise Refusal(Reason.UNSUPPORTED_MODE, words)
    (depth, *_) = depths
    known = depth in _DEPTHS.get(kind, ()) or (kind in (tags.UNSIGNED, tags.UNDEFINED) and depth <= 16)
    if not known:
        words = _FORMATS.get(kind, f"of the sample format {kind}")
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are {words} of {depth} bits, which are not read")


def normalized(page: TiffPage, samples: np.ndarray, alpha: bool, notes: list[str]) -> tuple[np.ndarray, int]:
    """Scales samples to a range from zero to white.

    Args:
      page: the directory.
      samples: [H, W, C] of any type of numbers. If `alpha`, the last channel is opacity.
      alpha: whether there is opacity, which has the range of its type.
      notes: remarks for people about the range are added.

    Returns:
      uint8 or uint16 [H, W, C], and the value of white.

    Raises:
      Refusal: the type has no range of its own, and the tags state none.
    """
    depth = tags.bits(page)[0]
    if samples.dtype in (np.uint8, np.uint16):
        return _small(page, samples, (1 << depth) - 1, alpha, notes)
    colors = samples[..., :-1] if alpha else samples
    low, high = _range(page, colors, depth, notes)
    full = (
        1.0 if samples.dtype.kind == "f" else float(high if samples.dtype.kind == "i" else (1 << depth) - 1)
    )
    result = np.empty(samples.shape, np.uint16)
    lows, highs = np.full(samples.shape[2], low), np.full(samples.shape[2], high)
    if alpha:
        lows[-1], highs[-1] = min(low, 0.0), full
    for top in range(0, len(samples), _ROWS):
        block = (samples[top : top + _ROWS].astype(np.float64) - lows) / (highs - lows)
        result[top : top + _ROWS] = np.rint(65535 * np.nan_to_num(block, nan=0.0).clip(0, 1))
    return result, 65535


def _range(page: TiffPage, colors: np.ndarray, depth: int, notes: list[str]) -> tuple[float, float]:
    """Black and white of signed, long or floating-point samples."""
    finite = colors[np.isfinite(colors)] if colors.dtype.kind == "f" else colors
    smallest, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    white, black = tags.real(page, tags.S_MAX_SAMPLE), tags.real(page, tags.S_MIN_SAMPLE)
    if white is not None and white > (black or 0.0):
        black = black or 0.0
        notes.append(f"black is {black:g} and white is {white:g}, from its tags")
        if smallest < black or largest > white:
            notes.append("samples beyond them were cut off")
        return black, white
    if colors.dtype.kind == "f" and smallest >= 0 and largest <= 1:
        return 0.0, 1.0
    full = float((1 << depth) - 1)
    if colors.dtype.kind == "u" and largest > full / 256:
        return 0.0, full
    kind = {"f": "floating-point", "i": "signed integer"}.get(colors.dtype.kind, f"{depth}-bit integer")
    raise Refusal(
        Reason.UNSUPPORTED_MODE,
        f"{kind} pixels from {smallest:g} to {largest:g} have no known white: its tags state none (SMaxSampleValue)",
    )


def _small(
    page: TiffPage, samples: np.ndarray, white: int, alpha: bool, notes: list[str]
) -> tuple[np.ndarray, int]:
    """Samples of at most 16 bits, from black, and their white."""
    stated = tags.number(page, tags.S_MAX_SAMPLE, None)
    black = tags.number(page, tags.S_MIN_SAMPLE, None)
    if white > 255:  # below, the older tags are statistics only
        stated = stated or tags.number(page, tags.MAX_SAMPLE, None)
        black = black or tags.number(page, tags.MIN_SAMPLE, None)
    colors = samples[..., :-1] if alpha else samples
    largest = int(colors.max())
    if not stated or not largest <= stated < white or (stated == largest and stated & (stated + 1)):
        _note_dark(page, stated, largest, white, notes)
        return samples, white
    if alpha and samples[..., -1].max() > stated:  # opacity has the full range
        samples[..., -1] = scaled(samples[..., -1], white, stated)
    if not black or not 0 < black < min(int(colors.min()), stated):
        notes.append(f"white is {stated}, from its tags")
        return samples, stated
    notes.append(f"black is {black} and white is {stated}, from its tags")
    if alpha:
        samples[..., -1] = scaled(samples[..., -1], stated, stated - black)
    colors -= np.asarray(black, samples.dtype)
    return samples, stated - black


def _note_dark(page: TiffPage, stated: int | None, largest: int, white: int, notes: list[str]) -> None:
    if stated and stated < largest:
        notes.append(
            f"its tags state a white of {stated}, but its pixels exceed it; white was taken as {white}"
        )
    elif white > 255 and 0 < largest <= white >> 4 and tags.photometric(page) != tags.MIN_IS_WHITE:
        notes.append(
            "it is nearly black: no sample is above a sixteenth of the range, and its tags state no white"
        )
