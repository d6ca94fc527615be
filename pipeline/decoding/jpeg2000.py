"""JPEG 2000 masters: the boxes that describe colour, and the samples of the codestream.

Pillow ignores the boxes that give samples their meaning, and scales samples of fewer than 8 bits wrongly. Here
OpenJPEG decodes only the codestream, and the boxes are read according to ITU-T T.800 (annexes A and I).
"""

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from pipeline.decoding.samples import CHANNELS, scaled, to_image
from pipeline.metadata.containers import jp2_boxes
from pipeline.records.record import Reason, Refusal

_BOXES, _CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_SOT, _EOC = b"\xff\x90", b"\xff\xd9"

# Enumerated colour spaces (T.800, table I.10; T.801, table M.25).
_SPACES = {12: "CMYK", 15: "L", 16: "RGB", 17: "L", 18: "YCbCr"}
_BILEVEL_WHITE_IS_ZERO = 0
_OTHER_SPACES = {
    1: "YCbCr(1)",
    3: "YCbCr(2)",
    4: "YCbCr(3)",
    9: "PhotoYCC",
    11: "CMY",
    13: "YCCK",
    14: "CIELab",
}
_ICC_SPACES = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}
_COLOR, _OPACITY, _PREMULTIPLIED = 0, 1, 2  # types of channels, T.800, table I.16


@dataclass(frozen=True, slots=True)
class _Codestream:
    """Header of a codestream (A.5.1)."""

    data: bytes | memoryview
    width: int
    height: int
    bits: tuple[int, ...]  # of each component
    signed: bool
    subsampled: bool
    tiles: int


@dataclass(slots=True)
class _Boxes:
    """Header boxes of a JP2 (I.5.3)."""

    space: str = ""  # Pillow's name; empty if it is not stated
    white_is_zero: bool = False
    profile: bytes = b""
    palette: tuple[np.ndarray, tuple[int, ...]] | None = None  # entries [N, C], bits of each column
    columns: tuple[tuple[int, int | None], ...] = ()  # component and palette column of each channel
    channels: tuple[tuple[int, int, int], ...] = ()  # number, type and association of each defined channel
    unknown_space: str = ""


def is_jpeg2000(data: bytes) -> bool:
    return data.startswith((_BOXES, _CODESTREAM))


def open_jpeg2000(data: bytes, check: Callable[[int, int], None], notes: list[str]) -> Image.Image:
    """Opens the picture of a JP2, JPX or bare codestream.

    Args:
      data: the whole file.
      check: raises Refusal for a width and height that are not allowed. It is called before pixels are decoded.
      notes: remarks for people about omissions are added.

    Returns:
      An image with the profile in `info`. Deep grey has the mode "I;16", with white at 65 535.

    Raises:
      Refusal: it is truncated, or its samples cannot be read correctly.
    """
    boxes, stream = _read(data)
    check(stream.width, stream.height)
    if not _is_whole(stream):
        raise Refusal(Reason.TRUNCATED, "the end of the codestream is missing")
    if stream.signed or max(stream.bits) > 16:
        kind = "signed" if stream.signed else f"{max(stream.bits)}-bit"
        raise Refusal(Reason.UNSUPPORTED_MODE, f"{kind} integer pixels have no known white")
    if stream.subsampled:
        words = "its components are subsampled, which is not supported"
        raise Refusal(Reason.UNSUPPORTED_MODE, words)
    if boxes.unknown_space:
        words = f"its colour space is not supported: {boxes.unknown_space}"
        raise Refusal(Reason.UNSUPPORTED_MODE, words)
    channels = _channels(boxes, stream, _components(stream))
    space, colors, alpha = _arranged(boxes, channels, notes)
    white = max((1 << bits) - 1 for _, bits in colors)
    planes = [scaled(plane, (1 << bits) - 1, white) for plane, bits in colors + alpha[:1]]
    if boxes.white_is_zero:
        planes[0] = white - planes[0]
    kind = {_OPACITY: "straight", _PREMULTIPLIED: "premultiplied"}[_alpha_kind(boxes)] if alpha else ""
    image = to_image(np.stack(planes, axis=-1), white, space, kind)
    if boxes.profile:
        image.info["icc_profile"] = boxes.profile
    return image


