"""A Scan and its chroma -> an encoded derivative of the scan's full size and its own luma."""

import io
import itertools

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from model import edges
from pipeline import chroma, containers, graft, hints, ifd, metadata, xmp
from pipeline.icc import srgb_profile
from pipeline.metadata import Metadata, stored, upright
from pipeline.scan import Scan

BAND, COLUMNS = 256, 8192  # composed at a time, so that memory is the picture's own, not its floats'
# TIFF 6.0: what describes the coded picture; section 14 for the predictor, of differences along a row.
_STRIP_OFFSETS, _STRIP_SIZES, _PREDICTOR = 273, 279, 317
_CODED = {256, 257, 258, 259, 262, _STRIP_OFFSETS, 277, 278, _STRIP_SIZES, 284, _PREDICTOR}


def paint(
    scan: Scan, canvas: np.ndarray, tiles: np.ndarray, strength: float, marks: hints.Marks | None = None
) -> tuple[np.ndarray, float]:
    """The network's chroma, ready for `encode`.

    Args:
      scan: what the tiles were seen of.
      canvas: uint8 [h, w], the network's upright view, from `chroma.view`.
      tiles: float [K, S, S, 2], a*b* in Lab units.
      strength: factor on chroma.
      marks: colours given for the scan, which correct the network's.

    Returns:
      The edge model float32 [h, w, 4], in the scan's stored orientation, and the colourfulness (M3).
    """
    ab = chroma.join_tiles(np.asarray(tiles, np.float32), canvas.shape) * np.float32(strength)
    grid = [-(-side // chroma.GRID) for side in canvas.shape[::-1]]
    luma, ab = (cv2.resize(plane, grid, interpolation=cv2.INTER_AREA) for plane in (canvas, ab))
    ycc = chroma.to_ycc(luma, ab)
    model = edges.fit(luma, ycc)
    if marks is not None:
        model, luma = hints.correct(model, marks), marks.luma
        ycc = edges.apply(model, luma)
    rgb = chroma.to_rgb(luma, *chroma.limit(luma, *ycc))
    return np.ascontiguousarray(stored(model, scan.orientation)), chroma.colorfulness(rgb)


def encode(scan: Scan, model: np.ndarray, *, format: str, quality: int, packet: bytes) -> bytes:
    """The derivative's bytes: sRGB, with its profile, what the master said of itself, and an XMP packet.

    A grey JPEG keeps its own coded luminance; other scans are coded anew from their luma.

    Args:
      model: float32 [h, w, 4] from `paint`.
      format: "jpeg", "png" or "tiff".
      quality: of JPEG; the lossless formats have none.
      packet: `provenance.packet`.
    """
    if format == "jpeg":
        return _jpeg(scan, model, quality, packet)
    rgb = Image.fromarray(_rgb(scan.luma, model))
    return _png(rgb, scan, packet) if format == "png" else _tiff(rgb, scan, packet)


def compose(scan: Scan, model: np.ndarray) -> Image.Image:
    """The coloured picture itself, as a person sees it, for those who want no file."""
    luma = scan.luma if scan.luma is not None else scan.guide
    return Image.fromarray(np.ascontiguousarray(upright(_rgb(luma, model), scan.orientation)))


def _jpeg(scan: Scan, model: np.ndarray, quality: int, packet: bytes) -> bytes:
    said = scan.carried
    if scan.jpeg is not None:
        master, others = scan.jpeg, scan.jpeg.carried
    else:
        buffer = io.BytesIO()
        dpi = {"dpi": said.dpi} if said.dpi else {}
        Image.fromarray(scan.luma).save(buffer, "JPEG", quality=quality, **dpi)
        master, others = graft.parse(buffer.getvalue()), graft.comment(said.comment)
    height, width = master.chroma_shape
    planes = chroma.apply_model(model, scan.guide)
    cb, cr = (cv2.resize(_to_byte(plane), (width, height), interpolation=_to_half(scan)) for plane in planes)
    fits = len(packet) <= graft.LARGEST_XMP
    segments = [
        *([graft.app1_exif(said.exif)] if said.exif else []),
        *(graft.app1_xmp(packet) if fits else graft.app1_xmp(*xmp.split(packet, graft.LARGEST_XMP))),
        *graft.app13_photoshop(said.photoshop),
        *graft.app2_icc(srgb_profile()),
        *others,
    ]
    return graft.graft(master, cb, cr, quality=quality, segments=segments)


def _png(rgb: Image.Image, scan: Scan, packet: bytes) -> bytes:
    said, text = scan.carried, PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    if said.photoshop:  # as ImageMagick and ExifTool keep it
        digits = said.photoshop.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        text.add_text("Raw profile type iptc", f"\niptc\n{len(said.photoshop):8}\n{lines}\n", zip=True)
    for kind, chunk in said.chunks:
        text.add(kind, chunk)
    dpi = {"dpi": said.dpi} if said.dpi else {}
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", pnginfo=text, exif=said.exif or None, icc_profile=srgb_profile(), **dpi)
    return buffer.getvalue()


def _tiff(rgb: Image.Image, scan: Scan, packet: bytes) -> bytes:
    """Strips that libtiff compressed, behind a directory of ours, which has the master's values as they were."""
    said, buffer = scan.carried, io.BytesIO()
    exif = said.exif or metadata.carry(Metadata(), format="tiff", size=rgb.size, orientation=1).exif
    reader = ifd.Reader(exif)
    directory, order = reader.tree(next(reader.directories())), reader.order
    directory |= {
        containers.XMP_TAG: ifd.octets(packet),
        containers.ICC_TAG: ifd.undefined(srgb_profile()),
    }
    if said.iptc:
        directory[containers.IPTC_TAG] = ifd.words(said.iptc)
    if said.photoshop:
        directory[containers.PHOTOSHOP_TAG] = ifd.octets(said.photoshop)
    rgb.save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={_PREDICTOR: 2})
    libtiffs = ifd.Reader(buffer.getbuffer())
    coded = {tag: entry for tag, entry in next(libtiffs.directories()).items() if tag in _CODED}
    numbers = {tag: ifd.numbers(entry, libtiffs.order) for tag, entry in coded.items()}
    for tag, entry in coded.items():
        directory[tag] = (ifd.long if entry.type == ifd.LONG else ifd.short)(order, *numbers[tag])
    # The directory's own size does not depend on where the strips lie: behind it.
    sizes = numbers[_STRIP_SIZES]
    places = itertools.accumulate(sizes[:-1], initial=len(ifd.encode(directory, order)))
    directory[_STRIP_OFFSETS] = ifd.long(order, *places)
    strips = zip(numbers[_STRIP_OFFSETS], sizes, strict=True)
    return b"".join((ifd.encode(directory, order), *(libtiffs.data[at : at + size] for at, size in strips)))


def _to_half(scan: Scan) -> int:
    """A guide of the scan's own size is halved, a smaller one enlarged."""
    return cv2.INTER_AREA if scan.guide.shape == scan.stored_size[::-1] else cv2.INTER_LINEAR


def _to_byte(plane: np.ndarray) -> np.ndarray:
    return cv2.add(plane, 128.0, dtype=cv2.CV_8U)


def _rgb(luma: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Luma uint8 [H, W] and an edge model -> uint8 [H, W, 3], a block at a time."""
    height, width = luma.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for left in range(0, width, COLUMNS):
        columns = range(left, min(left + COLUMNS, width))
        wide = _enlarged(model, 1, width, columns)  # once for all bands
        for top in range(0, height, BAND):
            rows = range(top, min(top + BAND, height))
            block = slice(top, rows.stop), slice(left, columns.stop)
            planes = chroma.apply_model(_enlarged(wide, 0, height, rows), luma[block])
            rgb[block] = chroma.to_rgb(luma[block], *planes)
    return rgb


def _enlarged(model: np.ndarray, axis: int, length: int, part: range) -> np.ndarray:
    """Part of an edge model that is enlarged along an axis to a length, linearly between centres of pixels."""
    last = model.shape[axis] - 1
    at = np.clip((np.array(part) + 0.5) * (model.shape[axis] / length) - 0.5, 0, last)
    before = np.intp(at)
    share = np.expand_dims(np.float32(at - before), (1, 2) if axis == 0 else (0, 2))
    after = np.minimum(before + 1, last)
    return np.take(model, before, axis) * (1 - share) + np.take(model, after, axis) * share
