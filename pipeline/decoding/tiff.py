"""TIFF masters: which directory is the picture, whether its data are all there, and its samples.

Pillow decodes 8-bit samples and those compressions that only libtiff has. It misreads or refuses several others without
saying why (deep planes, extra channels, BigTIFF of Motorola order): `tifffile` decodes those. Specification: TIFF 6.0.
"""

import io
import logging
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, TiffFile, TiffFileError, TiffPage

from pipeline.pillow import open_image
from pipeline.record import Reason, Refusal
from pipeline.samples import CHANNELS, scaled, to_image

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds is checked below

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
# Beside these LZW, JPEG, deflate in both numbers, PackBits, LZMA, Zstandard: what Pillow's wheels have a decoder for.
_PILLOWS = {_UNCOMPRESSED, *_CCITT, 5, _OLD_JPEG, 7, 8, 32773, 32946, 34925, 50000}
_LERC, _WEBP, _JPEG_2000 = 34887, 50001, (33003, 33004, 33005, 34712)  # by tifffile
_UNSIGNED, _UNDEFINED = 1, 4
_SAMPLE_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex integers", 6: "complex numbers"}
_SMALL = 32  # pixels a side at which two directories are compared
_ALIKE = 12.0  # 8-bit levels of mean difference


def is_tiff(data: bytes) -> bool:
    return data[:4] in _MAGIC


def open_tiff(data: bytes, check: Callable[[int, int], None], notes: list[str]) -> Image.Image:
    """The one full picture of a TIFF.

    Args:
      data: the whole file.
      check: raises Refusal for a width and height that are not allowed. It is called before pixels are decoded.
      notes: words for a person about what was assumed or left out are added.

    Returns:
      An image whose `info` has the profile, and whose EXIF has the orientation.
      White is never zero in it. Deep grey has mode "I;16", with white at 65 535.

    Raises:
      Refusal: it has several pages, or samples that cannot be read rightly, or is damaged.
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
    """Those of the chain, up to a link that leads to no directory. Raises Refusal where there is none."""
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
        if any(page.offset == earlier.offset for earlier in found):  # a chain that bites its tail
            break
        found.append(page)
    if _next_offset(file, data, found[-1]):
        notes.append(f"the link behind directory {len(found)} leads to none; only what is before it was read")
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
        return Refusal(Reason.TRUNCATED, "it has no directory: its writer did not finish it")
    if offset >= len(data):
        return Refusal(Reason.TRUNCATED, "its directory lies behind the file's end")
    return Refusal(Reason.UNREADABLE, f"its directory is damaged ({error})")


def _next_offset(file: TiffFile, data: bytes, page: TiffPage) -> int:
    """Where the directory behind this one should be; 0 at the chain's end, and where the file ends before the link."""
    kinds = file.tiff
    try:
        (tags,) = struct.unpack_from(kinds.tagnoformat, data, page.offset)
        link = page.offset + kinds.tagnosize + tags * kinds.tagsize
        return struct.unpack_from(kinds.offsetformat, data, link)[0]
    except struct.error:
        return 0


def _sound(page: TiffPage) -> TiffPage:
    """Raises Refusal where a directory describes no picture."""
    if not (page.imagewidth > 0 and page.imagelength > 0 and page.dataoffsets):
        raise Refusal(Reason.UNREADABLE, "its directory names no size or no place of its pixels")
    return page


def _pages(directories: Sequence[TiffPage]) -> list[tuple[int, TiffPage]]:
    """The picture, and after it what may be reduced copies of it. Raises Refusal for several pictures."""
    full = [(index, page) for index, page in enumerate(directories) if not _is_reduced_or_mask(page)]
    full = full or [(0, directories[0])]
    _, first = full[0]
    if all(_is_reduction(page, first) for _, page in full[1:]):
        return full
    raise Refusal(Reason.MULTIPAGE, f"{len(full)} pages in one file: split it, a page a file")


def _is_reduced_or_mask(page: TiffPage) -> bool:
    kind = _number(page, _SUBFILE_TYPE, 0)
    return bool(kind & (_REDUCED | _MASK)) or _number(page, _OLD_SUBFILE_TYPE, 0) == 2


def _is_reduction(page: TiffPage, full: TiffPage) -> bool:
    """Whether the sides are those of `full`, halved once or more, as a pyramid's are."""
    width, height = full.imagewidth, full.imagelength
    for halvings in range(1, 24):
        factor = 1 << halvings
        if abs(page.imagewidth - width / factor) <= 1 and abs(page.imagelength - height / factor) <= 1:
            return max(page.imagewidth, page.imagelength) < max(width, height)
    return False


