"""Reading masters: all supported formats and modes, orientation, depth, profiles and refusals."""

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from pipeline.imaging import graft
from pipeline.imaging.grey import color_spread
from pipeline.imaging.scan import from_image, read_scan
from pipeline.metadata.orientation import upright
from pipeline.photographs.reading import read_color
from pipeline.records.record import Reason, Refusal

WIDTH, HEIGHT = 61, 42
Y, X = np.mgrid[:HEIGHT, :WIDTH]
LUMA = np.uint8(20 + 3 * X + Y // 2)  # differs from all its mirror images

# Pillow warns about damaged metadata. The codec process of a job ignores these warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def save(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey(mode="L"):
    return Image.fromarray(LUMA).convert(mode)


def read(data, output_format="png", **options):
    return read_scan(data, output_format=output_format, **{"max_pixels": 10**8} | options)


def refusal(data, **options):
    with pytest.raises(Refusal) as caught:
        read(data, **options)
    return caught.value.reason


def attempt(data, output_format, **options):
    """The scan or the refusal. Other exceptions are raised."""
    try:
        return read(data, output_format, **options)
    except Refusal as refused:
        return refused


def tiff(array, photometric, bits, dtype, endian="<"):
    """An uncompressed grey TIFF of a kind that Pillow can read but not write."""
    height, width = array.shape
    pixels = array.astype(dtype).tobytes() if dtype else packed(array, bits)
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(pixels)),
    ]
    directory = struct.pack(endian + "H", len(tags))
    for tag, value in tags:
        long = tag in (273, 279)
        directory += struct.pack(endian + "HHI", tag, 4 if long else 3, 1)
        directory += struct.pack(endian + ("I" if long else "HH"), *((value,) if long else (value, 0)))
    header = (b"II" if endian == "<" else b"MM") + struct.pack(endian + "HI", 42, 8 + len(pixels))
    return header + pixels + directory + b"\0\0\0\0"


def packed(array, bits):
    """Pack 12-bit values, two in three bytes."""
    assert bits == 12
    assert array.shape[1] % 2 == 0
    first, second = np.uint16(array[:, ::2]), np.uint16(array[:, 1::2])
    return np.uint8(np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)).tobytes()


# Modes and formats


@pytest.mark.parametrize(
    "format", ["PNG", "TIFF", "GIF", "BMP", "TGA", "PPM", "PCX", "WEBP", "JPEG2000", "SGI", "DDS"]
)
def test_8_bit_grey_is_read_unchanged(format):
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(format, {})
    scan = read(save(grey(), format, **options))
    assert np.array_equal(scan.luma, LUMA)
    assert scan.size == scan.stored_size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_1_bit_is_black_and_white(format):
    line_art = grey().convert("1")
    assert np.array_equal(read(save(line_art, format)).luma, np.asarray(line_art) * 255)


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "BMP"])
def test_a_palette_is_looked_up(format):
    palette = Image.fromarray(255 - LUMA)
    palette.putpalette([255 - level for level in range(256) for _ in range(3)])
    assert np.array_equal(read(save(palette, format)).luma, LUMA)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_transparent_parts_lie_on_white_paper(mode, format):
    image = grey(mode)
    alpha = np.full(LUMA.shape, 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    scan = read(save(image, format))
    assert (scan.luma[:10] == 255).all()
    assert np.abs(scan.luma[10:20] - (LUMA[10:20] + 255.0) / 2).max() <= 1.5
    assert np.array_equal(scan.luma[20:], LUMA[20:])
    assert "white" in scan.note


def test_a_transparent_palette_colour_lies_on_white_paper():
    palette = Image.fromarray(np.uint8(X > 30))
    palette.putpalette([90, 90, 90, 10, 10, 10])
    for data in (save(palette, "PNG", transparency=1), save(palette, "GIF", transparency=1)):
        assert np.array_equal(read(data).luma, np.where(X > 30, 255, 90))


def test_opaque_alpha_changes_nothing():
    scan = read(save(grey("RGBA"), "PNG"))
    assert np.array_equal(scan.luma, LUMA)
    assert not scan.note


def luma_of(scan):
    """The luma of a scan, decoded if it is kept as it is coded."""
    return scan.luma if scan.jpeg is None else np.asarray(Image.open(io.BytesIO(graft.alone(scan.jpeg))))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_rgb_without_colour_is_read_as_grey(format):
    data = save(grey("RGB"), format, **({"lossless": True} if format == "WEBP" else {}))
    assert np.array_equal(read(data).luma, LUMA)


@pytest.mark.parametrize("output_format", ["png", "jpeg"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"keep_rgb": True}, {"progressive": True}])
def test_a_jpeg_of_three_components_is_read_as_its_luma(output_format, options):
    data = save(grey("RGB"), "JPEG", quality=95, **options)
    luma = luma_of(read(data, output_format))
    assert np.abs(np.int16(luma) - np.asarray(Image.open(io.BytesIO(data)).convert("L"))).max() <= 1


