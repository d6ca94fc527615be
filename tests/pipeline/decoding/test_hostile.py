"""Hostile and broken files of every format: words for a person, and never a lost picture for a broken packet."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from pipeline.decoding import pages, tiff
from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal
from tests.pipeline.decoding.fuzzing import FILES

Y, X = np.mgrid[:40, :60]
GREY = (X * 3 + Y * 2).astype(np.uint8)
RGB = np.stack([GREY] * 3, -1)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")


def read(data, output_format="png", max_pixels=10**7):
    try:
        return read_scan(data, output_format=output_format, max_pixels=max_pixels)
    except Refusal as refusal:
        return refusal


def saved(format, array=RGB, **options):
    buffer = io.BytesIO()
    options |= {"lossless": True} if format == "WEBP" else {}
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def document(*sizes, **options):
    """A TIFF with a page of each width, all of the height 40."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for width in sizes:
            writer.write(np.resize(GREY, (40, width)), photometric="minisblack", metadata=None)
    return buffer.getvalue()


BROKEN = {
    "random bytes": np.random.default_rng(0).bytes(500),
    "zeros": bytes(300),
    "a byte": b"\xff",
    "half a profile": SRGB[: len(SRGB) // 2],
    "a header alone": SRGB[:128],
    "a table that points outside": SRGB[:132] + b"\xff" * 64,
    "a huge size": b"\x7f\xff\xff\xff" + SRGB[4:],
    "an unknown space": SRGB[:16] + b"XXXX" + SRGB[20:],
}


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_damage_after_which_a_decoder_goes_on_is_named(compression):
    noise = np.random.default_rng(5).integers(0, 255, (40, 30), np.uint8)
    array = np.kron(noise, np.ones((10, 10), np.uint8)) > 128
    whole = saved("TIFF", array, compression=compression)
    assert "damaged" not in read(whole).note
    named = 0
    for place in range(len(whole) // 4, len(whole) - len(whole) // 4, len(whole) // 40):
        found = read(whole[:place] + bytes([whole[place] ^ 0xFF] * 40) + whole[place + 40 :])
        named += not isinstance(found, Refusal) and "its pixels are damaged" in found.note
    assert named >= 10


@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_deflate"])
def test_the_checksum_of_a_deflated_tiff_is_compared(array, compression):
    noise = np.random.default_rng(5).integers(100, 110, (400, 300), np.uint8)
    array = noise if array.ndim == 2 else np.stack([noise] * 3, -1)
    whole = saved("TIFF", array, compression=compression)
    assert np.array_equal(read(whole).luma, noise)
    for place in range(2000, len(whole) - 2000, len(whole) // 30):
        found = read(whole[:place] + bytes(900) + whole[place + 900 :])
        assert isinstance(found, Refusal) and found.reason in (Reason.UNREADABLE, Reason.TRUNCATED)


@pytest.mark.parametrize("output_format", ["png", "jpeg"])
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_profile_does_not_fail_the_picture(format, array, broken, output_format):
    scan = read(saved(format, array, icc_profile=BROKEN[broken]), output_format)
    assert not isinstance(scan, Refusal), scan
    assert scan.size == (60, 40)


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + bytes(99), b"x" * 99]
)
@pytest.mark.parametrize("format", FORMATS[:2] + FORMATS[3:])
def test_broken_exif_does_not_fail_the_picture(format, exif):
    scan = read(saved(format, exif=b"Exif\0\0" + exif))
    assert not isinstance(scan, Refusal), scan
    assert scan.size == (60, 40)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"no XML",
        b"<x:xmpmeta",
        b"\xff\xfe\0",
        b"<a>" * 20_000,
        b"<!DOCTYPE a [<!ENTITY b 'b'>" + b"<!ENTITY c '&b;&b;'>" * 50 + b"]><a>&c;</a>",
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "PNG", "JP2"])
def test_a_broken_xmp_packet_does_not_fail_the_picture(format, packet):
    if format == "JP2":
        uuid = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + packet
        data = imagecodecs.jpeg2k_encode(GREY, codecformat="jp2", level=0)
        data += struct.pack(">I4s", 8 + len(uuid), b"uuid") + uuid
    elif format == "TIFF":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, GREY, metadata=None, extratags=[(700, 1, len(packet), packet, True)])
        data = buffer.getvalue()
    elif format == "PNG":
        data = png_with_text(packet)
    else:
        data = saved(format, xmp=packet)
    scan = read(data)
    assert not isinstance(scan, Refusal), scan
    assert scan.size == (60, 40)


