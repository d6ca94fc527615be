"""TIFF masters: chooses the directory of the picture, checks that its data are complete, and decodes it.

Pillow decodes 8-bit samples and the compressions that only libtiff has. It misreads or refuses several other kinds
(deep planes, extra channels, BigTIFF in Motorola order), which `tifffile` decodes. Specification: TIFF 6.0.
"""

import io
import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, TiffFile, TiffFileError, TiffFrame, TiffPage

from pipeline.decoding.pillow import open_image
from pipeline.decoding.samples import CHANNELS, scaled, to_image
from pipeline.records.record import Reason, Refusal

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its findings are checked below

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 255, 256, 257, 258, 262
_ORIENTATION, _MAX_SAMPLE, _COLOR_MAP, _EXTRA_SAMPLES, _S_MAX_SAMPLE = 274, 281, 320, 338, 341
_ICC, _DNG_VERSION = 34675, 50706
_REDUCED, _MASK = 0b001, 0b100  # bits of NewSubfileType

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_SPACES = {_MIN_IS_WHITE: "L", _MIN_IS_BLACK: "L", _RGB: "RGB", _PALETTE: "RGB", _CMYK: "CMYK"}
_OTHER_SPACES = {
    4: "transparency mask",
    _YCBCR: "YCbCr, uncompressed or deep",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a sensor's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_UNCOMPRESSED, _CCITT, _OLD_JPEG = 1, (2, 3, 4, 32771), 6
# Besides these: LZW, JPEG, deflate with both numbers, PackBits, LZMA, Zstandard, for which Pillow's wheels have
# decoders.
_PILLOWS = {_UNCOMPRESSED, *_CCITT, 5, _OLD_JPEG, 7, 8, 32773, 32946, 34925, 50000}
_LERC, _WEBP, _JPEG_2000 = 34887, 50001, (33003, 33004, 33005, 34712)  # decoded by tifffile
_UNSIGNED, _UNDEFINED = 1, 4
_SAMPLE_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex integers", 6: "complex numbers"}
_SMALL = 32  # pixels; size at which two directories are compared
_ALIKE = 12.0  # mean difference in 8-bit levels

_Default = TypeVar("_Default", bound=int | None)


def is_tiff(data: bytes) -> bool:
    return data[:4] in _MAGIC


def open_tiff(data: bytes, check: Callable[[int, int], None], notes: list[str]) -> Image.Image:
    """Opens the full-size picture of a TIFF.

    Args:
      data: the whole file.
      check: raises Refusal for a width and height that are not allowed. It is called before pixels are decoded.
      notes: remarks for people about assumptions and omissions are added.

    Returns:
      An image with the profile in `info` and the orientation in its EXIF. White is never zero. Deep grey has the mode
      "I;16", with white at 65 535.

    Raises:
      Refusal: it has several pages, is damaged, or has samples that cannot be read correctly.
    """
    with TiffFile(io.BytesIO(data)) as file:
        file.pages.useframes = False
        directories = _directories(file, data, notes)
        pages = _pages(directories)
        index, page = pages[0]
        check(page.imagewidth, page.imagelength)
        _check_directory(page, notes)
        _check_segments(page, len(data))
        image = _decoded(data, index, page, notes)
        if len(pages) > 1:
            _check_reductions(data, image, pages)
            notes.append(f"{len(pages) - 1} reduced copies of it in the file were left out")
        return image


def _directories(file: TiffFile, data: bytes, notes: list[str]) -> list[TiffPage]:
    """Directories of the chain, up to a broken link. Raises Refusal if there is none."""
    found: list[TiffPage] = []
    while True:
        try:
            page = _sound(file.pages[len(found)])
        except (
            TiffFileError,
            Refusal,
            IndexError,
            ValueError,
            TypeError,
            OverflowError,
            struct.error,
        ) as error:
            if not found:
                raise _no_directory(data, error) from error
            break
        if any(page.offset == earlier.offset for earlier in found):  # a circular chain
            break
        found.append(page)
    if _next_offset(file, data, found[-1]):
        notes.append(
            f"the link behind directory {len(found)} is broken; only the directories before it were read"
        )
    return found


def _no_directory(data: bytes, error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    order, long = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    try:
        (offset,) = struct.unpack_from(order + "Q" if long else order + "I", data, 8 if long else 4)
    except struct.error:
        offset = len(data)
    if not offset:
        return Refusal(Reason.TRUNCATED, "it has no directory, because its writer did not finish it")
    if offset >= len(data):
        return Refusal(Reason.TRUNCATED, "its directory is behind the end of the file")
    return Refusal(Reason.UNREADABLE, f"its directory is damaged ({error})")


def _next_offset(file: TiffFile, data: bytes, page: TiffPage) -> int:
    """Offset of the next directory; 0 at the end of the chain, or if the file ends before the link."""
    kinds = file.tiff
    try:
        (tags,) = struct.unpack_from(kinds.tagnoformat, data, page.offset)
        link = page.offset + kinds.tagnosize + tags * kinds.tagsize
        return struct.unpack_from(kinds.offsetformat, data, link)[0]
    except struct.error:
        return 0


def _sound(page: TiffPage | TiffFrame) -> TiffPage:
    """Raises Refusal if a directory does not describe a picture."""
    if isinstance(page, TiffPage) and page.imagewidth > 0 and page.imagelength > 0 and page.dataoffsets:
        return page
    raise Refusal(Reason.UNREADABLE, "its directory lacks the size or the place of the pixels")


def _pages(directories: Sequence[TiffPage]) -> list[tuple[int, TiffPage]]:
    """The picture, followed by possible reduced copies. Raises Refusal for several pictures."""
    full = [(index, page) for index, page in enumerate(directories) if not _is_reduced_or_mask(page)]
    full = full or [(0, directories[0])]
    _, first = full[0]
    if all(_is_reduction(page, first) for _, page in full[1:]):
        return full
    raise Refusal(Reason.MULTIPAGE, f"{len(full)} pages in one file: split it into single pages")


def _is_reduced_or_mask(page: TiffPage) -> bool:
    kind = _number(page, _SUBFILE_TYPE, 0)
    return bool(kind & (_REDUCED | _MASK)) or _number(page, _OLD_SUBFILE_TYPE, 0) == 2


def _is_reduction(page: TiffPage, full: TiffPage) -> bool:
    """Whether the sides are those of `full`, halved once or more, as in a pyramid."""
    width, height = full.imagewidth, full.imagelength
    for halvings in range(1, 24):
        factor = 1 << halvings
        if abs(page.imagewidth - width / factor) <= 1 and abs(page.imagelength - height / factor) <= 1:
            return max(page.imagewidth, page.imagelength) < max(width, height)
    return False


def _check_reductions(data: bytes, image: Image.Image, pages: list[tuple[int, TiffPage]]) -> None:
    """Raises Refusal if a directory of a halved size shows another picture, because it is a page then."""
    own = _small(image)
    for index, page in pages[1:]:
        _check_segments(page, len(data))
        if np.abs(_small(_decoded(data, index, page, [])) - own).mean() > _ALIKE:
            raise Refusal(Reason.MULTIPAGE, f"{len(pages)} pages in one file: split it into single pages")


def _small(image: Image.Image) -> np.ndarray:
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX), np.float32)