@pytest.mark.parametrize(
    ("format", "tolerance"), [("TIFF", 0), ("JPEG", 3)]
)  # Pillow writes inverted CMYK JPEGs, like Adobe
def test_cmyk_is_converted(format, tolerance):
    cmyk = grey("RGB").convert("CMYK")
    data = save(cmyk, format, **({"quality": 100} if format == "JPEG" else {}))
    assert np.abs(np.int16(read(data).luma) - LUMA).max() <= tolerance


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("TIFF", "<u2"), ("TIFF", ">u2"), ("PNG", "<u2"), ("PPM", "<u2"), ("JPEG2000", "<u2")],
)
def test_16_bits_are_scaled_not_clipped(format, dtype):
    deep = np.uint16(LUMA) * 257
    if dtype == ">u2":
        data = tiff(deep, 1, 16, dtype, ">")
    else:
        data = save(
            Image.fromarray(deep), format, **({"irreversible": False} if format == "JPEG2000" else {})
        )
    assert np.array_equal(read(data).luma, LUMA)


def test_16_bits_are_rounded():
    deep = np.full((20, 20), 100 * 257 + 129, np.uint16)
    assert (read(save(Image.fromarray(deep), "TIFF")).luma == 101).all()


def test_12_bits_are_scaled_by_their_own_white():
    deep = np.uint16(np.rint(LUMA[:, :60] * (4095 / 255)))
    assert np.array_equal(read(tiff(deep, 1, 12, None)).luma, LUMA[:, :60])


@pytest.mark.parametrize(("bits", "dtype", "endian"), [(8, "u1", "<"), (8, "u1", ">"), (16, "<u2", "<")])
def test_a_tiff_whose_white_is_zero_is_inverted(bits, dtype, endian):
    inverse = np.uint16(255 - LUMA) * (257 if bits == 16 else 1)
    assert np.array_equal(read(tiff(inverse, 0, bits, dtype, endian)).luma, LUMA)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.float32(LUMA), "floating-point"),
        (np.int32(LUMA) * 100_000, "integer"),
        (np.uint32(LUMA) * 10_000, "integer"),
    ],
)
def test_pixels_without_a_known_white_are_refused(array, words):
    with pytest.raises(Refusal, match=words) as caught:
        read(save(Image.fromarray(array), "TIFF"))
    assert caught.value.reason == Reason.UNSUPPORTED_MODE


