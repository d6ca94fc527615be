"""Makes a derivative from a scan and its chroma: full size, with the luma of the scan."""

import io
import mmap
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from model.color import edges
from pipeline.encoding import jp2, png, tiff, webp
from pipeline.imaging import chroma, graft, hints
from pipeline.imaging.icc import srgb_profile
from pipeline.imaging.layout import WHOLE, Box
from pipeline.imaging.mark import Mark
from pipeline.imaging.scan import Scan
from pipeline.metadata import xmp
from pipeline.metadata.orientation import stored, upright

_FINEST = 1024  # cells of an edge model on each axis
BAND, COLUMNS = 256, 8192  # rows and columns of a block; only one block has float values in memory


def paint(
    scan: Scan,
    seen: Sequence[tuple[Box, np.ndarray]],
    tiles: np.ndarray,
    strength: float,
    marks: hints.Marks | None = None,
) -> tuple[np.ndarray, float]:
    """Prepares the chroma of the network for `encode`.

    Args:
      scan: the decoded master.
      seen: the pictures in it: their places in the upright scan, and the network's views of them, uint8 [h, w], from
        `chroma.view`. The rest of the scan stays neutral.
      tiles: float [K, S, S, 2], a*b* in Lab units, of all pictures in their order.
      strength: factor on chroma.
      marks: hints, which correct the colours of the network.

    Returns:
      The edge model float32 [h, w, 4], in the stored orientation of the scan, and the colourfulness (M3).
    """
    models, start = [], 0
    for box, canvas in seen:
        count = chroma.count_tiles(canvas.shape, tiles.shape[1])
        ab = chroma.join_tiles(
            np.asarray(tiles[start : start + count], np.float32), (canvas.shape[0], canvas.shape[1])
        )
        grid = [-(-side // chroma.GRID) for side in canvas.shape[::-1]]
        luma, ab = (cv2.resize(plane, grid, interpolation=cv2.INTER_AREA) for plane in (canvas, ab))
        cb, cr = ycc = chroma.to_ycc(luma, ab * np.float32(strength))
        models.append((box, edges.fit(luma, ycc)))
        start += count
    model = models[0][1]
    whole = [box for box, _ in seen] == [WHOLE]
    if not whole:
        model = _placed(models)
    if marks is not None:
        model, luma = hints.correct(model, marks), marks.luma
    elif not whole:
        guide = np.ascontiguousarray(upright(scan.guide, scan.orientation))
        luma = cv2.resize(guide, model.shape[1::-1], interpolation=cv2.INTER_AREA)
    if marks is not None or not whole:
        cb, cr = edges.apply(model, luma)
    rgb = chroma.to_rgb(luma, *chroma.limit(luma, cb, cr))
    return np.ascontiguousarray(stored(model, scan.orientation)), chroma.colorfulness(rgb)


def _placed(models: Sequence[tuple[Box, np.ndarray]]) -> np.ndarray:
    """Joins the edge models of several pictures to one of the whole scan, which has no chroma elsewhere.

    Each picture loses a cell at its edge, where the model is interpolated, so that no chroma runs out of it.
    """
    rows = max(model.shape[0] / (box.bottom - box.top) for box, model in models)
    columns = max(model.shape[1] / (box.right - box.left) for box, model in models)
    whole = np.zeros((min(_FINEST, round(rows)), min(_FINEST, round(columns)), 4), np.float32)
    for box, model in models:
        place = box.of(whole)
        fitted = cv2.resize(model, place.shape[1::-1])
        place[1:-1, 1:-1] = fitted[1:-1, 1:-1]
    return whole


def encode(
    scan: Scan,
    model: np.ndarray,
    *,
    format: str,
    quality: int,
    packet: bytes,
    compression: str = "",
    mark: Mark | None = None,
) -> bytes | mmap.mmap:
    """Encodes the derivative: sRGB, the metadata of the master, and an XMP packet.

    The coded luminance of a JPEG is kept in a JPEG, which then has the tone curve of the master. Other scans are
    encoded from their luma, with its depth if the format has it. A TIFF is encoded by rows; the bytes of a large one
    are those of a temporary file.

    Args:
      scan: the decoded master.
      model: float32 [h, w, 4] from `paint`.
      format: "jpeg", "png", "tiff", "webp", "jp2" or "ptif".
      quality: 1...100, of formats with losses.
      packet: from `provenance.packet`.
      compression: of TIFF, "lzw", "deflate" or "none"; by default LZW, or JPEG for a pyramid.
      mark: as `read_scan` had it.

    Raises:
      OSError: there is no room for the temporary file.
    """
    if format == "jpeg":
        return _jpeg(scan, model, quality, packet, mark)
    assert scan.luma is not None  # only a scan that is read for a JPEG has no luma
    keeps_depth = format in ("png", "tiff", "jp2") or (format == "ptif" and compression)
    rgb: Rows | np.ndarray = Rows(scan.luma, model, scan.deep if keeps_depth else None)
    if mark:
        rgb = mark.stamped(rgb[:])
    if format == "ptif":
        return tiff.encode_pyramid(rgb, scan.carried, packet, compression or "jpeg", quality)
    if format == "tiff":
        return tiff.encode(rgb, scan.carried, packet, compression or "lzw")
    if format == "png":
        return png.encode(rgb[:], scan.carried, packet)
    if format == "webp":
        return webp.encode(rgb[:], scan.carried, packet, quality)
    return jp2.encode(rgb[:], scan.carried, packet, quality)


def compose(scan: Scan, model: np.ndarray) -> Image.Image:
    """The coloured, upright picture as an image instead of a file."""
    luma = scan.luma if scan.luma is not None else scan.guide
    return Image.fromarray(np.ascontiguousarray(upright(Rows(luma, model)[:], scan.orientation)))


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
    if scan.tone is not None:
        planes = chroma.recode(scan.guide, *planes, scan.tone)
    cb, cr = (cv2.resize(_to_byte(plane), (width, height), interpolation=_to_half(scan)) for plane in planes)
    if mark:
        cb, cr = (mark.neutral(plane, scan.stored_size) for plane in (cb, cr))
    fits = len(packet) <= graft.LARGEST_XMP
    segments = [
        *([graft.app1_exif(carried.exif)] if carried.exif else []),
        *(graft.app1_xmp(packet) if fits else graft.app1_xmp(*xmp.split(packet, graft.LARGEST_XMP))),
        *graft.app13_photoshop(carried.photoshop),
        *graft.app2_icc(srgb_profile() if scan.tone is None else scan.tone.profile),
        *others,
    ]
    return graft.graft(master, cb, cr, quality=quality, segments=segments)


def _to_half(scan: Scan) -> int:
    """Interpolation from the guide to half of the scan's size: a full-size guide is reduced, a smaller one enlarged."""
    return cv2.INTER_AREA if scan.guide.shape == scan.stored_size[::-1] else cv2.INTER_LINEAR


def _to_byte(plane: np.ndarray) -> np.ndarray:
    return cv2.add(plane, 128.0, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # the stub lacks scalars


class Rows:
    """RGB [H, W, 3] from luma uint8 [H, W] and an edge model. Rows are computed when they are asked for, as a slice.

    They have the type of the luma, or that of `deep`, the same luma as uint16.
    """

    def __init__(self, luma: np.ndarray, model: np.ndarray, deep: np.ndarray | None = None):
        self._luma, self._model, self._own = luma, model, luma if deep is None else deep

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self._luma.shape, 3)

    @property
    def dtype(self) -> np.dtype:
        return self._own.dtype

    def __getitem__(self, asked: slice) -> np.ndarray:
        height, width = self._luma.shape
        start, stop, _ = asked.indices(height)
        rgb = np.empty((stop - start, width, 3), self.dtype)
        for top in range(start, stop, BAND):
            rows = range(top, min(top + BAND, stop))
            high = _enlarged(self._model, 0, height, rows)  # once for all blocks of columns
            for left in range(0, width, COLUMNS):
                columns = range(left, min(left + COLUMNS, width))
                block = slice(top, rows.stop), slice(left, columns.stop)
                planes = edges.apply(_enlarged(high, 1, width, columns), self._luma[block])
                own = self._own[block]
                rgb[top - start : rows.stop - start, block[1]] = chroma.to_rgb(
                    own, *chroma.limit(own, *planes)
                )
        return rgb


def _enlarged(model: np.ndarray, axis: int, length: int, part: range) -> np.ndarray:
    """Part of an edge model that is linearly enlarged along an axis to a length, between the centres of pixels."""
    last = model.shape[axis] - 1
    at = np.clip((np.array(part) + 0.5) * (model.shape[axis] / length) - 0.5, 0, last)
    before = at.astype(np.intp)
    share = np.expand_dims((at - before).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    after = np.minimum(before + 1, last)
    return np.take(model, before, axis) * (1 - share) + np.take(model, after, axis) * share