def _check_reductions(data: bytes, image: Image.Image, pages: list[tuple[int, TiffPage]]) -> None:
    """Raises Refusal where a directory of a halved size shows another picture: then it is a page."""
    own = _small(image)
    for index, page in pages[1:]:
        _check_segments(page, len(data))
        if np.abs(_small(_decoded(data, index, page, [])) - own).mean() > _ALIKE:
            raise Refusal(Reason.MULTIPAGE, f"{len(pages)} pages in one file: split it, a page a file")


def _small(image: Image.Image) -> np.ndarray:
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.float32(image.convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX))


def _check_directory(page: TiffPage, notes: list[str]) -> None:
    """Raises Refusal for samples that have no known tones."""
    if _DNG_VERSION in page.tags:
        raise Refusal(Reason.UNSUPPORTED_MODE, "it is a DNG, a camera's raw data; develop it to a TIFF first")
    if page.sampleformat not in (_UNSIGNED, _UNDEFINED):
        kind = _SAMPLE_FORMATS.get(page.sampleformat, f"of the sample format {page.sampleformat}")
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are {kind}: they have no known white")
    bits = _bits(page)
    if max(bits) > 16:
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{max(bits)}-bit integer pixels have no known white")
    if len(set(bits)) > 1:
        raise Refusal(
            Reason.UNSUPPORTED_MODE, f"its samples differ in depth: {', '.join(map(str, bits))} bits"
        )
    if not _is_known_compression(page):
        kind = COMPRESSION(page.compression).name if page.compression in COMPRESSION else page.compression
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are compressed in a way that is not read: {kind}")
    if _PHOTOMETRIC not in page.tags:
        notes.append(
            f"it does not say what zero means; taken as {'white' if _photometric(page) == 0 else 'black'}"
        )


def _is_known_compression(page: TiffPage) -> bool:
    """Whether it is undone here. Colours in JPEG 2000 may be YCbCr under the tag of RGB; WebP has no planes."""
    if page.compression == _WEBP:
        return page.planarconfig == 1
    if page.compression in _JPEG_2000:
        return page.samplesperpixel == 1 and page.bitspersample in (8, 16)
    return page.compression in {*_PILLOWS, _LERC}


def _check_segments(page: TiffPage, size: int) -> None:
    """Raises Refusal where strips or tiles lie behind the file's end or hold less than the tags promise."""
    name = "tile" if page.is_tiled else "strip"
    needed = list(_segment_bytes(page)) if page.compression == _UNCOMPRESSED else None
    places, counts = page.dataoffsets, page.databytecounts
    expected = _segment_count(page)
    if (
        needed
        and len(counts) == len(needed)
        and all(count > size and count % size == 0 for count, size in zip(counts, needed, strict=True))
    ):
        words = f"{name} 1 holds {counts[0]} bytes where its size and depth need {needed[0]}"
        raise Refusal(Reason.UNREADABLE, words)
    if page.compression != _OLD_JPEG and (len(places) < expected or len(counts) < expected):
        raise Refusal(Reason.TRUNCATED, f"it has {min(len(places), len(counts))} {name}s of {expected}")
    for index, (place, count) in enumerate(zip(places, counts, strict=False)):
        if needed and index < len(needed):
            if 0 < count < needed[index]:
                words = (
                    f"{name} {index + 1} holds {count} bytes where its size and depth need {needed[index]}"
                )
                raise Refusal(Reason.TRUNCATED, words)
            count = needed[index]
        if not place:
            raise Refusal(Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} was never written")
        if place + count > size:
            raise Refusal(Reason.TRUNCATED, f"{name} {index + 1} of {len(places)} lies behind the file's end")