def test_lab_is_converted():
    assert (read(save(Image.new("LAB", (20, 20), (255, 128, 128)), "TIFF")).luma == 255).all()


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_once_and_reset(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[270] = "Market"
    options = {"lossless": True} if format == "WEBP" else {}
    data = save(grey(), format, exif=exif, dpi=(300, 600), **options)
    scan = read(data)
    turned = ImageOps.exif_transpose(grey_with(orientation))
    assert np.array_equal(scan.luma, np.asarray(turned))
    assert scan.size == turned.size
    declared = Image.Exif()
    declared.load(scan.carried.exif)
    assert declared.get(0x0112, 1) == 1
    assert declared[270] == "Market"
    if format != "WEBP":  # WebP stores no resolution
        expected = (600, 300) if orientation >= 5 else (300, 600)
        assert scan.carried.dpi == pytest.approx(expected, rel=1e-3)


def grey_with(orientation):
    image = grey()
    image.getexif()[0x0112] = orientation
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_grafted_jpeg_stays_as_stored_and_is_seen_upright(orientation):
    data = save(grey(), "JPEG", quality=100, exif=grey_with(orientation).getexif())
    scan = read(data, "jpeg")
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert scan.luma is None
    assert scan.jpeg is not None
    assert scan.orientation == orientation
    assert scan.stored_size == (WIDTH, HEIGHT)
    assert scan.size == turned.size
    assert np.array_equal(upright(scan.guide, orientation), np.asarray(turned))


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_does_not_affect_the_picture(exif):
    scan = read(save(grey(), "PNG", exif=exif))
    assert np.array_equal(scan.luma, LUMA)
    assert scan.orientation == 1


# Profiles


def s15(value):
    return struct.pack(">i", round(value * 65536))


def profile(space, tags):
    """An ICC profile of version 2 for a display with white point D50 (ICC.1:2001-04, 6.1)."""
    tags = {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79),
        "cprt": b"text\0\0\0\0none\0",
        "wtpt": b"XYZ \0\0\0\0" + s15(0.9642) + s15(1) + s15(0.8249),
    } | tags
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">II", at + len(body), len(data))
        body += data
    header = bytearray(128)
    header[8:12], header[12:16], header[16:20], header[20:24] = b"\x02\x20\0\0", b"mntr", space, b"XYZ "
    header[36:40], header[68:80] = b"acsp", s15(0.9642) + s15(1) + s15(0.8249)
    header[0:4] = struct.pack(">I", at + len(body))
    return bytes(header) + table + body


def curve(values):
    entries = np.uint16(np.rint(np.clip(values, 0, 1) * 65535)).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(entries)) + entries.tobytes()


