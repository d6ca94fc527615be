"""Makes a derivative from a scan and its chroma: full size, with the luma of the scan."""

import io
import itertools

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from model.color import edges
from pipeline.imaging import chroma, graft, hints
from pipeline.imaging.icc import srgb_profile
from pipeline.imaging.mark import Mark
from pipeline.imaging.scan import Scan
from pipeline.metadata import containers, embedded, ifd, xmp
from pipeline.metadata.embedded import Metadata, stored, upright

BAND, COLUMNS = 256, 8192  # rows and columns of a block; only one block has float values in memory
# TIFF 6.0: tags that describe the coded picture; section 14 for the horizontal predictor.
_STRIP_OFFSETS, _STRIP_SIZES, _PREDICTOR = 273, 279, 317
_CODED = {256, 257, 258, 259, 262, _STRIP_OFFSETS, 277, 278, _STRIP_SIZES, 284, _PREDICTOR}


def paint(
    scan: Scan, canvas: np.ndarray, tiles: np.ndarray, strength: float, marks: hints.Marks | None = None
) -> tuple[np.ndarray, float]:
    """Prepares the chroma of the network for `encode`.

    Args:
      scan: the decoded master.
      canvas: the network's upright view, uint8 [h, w], from `chroma.view`.
      tiles: float [K, S, S, 2], a*b* in Lab units.
      strength: factor on chroma.
      marks: hints, which correct the colours of the network.

    Returns:
      The edge model float32 [h, w, 4], in the stored orientation of the scan, and the colourfulness (M3).
    """
    height, width = canvas.shape
    ab: np.ndarray = chroma.join_tiles(np.asarray(tiles, np.float32), (height, width)) * np.float32(strength)
    grid = [-(-side // chroma.GRID) for side in (width, height)]
    luma, ab = (cv2.resize(plane, grid, interpolation=cv2.INTER_AREA) for plane in (canvas, ab))
    ycc = chroma.to_ycc(luma, ab)
    model = edges.fit(luma, ycc)
    cb, cr = ycc
    if marks is not None:
        model, luma = hints.correct(model, marks), marks.luma
        cb, cr = edges.apply(model, luma)
    rgb = chroma.to_rgb(luma, *chroma.limit(luma, cb, cr))
    return np.ascontiguousarray(stored(model, scan.orientation)), chroma.colorfulness(rgb)


def encode(
    scan: Scan, model: np.ndarray, *, format: str, quality: int, packet: bytes, mark: Mark | None = None
) -> bytes:
    """Encodes the derivative: sRGB with its profile, the metadata of the master, and an XMP packet.

    The coded luminance of a grey JPEG is kept. Other scans are encoded from their luma.

    Args:
      scan: the decoded master.
      model: float32 [h, w, 4] from `paint`.
      format: "jpeg", "png" or "tiff".
      quality: of JPEG.
      packet: from `provenance.packet`.
      mark: as `read_scan` had it.
    """
    if format == "jpeg":
        return _jpeg(scan, model, quality, packet, mark)
    assert scan.luma is not None  # only a scan that is read for a JPEG has no luma
    pixels = _rgb(scan.luma, model)
    rgb = Image.fromarray(mark.stamped(pixels) if mark else pixels)
    return _png(rgb, scan, packet) if format == "png" else _tiff(rgb, scan, packet)


def compose(scan: Scan, model: np.ndarray) -> Image.Image:
    """The coloured, upright picture as an image instead of a file."""
    luma = scan.luma if scan.luma is not None else scan.guide
    return Image.fromarray(np.ascontiguousarray(upright(_rgb(luma, model), scan.orientation)))


def _jpeg(scan: Scan, model: np.ndarray, quality: int, packet: bytes, mark: Mark | None) -> bytes:
    carried = scan.carried
    if scan.jpeg is not None:
        master, others = scan.jpeg, scan.jpeg.carried
    else:
        assert scan.luma is not None  # without coded luminance
        buffer = io.BytesIO()
        dpi = {"dpi": carried.dpi} if carried.dpi else {}
        luma = mark.stamped(scan.luma) if mark else scan.luma
        Image.fromarray(luma).save(buffer, "JPEG", quality=quality, **dpi)
        master, others = graft.parse(buffer.getvalue()), tuple(graft.comment(carried.comment))
    width, height = (-(-side // 2) for side in scan.stored_size)
    planes = chroma.apply_model(model, scan.guide)
    cb, cr = (cv2.resize(_to_byte(plane), (width, height), interpolation=_to_half(scan)) for plane in planes)
    if mark:
        cb, cr = (mark.neutral(plane, scan.stored_size) for plane in (cb, cr))
    fits = len(packet) <= graft.LARGEST_XMP
    segments = [
        *([graft.app1_exif(carried.exif)] if carried.exif else []),
        *(graft.app1_xmp(packet) if fits else graft.app1_xmp(*xmp.split(packet, graft.LARGEST_XMP))),
        *graft.app13_photoshop(carried.photoshop),
        *graft.app2_icc(srgb_profile()),
        *others,
    ]
    return graft.graft(master, cb, cr, quality=quality, segments=segments)


def _png(rgb: Image.Image, scan: Scan, packet: bytes) -> bytes:
    carried, text = scan.carried, PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    if carried.photoshop:  # the form of ImageMagick and ExifTool
        digits = carried.photoshop.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        text.add_text("Raw profile type iptc", f"\niptc\n{len(carried.photoshop):8}\n{lines}\n", zip=True)
    for kind, chunk in carried.chunks:
        text.add(kind, chunk)
    dpi = {"dpi": carried.dpi} if carried.dpi else {}
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", pnginfo=text, exif=carried.exif or None, icc_profile=srgb_profile(), **dpi)
    return buffer.getvalue()


def _tiff(rgb: Image.Image, scan: Scan, packet: bytes) -> bytes:
    """Writes a directory with the values of the master byte for byte, and strips that libtiff has compressed."""
    carried, buffer = scan.carried, io.BytesIO()
    exif = carried.exif or embedded.carry(Metadata(), format="tiff", size=rgb.size, orientation=1).exif
    reader = ifd.Reader(exif)
    directory, order = reader.tree(next(reader.directories())), reader.order
    directory |= {
        containers.XMP_TAG: ifd.octets(packet),
        containers.ICC_TAG: ifd.undefined(srgb_profile()),
    }
    if carried.iptc:
        directory[containers.IPTC_TAG] = ifd.words(carried.iptc)
    if carried.photoshop:
        directory[containers.PHOTOSHOP_TAG] = ifd.octets(carried.photoshop)
    rgb.save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={_PREDICTOR: 2})
    libtiffs = ifd.Reader(buffer.getbuffer())
    coded = {tag: entry for tag, entry in next(libtiffs.directories()).items() if tag in _CODED}
    numbers = {tag: ifd.numbers(entry, libtiffs.order) for tag, entry in coded.items()}
    for tag, entry in coded.items():
        directory[tag] = (ifd.long if entry.type == ifd.LONG else ifd.short)(order, *numbers[tag])
    # The strips come after the directory, whose size does not depend on their offsets.
    sizes = numbers[_STRIP_SIZES]
    places = itertools.accumulate(sizes[:-1], initial=len(ifd.encode(directory, order)))
    directory[_STRIP_OFFSETS] = ifd.long(order, *places)
    strips = zip(numbers[_STRIP_OFFSETS], sizes, strict=True)
    return b"".join((ifd.encode(directory, order), *(libtiffs.data[at : at + size] for at, size in strips)))


def _to_half(scan: Scan) -> int:
    """Interpolation from the guide to half of the scan's size: a full-size guide is reduced, a smaller one enlarged."""
    return cv2.INTER_AREA if scan.guide.shape == scan.stored_size[::-1] else cv2.INTER_LINEAR


def _to_byte(plane: np.ndarray) -> np.ndarray:
    return cv2.add(plane, 128.0, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # the stub lacks scalars


def _rgb(luma: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Makes RGB uint8 [H, W, 3] from luma uint8 [H, W] and an edge model, block by block."""
    height, width = luma.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for left in range(0, width, COLUMNS):
        columns = range(left, min(left + COLUMNS, width))
        wide = _enlarged(model, 1, width, columns)  # once for all blocks of rows
        for top in range(0, height, BAND):
            rows = range(top, min(top + BAND, height))
            block = slice(top, rows.stop), slice(left, columns.stop)
            planes = chroma.apply_model(_enlarged(wide, 0, height, rows), luma[block])
            rgb[block] = chroma.to_rgb(luma[block], *planes)
    return rgb


def _enlarged(model: np.ndarray, axis: int, length: int, part: range) -> np.ndarray:
    """Part of an edge model that is linearly enlarged along an axis to a length, between the centres of pixels."""
    last = model.shape[axis] - 1
    at = np.clip((np.array(part) + 0.5) * (model.shape[axis] / length) - 0.5, 0, last)
    before = at.astype(np.intp)
    share = np.expand_dims((at - before).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    after = np.minimum(before + 1, last)
    return np.take(model, before, axis) * (1 - share) + np.take(model, after, axis) * share
