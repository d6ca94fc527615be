"""A matrix of depths, byte orders, photometrics, layouts and compressions, read by `read_scan` and by libvips.

For each cell, `read_scan` must give the same luma as the independent reader, or a refusal.
"""

import io
import itertools
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal

WIDTH, HEIGHT = 75, 50
Y, X = np.mgrid[:HEIGHT, :WIDTH]
PICTURE = (0.1 + 0.8 * (np.sin(X / 9) * np.cos(Y / 7) / 2 + 0.5)).clip(0, 1)  # fraction of full intensity


def levels(bits, invert=False):
    white = (1 << bits) - 1
    samples = np.rint(PICTURE * white).astype(np.uint8 if bits <= 8 else np.uint16)
    return white - samples if invert else samples


def by_us(data):
    """Luma uint8 [H, W], or the refusal."""
    try:
        return read_scan(data, output_format="png", max_pixels=10**7).luma
    except Refusal as refusal:
        return refusal


def by_vips(data, bits):
    """Luma [H, W] in 8-bit levels, as read by libvips."""
    image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
    samples = image.numpy().astype(float)
    samples = samples[..., None] if samples.ndim == 2 else samples
    white = 255 if image.format == "uchar" else 65535
    if image.format == "ushort" and bits == 12:
        white = 4095
    if image.bands >= 3 and image.interpretation in ("rgb16", "srgb"):
        return samples[..., :3] @ [0.299, 0.587, 0.114] * (255 / white)
    return samples[..., 0] * (255 / white)


def same(ours, theirs, tolerance=1.01):
    return ours.shape == theirs.shape and np.abs(ours.astype(float) - theirs).max() <= tolerance


ORDERS = ("<", ">")
PHOTOMETRICS = ("minisblack", "miniswhite", "rgb", "missing", "grey and infrared", "grey and alpha")
LAYOUTS = ("strips", "tiles", "planes")
COMPRESSIONS = ("none", "lzw", "deflate", "packbits", "zstd")


def tiff(depth, order, big, photometric, layout, compression):
    """The file, or None for a combination that is meaningless or cannot be written."""
    channels = {"rgb": 3, "grey and infrared": 2, "grey and alpha": 2}.get(photometric, 1)
    if (layout == "planes" and channels == 1) or (depth == 1 and compression not in ("none", "packbits")):
        return None
    picture = levels(depth, photometric == "miniswhite")
    if depth == 1:
        picture = picture.astype(bool)
    if channels > 1:
        other = np.full_like(picture, (1 << depth) - 1) if "alpha" in photometric else picture.max() - picture
        picture = np.stack(
            [picture] * 3 if channels == 3 else [picture, other], 0 if layout == "planes" else -1
        )
    options = {
        "photometric": {"rgb": "rgb", "miniswhite": "miniswhite"}.get(photometric, "minisblack"),
        "planarconfig": ("separate" if layout == "planes" else "contig") if channels > 1 else None,
        "compression": None if compression == "none" else compression,
        "predictor": compression in ("lzw", "deflate") and depth > 1,
        "metadata": None,
    }
    options |= {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 16}
    if "and" in photometric:
        options["extrasamples"] = ["unassalpha" if "alpha" in photometric else "unspecified"]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        writer.write(picture, **options)
    data = buffer.getvalue()
    return without_tag(data, 262) if photometric == "missing" else data