LEVEL = np.linspace(0, 1, 256)
GAMMA_22 = LEVEL**2.2
DOT_GAIN = LEVEL**1.75  # similar to 20 % dot gain
GREY_22 = profile(b"GRAY", {"kTRC": curve(GAMMA_22)})
GREY_DOTS = profile(b"GRAY", {"kTRC": curve(DOT_GAIN)})
# Primaries of Adobe RGB (1998), adapted to D50.
COLORANTS = {
    "rXYZ": (0.60974, 0.31111, 0.01947),
    "gXYZ": (0.20528, 0.62567, 0.06087),
    "bXYZ": (0.14919, 0.06322, 0.74457),
}
WIDE_RGB = profile(
    b"RGB ",
    {name: b"XYZ \0\0\0\0" + b"".join(map(s15, xyz)) for name, xyz in COLORANTS.items()}
    | {name: curve(GAMMA_22) for name in ("rTRC", "gTRC", "bTRC")},
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_level(linear):
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("icc", "linear"), [(GREY_22, GAMMA_22), (GREY_DOTS, DOT_GAIN)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_a_grey_profile_is_converted(icc, linear, format):
    data = save(grey(), format, icc_profile=icc, **({"quality": 100} if format == "JPEG" else {}))
    levels = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(read(data).luma - srgb_level(linear)[levels]).max() <= 1.5


def test_16_bits_are_converted_by_their_grey_profile():
    data = save(Image.fromarray(np.uint16(LUMA) * 257), "TIFF", icc_profile=GREY_DOTS)
    assert np.abs(read(data).luma - srgb_level(DOT_GAIN)[LUMA]).max() <= 1.5


def test_a_grey_jpeg_is_grafted_if_its_levels_are_srgb_or_its_tone_curve_is_known():
    dots = read(save(grey(), "JPEG", icc_profile=GREY_DOTS), "jpeg")
    assert dots.jpeg and dots.tone
    lab = read(save(grey(), "JPEG", icc_profile=GREY_DOTS.replace(b"GRAYXYZ ", b"GRAYLab ")), "jpeg")
    assert lab.jpeg is None and lab.tone is None
    levels = profile(b"GRAY", {"kTRC": curve(srgb_linear(LEVEL))})
    for icc_profile in (levels, SRGB, None):
        same = read(save(grey(), "JPEG", icc_profile=icc_profile), "jpeg")
        assert same.jpeg and same.tone is None
    assert read(save(grey(), "JPEG", icc_profile=GREY_DOTS), "png").jpeg is None


def srgb_linear(level):
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def test_the_profile_of_an_rgb_space_on_a_grey_jpeg_has_a_curve_too():
    data = save(grey(), "JPEG", quality=100, icc_profile=WIDE_RGB)
    levels = np.asarray(Image.open(io.BytesIO(data)))
    scan = read(data, "jpeg")
    assert scan.jpeg is None
    assert np.abs(scan.luma - srgb_level(GAMMA_22)[levels]).max() <= 1.5
    assert not scan.note


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_an_rgb_profile_is_converted(format):
    data = save(grey("RGB"), format, icc_profile=WIDE_RGB, **({"quality": 100} if format == "JPEG" else {}))
    levels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    for output_format in ("png", "jpeg"):
        assert np.abs(read(data, output_format).luma - srgb_level(GAMMA_22)[levels]).max() <= 2.5


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("icc", [b"nonsense", SRGB[:200], GREY_22[:132]])
def test_a_broken_profile_is_noted_and_the_picture_taken_as_srgb(mode, icc):
    for output_format in ("png", "jpeg"):
        scan = read(save(grey(mode), "JPEG", quality=100, icc_profile=icc), output_format)
        assert "ICC profile could not be used" in scan.note
        if scan.luma is not None:
            assert np.abs(np.int16(scan.luma) - LUMA).max() <= 3


def test_a_profile_of_another_kind_than_the_pixels_is_noted():
    assert "ICC" in read(save(grey("CMYK"), "TIFF", icc_profile=GREY_DOTS)).note


def test_a_grey_profile_is_applied_to_an_rgb_picture_of_greys():
    """WebP stores grey pictures as RGB and keeps their grey profile."""
    expected = read(save(grey(), "PNG", icc_profile=GREY_DOTS)).luma
    for format, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("JPEG", {"quality": 100})):
        scan = read(save(grey("RGB"), format, icc_profile=GREY_DOTS, **options))
        assert np.abs(np.int16(scan.luma) - expected).max() <= (6 if format == "JPEG" else 1), format
        assert not scan.note


# Colour


def photograph():
    from skimage import data

    return Image.fromarray(data.astronaut())


def toned(image, paper, ink):
    return ImageOps.colorize(image.convert("L"), ink, paper)


TONES = {
    "sepia": ("#f4e3c1", "#2b1a0c"),
    "cyanotype": ("#e8f0f5", "#0b2a5c"),
    "selenium": ("#f0ecef", "#20161f"),
}


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"keep_rgb": True}), ("TIFF", {})]
)
@pytest.mark.parametrize("output_format", ["jpeg", "png"])
def test_a_colour_picture_is_skipped_unless_told_otherwise(format, options, output_format):
    data = save(photograph(), format, **options)
    assert refusal(data, output_format=output_format) == Reason.ALREADY_COLOR
    luma = luma_of(read(data, output_format, colorize_color=True))
    truth = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert np.abs(np.int16(luma) - truth).mean() < 0.6


def test_a_colour_palette_and_colour_cmyk_are_skipped():
    assert refusal(save(photograph().quantize(200), "PNG")) == Reason.ALREADY_COLOR
    assert refusal(save(photograph().convert("CMYK"), "JPEG")) == Reason.ALREADY_COLOR


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {"quality": 75}), ("JPEG", {"quality": 95})]
)
@pytest.mark.parametrize("output_format", ["jpeg", "png"])
def test_a_toned_picture_does_not_count_as_colour(tone, format, options, output_format):
    scan = read(save(toned(photograph(), *TONES[tone]), format, **options), output_format)
    assert scan.size == (512, 512)


def test_grain_in_each_channel_does_not_count_as_colour():
    rng = np.random.default_rng(1)
    noisy = np.asarray(photograph().convert("L").resize((1024, 1024)))[..., None] + rng.normal(
        0, 12, (1024, 1024, 3)
    )
    assert read(save(Image.fromarray(np.uint8(noisy.clip(0, 255))), "PNG")).size == (1024, 1024)