def _check_directory(page: TiffPage, notes: list[str]) -> None:
    """Raises Refusal for samples without known tones."""
    if _DNG_VERSION in page.tags:
        raise Refusal(
            Reason.UNSUPPORTED_MODE, "it is a DNG with raw data of a camera; develop it to a TIFF first"
        )
    if page.sampleformat not in (_UNSIGNED, _UNDEFINED):
        kind = _SAMPLE_FORMATS.get(page.sampleformat, f"of the sample format {page.sampleformat}")
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are {kind}, without a known white")
    bits = _bits(page)
    if max(bits) > 16:
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{max(bits)}-bit integer pixels have no known white")
    if len(set(bits)) > 1:
        raise Refusal(
            Reason.UNSUPPORTED_MODE, f"its samples differ in depth: {', '.join(map(str, bits))} bits"
        )
    if not _is_known_compression(page):
        known = page.compression in list(COMPRESSION)
        kind = COMPRESSION(page.compression).name if known else str(page.compression)
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its compression is not supported: {kind}")
    if _PHOTOMETRIC not in page.tags:
        notes.append(
            f"it does not state the meaning of zero; it was taken as {'white' if _photometric(page) == 0 else 'black'}"
        )


def _is_known_compression(page: TiffPage) -> bool:
    """Whether the compression is supported. JPEG 2000 may have YCbCr under the tag of RGB; WebP has no planes."""
    if page.compression == _WEBP:
        return page.planarconfig == 1
    if page.compression in _JPEG_2000:
        return page.samplesperpixel == 1 and page.bitspersample in (8, 16)
    return page.compression in {*_PILLOWS, _LERC}