def without_tag(data, tag):
    """A TIFF in which a tag is replaced by an unknown private tag."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at, order = file.pages[0].tags[tag].offset, "little" if file.byteorder == "<" else "big"
    return data[:at] + (65000).to_bytes(2, order) + data[at + 2 :]


@pytest.mark.parametrize(
    ("depth", "photometric"),
    [(1, "minisblack"), (1, "miniswhite"), (1, "missing"), *itertools.product((8, 16), PHOTOMETRICS)],
)
def test_a_tiff_has_the_same_luma_for_libvips_or_is_refused(depth, photometric):
    coloured = 0
    for order, big, layout, compression in itertools.product(ORDERS, (False, True), LAYOUTS, COMPRESSIONS):
        data = tiff(depth, order, big, photometric, layout, compression)
        if data is None:
            continue
        cell = f"{depth} bits, {order}, big {big}, {photometric}, {layout}, {compression}"
        ours = by_us(data)
        if isinstance(ours, Refusal):
            assert ours.reason in (Reason.UNSUPPORTED_MODE, Reason.UNREADABLE), cell
            continue
        coloured += 1
        assert same(ours, np.rint(levels(depth) * (255 / ((1 << depth) - 1)))), cell
        # Skip cells that libvips reads incorrectly (two planes) or that libvips or its wheel does not support.
        if (
            not ("and" in photometric and layout == "planes")
            and photometric != "missing"
            and compression != "zstd"
        ):
            assert same(ours, by_vips(data, depth)), cell
    assert coloured


@pytest.mark.parametrize("kind", ["signed 8", "signed 16", "32 bits", "float", "double", "complex"])
def test_a_tiff_of_samples_without_a_known_white_is_refused(kind):
    dtype = {
        "signed 8": np.int8,
        "signed 16": np.int16,
        "32 bits": np.uint32,
        "float": np.float32,
        "double": np.float64,
        "complex": np.complex64,
    }[kind]
    refusal = by_us(written((PICTURE * 100).astype(dtype)))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == Reason.UNSUPPORTED_MODE


def written(array, **options):
    buffer = io.BytesIO()
    options = {"photometric": "minisblack" if array.ndim == 2 else "rgb", "metadata": None} | options
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.float16, np.float32, np.float64])
def test_whole_numbers_of_a_full_range_and_fractions_are_read(dtype, photometric, order):
    picture = 1 - PICTURE if photometric == "miniswhite" else PICTURE
    samples = picture.astype(dtype) if dtype(0.5) else (picture * float(np.iinfo(dtype).max)).astype(dtype)
    samples = np.stack([samples] * 3, -1) if photometric == "rgb" else samples
    data = written(samples, photometric=photometric, byteorder=order, compression="deflate")
    assert same(by_us(data), PICTURE * 255)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("dtype", "code"), [("u4", 4), ("i2", 8), ("i4", 9), ("f4", 11), ("f8", 12), ("u2", 3)]
)
def test_a_stated_black_and_white_are_used(dtype, code, order):
    black, white = (-1.5, 2.5) if dtype[0] == "f" else (-500, 1500) if dtype[0] == "i" else (500, 1500)
    stated = [(340, code, 1, black, False), (341, code, 1, white, False)]
    samples = (black + PICTURE * (white - black)).round(0 if dtype[0] != "f" else 6).astype(dtype)
    scan = read_scan(
        written(samples, byteorder=order, extratags=stated), output_format="png", max_pixels=10**7
    )
    assert same(scan.luma, PICTURE * 255, 1.2)
    assert f"black is {black} and white is {white}" in scan.note


def test_samples_beyond_the_stated_range_are_cut_off_and_numbers_that_are_none_are_black():
    samples = (PICTURE * 1.5).astype(np.float32)
    samples[0, :3] = np.nan, np.inf, -np.inf
    scan = read_scan(
        written(samples, extratags=[(341, 11, 1, 1.0, False)]), output_format="png", max_pixels=10**7
    )
    assert same(scan.luma[1:], (PICTURE[1:] * 1.5).clip(0, 1) * 255)
    assert list(scan.luma[0, :3]) == [0, 255, 0]
    assert "cut off" in scan.note


@pytest.mark.parametrize("dtype", [np.uint32, np.float32])
def test_opacity_of_deep_samples_has_the_range_of_its_type(dtype):
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    samples = np.stack([PICTURE * full, np.where(X > 30, full, 0)], -1).astype(dtype)
    data = written(samples, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    assert same(by_us(data), np.where(X > 30, PICTURE * 255, 255))


def test_grey_with_premultiplied_opacity_is_put_on_white():
    opacity = np.where(X > 30, 128, 255)
    samples = np.stack([np.rint(PICTURE * opacity), opacity], -1).astype(np.uint8)
    data = written(samples, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    assert same(by_us(data), 255 - (1 - PICTURE) * opacity, 1.5)


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_packed_samples_of_any_depth_are_read(bits, order, white_is_zero):
    samples = levels(bits, white_is_zero)
    expected = levels(bits) * (255 / ((1 << bits) - 1))
    assert same(by_us(packed_tiff(samples, bits, order, 0 if white_is_zero else 1)), expected)


def packed_tiff(samples, bits, order, photometric):
    """An uncompressed TIFF whose rows are packed, which tifffile does not write."""
    rows = np.packbits(
        (samples[..., None] >> np.arange(bits)[::-1] & 1).reshape(HEIGHT, -1), axis=1
    ).tobytes()
    entries = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: photometric, 277: 1, 278: HEIGHT}
    entries |= {273: 8 + 2 + 12 * 9 + 4, 279: len(rows)}
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    tags = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return header + tags + bytes(4) + rows


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_lightness_of_a_tiff_in_lab_is_converted_to_luma(photometric, bits, order):
    white = 65280 if photometric == "icclab" and bits == 16 else (1 << bits) - 1
    light = np.rint(PICTURE * white).astype(f"u{bits // 8}")
    chroma = np.full_like(light, 0 if photometric == "cielab" else 128 << bits - 8)
    fraction = (PICTURE * 100 + 16) / 116
    y = np.where(fraction > 6 / 29, fraction**3, (fraction - 4 / 29) * 3 * (6 / 29) ** 2)
    srgb = np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)
    data = written(np.stack([light, chroma, chroma], -1), photometric=photometric, byteorder=order)
    assert same(by_us(data), 255 * srgb, 1.5)


def test_a_colour_picture_in_lab_counts_as_colour():
    light = np.full((50, 75), 150, np.uint8)
    a, b = (light * 0 + X * 2).astype(np.uint8), (Y * 3).astype(np.uint8)
    assert by_us(written(np.stack([light, a, b], -1), photometric="icclab")).reason == Reason.ALREADY_COLOR


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize("order", ORDERS)
def test_strips_with_half_the_expected_data_are_damaged(dtype, compression, layout, order):
    """BitsPerSample states twice the depth of the data."""
    buffer = io.BytesIO()
    tile = {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 8}
    picture = (PICTURE * 255).astype(dtype)
    tifffile.imwrite(buffer, picture, byteorder=order, compression=compression, metadata=None, **tile)
    data = bytearray(buffer.getvalue() + bytes(30_000))  # padding, so that the file does not end early
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].tags[258]
        place, byteorder = tag.valueoffset, "little" if order == "<" else "big"
    data[place : place + 2] = (2 * 8 * np.dtype(dtype).itemsize).to_bytes(2, byteorder)
    refusal = by_us(bytes(data))
    assert isinstance(refusal, Refusal)
    assert refusal.reason in (Reason.TRUNCATED, Reason.UNREADABLE, Reason.UNSUPPORTED_MODE)


@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_strips_with_twice_the_expected_data_are_damaged(layout):
    buffer = io.BytesIO()
    tile = {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 8}
    tifffile.imwrite(buffer, levels(16), photometric="minisblack", metadata=None, **tile)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags[258].valueoffset
    data[place : place + 2] = (8).to_bytes(2, "little")
    refusal = by_us(bytes(data))
    assert refusal.reason == Reason.UNREADABLE
    assert layout[:-1] in refusal.detail


def test_a_tiff_whose_directory_was_never_written_is_called_unfinished():
    refusal = by_us(b"II*\0" + bytes(5000))
    assert refusal.reason == Reason.TRUNCATED
    assert "no directory" in refusal.detail


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd"])
def test_a_cut_tiff_is_called_truncated_and_says_where(compression):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, levels(16), compression=compression, rowsperstrip=8, metadata=None)
    data = buffer.getvalue()
    refusal = by_us(data[: len(data) * 2 // 3])
    assert refusal.reason == Reason.TRUNCATED
    assert "strip" in refusal.detail


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])  # read by libtiff, read by tifffile
@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_damage_within_a_tile_has_a_clear_message(dtype, compression):
    buffer = io.BytesIO()
    picture = (PICTURE * np.iinfo(dtype).max).astype(dtype)
    tifffile.imwrite(buffer, picture, tile=(32, 32), compression=compression, metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].dataoffsets[1]
    data[place : place + 40] = b"\xff" * 40
    refusal = by_us(bytes(data))
    assert refusal.reason == Reason.UNREADABLE
    assert refusal.detail.startswith("its compressed pixels are damaged")


@pytest.mark.parametrize("compression", ["lerc", "webp", "lzma", "jpeg"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_a_compression_that_pillow_may_lack_is_read(compression, layout):
    picture = np.stack([levels(8)] * 3, -1) if compression == "webp" else levels(8)
    options = {"photometric": "rgb" if compression == "webp" else "minisblack"}
    options |= {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 16}
    if compression in ("webp", "jpeg"):
        options["compressionargs"] = {"level": 100} | ({"lossless": True} if compression == "webp" else {})
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture, compression=compression, metadata=None, **options)
    assert same(by_us(buffer.getvalue()), levels(8).astype(float), 3)


@pytest.mark.parametrize("layout", ["strips", "tiles", "planes"])
@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "png", "jpegxr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_of_other_formats_inside_are_read_with_their_colours(compression, layout, dtype):
    green = np.stack([PICTURE * 0.9, PICTURE, PICTURE * 0.9], -1) * np.iinfo(dtype).max
    planes = np.moveaxis(green, -1, 0) if layout == "planes" else green
    options = {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 16}
    options["planarconfig"] = "separate" if layout == "planes" else "contig"
    if compression == "jpegxl":
        options["compressionargs"] = {"lossless": True}
    data = written(planes.round().astype(dtype), photometric="rgb", compression=compression, **options)
    assert same(by_us(data), PICTURE * 255 * (1 - 0.1 * 0.413), 1.6)


def test_jpeg_2000_whose_tags_call_ycbcr_rgb_is_read_as_ycbcr():
    ycc = np.asarray(Image.fromarray(np.stack([levels(8)] * 3, -1)).convert("YCbCr"))
    data = bytearray(written(ycc, compression="jpeg2000"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags[259].valueoffset
    data[place : place + 2] = (33003).to_bytes(2, "little")
    assert same(by_us(bytes(data)), levels(8))


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_jpeg_in_a_tiff_of_8_and_12_bits_is_read(bits, layout):
    args = {"level": 98, "bitspersample": bits}
    options = {"bitspersample": 12} if bits == 12 else {}
    data = written(levels(bits), compression="jpeg", compressionargs=args, **layout, **options)
    assert same(by_us(data), PICTURE * 255, 4)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("options", [0, 1, 4, 5])  # T4Options: two dimensions, bytes filled up
@pytest.mark.parametrize("fill_order", [1, 2])
def test_bitonal_facsimile_is_read(compression, options, fill_order):
    bitonal = Image.fromarray(np.uint8(PICTURE > 0.5) * 255).convert("1")
    buffer = io.BytesIO()
    tags = {266: fill_order} | ({292: options} if compression == "group3" else {})
    bitonal.save(buffer, "TIFF", compression=compression, tiffinfo=tags)
    assert same(by_us(buffer.getvalue()), np.asarray(bitonal) * 255.0)


@pytest.mark.parametrize("rows", [16, HEIGHT])
@pytest.mark.parametrize(
    ("tag", "value"), [(278, 2**32 - 1), (279, 0), (279, 10**6), (277, None), (278, None), (279, None)]
)
def test_wrong_but_readable_tags_do_not_matter(tag, value, rows):
    """Rows and bytes of a strip, and the number of samples, that are wrong or missing (None), as for libtiff."""
    data = written(levels(8), rowsperstrip=rows)
    if rows != HEIGHT and (tag == 278 or (tag, value) == (279, None)):
        return  # libtiff cannot read them, either
    if value is None:
        assert same(by_us(without_tag(data, tag)), levels(8))
        return
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        entry = file.pages[0].tags[tag]
        place, size = entry.valueoffset, entry.count
    kind = {3: "H", 4: "I"}[entry.dtype]
    struct.pack_into(f"<{size}{kind}", changed, place, *[min(value, 65535 if kind == "H" else value)] * size)
    assert same(by_us(bytes(changed)), levels(8))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1, 257])  # some writers store 8-bit values in the 16-bit palette
def test_palettes_with_8_bit_and_16_bit_values_are_read(order, scale):
    table = np.arange(255, -1, -1, dtype=np.uint16) * scale
    buffer = io.BytesIO()
    options = {"photometric": "palette", "colormap": np.stack([table] * 3), "metadata": None}
    tifffile.imwrite(buffer, levels(8), byteorder=order, **options)
    assert same(by_us(buffer.getvalue()), 255 - levels(8))


@pytest.mark.parametrize("order", ORDERS)
def test_ycbcr_without_jpeg_compression_is_read_unless_it_is_subsampled_or_of_other_coefficients(order):
    ycc = np.asarray(Image.fromarray(np.stack([levels(8)] * 3, -1)).convert("YCbCr"))
    assert same(by_us(written(ycc, photometric="ycbcr", byteorder=order)), levels(8))
    other = [(529, 5, 3, (2126, 10000, 7152, 10000, 722, 10000), False)]
    subsampled = without_tag(written(ycc, photometric="ycbcr", byteorder=order), 530)  # this is the default
    for data in (subsampled, written(ycc, photometric="ycbcr", byteorder=order, extratags=other)):
        refusal = by_us(data)
        assert refusal.reason == Reason.UNSUPPORTED_MODE
        assert "YCbCr" in refusal.detail


# Stated white levels


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("tag", "kind"), [(281, 3), (341, 3), (341, 4), (341, 11)])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_stated_white_level_is_used(order, tag, kind, bits):
    white = (1 << bits) - 1
    buffer = io.BytesIO()
    stated = (tag, kind, 1, float(white) if kind == 11 else white, False)
    tifffile.imwrite(buffer, levels(bits), byteorder=order, metadata=None, extratags=[stated])
    scan = read_scan(buffer.getvalue(), output_format="png", max_pixels=10**7)
    assert same(scan.luma, PICTURE * 255)
    assert str(white) in scan.note


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["rgb", "alpha", "alpha of the full range", "infrared"])
def test_a_stated_white_level_is_used_with_several_channels(order, kind):
    picture, white = levels(12), 4095
    other = np.full_like(picture, 65535 if "full" in kind else white)
    channels = [picture] * 3 if kind == "rgb" else [picture, other]
    options = {"photometric": "rgb" if kind == "rgb" else "minisblack", "byteorder": order, "metadata": None}
    if kind != "rgb":
        options["extrasamples"] = ["unassalpha" if "alpha" in kind else "unspecified"]
    options["extratags"] = [(281, 3, len(channels), (white,) * len(channels), True)]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack(channels, -1), **options)
    scan = read_scan(buffer.getvalue(), output_format="png", max_pixels=10**7)
    assert same(scan.luma, PICTURE * 255, 1.5)
    assert "4095" in scan.note and "transparent" not in scan.note


def test_the_maximum_sample_value_is_not_the_white_level():
    """Section 8 of TIFF 6.0 defines MaxSampleValue for statistics, not as the white level."""
    picture = levels(16)
    buffer = io.BytesIO()
    stated = (281, 3, 1, int(picture.max()), True)
    tifffile.imwrite(buffer, picture, metadata=None, extratags=[stated])
    assert same(by_us(buffer.getvalue()), PICTURE * 255)


def test_a_stated_white_that_pixels_exceed_is_not_believed():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, levels(16), metadata=None, extratags=[(281, 3, 1, 4095, False)])
    scan = read_scan(buffer.getvalue(), output_format="png", max_pixels=10**7)
    assert same(scan.luma, PICTURE * 255)
    assert "4095" in scan.note


def test_12_bits_in_16_without_a_stated_white_level_are_dark_and_noted():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, levels(12), metadata=None)
    scan = read_scan(buffer.getvalue(), output_format="png", max_pixels=10**7)
    assert "nearly black" in scan.note


# Several directories


def pyramid(*pictures, flags=False):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for index, picture in enumerate(pictures):
            writer.write(picture, subfiletype=int(flags and index > 0), metadata=None)
    return buffer.getvalue()


def halved(picture):
    return np.asarray(Image.fromarray(picture).resize((picture.shape[1] // 2, picture.shape[0] // 2)))


@pytest.mark.parametrize("flags", [False, True])
def test_the_levels_of_a_pyramid_do_not_count_as_pages(flags):
    full = levels(8)
    half = halved(full)
    data = pyramid(full, half, halved(half), flags=flags)
    assert np.array_equal(by_us(data), full)


def test_a_half_size_page_with_another_picture_counts_as_a_page():
    full = levels(8)
    assert by_us(pyramid(full, halved(full[::-1, ::-1]))).reason == Reason.MULTIPAGE


@pytest.mark.parametrize("where", ["behind the end", "into the pixels", "to itself"])
def test_an_invalid_link_to_a_directory_is_only_noted(where):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, levels(8), metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        link, pixels, own = file.pages.next_page_offset, page.dataoffsets[0], page.offset
    target = {"behind the end": len(data) + 1000, "into the pixels": pixels + 100, "to itself": own}[where]
    data[link : link + 4] = target.to_bytes(4, "little")
    scan = read_scan(bytes(data), output_format="png", max_pixels=10**7)
    assert np.array_equal(scan.luma, levels(8))
    assert "the link behind directory 1 is broken" in scan.note


# JPEG 2000


def box(kind, content):
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def jp2(samples, bits, *header, codec="jp2"):
    """A JP2 with these boxes after the image header. With `codec` "j2k", the bare codestream."""
    stream = imagecodecs.jpeg2k_encode(
        samples, bitspersample=bits, codecformat="j2k", reversible=True, level=0
    )
    if codec == "j2k":
        return stream
    height, width = samples.shape[:2]
    count = 1 if samples.ndim == 2 else samples.shape[2]
    first = (
        height.to_bytes(4, "big")
        + width.to_bytes(4, "big")
        + count.to_bytes(2, "big")
        + bytes([bits - 1, 7, 0, 0])
    )
    return (
        b"\0\0\0\x0cjP  \r\n\x87\n"
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"jp2h", box(b"ihdr", first) + b"".join(header))
        + box(b"jp2c", stream)
    )


def space(number):
    return box(b"colr", b"\1\0\0" + number.to_bytes(4, "big"))


GREY, WHITE_IS_ZERO, CIELAB = space(17), space(0), space(14)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8, 10, 12, 16])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_a_jpeg_2000_of_any_depth_is_scaled_to_its_white_level(bits, codec):
    data = jp2(levels(bits), bits, GREY, codec=codec)
    expected = levels(bits) * (255 / ((1 << bits) - 1))
    assert same(by_us(data), expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_jpeg_2000_has_the_same_luma_for_opencv(bits):
    for samples in (levels(bits), np.stack([levels(bits)] * 3, -1)):
        data = jp2(samples, bits, space(16) if samples.ndim == 3 else GREY)
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert theirs.shape == samples.shape
        assert same(by_us(data), theirs.reshape(HEIGHT, WIDTH, -1)[..., 0] * (255 / ((1 << bits) - 1)))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("options", [{}, {"reversible": True}, {"tile": (32, 32)}])
@pytest.mark.parametrize("channels", [1, 3])
def test_htj2k_is_read(bits, options, channels):
    samples = levels(bits) if channels == 1 else np.stack([levels(bits)] * 3, -1)
    assert same(by_us(imagecodecs.htj2k_encode(samples, **options)), PICTURE * 255, 1.5)


def test_a_jpeg_2000_whose_white_is_zero_is_inverted():
    assert same(by_us(jp2(levels(1, invert=True), 1, WHITE_IS_ZERO)), levels(1) * 255)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_palette_of_a_jpeg_2000_is_looked_up(columns):
    indices = np.uint8(X // 20)
    table = np.array([200, 10, 90, 40], np.uint8)
    palette = box(
        b"pclr",
        len(table).to_bytes(2, "big")
        + bytes([columns] + [7] * columns)
        + np.repeat(table, columns).tobytes(),
    )
    mapped = box(b"cmap", b"".join(b"\0\0\1" + bytes([column]) for column in range(columns)))
    data = jp2(indices, 8, space(16) if columns == 3 else GREY, palette, mapped)
    assert same(by_us(data), table[indices])


def test_a_jpeg_2000_with_an_opacity_channel_is_composed_on_white():
    alpha = np.where(X > 30, 255, 0).astype(np.uint8)
    said = box(b"cdef", bytes.fromhex("0002 0000 0000 0001 0001 0001 0000"))
    ours = by_us(jp2(np.stack([levels(8), alpha], -1), 8, GREY, said))
    assert same(ours, np.where(alpha > 0, levels(8), 255))


def test_a_channel_of_a_jpeg_2000_without_a_meaning_is_left_out():
    scan = read_scan(
        jp2(np.stack([levels(8), 255 - levels(8)], -1), 8, GREY), output_format="png", max_pixels=10**7
    )
    assert same(scan.luma, levels(8))
    assert "left out" in scan.note


def test_a_jpeg_2000_in_an_unknown_space_is_refused():
    refusal = by_us(jp2(np.stack([levels(8)] * 3, -1), 8, CIELAB))
    assert refusal.reason == Reason.UNSUPPORTED_MODE
    assert "CIELab" in refusal.detail


@pytest.mark.parametrize("steps", [(2, 2), (2, 1)])
def test_a_subsampled_jpeg_2000_is_refused_in_words(steps):
    data = bytearray(jp2(np.stack([levels(8)] * 3, -1), 8, space(16)))
    at = data.index(b"\xff\x4f\xff\x51") + 42
    for component in (1, 2):
        data[at + 3 * component + 1 : at + 3 * component + 3] = bytes(steps)
    refusal = by_us(bytes(data))
    assert refusal.reason == Reason.UNSUPPORTED_MODE
    assert "subsampled" in refusal.detail


@pytest.mark.parametrize("behind", [b"\n", b"\r\n", b"\xff", b"\0\0", b"trailing words"])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_bytes_behind_the_end_of_a_jpeg_2000_do_no_harm(behind, codec):
    data = bytearray(jp2(levels(8), 8, GREY, codec=codec))
    if codec == "jp2":  # length 0: the last box extends to the end of the file
        at = data.index(b"jp2c") - 4
        data[at : at + 4] = bytes(4)
    assert same(by_us(bytes(data) + behind), levels(8))


def test_a_codestream_without_its_end_marker_is_whole_if_its_parts_are():
    data = jp2(levels(8), 8, codec="j2k")
    assert data.endswith(b"\xff\xd9")
    assert same(by_us(data[:-2]), levels(8))
    assert same(by_us(data[:-1]), levels(8))
    assert by_us(data[:-10]).reason == Reason.TRUNCATED


# PNG


def png(array, *chunks):
    """A grey PNG with additional chunks (name, content) after its header."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    data, made = buffer.getvalue(), b""
    for name, content in chunks:
        made += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return data[:33] + made + data[33:]


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.3])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_gamma_of_a_png_is_applied(gamma, bits):
    light = PICTURE ** (1 / gamma)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    for array in (levels(bits), np.stack([levels(8)] * 3, -1)) if bits == 8 else (levels(bits),):
        ours = by_us(png(array, (b"gAMA", round(gamma * 100_000).to_bytes(4, "big"))))
        slope = 2.0 if gamma == 0.3 else 4.0  # 8-bit rounding error, amplified by the slope of the curve
        assert np.abs(ours - 255 * srgb).max() <= slope


