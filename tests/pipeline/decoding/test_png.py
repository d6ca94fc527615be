"""A PNG is incomplete if its compressed data end before the last row, whatever its header claims."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding import png
from pipeline.imaging import scan
from pipeline.records.record import Reason, Refusal


def file(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def claiming(data: bytes, rows: int) -> bytes:
    """The same file with another height in its header and a correct checksum."""
    header = bytearray(data[12:29])
    header[8:12] = struct.pack(">I", rows)
    return data[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[33:]


def whole(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return png.fault(data, image) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("level", [0, 1])
def test_every_row_is_counted_in_every_mode(mode, level):
    picture = Image.fromarray(np.full((50, 41), level, np.uint16 if mode == "I;16" else np.uint8))
    data = file(picture if mode == "I;16" else picture.convert(mode))
    assert whole(data)
    assert not whole(claiming(data, 52))
    assert not whole(claiming(data, 500))


@pytest.mark.parametrize("level", [0, 200])
@pytest.mark.parametrize(("rows", "expected"), [(11, True), (10, False)])
def test_an_interlaced_picture_has_the_rows_of_seven_passes(rows, expected, level):
    # For 5 x 5 pixels, the rows of the passes have 1; 1; 2; 1, 1; 3; 2, 2, 2; 5, 5 pixels after a filter byte.
    widths = (1, 1, 2, 1, 1, 3, 2, 2, 2, 5, 5)[:rows]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 5, 5, 8, 0, 0, 0, 1)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes([level]) * width for width in widths)))
    assert whole(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")) == expected


@pytest.mark.parametrize("damage", ["zeros", "flip", "checksum"])
def test_wrong_checksums_are_found_and_do_no_harm_alone(damage):
    noise = np.random.default_rng(3).integers(100, 120, (240, 320), np.uint8)
    data = bytearray(file(Image.fromarray(noise)))
    at = data.index(b"IDAT") + 4
    length = int.from_bytes(data[at - 8 : at - 4], "big")
    accepted = 0
    for place in range(at + length // 10, at + length - 20, length // 40):
        bad = bytearray(data)
        if damage == "zeros":
            bad[place : at + length] = bytes(at + length - place)
        elif damage == "flip":
            bad[place] ^= 4
        else:
            bad[at + length] ^= 4
        try:
            found = scan.read_scan(bytes(bad), output_format="jpeg", max_pixels=10**6)
        except Refusal as refusal:
            assert refusal.reason in (Reason.TRUNCATED, Reason.UNREADABLE)
        else:
            accepted += 1
            assert np.array_equal(found.luma, noise)
    assert (accepted > 0) == (damage == "checksum")


def test_a_scan_that_ends_too_soon_is_refused():
    data = file(Image.fromarray(np.full((60, 80), 200, np.uint8)))
    options = {"output_format": "jpeg", "max_pixels": 10**6}
    assert scan.read_scan(data, **options).size == (80, 60)
    with pytest.raises(Refusal, match="rows that its header promises are missing") as refusal:
        scan.read_scan(claiming(data, 90), **options)
    assert refusal.value.reason == Reason.TRUNCATED