def _segment_count(page: TiffPage) -> int:
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if page.is_tiled:
        return planes * -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
    return planes * -(-page.imagelength // min(page.rowsperstrip or page.imagelength, page.imagelength))


def _segment_bytes(page: TiffPage) -> Iterator[int]:
    """What each strip or tile takes uncompressed."""
    separate = page.planarconfig == 2
    row_bits = (1 if separate else page.samplesperpixel) * _bits(page)[0]
    if page.is_tiled:
        size = page.tilelength * -(-page.tilewidth * row_bits // 8)
        yield from [size] * _segment_count(page)
        return
    if _photometric(page) == _YCBCR:  # subsampled: Pillow does not read it uncompressed
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
    """Whether Pillow is known to decode it rightly."""
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
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its colours are of a kind that is not handled: {kind}")
    space = _SPACES[photometric]
    colors, extra = CHANNELS[space], tuple(int(kind) for kind in page.extrasamples)
    needed = 1 if photometric == _PALETTE else colors
    if page.samplesperpixel < needed:
        raise Refusal(
            Reason.UNREADABLE, f"it has {page.samplesperpixel} samples a pixel where {space} needs {needed}"
        )
    samples = _samples(page)
    if photometric == _PALETTE:  # some writers fill its 16 bits as if they were 8
        palette = _palette(page)
        samples = np.concatenate([palette[samples[..., 0]], samples[..., 1:]], axis=2)
        white = 65535 if palette.max() > 255 else 255
    mixed = photometric in (_PALETTE, _CMYK)  # with these, opacity is left out
    alpha = "" if mixed else {1: "premultiplied", 2: "straight"}.get(extra[0] if extra else 0, "")
    kept = colors + bool(alpha)
    if samples.shape[2] > kept:
        channels = samples.shape[2] - kept
        notes.append(
            f"{channels} extra channel{'s' * (channels > 1)} of no stated meaning (infrared?) left out"
        )
        samples = samples[..., :kept]
    if white > 255 and photometric != _PALETTE and space != "CMYK":
        white = _stated_white(page, samples, white, bool(alpha), notes)
    if photometric == _MIN_IS_WHITE:
        turned = white - np.minimum(samples[..., :1], white)
        samples = np.concatenate([turned, samples[..., 1:]], axis=2) if alpha else turned
    return to_image(samples, white, space, alpha)


def _palette(page: TiffPage) -> np.ndarray:
    """uint16 [N, 3]: red, green and blue of each level."""
    entries = np.asarray(page.tags.valueof(_COLOR_MAP, default=()), np.uint16).ravel()
    if entries.size != 3 << _bits(page)[0]:
        raise Refusal(Reason.UNREADABLE, f"its palette has {entries.size} values for {_bits(page)[0]} bits")
    return entries.reshape(3, -1).T


def _samples(page: TiffPage) -> np.ndarray:
    """uint8 or uint16 [H, W, C]."""
    try:
        array = page.asarray(squeeze=False, maxworkers=1)  # [separate samples, depth, H, W, samples]
    except (TiffFileError, RuntimeError) as error:  # imagecodecs' errors are of the latter kind
        raise Refusal(Reason.UNREADABLE, f"its compressed pixels are damaged ({error})") from error
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.ndim != 5 or array.shape[1] != 1 or array.dtype not in (np.uint8, np.uint16):
        raise Refusal(Reason.UNSUPPORTED_MODE, f"its pixels are a volume or of the kind {array.dtype}")
    array = array[:, 0]
    return np.moveaxis(array[..., 0], 0, -1) if page.planarconfig == 2 and len(array) > 1 else array[0]


def _stated_white(page: TiffPage, samples: np.ndarray, white: int, alpha: bool, notes: list[str]) -> int:
    """The largest sample value that the file states, where no sample is larger.

    The tag may also be a mere count of what occurs (TIFF 6.0, section 8), which a full range of bits is not.
    """
    stated = _number(page, _S_MAX_SAMPLE, None) or _number(page, _MAX_SAMPLE, None)
    colors = samples[..., :-1] if alpha else samples
    largest = int(colors.max())
    if stated and largest <= stated < white and (stated > largest or not stated & (stated + 1)):
        if alpha and samples[..., -1].max() > stated:  # opacity has its full range
            samples[..., -1] = scaled(samples[..., -1], white, stated)
        notes.append(f"white is {stated}, as its tags state")
        return int(stated)
    if stated and stated < largest:
        notes.append(f"its tags state a white of {stated}, which its own pixels exceed; taken as {white}")
    elif 0 < largest <= white >> 4 and _photometric(page) != _MIN_IS_WHITE:
        notes.append(
            "it is nearly black: no sample is above a sixteenth of the range, and no white is stated"
        )
    return white


def _bits(page: TiffPage) -> tuple[int, ...]:
    value = page.tags.valueof(_BITS, default=1)
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _photometric(page: TiffPage) -> int:
    """By its tag; without one, as libtiff assumes."""
    default = (
        _RGB if page.samplesperpixel >= 3 else _MIN_IS_WHITE if page.compression in _CCITT else _MIN_IS_BLACK
    )
    return _number(page, _PHOTOMETRIC, default)


def _number(page: TiffPage, tag: int, default: int | None) -> int | None:
    """The first value of a tag; the default where it is missing or no number."""
    value = page.tags.valueof(tag, default=default)
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else default