def test_the_usual_gamma_and_one_beside_srgb_change_nothing():
    usual, linear = (45455).to_bytes(4, "big"), (100_000).to_bytes(4, "big")
    assert np.array_equal(by_us(png(levels(8), (b"gAMA", usual))), levels(8))
    assert np.array_equal(by_us(png(levels(8), (b"sRGB", b"\0"), (b"gAMA", linear))), levels(8))


def raw_png(depth, kind, rows, *chunks):
    """A PNG with these packed rows."""
    header = struct.pack(">IIBBBBB", 32, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    made = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")):
        made += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return made


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_level_of_a_png_of_few_bits_is_white(depth):
    values = np.arange(32) % (1 << depth)
    row = np.packbits((values[:, None] >> np.arange(depth)[::-1]) & 1).tobytes()
    ours = by_us(raw_png(depth, 0, [row] * 20, (b"tRNS", b"\0\1")))
    assert same(ours[0], np.where(values == 1, 255, values * 255 // ((1 << depth) - 1)))


def test_a_transparent_colour_of_16_bits_is_refused():
    row = np.full(96, 4000, ">u2").tobytes()
    refusal = by_us(raw_png(16, 2, [row] * 20, (b"tRNS", struct.pack(">3H", 4000, 4000, 4000))))
    assert refusal.reason == Reason.UNSUPPORTED_MODE


def test_the_transparent_level_of_a_16_bit_png_is_white():
    deep = levels(16).copy()
    deep[:10] = 12_345
    ours = by_us(png(deep, (b"tRNS", (12_345).to_bytes(2, "big"))))
    assert (ours[:10] == 255).all()
    assert same(ours[10:], PICTURE[10:] * 255)


def test_a_png_with_a_profile_of_more_than_a_megabyte_is_read():
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) + bytes(1_300_000)
    profile[:4] = len(profile).to_bytes(4, "big")
    buffer = io.BytesIO()
    Image.fromarray(np.stack([levels(8)] * 3, -1)).save(buffer, "PNG", icc_profile=bytes(profile))
    assert same(by_us(buffer.getvalue()), levels(8))


# Messages for unsupported files


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"II\xbc\x01\x08\0\0\0", "JPEG XR"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"Dear reader,\n", "text"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_the_kind_of_an_unsupported_file_is_named(beginning, words):
    refusal = by_us(beginning + b" " * 100)
    assert refusal.reason == Reason.UNREADABLE
    assert words in refusal.detail