def png_with_text(packet):
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode("latin-1"))
    return saved("PNG", pnginfo=text)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_cut_anywhere_or_has_zeros_for_its_end_is_a_scan_or_a_refusal(name):
    data = FILES[name]
    for length in range(0, len(data), max(1, len(data) // 40)):
        for file in (data[:length], data[:length] + bytes(len(data) - length)):
            found = read(file)
            assert not isinstance(found, Refusal) or found.detail


@pytest.mark.parametrize("data", [b"", b"\0", bytes(10_000), b"\xff" * 10_000])
def test_a_file_of_nothing_is_refused(data):
    assert read(data).reason == Reason.UNREADABLE


# Huge declared sizes


def patched(data, tag, value):
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        entry = file.pages[0].tags[tag]
        place, order, kind = entry.valueoffset, file.byteorder, {3: "H", 4: "I", 16: "Q"}[entry.dtype]
    struct.pack_into(order + kind, changed, place, value)
    return bytes(changed)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tag", [256, 257])
def test_a_tiff_that_promises_billions_of_pixels_is_refused(tag, big):
    data = patched(document(60, bigtiff=big), tag, 2**31)
    assert read(data).reason in (Reason.TOO_LARGE, Reason.UNREADABLE, Reason.TRUNCATED)


@pytest.mark.parametrize("marker", [0xC1, 0xC3, 0xF7])
def test_a_deep_jpeg_that_promises_gigapixels_is_refused(marker):
    frame = bytes([0xFF, marker, 0, 11, 12]) + struct.pack(">HH", 65000, 65000) + bytes([1, 1, 0x11, 0])
    assert read(b"\xff\xd8" + frame + bytes(50)).reason == Reason.TOO_LARGE


def test_a_jpeg_2000_that_promises_gigapixels_is_refused():
    data = bytearray(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=0))
    struct.pack_into(">II", data, 8, 2**31, 2**31)
    assert read(bytes(data)).reason == Reason.TOO_LARGE


# Directories


def linked(data, *links):
    """A TIFF whose directories are linked anew: to the offset of the directory with this number, or to an offset."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        places = [page.offset for page in file.pages]
    for place, link in zip(places, links, strict=False):
        (count,) = struct.unpack_from("<H", data, place)
        target = places[link] if 0 <= link < len(places) else link
        struct.pack_into("<I", changed, place + 2 + 12 * count, target)
    return bytes(changed)


@pytest.mark.parametrize("links", [(0,), (1, 0), (1, 2, 1), (1, 2, 2)])
def test_directories_in_a_loop_are_read_once(links):
    found = tiff.find(linked(document(60, 50, 40), *links), lambda width, height: None)
    assert len(found.places) == max(links) + 1
    assert "broken" in found.notes[0]


def test_a_link_behind_the_end_leaves_the_pages_before_it():
    data = linked(document(60, 50, 40), 1, 10**8)
    found = tiff.find(data, lambda width, height: None)
    assert len(found.places) == 2
    assert read(pages.extract(data, found.places[1])).size == (50, 40)


def test_directories_that_lie_over_each_other_are_refused():
    """Reading many of them, each as long as the file, would take for ever. These are two."""
    count = 3000
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 60) for tag in (256, 257, 273))[
        :-2
    ]  # and the next count
    data = bytearray(
        b"II*\0" + struct.pack("<I", 8) + (struct.pack("<H", count) + entries) * (count // 3 + 1)
    )
    data += bytes(8)
    second = 8 + 36
    struct.pack_into("<I", data, 8 + 2 + 12 * count, second)
    struct.pack_into("<I", data, second + 2 + 12 * count - 4, 0)
    refusal = read(bytes(data))
    assert refusal.reason == Reason.UNREADABLE
    assert "overlap" in refusal.detail


@pytest.mark.parametrize("count", [2**16 - 1])
def test_a_directory_with_more_entries_than_the_file_has_bytes_is_refused(count):
    data = bytearray(document(60))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].offset
    struct.pack_into("<H", data, place, count)
    assert isinstance(read(bytes(data)), Refusal)


def test_a_page_whose_strips_are_the_whole_file_many_times_takes_no_memory():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for width in (60, 50):
            writer.write(
                np.resize(GREY, (40, width)), photometric="minisblack", rowsperstrip=1, metadata=None
            )
    data = bytearray(buffer.getvalue() + bytes(100_000))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        sizes, place = file.pages[0].tags[279], file.pages[0].offset
        kind = {3: "H", 4: "I"}[sizes.dtype]
        struct.pack_into(f"<{sizes.count}{kind}", data, sizes.valueoffset, *[60_000] * sizes.count)
    assert len(pages.extract(bytes(data), place)) <= len(data)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".jp2", ""])
def test_the_content_counts_and_not_the_extension(extension, tmp_path):
    from pipeline.codec.codec import Codec, View
    from pipeline.codec.settings import Settings
    from pipeline.inputs.item import Item

    file = tmp_path / f"scan{extension}"
    file.write_bytes(document(60))
    codec = Codec(Settings(output=str(tmp_path / "out"), run="r", side=32))
    assert isinstance(codec.open(Item(file.name, str(file))), View)
    file.write_bytes(document(60, 50))
    assert codec.open(Item(file.name, str(file))).pages == 2
