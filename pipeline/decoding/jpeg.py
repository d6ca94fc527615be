"""JPEGs that Pillow does not read: samples of more than 8 bits, and JPEG-LS. Specifications: ITU-T T.81, T.87."""

import re
import struct
from collections.abc import Callable, Iterator

import imagecodecs
from PIL import Image

from pipeline.decoding.samples import to_image
from pipeline.records.record import Reason, Refusal

_START = b"\xff\xd8\xff"
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xF7)  # headers of a frame, by process
_JPEG_LS, _SCAN, _END, _APP2 = 0xF7, 0xDA, 0xD9, 0xE2
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")
_ICC = b"ICC_PROFILE\0"


def is_rare(data: bytes) -> bool:
    """Whether a file is a JPEG for `open_rare`."""
    if not data.startswith(_START):
        return False
    frame = next((found for found in _segments(data) if found[0] in _FRAMES), None)
    return frame is not None and len(frame[1]) >= 6 and (frame[0] == _JPEG_LS or frame[1][0] > 8)


def open_rare(data: bytes, check: Callable[[int, int], None]) -> Image.Image:
    """Opens a JPEG of more than 8 bits, or a JPEG-LS.

    Args:
      data: the whole file.
      check: raises Refusal for a width and height that are not allowed. It is called before pixels are decoded.

    Returns:
      An image with the profile in `info`. Deep grey has the mode "I;16", with white at 65 535.

    Raises:
      Refusal: it is truncated or damaged, or has other colours than grey and RGB.
    """
    segments = list(_segments(data))
    kind, frame = next(found for found in segments if found[0] in _FRAMES)
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    check(width, height)
    if components not in (1, 3):
        words = f"a JPEG of {bits} bits with {components} components is not read"
        raise Refusal(Reason.UNSUPPORTED_MODE, words)
    if segments[-1][0] != _END:
        raise Refusal(Reason.TRUNCATED, "it is cut short: its end (EOI) is missing")
    decode = imagecodecs.jpegls_decode if kind == _JPEG_LS else imagecodecs.jpeg8_decode
    try:
        samples = decode(data)
    except RuntimeError as error:  # errors of imagecodecs
        raise Refusal(Reason.UNREADABLE, f"its compressed pixels are damaged ({error})") from error
    samples = samples.reshape(height, width, components)
    image = to_image(samples, (1 << bits) - 1, "L" if components == 1 else "RGB")
    parts = sorted(
        said[len(_ICC) :] for marker, said in segments if marker == _APP2 and said.startswith(_ICC)
    )
    if parts:
        image.info["icc_profile"] = b"".join(part[2:] for part in parts)
    return image


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields marker and payload of the segments, up to the end of the picture or to damage."""
    at = 2
    while found := _MARKER.match(data, at):
        marker, at = found[1][0], found.end()
        if marker == _END:
            yield marker, b""
            return
        size = int.from_bytes(data[at : at + 2], "big")
        if size < 2 or at + size > len(data):
            return
        yield marker, data[at + 2 : at + size]
        at += size
        if marker == _SCAN:
            behind = _MARKER.search(data, at)
            at = behind.start() if behind else len(data)
