"""Derivatives: the scan in colour, with the size, luma and metadata of the scan."""

import io
import json
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from skimage import data

from pipeline.imaging import chroma
from pipeline.imaging.derivative import compose, encode, paint
from pipeline.imaging.icc import srgb_profile
from pipeline.imaging.layout import WHOLE
from pipeline.imaging.scan import from_image, read_scan
from pipeline.metadata import embedded, provenance
from pipeline.metadata.orientation import upright
from pipeline.records.record import Record

SIDE = 64
RECORD = Record("market.tif", "box/market.tif", model="fusion", model_version="1.0")
XMP = provenance.packet(RECORD)
FORMATS = ["jpeg", "png", "tiff"]
SIZES = [(16, 16), (17, 23), (64, 33), (161, 128), (400, 90), (1025, 700)]


def photograph(width=161, height=128):
    picture = Image.fromarray(data.astronaut()).convert("L").resize((width, height), Image.Resampling.BICUBIC)
    return picture


def save(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def master(format="PNG", size=(161, 128), **options):
    return save(photograph(*size), format, **options)


def random_tiles(seed, count, amplitude):
    rng = np.random.default_rng(seed)
    return np.float16(rng.uniform(-amplitude, amplitude, (count, SIDE, SIDE, 2)))


def smooth_tiles(count, amplitude=30):
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    tile = amplitude * np.stack([np.sin(5 * x + 2 * y), np.cos(4 * y - 3 * x)], -1)
    return np.float16(np.broadcast_to(tile, (count, *tile.shape)))


def colorize(scan, tiles=None, format="png", quality=90, xmp=XMP, strength=1.0):
    canvas, seen = chroma.view(np.ascontiguousarray(upright(scan.guide, scan.orientation)), SIDE)
    tiles = smooth_tiles(len(seen)) if tiles is None else tiles[: len(seen)]
    model, _ = paint(scan, [(WHOLE, canvas)], tiles, strength)
    return encode(scan, model, format=format, quality=quality, packet=xmp)


def derivative(source, output_format="png", **options):
    scan = read_scan(source, output_format=output_format, max_pixels=10**8)
    return colorize(scan, format=output_format, **options)


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def grey(data, mode="L"):
    return np.asarray(opened(data).convert(mode)).astype(int)


def coded_luma(jpeg):
    """The Y' component of a JPEG."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", image.size)
    return np.asarray(image).astype(int)


def exiftool(data):
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is missing: apt-get install libimage-exiftool-perl")
    run = subprocess.run(["exiftool", "-j", "-G1", "-n", "-"], input=data, capture_output=True, check=True)
    (tags,) = json.loads(run.stdout)
    assert "ExifTool:Error" not in tags, tags
    assert "ExifTool:Warning" not in tags, tags
    return tags


# Luma


@pytest.mark.parametrize("format", ["png", "tiff"])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), amplitude=st.sampled_from([5, 30, 128]), size=st.sampled_from(SIZES))
def test_a_lossless_derivative_has_the_luma_of_the_scan(format, seed, amplitude, size):
    scan = from_image(photograph(*size))
    result = grey(colorize(scan, random_tiles(seed, 9, amplitude), format))
    difference = np.abs(result - scan.luma)
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_luma_is_kept_at_every_level_and_hue_of_the_gamuts_very_edge():
    ramp = Image.fromarray(np.broadcast_to(np.uint8(np.arange(256)), (64, 256)).copy())
    scan = from_image(ramp)
    hue = np.linspace(0, 2 * np.pi, SIDE)[:, None] + np.zeros(SIDE)
    tiles = np.float16(128 * np.stack([np.cos(hue), np.sin(hue)], -1))[None]
    difference = np.abs(grey(colorize(scan, np.repeat(tiles, 9, 0))) - scan.luma)
    assert difference.max() <= 2
    assert difference.mean() < 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("tiles", ["smooth", "extreme"])
def test_a_grafted_jpeg_has_the_luma_of_the_master_in_every_pixel(size, options, tiles):
    source = master("JPEG", size, quality=85, **options)
    result = derivative(source, "jpeg", tiles=random_tiles(1, 9, 128) if tiles == "extreme" else None)
    assert np.array_equal(coded_luma(result), grey(source))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_of_a_colour_jpeg_that_is_grey_has_the_luma_of_the_master_in_every_pixel(sampling, options):
    source = save(photograph(161, 128).convert("RGB"), "JPEG", quality=85, subsampling=sampling, **options)
    assert np.array_equal(coded_luma(derivative(source, "jpeg")), coded_luma(source))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "CMYK JPEG"])
@pytest.mark.parametrize("quality", [60, 90, 97])
@pytest.mark.parametrize("amplitude", [30, 128])
def test_the_luma_drift_of_a_composed_jpeg_is_at_most_that_of_a_grey_jpeg_and_half_a_level(
    format, quality, amplitude
):
    size = (400, 300)
    if format == "CMYK JPEG":
        source = save(photograph(*size).convert("CMYK"), "JPEG", quality=95)
    else:
        source = master(format, size)
    scan = read_scan(source, output_format="jpeg", max_pixels=10**8)
    result = colorize(scan, smooth_tiles(1, amplitude), "jpeg", quality)
    again = save(Image.fromarray(scan.luma), "JPEG", quality=quality)
    unavoidable = np.abs(grey(again) - scan.luma).mean()
    assert np.abs(grey(result) - scan.luma).mean() <= unavoidable + 0.5


# Colour


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("color", [(30, 20), (-25, 25), (5, -35)])
def test_a_derivative_has_the_colour_of_the_network(format, source_format, color):
    from skimage.color import rgb2lab

    source = save(Image.new("L", (150, 120), 140), source_format)
    tiles = np.float16(np.broadcast_to(color, (1, SIDE, SIDE, 2)))
    rgb = np.asarray(opened(derivative(source, format, tiles=tiles)).convert("RGB"))
    assert np.abs(rgb2lab(rgb)[..., 1:].mean((0, 1)) - color).max() < 1.5


@pytest.mark.parametrize("format", FORMATS)
def test_no_strength_gives_grey(format):
    rgb = grey(derivative(master(), format, strength=0.0), "RGB")
    assert np.ptp(rgb, axis=-1).max() <= (0 if format != "jpeg" else 1)


def test_colorfulness_is_that_of_the_derivative():
    scan = from_image(photograph(300, 300))
    canvas, _ = chroma.view(scan.guide, SIDE)
    model, colorfulness = paint(scan, [(WHOLE, canvas)], smooth_tiles(1), 1.0)
    assert colorfulness == pytest.approx(chroma.colorfulness(np.asarray(compose(scan, model))), rel=0.1)


@pytest.mark.parametrize("source_format", ["JPEG", "PNG"])
def test_the_formats_show_the_same_picture(source_format):
    source = master(source_format, (700, 500))
    jpeg, png, tiff = (grey(derivative(source, format, quality=97), "RGB") for format in FORMATS)
    assert np.array_equal(png, tiff)
    assert np.abs(jpeg - png).mean() < 3


# Shape


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [*SIZES, (16, 200)])
def test_a_derivative_has_the_scans_size(format, source_format, size):
    image = opened(derivative(master(source_format, size), format))
    assert image.size == size
    assert image.mode == "RGB"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format, source_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = master(source_format, (90, 70), exif=exif)
    scan = read_scan(source, output_format=format, max_pixels=10**8)
    y = np.mgrid[:SIDE, :SIDE][0] / SIDE
    tiles = np.float16(np.stack([60 * y - 30, 0 * y], -1))[None]  # green at the top, red at the bottom
    shown = ImageOps.exif_transpose(opened(colorize(scan, tiles, format)))
    truth = ImageOps.exif_transpose(opened(source)).convert("L")
    assert shown.size == truth.size == scan.size
    assert np.abs(np.asarray(shown.convert("L")).astype(int) - np.asarray(truth)).mean() < 4
    rgb = np.asarray(shown).astype(int)
    redness = (rgb[..., 0] - rgb[..., 1]).mean(1)
    assert redness[: len(redness) // 4].mean() < -5
    assert redness[-len(redness) // 4 :].mean() > 5


def test_compose_is_the_derivative_as_a_person_sees_it():
    scan = from_image(photograph(300, 200))
    canvas, tiles = chroma.view(scan.guide, SIDE)
    model, _ = paint(scan, [(WHOLE, canvas)], smooth_tiles(len(tiles)), 1.0)
    written = encode(scan, model, format="png", quality=90, packet=XMP)
    assert np.array_equal(np.asarray(compose(scan, model)), np.asarray(opened(written)))


# Metadata


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG", "TIFF"])
def test_a_derivative_is_srgb_with_the_masters_resolution_and_description(format, source_format):
    exif = Image.Exif()
    exif[270], exif[33432], exif[0x0112] = "Market, 1931", "City archive", 6
    source = master(source_format, exif=exif, dpi=(300, 300))
    tags = exiftool(derivative(source, format))
    assert tags["IFD0:ImageDescription"] == "Market, 1931"
    assert tags["IFD0:Copyright"] == "City archive"
    assert tags["ICC_Profile:ProfileDescription"].startswith("sRGB")
    resolution = (
        tags.get("JFIF:XResolution")
        or tags.get("PNG-pHYs:PixelsPerUnitX", 0) * 0.0254
        or tags["IFD0:XResolution"]
    )
    assert resolution == pytest.approx(300, rel=1e-3)
    grafted = (source_format, format) == ("JPEG", "jpeg")
    assert tags.get("IFD0:Orientation", 1) == (6 if grafted else 1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG"])
def test_exiftool_reads_the_record(format, source_format):
    tags = exiftool(derivative(master(source_format), format))
    assert tags["XMP-iptcExt:DigitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert tags["XMP-xmp:CreatorTool"] == "archive-colorize: fusion 1.0"


MASTERS_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:rights><rdf:Alt>
<rdf:li xml:lang="x-default">CC0</rdf:li></rdf:Alt></dc:rights></rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "TIFF", "WEBP"])
def test_the_masters_own_statements_are_kept_and_the_record_stands_beside_them(format, source_format):
    options = {"tiffinfo": {700: MASTERS_XMP}} if source_format == "TIFF" else {"xmp": MASTERS_XMP}
    source = master(source_format, **options)
    scan = read_scan(source, output_format=format, max_pixels=10**8)
    tags = exiftool(colorize(scan, format=format, xmp=provenance.packet(RECORD, scan.carried.xmp)))
    assert tags["XMP-dc:Rights"] == "CC0"
    assert tags["XMP-xmp:CreatorTool"] == "archive-colorize: fusion 1.0"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG"])
def test_the_record_is_read_back_from_the_file(format, source_format):
    packet = embedded.packet(derivative(master(source_format), format))
    assert provenance.read_packet(packet) == RECORD.replace(source=RECORD.key)


def test_the_profile_is_one_that_little_cms_takes_and_does_not_change():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert opened(derivative(master(), "png")).info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source_format", ["JPEG", "PNG", "TIFF"])
def test_the_same_work_gives_the_same_bytes(format, source_format):
    exif = Image.Exif()
    exif[270] = "Market"
    source = master(source_format, (300, 200), exif=exif, dpi=(300, 300))
    assert derivative(source, format) == derivative(source, format)


@pytest.mark.parametrize("size", [(20_000, 16), (16, 600)])
def test_blocks_meet_without_a_seam(monkeypatch, size):
    scan = read_scan(save(photograph(*size), "PNG"), output_format="png", max_pixels=10**7)
    model = np.float32(np.random.default_rng(0).normal(0, [0.1, 20, 0.1, 20], (12, 40, 4)))
    cut = encode(scan, model, format="png", quality=90, packet=XMP)
    monkeypatch.setattr("pipeline.imaging.derivative.COLUMNS", 10**6)
    monkeypatch.setattr("pipeline.imaging.derivative.BAND", 10**6)
    assert encode(scan, model, format="png", quality=90, packet=XMP) == cut


def test_a_wide_pictures_floats_are_never_in_memory_at_once():
    width, height = 400_000, 16
    scan = read_scan(save(photograph(width, height), "PNG"), output_format="png", max_pixels=10**7)
    model = np.zeros((height, width // 16, 4), np.float32)
    tracemalloc.start()
    encode(scan, model, format="png", quality=90, packet=XMP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * width * height