def _read(data: bytes) -> tuple[_Boxes, _Codestream]:
    if data.startswith(_CODESTREAM):
        return _Boxes(), _codestream(memoryview(data))
    found = _Boxes()
    for kind, content in jp2_boxes(data):
        if kind == b"jp2h":
            for inner, said in jp2_boxes(content):
                _note(found, inner, bytes(said))
        elif kind == b"jp2c":
            return found, _codestream(content)
    raise Refusal(Reason.TRUNCATED, "it ends before its codestream")


def _codestream(data: memoryview) -> _Codestream:
    if len(data) < 42 or bytes(data[:4]) != _CODESTREAM:
        raise Refusal(
            Reason.UNREADABLE if len(data) >= 42 else Reason.TRUNCATED,
            "the header of its codestream is damaged",
        )
    right, bottom, left, top, wide, high, first, upper = struct.unpack_from(">8I", data, 8)
    (count,) = struct.unpack_from(">H", data, 40)
    if len(data) < 42 + 3 * count or not count:
        raise Refusal(Reason.TRUNCATED, "the header of its codestream is damaged")
    sizes = [tuple(data[42 + 3 * index : 45 + 3 * index]) for index in range(count)]
    if not all(x and y for _, x, y in sizes) or right <= left or bottom <= top or not (wide and high):
        raise Refusal(Reason.UNREADABLE, "the header of its codestream is damaged")
    across, down = min(x for _, x, _ in sizes), min(y for _, _, y in sizes)
    width, height = -(-right // across) - -(-left // across), -(-bottom // down) - -(-top // down)
    bits = tuple((depth & 0x7F) + 1 for depth, _, _ in sizes)
    tiles = -(-(right - first) // wide) * -(-(bottom - upper) // high)
    signed = any(depth & 0x80 for depth, _, _ in sizes)
    return _Codestream(data, width, height, bits, signed, any(x * y > 1 for _, x, y in sizes), tiles)


def _note(found: _Boxes, kind: bytes, said: bytes) -> None:
    """Reads a box of the JP2 header. The first of several colour specifications counts, as for other readers."""
    try:
        if kind == b"colr" and not (found.space or found.unknown_space):
            _note_color(found, said)
        elif kind == b"pclr":
            entries, columns = struct.unpack_from(">HB", said)
            bits = tuple((depth & 0x7F) + 1 for depth in said[3 : 3 + columns])
            row = np.dtype(
                [(f"f{index}", ">u1" if depth <= 8 else ">u2") for index, depth in enumerate(bits)]
            )
            table = np.frombuffer(said, row, entries, 3 + columns)
            names = row.names or ()
            found.palette = np.stack([table[name] for name in names], axis=-1).astype(np.uint16), bits
        elif kind == b"cmap":
            found.columns = tuple(
                (component, column if mapped else None)
                for component, mapped, column in struct.iter_unpack(">HBB", said)
            )
        elif kind == b"cdef":
            (count,) = struct.unpack_from(">H", said)
            found.channels = tuple(struct.iter_unpack(">HHH", said[2 : 2 + 6 * count]))
    except (struct.error, ValueError, TypeError) as error:
        raise Refusal(Reason.UNREADABLE, f"its box {kind.decode('latin-1')!r} is damaged") from error


def _note_color(found: _Boxes, said: bytes) -> None:
    method = said[0]
    if method == 1:
        (space,) = struct.unpack_from(">I", said, 3)
        found.white_is_zero = space == _BILEVEL_WHITE_IS_ZERO
        found.space = "L" if found.white_is_zero else _SPACES.get(space, "")
        found.unknown_space = "" if found.space else _OTHER_SPACES.get(space, f"enumerated space {space}")
    elif method in (2, 3):
        found.profile = said[3:]
        found.space = _ICC_SPACES.get(found.profile[16:20], "")
        kind = found.profile[16:20].decode("latin-1").strip()
        found.unknown_space = "" if found.space else f"an ICC profile of {kind or 'nothing'}"


def _is_whole(stream: _Codestream) -> bool:
    """Whether all tile-parts are complete, by their lengths (A.4.2). Bytes behind the end are ignored."""
    data = bytes(stream.data)
    at = data.find(_SOT)
    seen: Counter[int] = Counter()
    promised: dict[int, int | None] = {}
    while data.startswith(_SOT, at) and at + 12 <= len(data):
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        if not length:  # the last tile-part may have no length; it ends with the codestream
            return data.rstrip(b"\0\t\r\n \xff").endswith(_EOC)
        seen[tile] += 1
        promised[tile] = parts or promised.get(tile)
        at += max(length, 12)
    if at < 0 or at > len(data):
        return False
    return data.startswith(_EOC, at) or (
        len(seen) == stream.tiles and all(seen[tile] == parts for tile, parts in promised.items())
    )


def _components(stream: _Codestream) -> list[np.ndarray]:
    """uint8 or uint16 [H, W] of each component."""
    # OpenJPEG needs an end-of-codestream marker, even if all tile-parts are complete without it, or with half of it.
    whole = bytes(stream.data).removesuffix(_EOC[:1]) + _EOC
    try:
        decoded = imagecodecs.jpeg2k_decode(whole, numthreads=1)
    except imagecodecs.Jpeg2kError as error:
        raise Refusal(Reason.UNREADABLE, f"its codestream is damaged ({error})") from error
    decoded = decoded[..., None] if decoded.ndim == 2 else decoded
    if decoded.shape != (stream.height, stream.width, len(stream.bits)):
        words = f"its decoded shape {decoded.shape} contradicts its header"
        raise Refusal(Reason.UNREADABLE, words)
    return [decoded[..., index] for index in range(decoded.shape[2])]


def _channels(
    boxes: _Boxes, stream: _Codestream, components: list[np.ndarray]
) -> list[tuple[np.ndarray, int]]:
    """Samples and bits of all channels: components, or columns of the palette."""
    if boxes.palette is None:
        return list(zip(components, stream.bits, strict=True))
    entries, bits = boxes.palette
    found = []
    for component, column in boxes.columns or tuple((0, column) for column in range(len(bits))):
        if component >= len(components) or (column is not None and column >= len(bits)):
            raise Refusal(Reason.UNREADABLE, "its palette does not fit its components")
        if column is None:
            found.append((components[component], stream.bits[component]))
        else:
            indices = np.minimum(components[component], len(entries) - 1)
            found.append((entries[:, column][indices], bits[column]))
    return found


def _arranged(
    boxes: _Boxes, channels: list[tuple[np.ndarray, int]], notes: list[str]
) -> tuple[str, list[tuple[np.ndarray, int]], list[tuple[np.ndarray, int]]]:
    """The colour space, its channels in order, and the channels of opacity."""
    defined = {number: (kind, place) for number, kind, place in boxes.channels}
    placed, alpha, others = [], [], 0
    for number, channel in enumerate(channels):
        kind, place = defined.get(number, (_COLOR, number + 1))
        if kind == _COLOR:
            placed.append((place, number, channel))
        elif kind in (_OPACITY, _PREMULTIPLIED):
            alpha.append(channel)
        else:
            others += 1
    colors = [channel for _, _, channel in sorted(placed, key=lambda color: color[:2])]
    space = boxes.space or ("RGB" if len(colors) >= 3 else "L")
    wanted = CHANNELS[space]
    if len(colors) < wanted:
        raise Refusal(
            Reason.UNREADABLE, f"it has {len(colors)} channels of colour, but {space} needs {wanted}"
        )
    others += len(colors) - wanted
    if space not in ("L", "RGB"):
        others += len(alpha)
        alpha = []
    if others:
        notes.append(f"{others} extra channel{'s' * (others > 1)} without a stated meaning left out")
    return space, colors[:wanted], alpha


def _alpha_kind(boxes: _Boxes) -> int:
    return next(kind for _, kind, _ in boxes.channels if kind in (_OPACITY, _PREMULTIPLIED))
