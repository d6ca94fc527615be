"""Pictures of TIFF directories that `tifffile` decodes: channels and colour spaces of their samples."""

import numpy as np
from PIL import Image
from tifffile import TiffFileError, TiffPage

from pipeline.decoding import levels, tags
from pipeline.decoding.samples import CHANNELS, scaled, to_image
from pipeline.records.record import Reason, Refusal

_SPACES = {
    tags.MIN_IS_WHITE: "L",
    tags.MIN_IS_BLACK: "L",
    tags.RGB: "RGB",
    tags.PALETTE: "RGB",
    tags.CMYK: "CMYK",
    tags.YCBCR: "YCbCr",
    tags.CIE_LAB: "LAB",
    tags.ICC_LAB: "LAB",
}
_OTHER_SPACES = {
    4: "transparency mask",
    10: "ITU L*a*b*",
    32803: "a sensor's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 529, 530, 532  # of YCbCr


def to_picture(page: TiffPage, notes: list[str]) -> Image.Image:
    """Decodes the samples of a directory.

    Args:
      page: a directory whose data are complete.
      notes: remarks for people about assumptions and omissions are added.

    Returns:
      An image as from `samples.to_image`.

    Raises:
      Refusal: the samples are damaged, or their meaning is not known.
    """
    space = _space(page)
    kind = tags.photometric(page)
    colors, extra = CHANNELS[space], tuple(int(kind) for kind in page.extrasamples)
    needed = 1 if kind == tags.PALETTE else colors
    if page.samplesperpixel < needed:
        words = f"it has {page.samplesperpixel} samples per pixel, but {space} needs {needed}"
        raise Refusal(Reason.UNREADABLE, words)
    samples, white = _samples(page), 255
    if kind == tags.PALETTE:  # some writers use only 8 of its 16 bits
        table = palette(page)
        table = scaled(table, 65535 if table.max() > 255 else 255, 255)
        samples = np.concatenate([table[samples[..., 0]], samples[..., 1:]], axis=2)
    # For other spaces than grey and RGB, opacity is left out.
    alpha = {1: "premultiplied", 2: "straight"}.get(extra[0] if extra else 0, "")
    alpha = alpha if space in ("L", "RGB") and kind != tags.PALETTE else ""
    kept = colors + bool(alpha)
    if samples.shape[2] > kept:
        channels = samples.shape[2] - kept
        notes.append(
            f"{channels} extra channel{'s' * (channels > 1)} without a stated meaning (infrared?) left out"
        )
        samples = samples[..., :kept]
    if space == "LAB":
        bits = tags.bits(page)[0]
        return to_image(_lab(samples, kind, bits), (1 << bits) - 1, space)
    if kind != tags.PALETTE:
        samples, white = levels.normalized(page, samples, bool(alpha), notes)
    if kind == tags.MIN_IS_WHITE:
        turned = white - np.minimum(samples[..., :1], white)
        samples = np.concatenate([turned, samples[..., 1:]], axis=2) if alpha else turned
    return to_image(samples, white, space, alpha)


def palette(page: TiffPage) -> np.ndarray:
    """Palette, uint16 [N, 3]: red, green and blue of each level."""
    entries = np.asarray(page.tags.valueof(tags.COLOR_MAP, default=()), np.uint16).ravel()
    if entries.size != 3 << tags.bits(page)[0]:
        words = f"its palette has {entries.size} values for {tags.bits(page)[0]} bits"
        raise Refusal(Reason.UNREADABLE, words)
    return entries.reshape(3, -1).T


def _space(page: TiffPage) -> str:
    """Colour space, with Pillow's name."""
    kind = tags.photometric(page)
    if kind not in _SPACES:
        words = _OTHER_SPACES.get(kind, f"kind {kind}")
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its colour space is not supported: {words}")
    if page.compression == tags.JPEG_2000_YCBCR and page.samplesperpixel == 3:
        return "YCbCr"
    if kind == tags.YCBCR:
        reference = page.tags.valueof(_REFERENCE, default=())
        usual = not reference or _ratios(reference) == [0, 255, 128, 255, 128, 255]
        coefficients = page.tags.valueof(_COEFFICIENTS, default=())
        usual &= not coefficients or np.allclose(_ratios(coefficients), [0.299, 0.587, 0.114], atol=1e-3)
        if tuple(page.tags.valueof(_SUBSAMPLING, default=(2, 2))) != (1, 1) or not usual:
            words = "YCbCr that is subsampled, or not that of JPEG, without JPEG compression"
            raise Refusal(Reason.UNSUPPORTED_MODE, f"its colour space is not supported: {words}")
    if kind in (tags.CIE_LAB, tags.ICC_LAB) and tags.bits(page)[0] not in (8, 16):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"L*a*b* of {tags.bits(page)[0]} bits is not supported")
    return _SPACES[kind]


def _ratios(values: tuple) -> list[float]:
    """Rational numbers from numerators and denominators in turn."""
    above, below = np.array(values[::2], float), np.array(values[1::2], float)
    return list(np.divide(above, below, out=np.zeros_like(above), where=below != 0))


def _lab(samples: np.ndarray, kind: int, bits: int) -> np.ndarray:
    """L*a*b* as in ICC 4, uint8 or uint16 [H, W, 3]: L* from 0 to the largest number, a* and b* from -128 to 127.

    Samples of CIE L*a*b* (TIFF 6.0, section 23) have a sign; those of ICC L*a*b* (technical note 4) have none, and in
    16 bits their white is 65 280. In 16 bits of both, 256 is one unit of a* and b*, where ICC 4 has 257.
    """
    light, chroma = samples[..., :1].astype(np.float64), samples[..., 1:].astype(np.int32)
    if kind == tags.CIE_LAB:  # a sign, in two's complement
        chroma = (chroma + (1 << bits - 1)) % (1 << bits)
    if bits == 8:
        return np.concatenate([light, chroma], axis=2).astype(np.uint8)
    light *= 65535 / 65280 if kind == tags.ICC_LAB else 1
    return np.rint(np.concatenate([light, chroma * (257 / 256)], axis=2)).clip(0, 65535).astype(np.uint16)


def _samples(page: TiffPage) -> np.ndarray:
    """Decodes the samples: numbers [H, W, C]."""
    try:
        array = page.asarray(squeeze=False, maxworkers=1)  # [separate samples, depth, H, W, samples]
    except (TiffFileError, RuntimeError) as error:  # imagecodecs raises RuntimeErrors
        raise Refusal(Reason.UNREADABLE, f"its compressed pixels are damaged ({error})") from error
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.ndim != 5 or array.shape[1] != 1 or array.dtype.kind not in "uif":
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are a volume or have the type {array.dtype}")
    array = array[:, 0]
    return np.moveaxis(array[..., 0], 0, -1) if page.planarconfig == 2 and len(array) > 1 else array[0]