def test_color_spread_is_zero_for_grey_and_large_for_colour():
    assert color_spread(np.asarray(grey("RGB"))) == pytest.approx(0, abs=0.1)
    assert color_spread(np.asarray(photograph())) > 8


def test_grey_and_colour_pillow_images_are_accepted():
    assert np.array_equal(from_image(grey()).luma, LUMA)
    assert np.array_equal(from_image(photograph()).luma, np.asarray(photograph().convert("L")))
    assert np.array_equal(from_image(grey_with(6)).luma, np.asarray(ImageOps.exif_transpose(grey_with(6))))


# Pages and sizes


def pages(*images, **options):
    return save(images[0], "TIFF", save_all=True, append_images=images[1:], **options)


def tiff_pages(*flags):
    """A TIFF whose pages have these NewSubfileType values. All pixels of page n have level n."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as file:
        for page, flag in enumerate(flags):
            Image.new("L", (40 - 4 * page, 40), page).save(file, "TIFF", tiffinfo={254: flag})
            file.newFrame()
    return buffer.getvalue()


def test_two_pages_are_refused():
    assert refusal(tiff_pages(0, 0)) == Reason.MULTIPAGE
    assert refusal(pages(grey(), grey())) == Reason.MULTIPAGE


@pytest.mark.parametrize(("flags", "page"), [((0, 1), 0), ((0, 1, 4), 0), ((1, 0), 1), ((1,), 0)])
def test_reduced_copies_and_masks_do_not_count_as_pages(flags, page):
    assert (read(tiff_pages(*flags)).luma == page).all()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_refused(format):
    data = save(grey(), format, save_all=True, append_images=[ImageOps.invert(grey())], duration=100)
    assert refusal(data) == Reason.ANIMATION


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB"])
def test_several_pictures_in_a_pnm_are_refused_and_other_bytes_behind_it_do_not_matter(mode):
    image = Image.fromarray(np.uint16(LUMA) * 257) if mode == "I;16" else grey().convert(mode)
    data = save(image, "PPM")
    assert np.array_equal(read(data + b"\n").luma, read(data).luma)
    assert refusal(data + data) == Reason.MULTIPAGE


def test_the_first_picture_of_an_mpo_is_the_photograph():
    data = save(grey(), "MPO", save_all=True, append_images=[ImageOps.invert(grey())], quality=100)
    for output_format in ("jpeg", "png"):
        assert np.abs(np.int16(read(data, output_format).luma) - LUMA).max() <= 3


@pytest.mark.parametrize("size", [(15, 100), (100, 15), (1, 1)])
def test_a_tiny_picture_is_refused(size):
    assert refusal(save(Image.new("L", size), "PNG")) == Reason.TOO_SMALL


def test_a_picture_over_the_limit_is_refused_and_one_at_the_limit_is_not():
    data = save(grey(), "PNG")
    assert refusal(data, max_pixels=WIDTH * HEIGHT - 1) == Reason.TOO_LARGE
    assert read(data, max_pixels=WIDTH * HEIGHT)


@pytest.mark.parametrize("size", [(65_501, 16), (16, 65_501)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_scan_that_no_jpeg_can_hold_is_too_large_for_one(size, mode):
    data = save(Image.new(mode, size, "grey"), "PNG")
    with pytest.raises(Refusal, match="--format png or tiff can hold it") as caught:
        read(data, "jpeg")
    assert caught.value.reason == Reason.TOO_LARGE
    assert read(data, "png").size == read(data, "tiff").size == size
    assert read(save(Image.new(mode, [side - side // 65_501 for side in size], "grey"), "PNG"), "jpeg")


def test_a_jpeg_that_libjpeg_cannot_hold_is_refused_in_every_format():
    data = save(Image.new("L", (65_500, 16), "grey"), "JPEG")
    at = data.index(b"\xff\xc0")
    longer = data[: at + 7] + (65_530).to_bytes(2, "big") + data[at + 9 :]
    for output_format in ("jpeg", "png", "tiff"):
        with pytest.raises(Refusal):
            read(longer, output_format)


def bombs():
    png = save(grey(), "PNG")
    yield "png", png[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[24:]
    jpeg = bytearray(save(grey(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    yield "jpeg", bytes(jpeg)
    gif = save(grey(), "GIF")
    yield "gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield (
        "tiff",
        tiff(LUMA, 1, 8, "u1").replace(
            struct.pack("<HHIHH", 256, 3, 1, WIDTH, 0), struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
        ),
    )


@pytest.mark.parametrize("format", ["jpeg", "rgb jpeg", "png", "tiff", "lzw", "webp", "gif", "jp2", "bmp"])
@pytest.mark.parametrize("output_format", ["jpeg", "png"])
def test_the_size_limit_of_pillow_is_not_applied(format, output_format, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 4)
    assert read(dict(masters())[format], output_format).size == (WIDTH, HEIGHT)
    assert WIDTH * HEIGHT // 4 == Image.MAX_IMAGE_PIXELS  # unchanged for other code in this process


@pytest.mark.parametrize("bomb", [pytest.param(data, id=name) for name, data in bombs()])
def test_a_header_that_promises_gigapixels_is_refused_at_once_and_without_memory(bomb):
    tracemalloc.start()
    started = time.process_time()
    try:
        reason = refusal(bomb, max_pixels=250_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in (Reason.TOO_LARGE, Reason.UNREADABLE)
    assert time.process_time() - started < 2
    assert peak < 50e6


# Broken files


def masters():
    yield "jpeg", save(grey(), "JPEG")
    yield "progressive", save(grey(), "JPEG", progressive=True)
    yield "rgb jpeg", save(grey("RGB"), "JPEG")
    yield "png", save(grey(), "PNG")
    yield "tiff", save(grey(), "TIFF")
    yield "lzw", save(grey(), "TIFF", compression="tiff_lzw")
    yield "webp", save(grey(), "WEBP")
    yield "gif", save(grey(), "GIF")
    yield "jp2", save(grey(), "JPEG2000")
    yield "j2k", save(grey(), "JPEG2000", no_jp2=True)
    yield "bmp", save(grey(), "BMP")
    yield "tga", save(grey(), "TGA", compression="tga_rle")
    yield "pcx", save(grey(), "PCX")
    yield "pgm", save(grey(), "PPM")
    yield "sgi", save(grey(), "SGI")
    yield "dds", save(grey(), "DDS")
    yield "avif", save(grey(), "AVIF")
    yield "ico", save(grey("RGBA"), "ICO", sizes=[(42, 42)])
    yield "deflate", save(grey(), "TIFF", compression="tiff_adobe_deflate")
    yield "tiff jpeg", save(grey(), "TIFF", compression="jpeg")
    yield "fax", save(grey("1"), "TIFF", compression="group4")


MASTERS = dict(masters())


@pytest.mark.parametrize("master", MASTERS)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.99), output_format=st.sampled_from(["jpeg", "png"]))
def test_a_truncated_master_is_refused_unless_only_its_tail_without_pixels_is_missing(
    master, share, output_format
):
    data = MASTERS[master]
    result = attempt(data[: int(share * len(data))], output_format)
    if isinstance(result, Refusal):
        assert result.reason in (Reason.TRUNCATED, Reason.UNREADABLE)
    else:
        assert np.array_equal(result.guide, read(data, output_format).guide)


def test_a_jpeg_and_a_png_that_are_cut_in_half_are_called_truncated():
    for data in (MASTERS["jpeg"], MASTERS["progressive"], MASTERS["rgb jpeg"], MASTERS["png"]):
        assert refusal(data[: len(data) // 2]) == Reason.TRUNCATED


@pytest.mark.parametrize("master", MASTERS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_gives_a_scan_or_a_refusal_and_nothing_else(master, data):
    broken = bytearray(MASTERS[master])
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    result = attempt(bytes(broken), data.draw(st.sampled_from(["jpeg", "png"])), max_pixels=10**6)
    assert result.detail if isinstance(result, Refusal) else result.guide.dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(data=st.data(), output_format=st.sampled_from(["jpeg", "png"]))
def test_a_png_whose_pixels_cannot_be_decoded_is_refused(data, output_format):
    # Pillow decodes the file twice, first to find EXIF. The second time, a failed decoder raises no error.
    broken = bytearray(MASTERS["png"])
    at = data.draw(st.integers(broken.index(b"IDAT") + 8, broken.index(b"IEND") - 13))
    broken[at] ^= data.draw(st.integers(1, 255))
    try:
        Image.open(io.BytesIO(broken)).load()
    except OSError:
        assert isinstance(attempt(bytes(broken), output_format), Refusal)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda tail: b"\xff\xd8\xff" + tail)
    | st.binary(max_size=100).map(lambda tail: b"II*\0\x08\0\0\0" + tail)
)
def test_random_bytes_are_refused(data):
    with pytest.raises(Refusal):
        read(data)


# The guide


@pytest.mark.parametrize(
    ("width", "height", "guide"),
    [
        (400, 300, (400, 300)),
        (1023, 500, (1023, 500)),
        (1024, 700, (512, 350)),
        (2047, 1401, (1024, 701)),
        (2049, 1537, (513, 385)),
        (5000, 3001, (1250, 751)),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_guide_of_a_large_scan_has_a_half_or_a_quarter_of_its_sides(width, height, guide, format):
    scan = read(save(Image.new("L", (width, height), 99), format), "jpeg")
    assert scan.guide.shape == guide[::-1]
    assert (scan.guide == 99).all()


# Reading colours


def color(width=300, height=200):
    """A smooth RGB picture without symmetry."""
    y, x = np.mgrid[:height, :width] / height
    levels = [40 + 140 * y, 60 + 90 * x * (1 - x / 2), 200 - 150 * y * x]
    return Image.fromarray(np.uint8(np.clip(np.stack(levels, axis=-1), 0, 255)))


def in_color(data, side=256, min_side=16):
    return read_color(data, max_pixels=10**7, min_side=min_side, side=side)


def near(rgb, expected, tolerance=1.5):
    return np.abs(np.float32(rgb) - np.float32(expected)).mean() < tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colours_are_read_upright_once(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = color()
    data = save(
        image, format, exif=exif, **{"JPEG": {"quality": 98}, "WEBP": {"lossless": True}}.get(format, {})
    )
    expected = upright(np.asarray(image), orientation)
    found = in_color(data)
    assert found.size == expected.shape[1::-1]
    assert near(found.rgb, expected)


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA"])
def test_colours_of_any_mode_are_read_as_rgb_and_the_mode_is_told(mode):
    image = color().convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else color().convert(mode)
    found = in_color(save(image, "PNG" if mode in ("P", "RGBA") else "TIFF"))
    assert found.mode == mode
    assert found.rgb.dtype == np.uint8
    assert near(found.rgb, color().convert("RGB"), 4)


def test_colours_are_reduced_to_the_side_by_area_also_where_a_jpeg_is_decoded_at_a_scale():
    image = color(1500, 1000)
    for data in (save(image, "JPEG", quality=95), save(image, "PNG")):
        found = in_color(data, side=100)
        assert found.size == (1500, 1000)
        assert found.rgb.shape == (100, 150, 3)
        assert near(found.rgb, image.resize((150, 100), Image.Resampling.BOX))


def test_colours_are_never_enlarged():
    assert in_color(save(color(60, 40), "PNG"), side=256).rgb.shape == (40, 60, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_pixels_without_colour_are_refused_as_grey(mode):
    with pytest.raises(Refusal) as refusal:
        in_color(save(color().convert("I" if mode == "I;16" else mode), "PNG"))
    assert refusal.value.reason == Reason.GREY


@pytest.mark.parametrize(("side", "reason"), [(200, None), (201, Reason.TOO_SMALL)])
def test_the_shorter_side_must_have_as_many_pixels_as_asked_for(side, reason):
    data = save(color(300, 200), "JPEG")
    if reason is None:
        assert in_color(data, min_side=side).size == (300, 200)
        return
    with pytest.raises(Refusal) as refusal:
        in_color(data, min_side=side)
    assert refusal.value.reason == reason


def test_a_truncated_picture_has_no_colours():
    data = save(color(), "JPEG")
    with pytest.raises(Refusal) as refusal:
        in_color(data[: len(data) // 2])
    assert refusal.value.reason == Reason.TRUNCATED
