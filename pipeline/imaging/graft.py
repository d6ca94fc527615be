"""Grafts chroma onto a grey JPEG, whose coded luminance does not change.

A JPEG may code each component in a scan of its own. The order of blocks in such a scan does not depend on sampling
factors (ITU-T T.81, A.2.2). The scans of a grey master are therefore valid scans of Y' in a YCbCr 4:2:0 frame of
the same size. They are followed by the scans of Cb and Cr, which Pillow encodes as two small grey JPEGs. The master
is not decoded.

    master = parse(jpeg)
    derivative = graft(master, cb, cr, quality=90, segments=[*master.carried, *app2_icc(profile)])
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin

from pipeline.metadata.containers import JPEG_EXIF, JPEG_EXTENDED_XMP, JPEG_PHOTOSHOP, JPEG_XMP

# T.81, table B.1.
_SOF0, _SOF2 = 0xC0, 0xC2
_DHT, _DQT, _DNL, _DRI = 0xC4, 0xDB, 0xDC, 0xDD
_EOI, _SOS = 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP13, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE

_CODING = {0xC0, 0xC1, _SOF2, _DHT, _DQT, _DRI, _SOS}
_REFUSED = {
    **dict.fromkeys((0xC3, 0xCB), "it is coded losslessly"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE, 0xDF), "it is hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCC), "it is coded arithmetically"),
    _DNL: "its height is only stated after the first scan (DNL)",
    0xD8: "another JPEG begins inside it",
}

_SOI = b"\xff\xd8"

# Any number of fill bytes 0xFF may precede a marker (T.81, B.1.1.2). Entropy-coded data end at the first marker
# that is neither a stuffed zero nor a restart marker (B.1.1.5).
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_JFIF = b"JFIF\0"
_ICC = b"ICC_PROFILE\0"

_UNTRUE_OF_A_DERIVATIVE = (
    (_APP0, b""),  # graft writes JFIF; the thumbnail of JFXX is grey
    (_APP2, _ICC),  # a grey profile
    (_APP1, JPEG_EXIF),  # written anew: thumbnails, sizes, a digest of other parts
    (_APP1, JPEG_XMP),
    (_APP1, JPEG_EXTENDED_XMP),
    (0xED, JPEG_PHOTOSHOP),
    (_APP2, b"FPXR\0"),  # FlashPix: previews
    (_APP2, b"MPF\0"),  # offsets of other pictures behind the end
    (0xE8, b"SPIFF\0"),  # declares one component
    (0xEB, b"JP"),  # JUMBF: a C2PA manifest is bound to the bytes of the master
    (0xEE, b"Adobe"),  # without a transform it would declare RGB
)

_LARGEST_PAYLOAD = 0xFFFF - 2
LARGEST_XMP = _LARGEST_PAYLOAD - len(JPEG_XMP)  # bytes of a packet in one segment
LARGEST_SIDE = 65_500  # pixels; limit of libjpeg


class NotGraftable(ValueError):
    """A JPEG cannot carry grafted chroma; the message says why."""


class _Segment(NamedTuple):
    """A marker segment with the entropy-coded data after it: data[start:stop]."""

    marker: int
    start: int
    stop: int


@dataclass(frozen=True)
class Jpeg:
    """The structure of the luminance of a JPEG that can carry grafted chroma.

    Attributes:
      data: the file.
      width, height: in pixels, as coded (before any EXIF orientation).
      process: marker of the frame header: 0xC0 baseline, 0xC1 extended, 0xC2 progressive.
      component: id of the luminance, 0...255.
      quantisation: quantisation table, as in a DQT segment (T.81, B.2.4.1) with the id 0.
      metadata: APPn and COM segments in their order.
      coding: Huffman tables, restart intervals and scans of the luminance in their order.
      recoded: whether the scans are not those of the master, but have the same coefficients (`luminance.parse`).
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    process: int
    component: int
    quantisation: bytes = field(repr=False)
    metadata: tuple[bytes, ...] = field(repr=False)
    coding: tuple[_Segment, ...] = field(repr=False)
    recoded: bool = False

    @property
    def progressive(self) -> bool:
        return self.process == _SOF2

    @property
    def chroma_shape(self) -> tuple[int, int]:
        """Shape of the planes for `graft`: [⌈height/2⌉, ⌈width/2⌉] (T.81, A.1.1)."""
        return -(-self.height // 2), -(-self.width // 2)

    @property
    def carried(self) -> tuple[bytes, ...]:
        """Segments that remain true in a colour derivative, except those that `pipeline.metadata.embedded` writes."""
        return tuple(s for s in self.metadata if not any(_is(s, *kind) for kind in _UNTRUE_OF_A_DERIVATIVE))


def parse(jpeg: bytes) -> Jpeg:
    """Reads the structure of a grey JPEG without decoding it. Bytes after its end are ignored.

    Raises:
      NotGraftable: it does not have exactly one component of 8 bits, is not coded with Huffman tables in a
        sequential or progressive process, is truncated, or is not a JPEG.
    """
    return _parse(jpeg, components=1)


def parse_separate(jpeg: bytes) -> Jpeg:
    """Reads the structure of the luminance in a colour JPEG whose scans have one component each, as `graft` writes it.

    Raises NotGraftable, also if the luminance has fewer samples than the picture has pixels.
    """
    return _parse(jpeg, components=3)


def _parse(jpeg: bytes, components: int) -> Jpeg:
    """Reads the structure of the first component of a JPEG with this number of components in scans of their own."""
    segments = tuple(_segments(jpeg))
    frames = [s for s in segments if _SOF0 <= s.marker <= _SOF2]
    scans = [s for s in segments if s.marker == _SOS]
    if len(frames) != 1:
        raise NotGraftable(f"it has {len(frames)} frame headers, not one")
    process, start, stop = frames[0]
    if stop - start < 13:
        raise NotGraftable("its frame header is damaged")
    precision, height, width, count = struct.unpack(">BHHB", jpeg[start + 4 : start + 10])
    if count != components:
        raise NotGraftable(f"it has {count} component{'s' * (count != 1)}, not {components}")
    if precision != 8:
        raise NotGraftable(f"its samples have {precision} bits, not 8")
    if not height:
        raise NotGraftable(_REFUSED[_DNL])
    if not width:
        raise NotGraftable("its width is 0")
    component, sampling, table = jpeg[start + 10 : start + 13]
    if not scans or scans[0].start < start:
        raise NotGraftable("no scan follows the frame header")
    others = jpeg[start + 13 : start + 10 + 3 * components : 3]  # ids of the other components
    for other in jpeg[start + 14 : start + 10 + 3 * components : 3]:  # T.81, A.1.1
        if other >> 4 > sampling >> 4 or other & 15 > sampling & 15:
            raise NotGraftable("its luminance is subsampled")
    if any(jpeg[s.start + 4] != 1 or jpeg[s.start + 5] not in (component, *others) for s in scans):
        raise NotGraftable("a scan is of several components, or of one that the frame does not have")
    own = [s for s in scans if jpeg[s.start + 5] == component]
    if not own or (len(own) > 1 and process != _SOF2):
        raise NotGraftable("it is sequential and has several scans")
    tables: dict[int, bytes] = {}
    for segment in segments:  # decoders use the tables at the first scan of a component
        if segment.marker == _DQT and segment.start < scans[0].start:
            tables |= _quantisation_tables(jpeg[segment.start + 4 : segment.stop])
    if table not in tables:
        raise NotGraftable("its quantisation table is missing")
    metadata = tuple(jpeg[s.start : s.stop] for s in segments if _is_metadata(s.marker))
    last = own[-1].start
    coding = tuple(s for s in segments if (s.marker in (_DHT, _DRI) and s.start < last) or s in own)
    return Jpeg(jpeg, width, height, process, component, tables[table], metadata, coding)


def graft(master: Jpeg, cb: np.ndarray, cr: np.ndarray, *, quality: int, segments: Sequence[bytes]) -> bytes:
    """Makes a YCbCr 4:2:0 JPEG with the coded luminance of the master.

    It begins with a JFIF header, which declares YCbCr and has the density of the master, and with `segments`. The
    chroma scans use the process of the master.

    Args:
      master: the parsed grey JPEG.
      cb, cr: uint8 [⌈height/2⌉, ⌈width/2⌉], 0…255; 128 is neutral (ITU-T T.871, section 7).
      quality: 1…100; chroma is quantised as in Pillow.
      segments: all other APPn and COM segments, e.g. `master.carried`.

    Raises:
      ValueError: a plane has another shape or dtype, the quality is out of range, or one of `segments` is not an
        APPn or COM segment.
    """
    for plane in (cb, cr):
        if (plane.dtype, plane.shape) != (np.uint8, master.chroma_shape):
            raise ValueError(f"chroma must be uint8 {master.chroma_shape}, not {plane.dtype} {plane.shape}")
    for segment in segments:
        if segment[:1] != b"\xff" or len(segment) != _length(segment, 0) or not _is_metadata(segment[1]):
            raise ValueError(f"not an APPn or COM segment: {segment[:8]!r}")
    blue, red = (_encode(plane, quality, master.progressive) for plane in (cb, cr))
    # Id, sampling factors and quantisation table of each component (T.81, B.2.2).
    components = bytes([1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    frame = struct.pack(">BHHB", 8, master.height, master.width, 3) + components
    return b"".join(
        (
            _SOI,
            _jfif(master),
            *segments,
            _segment(_DQT, master.quantisation),
            _segment(_DQT, b"\x01" + blue.quantisation[1:]),
            _segment(master.process, frame),
            *_joined(master, 1),
            _segment(_DRI, b"\0\0"),  # the restart interval of the master ends with its scans
            *_joined(blue, 2),
            *_joined(red, 3),
            bytes([0xFF, _EOI]),
        )
    )


def alone(luminance: Jpeg) -> bytes:
    """Makes a grey JPEG of a luminance, with no other headers than it needs."""
    frame = struct.pack(">BHHB", 8, luminance.height, luminance.width, 1) + bytes([1, 0x11, 0])
    return b"".join(
        (
            _SOI,
            _jfif(luminance),
            _segment(_DQT, luminance.quantisation),
            _segment(luminance.process, frame),
            *_joined(luminance, 1),
            bytes([0xFF, _EOI]),
        )
    )


def app1_exif(exif: bytes) -> bytes:
    """Makes an APP1 segment of EXIF, a TIFF structure. Raises ValueError above 65 527 bytes."""
    return _segment(_APP1, JPEG_EXIF + exif)


def app1_xmp(packet: bytes, extension: bytes = b"") -> list[bytes]:
    """Makes APP1 segments of an XMP packet and its ExtendedXMP (XMP specification, part 3, 1.1.3).

    Raises ValueError if the packet is larger than `LARGEST_XMP`.
    """
    step = _LARGEST_PAYLOAD - len(JPEG_EXTENDED_XMP) - 40
    named = JPEG_EXTENDED_XMP + hashlib.md5(extension).hexdigest().upper().encode()
    return [
        _segment(_APP1, JPEG_XMP + packet),
        *(
            _segment(_APP1, named + struct.pack(">II", len(extension), at) + extension[at : at + step])
            for at in range(0, len(extension), step)
        ),
    ]


def app13_photoshop(resources: bytes) -> list[bytes]:
    """Makes APP13 segments of Photoshop resources, which readers join."""
    step = _LARGEST_PAYLOAD - len(JPEG_PHOTOSHOP)
    parts = [resources[at : at + step] for at in range(0, len(resources), step)]
    return [_segment(_APP13, JPEG_PHOTOSHOP + part) for part in parts]


def comment(text: bytes) -> list[bytes]:
    """Makes COM segments of at most 65 533 bytes each."""
    return [_segment(_COM, text[at : at + _LARGEST_PAYLOAD]) for at in range(0, len(text), _LARGEST_PAYLOAD)]


def app2_icc(profile: bytes) -> list[bytes]:
    """Makes APP2 segments of an ICC profile (ICC.1, B.4): numbered chunks of at most 65 519 bytes.

    Raises ValueError if it is larger than 255 chunks.
    """
    step = _LARGEST_PAYLOAD - len(_ICC) - 2
    chunks = [profile[at : at + step] for at in range(0, len(profile), step)]
    if len(chunks) > 255:
        raise ValueError(f"an ICC profile of {len(profile)} bytes does not fit into a JPEG")
    return [_segment(_APP2, _ICC + bytes([n, len(chunks)]) + chunk) for n, chunk in enumerate(chunks, 1)]


def metadata(jpeg: bytes) -> tuple[bytes, ...]:
    """APPn and COM segments of a JPEG of any coding in their order, up to damage."""
    found = []
    with contextlib.suppress(NotGraftable):
        for marker, start, stop in _segments(jpeg, refused={}):
            if _is_metadata(marker):
                found.append(jpeg[start:stop])
    return tuple(found)


def _segments(jpeg: bytes, refused: Mapping[int, str] = _REFUSED) -> Iterator[_Segment]:
    """Yields the marker segments between the start and the end of an image. Raises NotGraftable."""
    if not jpeg.startswith(_SOI):
        raise NotGraftable("it does not begin like a JPEG")
    stop = 2
    while match := _MARKER.match(jpeg, stop):
        marker, start = match[1][0], match.end() - 2
        if marker == _EOI:
            return
        if marker in refused:
            raise NotGraftable(refused[marker])
        if not (marker in _CODING or marker in _REFUSED or _is_metadata(marker)):
            raise NotGraftable(f"it has a marker that does not belong there: FF{marker:02X}")
        stop = start + _length(jpeg, start)
        if marker == _SOS:
            end = _END_OF_SCAN.search(jpeg, stop)
            stop = end.start() if end else len(jpeg)
        if stop >= len(jpeg):
            break
        yield _Segment(marker, start, stop)
    if jpeg[stop:].strip(b"\xff"):
        raise NotGraftable("it is damaged: there is no marker where a segment should begin")
    raise NotGraftable("it is cut short: its end (EOI) is missing")


def _quantisation_tables(payload: bytes) -> dict[int, bytes]:
    """Yields the id and the table, renumbered 0, of each table in a DQT payload (T.81, B.2.4.1)."""
    tables, at = {}, 0
    while at < len(payload):
        precision, table = divmod(payload[at], 16)
        elements = payload[at + 1 : at + 1 + 64 * (precision + 1)]
        if precision > 1 or len(elements) < 64 * (precision + 1):
            raise NotGraftable("a quantisation table is damaged")
        tables[table] = bytes([precision << 4]) + elements
        at += 1 + len(elements)
    return tables


def coding(jpeg: Jpeg, component: int) -> Iterator[list[bytes | memoryview]]:
    """The parts of each coding segment of a luminance, with its scans for `component` (T.81, B.2.3)."""
    view = memoryview(jpeg.data)
    for marker, start, stop in jpeg.coding:
        if marker == _SOS:
            yield [view[start : start + 5], bytes([component]), view[start + 6 : stop]]
        else:
            yield [view[start:stop]]


def _joined(jpeg: Jpeg, component: int) -> Iterator[bytes | memoryview]:
    return itertools.chain.from_iterable(coding(jpeg, component))


def _encode(plane: np.ndarray, quality: int, progressive: bool) -> Jpeg:
    """Encodes a chroma plane, uint8 [h, w], as a grey JPEG with Pillow's quantisation table for chroma."""
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "JPEG", qtables=[_chroma_table(quality)], progressive=progressive)
    return parse(buffer.getvalue())


@functools.cache
def _chroma_table(quality: int) -> list[int]:
    """Pillow's quantisation table for Cb and Cr at this quality."""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1…100, not {quality}")
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return JpegImagePlugin.JpegImageFile(buffer).quantization[1]


def _jfif(master: Jpeg) -> bytes:
    """Makes a JFIF header (ITU-T T.871, 10.1) with the version and density of the master, without a thumbnail."""
    theirs = next((s for s in master.metadata if _is(s, _APP0, _JFIF) and len(s) >= 16), b"")
    return _segment(_APP0, _JFIF + (theirs[9:16] or bytes([1, 1, 0, 0, 1, 0, 1])) + b"\0\0")


def _segment(marker: int, payload: bytes) -> bytes:
    if len(payload) > _LARGEST_PAYLOAD:
        raise ValueError(f"{len(payload)} bytes do not fit into a JPEG segment of {_LARGEST_PAYLOAD}")
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _length(jpeg: bytes, start: int) -> int:
    """Bytes of the marker segment at `start`; at least the four bytes of marker and length."""
    return max(4, 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big"))


def _is_metadata(marker: int) -> bool:
    return _APP0 <= marker <= _APP15 or marker == _COM


def _is(segment: bytes, marker: int, signature: bytes) -> bool:
    return segment[1] == marker and segment.startswith(signature, 4)
