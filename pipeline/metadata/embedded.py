"""The embedded metadata of a master, and those of its derivative.

Values are carried over byte for byte. Metadata that are not true for the coloured picture (thumbnails, sizes,
colour spaces, an orientation that was applied) are removed silently. All other metadata that are not carried over
are named.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import ExifTags

from pipeline.metadata import containers, ifd, xmp
from pipeline.metadata.orientation import ORIENTATION_TAG

_ORIENTATIONS = tuple("12345678")
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _YCC_POSITIONING = 282, 283, 296, 531
_EXIF, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_LARGEST = {"jpeg": 0xFFFF - 2 - 6}  # bytes of an EXIF block
_TIFF_ENTRIES = 16  # other entries in the main directory of a TIFF

# Tags of the main directory of a TIFF that are carried over, besides all texts: document, description, make, model,
# page and its place, software, date, artist, host, printer, rating, number in a film, copyright, and the titles,
# comments, authors, keywords and subjects of Windows.
_DESCRIPTIVE = {269, 270, 271, 272, 285, 286, 287, 297, 305, 306, 315, 316, 337, 18246, 18249, 33432, 37393}
_DESCRIPTIVE |= {32781, *range(40091, 40096), _EXIF, _GPS, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
# Tags of the main directory that are not carried over: form and colours of the coded picture, other blocks,
# padding, PrintIM.
_FORM = {*range(254, 267), *range(273, 282), 284, *range(288, 294), 300, 301, *range(317, 333), 334, 336}
_FORM |= {
    *range(338, 348),
    *range(512, 522),
    *range(529, 533),
    700,
    33723,
    34377,
    34675,
    37724,
    50341,
    59932,
    59933,
}
_FORM |= {ORIENTATION_TAG, 42113, 0xCD41} | containers.GEO_TAGS
# The same in TIFFs: old mattes, TIFF/IT, facsimile.
_TIFF_FORM = {*range(32995, 32999), *range(34016, 34033), 34908, 34910, 34911}
# In the Exif directory: ComponentsConfiguration, CompressedBitsPerPixel, ColorSpace, sizes, Gamma, padding.
_EXIF_FORM = {0x9101, 0x9102, 0xA001, 0xA002, 0xA003, 0xA500, 0xEA1C, 0xEA1D}
_EXIF_PLACES = {0x9214, 0xA214}  # SubjectArea, SubjectLocation, in pixels

_IPTC = 0x0404
# Photoshop resources: resolution and form, thumbnails, ICC, JPEG quality, EXIF, XMP.
_RESOURCES_FORM = {0x03E9, *range(0x03ED, 0x03F0), 0x0406, 0x0409, 0x040C, 0x040F, 0x0411, 0x0416, 0x0417}
_RESOURCES_FORM |= {0x041D, 0x0422, 0x0423, 0x0424, _IPTC}
_RESOURCES_PLACES = {*range(2000, 2999), 0x0408, 0x041A}  # paths, guides, slices

_XMP_FORM = frozenset(
    xmp.qualified(f"{prefix}:{name}")
    for prefix, names in {
        "tiff": "Orientation ImageWidth ImageLength BitsPerSample Compression SamplesPerPixel "
        "PhotometricInterpretation PlanarConfiguration YCbCrSubSampling YCbCrPositioning YCbCrCoefficients "
        "TransferFunction WhitePoint PrimaryChromaticities ReferenceBlackWhite XResolution YResolution "
        "ResolutionUnit NativeDigest",
        "exif": "PixelXDimension PixelYDimension ColorSpace ComponentsConfiguration CompressedBitsPerPixel Gamma "
        "NativeDigest",
        "exifEX": "Gamma InteroperabilityIndex",
        "photoshop": "ColorMode ICCProfile",
        "dc": "format",
        "xmp": "Thumbnails",
        "xmpNote": "HasExtendedXMP",
    }.items()
    for name in names.split()
)
_XMP_PLACES = frozenset(
    map(
        xmp.qualified,
        (
            "mwg-rs:Regions",
            "MP:RegionInfo",
            "acdsee-rs:Regions",
            "Iptc4xmpExt:ImageRegion",
            "exif:SubjectArea",
        ),
    )
)
# Keywords of a PNG (ISO/IEC 15948, 11.3.3.2, and of ExifTool) with their tags.
_TEXT_TAGS = {"Title": 269, "Description": 270, "Make": 271, "Model": 272, "Software": 305, "Author": 315}
_TEXT_TAGS |= {"Artist": 315, "Copyright": 33432}


@dataclass(frozen=True)
class Metadata:
    """Metadata of a master that are also true for its derivative."""

    exif: ifd.Directory = field(default_factory=dict)  # without form, orientation and thumbnail
    order: str = "<"  # of the values in `exif`
    xmp: ET.Element | None = None
    iptc: bytes = b""  # IIM data sets
    resources: tuple[tuple[int, bytes, bytes], ...] = ()  # of Photoshop
    comment: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    chunks: tuple[tuple[bytes, bytes], ...] = ()  # the same for a PNG
    dpi: tuple[float, float] | None = None  # across and down, as stored
    orientation: int = 1  # EXIF 1...8
    lost: tuple[str, ...] = ()  # what no derivative can have, in words


@dataclass(frozen=True)
class Carried:
    """Metadata of a derivative about its master, encoded for its format."""

    exif: bytes = b""  # a TIFF structure
    xmp: ET.Element | None = None
    iptc: bytes = b""  # IIM data sets
    photoshop: bytes = b""  # image resources, with IPTC for a JPEG or PNG
    comment: bytes = b""
    chunks: tuple[tuple[bytes, bytes], ...] = ()  # texts of a PNG: type, data
    dpi: tuple[float, float] | None = None  # across and down, as stored in the derivative
    lost: tuple[str, ...] = ()  # what it cannot have, in words


def read(data: bytes, info: Mapping | None = None) -> Metadata:
    """Reads the metadata of a master.

    The orientation comes from EXIF, or from XMP if EXIF has none.

    Args:
      data: the file.
      info: of Pillow, for formats that are not parsed here (AVIF, GIF, …).
    """
    blocks = containers.find(data)
    if blocks is None:
        blocks = _from_info(info or {})
    lost = blocks.lost
    order, exif, main = _directories(blocks, lost)
    packet = blocks.xmp or _bytes(main.get(containers.XMP_TAG))
    tree = _statements(packet, blocks.extended_xmp, lost)
    orientation = ifd.number(main.get(ORIENTATION_TAG), order)
    if tree is not None:
        stated = xmp.words(next(iter(xmp.take(tree, "tiff:Orientation")), ""))
        if ORIENTATION_TAG not in main and stated in _ORIENTATIONS:
            orientation = int(stated)
        xmp.remove(tree, _XMP_FORM)
    found = list(containers.resources(blocks.photoshop or _bytes(main.get(containers.PHOTOSHOP_TAG))))
    iptc = blocks.iptc or _iptc(main.get(containers.IPTC_TAG))
    iptc = iptc or next((payload for number, _, payload in found if number == _IPTC), b"")
    resources = tuple(resource for resource in found if resource[0] not in _RESOURCES_FORM)
    for words, size in (("IPTC", len(iptc)), ("Photoshop's resources", sum(len(r[2]) for r in resources))):
        if size > containers.LARGEST:
            lost.append(f"{words}, more than {containers.LARGEST >> 20} MB")
            iptc, resources = (b"", resources) if words == "IPTC" else (iptc, ())
    return Metadata(
        exif,
        order,
        tree,
        iptc,
        resources,
        blocks.comment,
        tuple(text for text in blocks.texts if ":" not in text[0]),  # texts of ImageMagick, thumbnails
        tuple(chunk for chunk in blocks.chunks if b":" not in chunk[1].partition(b"\0")[0]),
        blocks.dpi or _dpi(main, order),
        orientation if orientation and orientation in range(1, 9) else 1,
        tuple(dict.fromkeys(lost)),
    )


def carry(metadata: Metadata, *, format: str, size: tuple[int, int], orientation: int) -> Carried:
    """Makes the metadata of a derivative about its master.

    Args:
      metadata: metadata of the master. The tree of its XMP is changed.
      format: "jpeg", "png", "tiff", "webp" or "jp2".
      size: stored width and height of the derivative in pixels.
      orientation: of the stored derivative: 1, or that of the master.
    """
    lost = list(metadata.lost)
    turned = metadata.orientation != orientation
    dpi, exif = metadata.dpi, _copy(metadata.exif)
    if turned and metadata.orientation >= 5:
        dpi = dpi and dpi[::-1]
        swapped = {_X_RESOLUTION: exif.get(_Y_RESOLUTION), _Y_RESOLUTION: exif.get(_X_RESOLUTION)}
        exif |= {tag: entry for tag, entry in swapped.items() if entry is not None}
    tree, resources = metadata.xmp, metadata.resources
    if turned:
        below = ifd.below(exif, _EXIF)
        places: list[object] = [below.pop(tag) for tag in _EXIF_PLACES & below.keys()]
        places += [resource for resource in resources if resource[0] in _RESOURCES_PLACES]
        resources = tuple(resource for resource in resources if resource[0] not in _RESOURCES_PLACES)
        if (tree is not None and xmp.remove(tree, _XMP_PLACES)) or places:
            lost.append("places in the picture (regions, paths), for it was turned")
    comment, chunks = metadata.comment, metadata.chunks
    if format == "png":
        chunks += (_text_chunk("Comment", comment),) if comment else ()
    else:
        comment = _texts_into(exif, metadata, lost) or comment
        if comment and format != "jpeg":
            lost.append("its comment")
    block = b""
    if exif or metadata.orientation != 1 or format == "tiff":
        _complete(exif, metadata.order, format, size, orientation, dpi)
        limit, room = _LARGEST.get(format, containers.LARGEST), _TIFF_ENTRIES if format == "tiff" else 0
        block, dropped = ifd.fitted(exif, metadata.order, limit=limit, room=room)
        lost += [f"EXIF's {_listed(dropped)}"] if dropped else []
    if resources and format in ("webp", "jp2"):
        lost.append("Photoshop's resources")
        resources = ()
    if metadata.iptc and format == "webp":
        lost.append("IPTC")
    iptc = containers.resource(_IPTC, metadata.iptc) if metadata.iptc and format in ("jpeg", "png") else b""
    photoshop = iptc + b"".join(containers.resource(number, data, name) for number, name, data in resources)
    return Carried(block, tree, metadata.iptc, photoshop, comment, chunks, dpi, tuple(lost))


def packet(data: bytes) -> bytes:
    """XMP packet of a file without its extension; empty if there is none."""
    blocks = containers.find(data)
    if blocks is None or not blocks.is_tiff:
        return blocks.xmp if blocks else b""
    return _bytes(_directories(blocks, [])[2].get(containers.XMP_TAG))


def _directories(blocks: containers.Blocks, lost: list[str]) -> tuple[str, ifd.Directory, ifd.Directory]:
    """Byte order, the EXIF that can be carried over, and the whole main directory."""
    if not blocks.exif:
        return "<", {}, {}
    try:
        reader = ifd.Reader(blocks.exif)
        is_signed = containers.is_signed(reader)
        page = containers.page(reader)
    except ifd.Damaged as error:
        lost.append(f"EXIF ({error})")
        return "<", {}, {}
    lost += [containers.C2PA] if is_signed else []
    lost += [containers.GEOREFERENCE] if containers.GEO_TAGS & page.keys() else []
    if blocks.is_tiff:
        reader.broken = [tag for tag in reader.broken if tag in _DESCRIPTIVE]
    main = reader.tree(page)
    if blocks.is_tiff:
        kept = {tag for tag, entry in main.items() if tag in _DESCRIPTIVE or _is_text(entry)} - _FORM
        if others := sorted(main.keys() - kept - _FORM - _TIFF_FORM):
            lost.append(f"its {_listed([ifd.name(tag) for tag in others])}")
    else:
        kept = main.keys() - _FORM
    exif = {tag: main[tag] for tag in kept}
    for below in (exif, ifd.below(exif, _EXIF), ifd.below(exif, _GPS)):
        newer = [
            tag for tag, entry in below.items() if isinstance(entry, ifd.Entry) and not ifd.is_classic(entry)
        ]
        reader.broken += newer
        for tag in newer:
            del below[tag]
    if _EXIF in exif:
        below = ifd.below(exif, _EXIF)
        interop = ifd.below(below, _INTEROP)
        below = {tag: entry for tag, entry in below.items() if tag not in _EXIF_FORM | {_INTEROP}}
        if _bytes(interop.get(1)) == b"R98\0":  # it states sRGB
            below[_INTEROP] = {tag: interop[tag] for tag in (1, 2) if tag in interop}
        exif[_EXIF] = below
    if broken := [tag for tag in reader.broken if tag not in _FORM]:
        lost.append(f"EXIF's damaged {_listed([ifd.name(tag) for tag in broken])}")
    return reader.order, exif, main


def _complete(
    exif: ifd.Directory,
    order: str,
    format: str,
    size: tuple[int, int],
    orientation: int,
    dpi: tuple[float, float] | None,
) -> None:
    """Adds tags about the derivative, and those that its format requires (Exif 3.0, 4.6.8; TIFF 6.0, section 6)."""
    exif[ORIENTATION_TAG] = ifd.short(order, orientation)
    if not exif.keys() >= {_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}:
        exif[_X_RESOLUTION], exif[_Y_RESOLUTION] = (ifd.rational(order, value) for value in dpi or (1, 1))
        exif[_RESOLUTION_UNIT] = ifd.short(order, 2 if dpi else 1)
    if format == "jpeg":
        exif[_YCC_POSITIONING] = ifd.short(order, 1)  # centred, as in JFIF
    if _GPS in exif:
        ifd.below(exif, _GPS).setdefault(0, ifd.Entry(ifd.BYTE, 4, bytes([2, 3, 0, 0])))
    if below := ifd.below(exif, _EXIF):
        below.setdefault(0x9000, ifd.undefined(b"0232"))
        below.setdefault(0xA000, ifd.undefined(b"0100"))
        below[0xA001] = ifd.short(order, 1)  # sRGB
        if format == "tiff":
            below.pop(_INTEROP, None)
        else:
            below[0xA002], below[0xA003] = (ifd.long(order, side) for side in size)
        if format == "jpeg":
            below[0x9101] = ifd.undefined(bytes([1, 2, 3, 0]))  # Y, Cb, Cr


def _statements(packet: bytes, extension: bytes, lost: list[str]) -> ET.Element | None:
    tree = None
    for part, words in ((packet, "the XMP packet"), (extension, "the extension of the XMP packet")):
        if part.strip(b"\0\t\r\n "):
            try:
                found = xmp.parse(part)
                tree = found if tree is None else xmp.join(tree, found)
            except xmp.Unusable as error:
                lost.append(f"{words}, which {error}")
    if tree is not None:
        for value in xmp.take(tree, "dcterms:provenance"):
            if xmp.words(value).startswith("self#jumbf") or xmp.words(value).endswith(".c2pa"):
                lost.append(containers.C2PA)
            else:
                xmp.put(tree, "dcterms:provenance", value)
    return tree


def _texts_into(exif: ifd.Directory, metadata: Metadata, lost: list[str]) -> bytes:
    """Adds the texts of a PNG as tags, unless these exist. Returns the comment."""
    comment, left = b"", []
    for keyword, text in metadata.texts:
        if keyword == "Comment" and not comment:
            comment = text.encode()
        elif keyword in _TEXT_TAGS and _TEXT_TAGS[keyword] not in exif:
            exif[_TEXT_TAGS[keyword]] = ifd.text(text)
        elif keyword not in _TEXT_TAGS or _bytes(exif[_TEXT_TAGS[keyword]]).rstrip(b"\0") != text.encode():
            left.append(repr(keyword))
    if left:
        lost.append(f"its texts {_listed(left)}")
    return comment


def _text_chunk(keyword: str, text: bytes) -> tuple[bytes, bytes]:
    """Makes a text chunk of a PNG (ISO/IEC 15948, 11.3.3), in UTF-8 if the text is valid, otherwise in Latin-1."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return b"tEXt", keyword.encode() + b"\0" + text.replace(b"\0", b" ")
    return b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text