def _check_segments(page: TiffPage, size: int) -> None:
    """Raises Refusal if strips or tiles are behind the end of the file, or have fewer bytes than the tags require."""
    name = "tile" if page.is_tiled else "strip"
    needed = list(_segment_bytes(page)) if page.compression == _UNCOMPRESSED else None
    places, counts = page.dataoffsets, page.databytecounts
    expected = _segment_count(page)
    if (
        needed
        and len(counts) == len(needed)
        and all(count > size and count % size == 0 for count, size in zip(counts, needed, strict=True))
    ):
        words = f"{name} 1 has {counts[0]} bytes, but its size and depth need {needed[0]}"
        raise Refusal(Reason.UNREADABLE, words)
    if page.compression != _OLD_JPEG and (len(places) < expected or len(counts) < expected):
        raise Refusal(Reason.TRUNCATED, f"it has {min(len(places), len(counts))} {name}s of {expected}")
    for index, (place, count) in enumerate(zip(places, counts, strict=False)):
        if needed and index < len(needed):
            if 0 < count < needed[index]:
                words = f"{name} {index + 1} has {count} bytes, but its size and depth need {needed[index]}"
                raise Refusal(Reason.TRUNCATED, words)
            count = needed[index]
        if not place:
            raise Refusal(Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} was never written")
        if place + count > size:
            raise Refusal(
                Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} is behind the end of the file"
            )


