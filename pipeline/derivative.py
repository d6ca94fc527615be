"""A Scan and its chroma -> an encoded derivative of the scan's full size and its own luma."""

import io
import os

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from model import edges
from pipeline import chroma, graft, hints
from pipeline.icc import srgb_profile
from pipeline.metadata import DESCRIPTIVE_TAGS, stored, upright
from pipeline.scan import Scan

BAND = 256  # rows composed at a time, so that memory is the picture's own, not its floats'
_XMP_TAG = 700
_LARGEST_PACKET = 65_000  # bytes; of an XMP packet in a JPEG


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


def encode(scan: Scan, model: np.ndarray, *, format: str, quality: int, xmp: bytes) -> bytes:
    """The derivative's bytes: sRGB, with its profile, the master's EXIF and resolution, and an XMP packet.

    A grey JPEG keeps its own coded luminance; other scans are coded anew from their luma.

    Args:
      model: float32 [h, w, 4] from `paint`.
      format: "jpeg", "png" or "tiff".
      quality: of JPEG; the lossless formats have none.
      xmp: `provenance.packet`, with the master's own packet or, where that is too long, without.
    """
    if format == "jpeg":
        return _jpeg(scan, model, quality, xmp)
    rgb = Image.fromarray(_rgb(scan.luma, model))
    common = {"icc_profile": srgb_profile()} | ({"dpi": scan.dpi} if scan.dpi else {})
    return _png(rgb, scan, xmp, common) if format == "png" else _tiff(rgb, scan, xmp, common)


def compose(scan: Scan, model: np.ndarray) -> Image.Image:
    """The coloured picture itself, as a person sees it, for those who want no file."""
    luma = scan.luma if scan.luma is not None else scan.guide
    return Image.fromarray(np.ascontiguousarray(upright(_rgb(luma, model), scan.orientation)))


def _jpeg(scan: Scan, model: np.ndarray, quality: int, xmp: bytes) -> bytes:
    if scan.jpeg is not None:
        master = scan.jpeg
        segments = [segment for segment in master.carried if not graft.is_xmp(segment)]
    else:
        buffer = io.BytesIO()
        dpi = {"dpi": scan.dpi} if scan.dpi else {}
        Image.fromarray(scan.luma).save(buffer, "JPEG", quality=quality, **dpi)
        master = graft.parse(buffer.getvalue())
        segments = [graft.app1_exif(scan.exif)] if 0 < len(scan.exif) < _LARGEST_PACKET else []
    height, width = master.chroma_shape
    planes = chroma.apply_model(model, scan.guide)
    cb, cr = (cv2.resize(_to_byte(plane), (width, height), interpolation=_to_half(scan)) for plane in planes)
    segments += [graft.app1_xmp(xmp), *graft.app2_icc(srgb_profile())]
    return graft.graft(master, cb, cr, quality=quality, segments=segments)


def _png(rgb: Image.Image, scan: Scan, xmp: bytes, common: dict) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", pnginfo=text, exif=scan.exif or None, **common)
    return buffer.getvalue()


def _tiff(rgb: Image.Image, scan: Scan, xmp: bytes, common: dict) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    exif = Image.Exif()
    exif.load(scan.exif)
    tags.update({tag: value for tag, value in exif.items() if tag in DESCRIPTIVE_TAGS})
    tags[_XMP_TAG] = xmp
    tags.tagtype[_XMP_TAG] = 1  # bytes
    # A file of the kernel's: into a buffer, libtiff writes what memory held before where it aligns a directory.
    with open(os.memfd_create("derivative"), "w+b") as file:
        rgb.save(file, "TIFF", compression="tiff_adobe_deflate", tiffinfo=tags, **common)
        file.seek(0)
        return file.read()


def fits_jpeg(xmp: bytes) -> bool:
    return len(xmp) <= _LARGEST_PACKET


def _to_half(scan: Scan) -> int:
    """A guide of the scan's own size is halved, a smaller one enlarged."""
    return cv2.INTER_AREA if scan.guide.shape == scan.stored_size[::-1] else cv2.INTER_LINEAR


def _to_byte(plane: np.ndarray) -> np.ndarray:
    return cv2.add(plane, 128.0, dtype=cv2.CV_8U)


def _rgb(luma: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Luma uint8 [H, W] and an edge model -> uint8 [H, W, 3], in bands."""
    height, width = luma.shape
    rgb = np.empty((height, width, 3), np.uint8)
    # Widened once; each band then takes the rows between which its own lie.
    wide = cv2.resize(model, (width, model.shape[0]))
    scale = model.shape[0] / height
    for top in range(0, height, BAND):
        band = luma[top : top + BAND]
        at = np.clip((np.arange(top, top + len(band)) + 0.5) * scale - 0.5, 0, model.shape[0] - 1)
        above = np.intp(at)
        share = np.float32(at - above)[:, None, None]
        below = np.minimum(above + 1, model.shape[0] - 1)
        rows = wide[above] * (1 - share) + wide[below] * share
        rgb[top : top + len(band)] = chroma.to_rgb(band, *chroma.apply_model(rows, band))
    return rgb
