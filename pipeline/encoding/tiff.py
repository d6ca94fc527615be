"""TIFF files, with 8 or 16 bits, in strips; and pyramids in tiles, as servers of IIIF read them.

The directory of the picture has the values of the master byte for byte, and comes first, because a maker note must
stay at its offset. tifffile codes the pixels.
"""

import io
import itertools

import cv2
import numpy as np
import tifffile

from pipeline.imaging.icc import srgb_profile
from pipeline.metadata import containers, embedded, ifd
from pipeline.metadata.embedded import Carried, Metadata

TILE = 256  # pixels
_STRIP = 1 << 18  # bytes, about
# TIFF 6.0 and its technical notes: offsets of strips or tiles, and their sizes; all tags of the coded picture.
_PARTS = {273: 279, 324: 325}
_CODED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 347, 530, 531, 532}


def encode(rgb: np.ndarray, carried: Carried, packet: bytes, compression: str) -> bytes:
    """Encodes RGB [H, W, 3], uint8 or uint16, with the sRGB profile, metadata and an XMP packet.

    Args:
      rgb: sRGB.
      carried: metadata of the master.
      packet: XMP.
      compression: "lzw", "deflate" or "none".
    """
    rows = max(1, _STRIP // rgb[0].nbytes)
    return _with_metadata(rgb, carried, packet, _options(compression, rowsperstrip=rows))


def encode_pyramid(rgb: np.ndarray, carried: Carried, packet: bytes, compression: str, quality: int) -> bytes:
    """Encodes a pyramid: the picture, and copies that are halved until they fit into a tile, as further pages.

    Args:
      rgb: sRGB, [H, W, 3], uint8 or, without JPEG, uint16.
      carried: metadata of the master, for the first page.
      packet: XMP.
      compression: "lzw", "deflate", "none" or "jpeg".
      quality: of JPEG.
    """
    options = _options(compression, quality=quality, tile=(TILE, TILE))
    out, level = io.BytesIO(_with_metadata(rgb, carried, packet, options)), rgb
    with tifffile.TiffWriter(out, append=True) as writer:
        while max(level.shape[:2]) > TILE:
            height, width = (max(1, -(-side // 2)) for side in level.shape[:2])
            level = cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA)
            writer.write(level, subfiletype=1, **options)
    return out.getvalue()


def _options(compression: str, *, quality: int = 0, **layout) -> dict:
    """Options of tifffile."""
    options = {"photometric": "rgb", "software": False, "metadata": None, **layout}
    if compression == "jpeg":  # as YCbCr 4:2:0
        options |= {"compression": "jpeg", "compressionargs": {"level": quality}, "subsampling": (2, 2)}
    elif compression != "none":
        names = {"deflate": "adobe_deflate"}
        options |= {"compression": names.get(compression, compression), "predictor": 2}
    return options


def _with_metadata(rgb: np.ndarray, carried: Carried, packet: bytes, options: dict) -> bytes:
    """A TIFF of one page: a directory with metadata, and the strips or tiles that tifffile has coded."""
    height, width = rgb.shape[:2]
    exif = carried.exif or embedded.carry(Metadata(), format="tiff", size=(width, height), orientation=1).exif
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
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, rgb, byteorder="<" if order == "<" else ">", **options)
    coded = buffer.getbuffer()
    page = next(ifd.Reader(coded).directories())
    directory |= {tag: entry for tag, entry in page.items() if tag in _CODED}
    (places,) = _PARTS.keys() & page.keys()
    starts, sizes = (ifd.numbers(page[tag], order) for tag in (places, _PARTS[places]))
    # They come after the directory, whose size does not depend on their offsets.
    moved = itertools.accumulate(sizes[:-1], initial=len(ifd.encode(directory, order)))
    directory[places] = ifd.long(order, *moved)
    parts = (coded[at : at + size] for at, size in zip(starts, sizes, strict=True))
    return b"".join((ifd.encode(directory, order), *parts))