def _segment_count(page: TiffPage) -> int:
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if page.is_tiled:
        return planes * -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
    return planes * -(-page.imagelength // min(page.rowsperstrip or page.imagelength, page.imagelength))


def _segment_bytes(page: TiffPage) -> Iterator[int]:
    """Yields the uncompressed size of each strip or tile in bytes."""
    separate = page.planarconfig == 2
    row_bits = (1 if separate else page.samplesperpixel) * _bits(page)[0]
    if page.is_tiled:
        size = page.tilelength * -(-page.tilewidth * row_bits // 8)
        yield from [size] * _segment_count(page)
        return
    if _photometric(page) == _YCBCR:  # subsampled; Pillow cannot read it uncompressed
        return
    row = -(-page.imagewidth * row_bits // 8)
    rows = min(page.rowsperstrip or page.imagelength, page.imagelength)
    for _ in range(page.samplesperpixel if separate else 1):
        for top in range(0, page.imagelength, rows):
            yield min(rows, page.imagelength - top) * row


def _decoded(data: bytes, index: int, page: TiffPage, notes: list[str]) -> Image.Image:
    if _is_pillows(page):
        image = open_image(data)
        image.seek(index)
        return image
    image = _by_tifffile(page, notes)
    if _ICC in page.tags:
        image.info["icc_profile"] = bytes(page.tags[_ICC].value)
    if (orientation := _number(page, _ORIENTATION, 1)) != 1:
        image.getexif()[_ORIENTATION] = orientation
    return image


def _is_pillows(page: TiffPage) -> bool:
    """Whether Pillow is known to decode this kind correctly."""
    if _PHOTOMETRIC not in page.tags or _EXTRA_SAMPLES in page.tags or page.sampleformat != _UNSIGNED:
        return page.compression in (*_CCITT, _OLD_JPEG)
    if page.compression not in _PILLOWS or (page.parent.is_bigtiff and page.parent.byteorder == ">"):
        return False
    bits, photometric, samples = _bits(page)[0], _photometric(page), page.samplesperpixel
    if samples == 1:
        plain = photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK)
        return bits in (1, 2, 4, 8) and (plain or (photometric == _PALETTE and _palette(page).max() > 255))
    if photometric == _YCBCR and page.compression == _UNCOMPRESSED:
        return False
    return bits == 8 and samples == {_RGB: 3, _YCBCR: 3, _CMYK: 4}.get(photometric)


def _by_tifffile(page: TiffPage, notes: list[str]) -> Image.Image:
    photometric, white = _photometric(page), (1 << _bits(page)[0]) - 1
    if photometric not in _SPACES:
        kind = _OTHER_SPACES.get(photometric, f"kind {photometric}")
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its colour space is not supported: {kind}")
    space = _SPACES[photometric]
    colors, extra = CHANNELS[space], tuple(int(kind) for kind in page.extrasamples)
    needed = 1 if photometric == _PALETTE else colors
    if page.samplesperpixel < needed:
        raise Refusal(
            Reason.UNREADABLE, f"it has {page.samplesperpixel} samples per pixel, but {space} needs {needed}"
        )
    samples = _samples(page)
    if photometric == _PALETTE:  # some writers use only 8 of its 16 bits
        palette = _palette(page)
        samples = np.concatenate([palette[samples[..., 0]], samples[..., 1:]], axis=2)
        white = 65535 if palette.max() > 255 else 255
    mixed = photometric in (_PALETTE, _CMYK)  # opacity is left out for these
    alpha = "" if mixed else {1: "premultiplied", 2: "straight"}.get(extra[0] if extra else 0, "")
    kept = colors + bool(alpha)
    if samples.shape[2] > kept:
        channels = samples.shape[2] - kept
        notes.append(
            f"{channels} extra channel{'s' * (channels > 1)} without a stated meaning (infrared?) left out"
        )
        samples = samples[..., :kept]
    if white > 255 and photometric != _PALETTE and space != "CMYK":
        white = _stated_white(page, samples, white, bool(alpha), notes)
    if photometric == _MIN_IS_WHITE:
        turned = white - np.minimum(samples[..., :1], white)
        samples = np.concatenate([turned, samples[..., 1:]], axis=2) if alpha else turned
    return to_image(samples, white, space, alpha)


def _palette(page: TiffPage) -> np.ndarray:
    """Palette, uint16 [N, 3]: red, green and blue of each level."""
    entries = np.asarray(page.tags.valueof(_COLOR_MAP, default=()), np.uint16).ravel()
    if entries.size != 3 << _bits(page)[0]:
        raise Refusal(Reason.UNREADABLE, f"its palette has {entries.size} values for {_bits(page)[0]} bits")
    return entries.reshape(3, -1).T


def _samples(page: TiffPage) -> np.ndarray:
    """Decodes the samples, uint8 or uint16 [H, W, C]."""
    try:
        array = page.asarray(squeeze=False, maxworkers=1)  # [separate samples, depth, H, W, samples]
    except (TiffFileError, RuntimeError) as error:  # imagecodecs raises RuntimeErrors
        raise Refusal(Reason.UNREADABLE, f"its compressed pixels are damaged ({error})") from error
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.ndim != 5 or array.shape[1] != 1 or array.dtype not in (np.uint8, np.uint16):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are a volume or have the type {array.dtype}")
    array = array[:, 0]
    return np.moveaxis(array[..., 0], 0, -1) if page.planarconfig == 2 and len(array) > 1 else array[0]


def _stated_white(page: TiffPage, samples: np.ndarray, white: int, alpha: bool, notes: list[str]) -> int:
    """White level from the tags of the file, if no sample is larger.

    The tag may also give the largest sample that occurs (TIFF 6.0, section 8). It is taken for white if it is above
    all samples, or a full range of bits.
    """
    stated = _number(page, _S_MAX_SAMPLE, None) or _number(page, _MAX_SAMPLE, None)
    colors = samples[..., :-1] if alpha else samples
    largest = int(colors.max())
    if stated and largest <= stated < white and (stated > largest or not stated & (stated + 1)):
        if alpha and samples[..., -1].max() > stated:  # opacity has the full range
            samples[..., -1] = scaled(samples[..., -1], white, stated)
        notes.append(f"white is {stated}, from its tags")
        return int(stated)
    if stated and stated < largest:
        notes.append(
            f"its tags state a white of {stated}, but its pixels exceed it; white was taken as {white}"
        )
    elif 0 < largest <= white >> 4 and _photometric(page) != _MIN_IS_WHITE:
        notes.append(
            "it is nearly black: no sample is above a sixteenth of the range, and its tags state no white"
        )
    return white


def _bits(page: TiffPage) -> tuple[int, ...]:
    value = page.tags.valueof(_BITS, default=1)
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _photometric(page: TiffPage) -> int:
    """Photometric interpretation from its tag; without a tag, that of libtiff."""
    default = (
        _RGB if page.samplesperpixel >= 3 else _MIN_IS_WHITE if page.compression in _CCITT else _MIN_IS_BLACK
    )
    return _number(page, _PHOTOMETRIC, default)


def _number(page: TiffPage, tag: int, default: _Default) -> int | _Default:
    """First value of a tag; the default if it is missing or not a number."""
    value = page.tags.valueof(tag, default=default)
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else default