def _from_info(info: Mapping) -> containers.Blocks:
    packet, comment = info.get("xmp", b""), info.get("comment", b"")
    try:
        dpi = containers.dpi(*map(float, info["dpi"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        dpi = None
    return containers.Blocks(
        exif=bytes(info.get("exif", b"")).removeprefix(containers.JPEG_EXIF),
        xmp=packet.encode() if isinstance(packet, str) else bytes(packet),
        comment=comment.encode() if isinstance(comment, str) else bytes(comment),
        dpi=dpi,
    )


def _dpi(main: Mapping, order: str) -> tuple[float, float] | None:
    """Resolution from the tags of TIFF 6.0, section 8."""
    scale = {1: None, 3: 2.54}.get(ifd.number(main.get(_RESOLUTION_UNIT), order) or 0, 1.0)
    across, down = (ifd.ratio(main.get(tag), order) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return containers.dpi(across * scale, down * scale) if across and down and scale else None


def _iptc(entry: "ifd.Entry | ifd.Directory | None") -> bytes:
    """IIM data of a TIFF tag. Some writers swap its bytes as if they were whole numbers."""
    value = _bytes(entry)
    swapped = value[:1] != b"\x1c" and value[3:4] == b"\x1c"
    if swapped and isinstance(entry, ifd.Entry) and entry.type == ifd.LONG:
        return np.frombuffer(value, ">u4").astype("<u4").tobytes()
    return value


def _copy(directory: ifd.Directory) -> ifd.Directory:
    return {tag: _copy(entry) if isinstance(entry, dict) else entry for tag, entry in directory.items()}


def _bytes(entry: "ifd.Entry | ifd.Directory | None") -> bytes:
    return bytes(entry.value) if isinstance(entry, ifd.Entry) else b""


def _is_text(entry: "ifd.Entry | ifd.Directory") -> bool:
    return isinstance(entry, ifd.Entry) and entry.type in (ifd.ASCII, ifd.UTF8)


def _listed(names: list[str]) -> str:
    more = len(names) - 8
    return ", ".join(names[:8]) + (f" and {more} others" if more > 0 else "")
