"""Derivatives in every format: their pixels, their depth, their structure, read back by programs of others."""

import io
import itertools
import mmap
import shutil
import struct
import subprocess
import tempfile
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from jpylyzer import jpylyzer
from PIL import Image

from model.color.srgb import encoded
from pipeline.encoding import jp2, png, tiff, webp
from pipeline.imaging import icc
from pipeline.imaging.icc import srgb_profile
from pipeline.imaging.scan import read_scan
from pipeline.metadata import embedded
from pipeline.metadata.embedded import Carried
from pipeline.records.record import Reason, Refusal
from tests.pipeline.imaging.test_scan import WIDE_RGB
from tests.pipeline.metadata.test_embedded import derive, photograph, save

PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
WEIGHTS = np.array([0.299, 0.587, 0.114])
NOTHING = Carried(dpi=(300.0, 400.0))


def picture(depth=8, size=(301, 203)):
    """RGB [H, W, 3] of uint8 or uint16, smooth and with some noise."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / a + y / b) for a, b in ((30, 50), (45, 21), (17, 80))]
    levels = np.stack(planes, -1) + np.random.default_rng(0).normal(0, 3, (height, width, 3))
    whole = np.clip(levels, 0, 255) * (257 if depth == 16 else 1)
    return whole.astype(np.uint16 if depth == 16 else np.uint8)


def vips(data):
    return pyvips.Image.new_from_buffer(data, "").numpy()


def samples(data):
    """Pixels by libvips, or by OpenJPEG for JPEG 2000, which the packaged libvips does not read."""
    return imagecodecs.jpeg2k_decode(data) if data[4:8] == b"jP  " else vips(data)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_is_lossless_and_has_profile_and_resolution(depth):
    rgb = picture(depth)
    data = png.encode(rgb, NOTHING, PACKET)
    assert np.array_equal(vips(data), rgb)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1], rgb)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == srgb_profile()
        assert image.info["dpi"] == pytest.approx((300, 400), abs=0.02)
        assert image.info["xmp"] == PACKET


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_is_lossless_in_the_byte_order_of_its_master(depth, compression, order):
    rgb = picture(depth)
    exif = embedded.carry(embedded.Metadata(order=order), format="tiff", size=(301, 203), orientation=1).exif
    data = tiff.encode(rgb, Carried(exif=exif), PACKET, compression)
    assert data[:2] == {"<": b"II", ">": b"MM"}[order]
    assert np.array_equal(vips(data), rgb)
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), rgb)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (page,) = file.pages
        assert page.tags["XMP"].value == PACKET and page.iccprofile == srgb_profile()


def test_an_uncompressed_tiff_is_as_large_as_its_pixels():
    rgb = picture()
    assert len(tiff.encode(rgb, NOTHING, PACKET, "none")) < rgb.nbytes + 3000


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
@pytest.mark.parametrize("kind", ["tiff", "ptif"])
def test_a_large_picture_gives_the_same_bytes_by_bands_from_a_file(monkeypatch, kind, compression, depth):
    rgb = picture(depth, size=(611, 1307))

    def encoded():
        if kind == "tiff":
            return tiff.encode(rgb, NOTHING, PACKET, compression)
        return tiff.encode_pyramid(rgb, NOTHING, PACKET, compression, 90)

    whole = encoded()
    monkeypatch.setattr(tiff, "_BAND", 1)
    monkeypatch.setattr(tiff, "_STRIP", rgb[0].nbytes * 100)
    by_bands = encoded()
    monkeypatch.setattr(tiff, "_IN_MEMORY", 1)
    mapped = encoded()
    assert isinstance(mapped, mmap.mmap) and bytes(mapped) == by_bands
    assert np.array_equal(vips(by_bands), vips(whole)) and np.array_equal(vips(by_bands), rgb)
    if kind == "ptif":
        assert by_bands == whole
        with tifffile.TiffFile(io.BytesIO(by_bands)) as file:
            assert [page.shape[:2] for page in file.pages] == [(1307, 611), (654, 306), (327, 153), (164, 77)]


def test_no_room_for_temporary_files_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tiff, "_IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="TMPDIR"):
        tiff.encode(picture(), NOTHING, PACKET, "lzw")


@pytest.mark.parametrize(("compression", "depth"), [("jpeg", 8), ("lzw", 8), ("deflate", 16), ("none", 8)])
def test_a_pyramid_has_the_picture_in_tiles_and_halves_of_it(compression, depth):
    rgb = picture(depth, (1100, 700))
    data = tiff.encode_pyramid(rgb, NOTHING, PACKET, compression, 95)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        sizes = [(page.imagewidth, page.imagelength) for page in file.pages]
        assert sizes == [(1100, 700), (550, 350), (275, 175), (138, 88)]
        assert all((page.tilewidth, page.tilelength) == (256, 256) for page in file.pages)
        assert [page.subfiletype for page in file.pages] == [0, 1, 1, 1]
        assert file.pages[0].tags["XMP"].value == PACKET
    levels = [pyvips.Image.new_from_buffer(data, "", page=page).numpy() for page in range(4)]
    if compression == "jpeg":
        assert np.abs(levels[0].astype(int) - rgb).mean() < 3
    else:
        assert np.array_equal(levels[0], rgb)
    half = cv2.resize(rgb, (550, 350), interpolation=cv2.INTER_AREA)
    assert np.abs(levels[1].astype(int) - half).mean() < (3 if compression == "jpeg" else 1)


def test_libtiff_finds_no_fault_in_a_pyramid(tmp_path):
    if not shutil.which("tiffinfo"):
        pytest.skip("tiffinfo is missing: apt-get install libtiff-tools")
    path = tmp_path / "pyramid.tif"
    path.write_bytes(tiff.encode_pyramid(picture(size=(700, 600)), NOTHING, PACKET, "jpeg", 90))
    told = subprocess.run(["tiffinfo", str(path)], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert told.stdout.count("TIFF Directory at offset") == 3


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("quality", [90, 100])
def test_a_jp2_is_valid_and_lossless_at_quality_100(tmp_path, depth, quality):
    rgb = picture(depth)
    data = jp2.encode(rgb, NOTHING, PACKET, quality)
    path = tmp_path / "a.jp2"
    path.write_bytes(data)
    assert jpylyzer.checkOneFile(str(path)).findtext("isValid") == "True"
    found = imagecodecs.jpeg2k_decode(data)
    assert found.dtype == rgb.dtype
    error = np.abs(found.astype(int) - rgb).mean() / (257 if depth == 16 else 1)
    assert error == 0 if quality == 100 else 0 < error < 2
    said = embedded.read(data)
    assert said.dpi == pytest.approx((300, 400), abs=0.5)
    assert embedded.packet(data) == PACKET


@pytest.mark.parametrize("dpi", [(72, 72), (300, 1200), (4800, 4800), (25_400.5, 12.7)])
def test_the_resolution_of_a_jp2_is_exact_to_a_thousandth(dpi):
    data = jp2.encode(picture(size=(64, 64)), Carried(dpi=dpi), PACKET, 100)
    assert embedded.read(data).dpi == pytest.approx(dpi, rel=1e-3)


@pytest.mark.parametrize("quality", [80, 100])
def test_a_webp_has_profile_and_packet_and_is_lossless_at_quality_100(quality):
    rgb = picture()
    data = webp.encode(rgb, NOTHING, PACKET, quality)
    error = np.abs(vips(data)[..., :3].astype(int) - rgb).mean()
    assert error == 0 if quality == 100 else 0 < error < 6
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == srgb_profile() and image.info["xmp"] == PACKET


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_master_of_16_bits_gives_a_derivative_with_its_luma_to_a_level(kind, format):
    grey = np.asarray(photograph().resize((240, 180))).astype(np.uint16) * 257
    grey += np.random.default_rng(0).integers(0, 200, grey.shape, np.uint16) & ~np.uint16(0)
    buffer = io.BytesIO()
    if kind == "png":
        buffer.write(cv2.imencode(".png", grey)[1])
    else:
        tifffile.imwrite(buffer, grey)
    derivative, _ = derive(buffer.getvalue(), format)
    found = vips(derivative)
    assert found.dtype == np.uint16
    assert np.ptp(found.astype(int), axis=-1).mean() > 500, "it has colour"
    assert np.abs(found @ WEIGHTS - grey).mean() < 1


def deep_master(kind, luma, tint=(1, 1, 1), **options):
    """A master of 48 bits per pixel."""
    rgb = np.stack([np.rint(luma * share) for share in tint], -1).astype(np.uint16)
    if kind == "png":
        return png.encode(rgb, NOTHING, PACKET) if not options else imagecodecs.png_encode(rgb)
    if kind == "jp2":
        return jp2.encode(rgb, NOTHING, PACKET, 100)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, rgb, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def deep_grey(size=(240, 180)):
    grey = np.asarray(photograph().resize(size)).astype(np.uint16) * 257
    return np.minimum(grey.astype(int) + np.random.default_rng(0).integers(0, 200, grey.shape), 65535)


@pytest.mark.parametrize("format", ["png", "tiff", "jp2"])
@pytest.mark.parametrize("kind", ["png", "tiff", "jp2"])
@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.94, 0.85)], ids=["grey", "sepia"])
def test_an_rgb_master_of_16_bits_gives_a_derivative_with_its_luma_to_a_level(kind, format, tint):
    source = deep_master(kind, deep_grey(), tint)
    luma = samples(source).astype(float) @ WEIGHTS
    derivative, _ = derive(source, format, quality=100)
    found = samples(derivative)
    assert found.dtype == np.uint16
    assert np.ptp(found.astype(int), axis=-1).mean() > 500, "it has colour"
    assert np.abs(found @ WEIGHTS - luma).mean() < 1
    assert np.unique(found.astype(int) @ [1, 1, 1] % 257).size > 100, "it has more than 8 bits"


def with_opacity(kind, luma, opacity, channels):
    """A master of 16 bits per sample with opacity; in a TIFF it is the last channel, straight or premultiplied."""
    color = luma * opacity / 65535 if kind == "premultiplied" else luma
    pixels = np.rint(np.stack([color] * channels + [opacity], -1)).astype(np.uint16)
    if kind == "png":
        return imagecodecs.png_encode(pixels)
    buffer, alpha = io.BytesIO(), "assocalpha" if kind == "premultiplied" else "unassalpha"
    space = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite(
        buffer, pixels, photometric=space, planarconfig="contig", extrasamples=[alpha], metadata=None
    )
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "straight", "premultiplied"])
def test_a_master_of_16_bits_with_opacity_is_put_on_white_with_all_its_bits(kind, channels):
    luma, opacity = deep_grey(), np.full((180, 240), 65535)
    opacity[:, 80:160], opacity[:, 160:] = 30_011, 0
    source = with_opacity(kind, luma, opacity, channels)
    wanted = 65535 - (65535 - luma) * (opacity / 65535)
    scan = read_scan(source, output_format="tiff", max_pixels=10**7)
    found = samples(derive(source, "tiff")[0])
    assert found.dtype == np.uint16 and "transparent parts were made white" in scan.note
    assert np.abs(found @ WEIGHTS - wanted)[:, :160].mean() < 1
    assert (scan.deep[:, 160:] == 65535).all()
    assert np.abs(scan.deep / 257 - scan.luma).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_an_opaque_master_of_16_bits_with_opacity_keeps_its_levels(channels):
    luma = deep_grey()
    source = with_opacity("png", luma, np.full_like(luma, 65535), channels)
    assert np.array_equal(read_scan(source, output_format="png", max_pixels=10**7).deep, luma)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_the_profile_of_an_rgb_master_of_16_bits_is_applied(kind):
    grey = deep_grey()
    source = deep_master(
        kind, grey, (1, 0.97, 0.94), **({"iccprofile": WIDE_RGB} if kind == "tiff" else {"bare": True})
    )
    if kind == "png":
        chunk = b"iCCPwide\0\0" + zlib.compress(WIDE_RGB)
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        source = source[:33] + chunk + source[33:]
    scan = read_scan(source, output_format="tiff", max_pixels=10**7)
    with Image.open(
        io.BytesIO(source if kind == "png" else deep_master("tiff", grey, (1, 0.97, 0.94)))
    ) as image:
        shown = icc.to_srgb(image.convert("RGB"), WIDE_RGB, [])
    assert np.abs(scan.deep / 257 - np.asarray(shown) @ WEIGHTS).mean() < 0.5
    assert np.abs(scan.deep / 257 - scan.luma).max() <= 0.51


@pytest.mark.parametrize("opacity", [False, True])
def test_a_gamma_of_a_png_of_16_bits_is_applied(opacity):
    source = deep_master("png", deep_grey(), bare=True)
    if opacity:
        source = with_opacity("png", deep_grey(), np.full((180, 240), 65535), 1)
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    linear = source[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + source[33:]
    scan = read_scan(linear, output_format="png", max_pixels=10**7)
    assert np.abs(scan.deep / 65535 - encoded(deep_grey() / 65535)).mean() < 0.001


def test_an_orientation_of_an_rgb_tiff_of_16_bits_is_applied_to_all_its_bits():
    source = deep_master("tiff", deep_grey(), extratags=[(274, 3, 1, 6, False)])
    scan = read_scan(source, output_format="tiff", max_pixels=10**7)
    assert np.abs(scan.deep.astype(int) - np.rot90(deep_grey(), -1)).max() <= 1


def cmyk_profile():
    """An ICC profile of inks: L* falls with black, and with the mean of the colours."""
    table = bytes(
        channel
        for inks in itertools.product((0, 1), repeat=4)  # the last one, black, varies fastest
        for channel in (round(255 * (1 - inks[3]) * (1 - sum(inks[:3]) / 3)), 128, 128)
    )
    identity = struct.pack(">9i", *[65536 if index % 4 == 0 else 0 for index in range(9)])
    ramps = bytes(range(256)) * 4, bytes(range(256)) * 3
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramps[0] + table + ramps[1]
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)  # D50
    parts = {b"desc": text, b"wtpt": white, b"A2B0": lut}
    entries, body, start = b"", b"", 128 + 4 + 12 * len(parts)
    for name, part in parts.items():
        part += bytes(-len(part) % 4)
        entries += name + struct.pack(">II", start + len(body), len(part))
        body += part
    head = struct.pack(
        ">I4sI4s4s4s12s4s",
        start + len(body),
        b"lcms",
        0x2100000,
        b"prtr",
        b"CMYK",
        b"Lab ",
        bytes(12),
        b"acsp",
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(parts)) + entries + body


def inked(luma, black_only):
    """CMYK uint16 [H, W, 4] with this luma, all in black or half of it in the three colours."""
    if black_only:
        return np.stack([np.zeros_like(luma)] * 3 + [65535 - luma], -1).astype(np.uint16)
    share = np.sqrt(luma / 65535)
    return np.rint(65535 * (1 - np.stack([share] * 4, -1))).astype(np.uint16)


@pytest.mark.parametrize("black_only", [True, False])
def test_a_cmyk_master_of_16_bits_gives_a_derivative_with_its_luma_to_a_level(black_only):
    buffer, luma = io.BytesIO(), deep_grey()
    tifffile.imwrite(buffer, inked(luma, black_only), photometric="separated", metadata=None)
    found = samples(derive(buffer.getvalue(), "tiff")[0])
    assert found.dtype == np.uint16
    assert np.abs(found @ WEIGHTS - luma).mean() < 1


def test_the_profile_of_a_cmyk_master_of_16_bits_is_applied():
    buffer = io.BytesIO()
    pixels = inked(deep_grey(), True)
    tifffile.imwrite(buffer, pixels, photometric="separated", metadata=None, iccprofile=cmyk_profile())
    scan = read_scan(buffer.getvalue(), output_format="tiff", max_pixels=10**7)
    shown = icc.to_srgb(Image.fromarray((pixels // 257).astype(np.uint8), "CMYK"), cmyk_profile(), [])
    assert "ICC" not in scan.note
    assert np.abs(scan.deep / 257 - np.asarray(shown) @ WEIGHTS).mean() < 1
    light = deep_grey() / 65535 * 100
    cube = np.where(light > 8, ((light + 16) / 116) ** 3, light / 903.3)
    assert np.abs(scan.deep / 65535 - encoded(cube)).mean() < 0.002


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_a_lab_master_of_16_bits_gives_a_derivative_with_its_luma_to_a_level(photometric):
    buffer, luma = io.BytesIO(), deep_grey()
    linear = linearized(luma / 65535)
    light = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
    white, zero = (65280, 0x8000) if photometric == "icclab" else (65535, 0)
    pixels = np.stack([np.rint(light / 100 * white), *[np.full(luma.shape, zero)] * 2], -1).astype(np.uint16)
    tifffile.imwrite(buffer, pixels, photometric=photometric, metadata=None)
    found = samples(derive(buffer.getvalue(), "tiff")[0])
    assert found.dtype == np.uint16
    assert np.abs(found @ WEIGHTS - luma).mean() < 1


def linearized(levels):
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def test_colour_of_16_bits_is_refused():
    source = deep_master("tiff", deep_grey(), (1, 0.5, 0.2))
    rgb = vips(source)
    rgb[:90] = rgb[:90, :, ::-1]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, rgb, photometric="rgb", metadata=None)
    with pytest.raises(Refusal) as refusal:
        read_scan(buffer.getvalue(), output_format="tiff", max_pixels=10**7)
    assert refusal.value.reason == Reason.ALREADY_COLOR


@pytest.mark.parametrize("format", ["jpeg", "webp", "ptif"])
def test_formats_of_8_bits_take_masters_of_16(format):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(photograph()).astype(np.uint16) * 257)
    derivative, _ = derive(buffer.getvalue(), format)
    with Image.open(io.BytesIO(derivative)) as image:
        assert image.mode == "RGB" and image.size == photograph().size


def test_a_side_too_long_for_a_webp_is_refused_with_words():
    wide = save(Image.new("L", (16_384, 16), 90), "PNG")
    with pytest.raises(Refusal) as refusal:
        read_scan(wide, output_format="webp", max_pixels=10**8)
    assert refusal.value.reason == Reason.TOO_LARGE and "--format png or tiff" in refusal.value.detail
