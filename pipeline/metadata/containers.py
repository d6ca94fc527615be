"""Finds the metadata in files of each format: EXIF, XMP, IPTC-IIM, resolution, text.

The picture is not decoded. Damaged files raise no exception; their metadata end at the damage.
Specifications: ITU-T T.81, annex B, and T.871 (JPEG); XMP, part 3; Exif 3.0; ISO/IEC 15948 (PNG); ITU-T T.800,
annex I (JP2); the containers of WebP and Photoshop; C2PA 2.1, annex A.3.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.metadata import ifd

LARGEST = 4 << 20  # bytes of a decompressed text
C2PA = "its C2PA manifest, which is bound to the bytes of the master"
GEOREFERENCE = "its georeference"

JPEG_EXIF = b"Exif\0\0"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
JPEG_PHOTOSHOP = b"Photoshop 3.0\0"

XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, ICC_TAG, C2PA_TAG = 700, 33723, 34377, 34675, 0xCD41
GEO_TAGS = {33550, 33922, 34264, 34735, 34736, 34737}
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255

JP2_UUIDS = {  # of boxes with metadata
    "xmp": bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC"),
    "exif": b"JpgTiffExif->JP2",
    "iptc": bytes.fromhex("33C7A4D2B81D4723A0BAF1A3E097AD38"),
}
_UUIDS = {uuid: name for name, uuid in JP2_UUIDS.items()}
_UUIDS[bytes.fromhex("0537CDAB9D0C4431A72AFA561F2A113E")] = "exif"
_LOST_UUIDS = {
    bytes.fromhex("B14BF8BD083D4B43A5AE8CD7D5A6CE03"): GEOREFERENCE,
    bytes.fromhex("D8FEC3D61B0E483C92975828877EC481"): C2PA,
}


@dataclass
class Blocks:
    """Metadata of a file, byte for byte."""

    exif: bytes | memoryview = b""  # a TIFF structure; for a TIFF, the file itself
    is_tiff: bool = False
    xmp: bytes = b""
    extended_xmp: bytes = b""
    iptc: bytes = b""  # IIM data sets
    photoshop: bytes = b""  # image resources
    dpi: tuple[float, float] | None = None  # across and down, as stored
    comment: bytes = b""
    texts: list[tuple[str, str]] = field(default_factory=list)  # keywords and texts of a PNG
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)  # the same as chunks: type, data
    lost: list[str] = field(default_factory=list)  # metadata that no derivative can have, in words


def find(data: bytes) -> Blocks | None:
    """Finds the metadata of a file. Returns None for unknown formats."""
    blocks = Blocks()
    if data.startswith(b"\xff\xd8\xff"):
        _jpeg(data, blocks)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _png(data, blocks)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        blocks.exif, blocks.is_tiff = data, True
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _webp(data, blocks)
    elif data.startswith(b"\0\0\0\x0cjP  "):
        _jp2(data, blocks)
    elif data.startswith(b"8BPS"):
        _psd(data, blocks)
    elif not data.startswith(b"\xff\x4f\xff\x51"):  # a JPEG 2000 codestream has no metadata
        return None
    return blocks


def page(reader: ifd.Reader) -> dict[int, ifd.Entry]:
    """Directory of the picture in a TIFF: the first that is neither a reduced copy nor a mask. Raises Damaged."""
    first = None
    for directory in reader.directories():
        first = directory if first is None else first
        kind = ifd.number(directory.get(_NEW_SUBFILE_TYPE), reader.order) or 0
        if not kind & 0b101 and ifd.number(directory.get(_SUBFILE_TYPE), reader.order) != 2:
            return directory
    return first or {}


def is_signed(reader: ifd.Reader) -> bool:
    """Whether a TIFF has a C2PA manifest. If it has several directories, it is in the last one, alone."""
    return any(C2PA_TAG in directory for directory in reader.directories())


def dpi(across: float, down: float) -> tuple[float, float] | None:
    """Resolution in pixels per inch; None if it is not plausible."""
    return (across, down) if 0 < across < 65536 and 0 < down < 65536 else None


def resources(block: bytes | memoryview) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields number, name (with its length) and data of Photoshop resources, up to any damage."""
    block, at = bytes(block), 0
    while block[at : at + 4] in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR") and at + 7 <= len(block):
        number, named = struct.unpack_from(">HB", block, at + 4)
        name = block[at + 6 : at + 7 + named]
        at += 7 + named + (named + 1) % 2
        size = int.from_bytes(block[at : at + 4], "big")
        if at + 4 + size > len(block):
            return
        yield number, name, block[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def resource(number: int, data: bytes, name: bytes = b"\0") -> bytes:
    """Encodes a Photoshop resource."""
    padded = name + b"\0" * (len(name) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + padded
        + struct.pack(">I", len(data))
        + data
        + b"\0" * (len(data) % 2)
    )


def jp2_boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yields type and contents of the boxes in a JP2 or a superbox (I.4).

    The contents of the last box may be truncated.
    """
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, at)
        header = 8
        if length == 1 and at + 16 <= len(view):
            (length,) = struct.unpack_from(">Q", view, at + 8)
            header = 16
        stop = at + length if length else len(view)
        yield kind, view[at + header : stop]
        at = max(stop, at + header)


def _jpeg(data: bytes, blocks: Blocks) -> None:
    extended: dict[bytes, dict[int, bytes]] = {}
    sizes: dict[bytes, int] = {}
    comments: list[bytes] = []
    for marker, payload in _segments(data):
        if marker == 0xE1 and payload.startswith(JPEG_EXIF):
            if not blocks.exif:
                blocks.exif = payload[6:]
            elif payload[6:8] not in (b"II", b"MM"):  # the EXIF block is continued
                blocks.exif = bytes(blocks.exif) + payload[6:]
        elif marker == 0xE1 and payload.startswith(JPEG_XMP):
            blocks.xmp = blocks.xmp or payload[len(JPEG_XMP) :]
        elif marker == 0xE1 and payload.startswith(JPEG_EXTENDED_XMP) and len(payload) >= 75:
            digest = payload[35:67]
            sizes[digest], offset = struct.unpack(">II", payload[67:75])
            extended.setdefault(digest, {})[offset] = payload[75:]
        elif marker == 0xED and payload.startswith(JPEG_PHOTOSHOP):
            blocks.photoshop += payload[len(JPEG_PHOTOSHOP) :]
        elif marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 12:
            unit, across, down = struct.unpack(">BHH", payload[7:12])
            scale = {1: 1.0, 2: 2.54}.get(unit, 0.0)
            blocks.dpi = blocks.dpi or dpi(across * scale, down * scale)
        elif marker == 0xEB and payload.startswith(b"JP") and b"c2pa" in payload[:200]:
            blocks.lost.append(C2PA)
        elif marker == 0xE2 and payload.startswith(b"MPF\0"):
            blocks.lost.append("other pictures in the file (MPF)")
        elif marker == 0xFE:
            comments.append(payload.rstrip(b"\0"))
    blocks.comment = b"\n".join(filter(None, comments))
    named = re.search(rb"HasExtendedXMP\s*(?:=\s*[\"']|>)\s*([0-9A-Fa-f]{32})", blocks.xmp)
    if named:
        whole = b"".join(part for _, part in sorted(extended.get(named[1].upper(), {}).items()))
        if len(whole) != sizes.get(named[1].upper()):
            blocks.lost.append("its ExtendedXMP, which is incomplete")
        elif hashlib.md5(whole).hexdigest().upper().encode() != named[1].upper():
            blocks.lost.append("its ExtendedXMP, whose MD5 is wrong")
        else:
            blocks.extended_xmp = whole


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields marker and payload of the segments before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + max(2, size)


def _png(data: bytes, blocks: Blocks) -> None:
    at = 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start, at = at + 8, at + 12 + size
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            _png_text(kind, data[start : start + size], blocks)
        elif kind == b"eXIf":
            blocks.exif = data[start : start + size].removeprefix(JPEG_EXIF)
        elif kind == b"pHYs" and size == 9 and at <= len(data):
            across, down, unit = struct.unpack_from(">IIB", data, start)
            blocks.dpi = dpi(across * 0.0254, down * 0.0254) if unit == 1 else None
        elif kind == b"caBX":
            blocks.lost.append(C2PA)
        elif kind == b"IEND":
            return


def _png_text(kind: bytes, chunk: bytes, blocks: Blocks) -> None:
    keyword, _, rest = chunk.partition(b"\0")
    shown = keyword.decode("latin-1")
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        rest = rest[1:]
    if compressed:
        try:
            rest = _inflated(rest)
        except ValueError as error:
            blocks.lost.append(f"its text {shown!r}, which {error}")
            return
    if keyword == b"XML:com.adobe.xmp":
        blocks.xmp = blocks.xmp or rest
    elif keyword.startswith(b"Raw profile type "):
        _raw_profile(keyword[17:].lower(), rest, blocks)
    else:
        text = rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        blocks.texts.append((shown, text))
        blocks.chunks.append((kind, chunk))


def _raw_profile(kind: bytes, text: bytes, blocks: Blocks) -> None:
    """Reads a raw profile of ImageMagick or ExifTool: hexadecimal digits after a name and a number of bytes."""
    found = re.fullmatch(rb"\s*[^\n]*\n\s*\d+\s*\n([0-9A-Fa-f\s\0]*)", text)
    try:
        profile = bytes.fromhex(found[1].decode("ascii").replace("\0", "")) if found else None
    except ValueError:
        profile = None
    if profile is None:
        blocks.lost.append(f"its raw profile {kind.decode('latin-1')!r}, which is damaged")
        return
    if profile.startswith(JPEG_XMP) or kind == b"xmp":
        blocks.xmp = blocks.xmp or profile.removeprefix(JPEG_XMP)
    elif kind in (b"exif", b"app1"):
        blocks.exif = blocks.exif or profile.removeprefix(JPEG_EXIF)
    elif kind in (b"iptc", b"8bim") and profile.startswith((b"8BIM", JPEG_PHOTOSHOP)):
        blocks.photoshop = blocks.photoshop or profile.removeprefix(JPEG_PHOTOSHOP)
    elif kind == b"iptc":
        blocks.iptc = profile


def _inflated(data: bytes) -> bytes:
    """Decompresses a text. Raises ValueError with words."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, LARGEST)
    except zlib.error as error:
        raise ValueError("is damaged") from error
    if not inflater.eof:
        raise ValueError(f"is truncated or has more than {LARGEST >> 20} MB")
    return text


def _webp(data: bytes, blocks: Blocks) -> None:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        payload = slice(at + 8, at + 8 + size)
        if kind == b"EXIF":
            blocks.exif = data[payload].removeprefix(JPEG_EXIF)
        elif kind == b"XMP ":
            blocks.xmp = data[payload]
        elif kind == b"C2PA":
            blocks.lost.append(C2PA)
        at += 8 + size + size % 2


def _jp2(data: bytes | memoryview, blocks: Blocks) -> None:
    for kind, content in jp2_boxes(data):
        if kind in (b"jp2h", b"res "):
            _jp2(content, blocks)
        elif kind in (b"resc", b"resd") and len(content) >= 10 and (kind == b"resc" or not blocks.dpi):
            down, below, across, below_too, up, up_too = struct.unpack_from(">HHHHbb", content)
            if below and below_too:  # samples per metre
                metre = across / below_too * 10.0**up_too, down / below * 10.0**up
                blocks.dpi = dpi(*(value * 0.0254 for value in metre))
        elif kind == b"uuid":
            name, payload = bytes(content[:16]), bytes(content[16:])
            if name in _LOST_UUIDS:
                blocks.lost.append(_LOST_UUIDS[name])
            elif name in _UUIDS:
                setattr(blocks, _UUIDS[name], payload.removeprefix(JPEG_EXIF))
        elif kind == b"jumb" and b"c2pa" in bytes(content[:200]):
            blocks.lost.append(C2PA)
        elif kind == b"xml ":
            blocks.lost.append("an XML box")


def _psd(data: bytes, blocks: Blocks) -> None:
    start = 30 + int.from_bytes(data[26:30], "big")
    size = int.from_bytes(data[start : start + 4], "big")
    blocks.photoshop = data[start + 4 : start + 4 + size]
    for number, _, payload in resources(blocks.photoshop):
        if number == 0x0422:
            blocks.exif = payload
        elif number == 0x0424:
            blocks.xmp = payload
        elif number == 0x03ED and len(payload) >= 16:  # fixed-point numbers, pixels per inch
            across, down = struct.unpack(">I4xI4x", payload[:16])
            blocks.dpi = dpi(across / 65536, down / 65536)
