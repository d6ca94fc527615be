"""The luma of a JPEG in luma and chroma is kept to the last coefficient, whatever its coding."""

import io

import cv2
import jpegtran  # noqa: F401  # where it is missing, these promises do not hold
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from pipeline.imaging import graft, luminance, recovery
from pipeline.imaging.grey import color_spread
from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal
from tests.pipeline.imaging.test_graft import ADOBE, MODES, SIZES, inserted, opened, pixels, scan, tool
from tests.pipeline.imaging.test_recovery import derivative

SAMPLINGS = ["4:4:4", "4:2:2", "4:2:0", "4:1:1"]


def photograph(width, height):
    return Image.fromarray(data.astronaut()).convert("L").resize((width, height), Image.Resampling.BICUBIC)


def save(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def master(width=131, height=64, **options):
    """A JPEG of three components with empty chroma, as scanners write it."""
    if "qtables" in options:
        options |= {"qtables": options["qtables"] * 2}
    return save(photograph(width, height).convert("RGB"), **options)


def neutral(jpeg):
    """The JPEG with neutral chroma instead of its own, and a scan for each component."""
    parsed = luminance.parse(jpeg)
    plane = np.full(parsed.chroma_shape, 128, np.uint8)
    return graft.graft(parsed, plane, plane, quality=90, segments=[])


def tinted(size=(400, 300)):
    """A sepia print, whose chroma follows its lightness."""
    grey = np.asarray(photograph(*size), np.float32)
    return Image.fromarray(
        np.stack([grey, 0.9 * grey + 3, 0.75 * grey + 5], -1).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_luma_is_the_masters_in_every_pixel(size, sampling, mode):
    source = master(*size, subsampling=sampling, **MODES[mode])
    result = neutral(source)
    assert np.array_equal(pixels(result, "L"), pixels(source, "L"))
    grey = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(grey, pixels(source, "L"))
    assert opened(result).quantization[0] == opened(source).quantization[0]


@pytest.mark.parametrize("mode", MODES)
def test_jpegtran_sees_the_masters_coefficients(mode):
    source = master(**MODES[mode])
    restored = tool("jpegtran", "-grayscale", "-optimize", stdin=neutral(source))
    assert restored == tool("jpegtran", "-grayscale", "-optimize", "-copy", "none", stdin=source)


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    quality=st.integers(1, 100),
    progressive=st.booleans(),
    restart_marker_blocks=st.integers(0, 4),
    subsampling=st.sampled_from(SAMPLINGS),
    seed=st.integers(0, 99),
)
def test_chroma_that_is_not_empty_does_not_change_the_luma(width, height, seed, **options):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    source = save(Image.fromarray(noise), **options)
    assert np.array_equal(pixels(neutral(source), "L"), pixels(source, "L"))


def test_a_luma_with_scans_of_its_own_is_the_masters_bytes():
    source = neutral(master())
    parsed = luminance.parse(source)
    assert not parsed.recoded
    assert all(b"".join(segment) in source for segment in graft.coding(parsed, 1))


def test_metadata_and_density_are_carried():
    others = b"\xff\xea\x00\x08photo7"
    source = inserted(master(dpi=(300, 300), comment=b"plate 7"), others)
    parsed = luminance.parse(source)
    assert {others, *graft.comment(b"plate 7")} <= set(parsed.carried)
    assert opened(graft.alone(parsed)).info["dpi"] == (300, 300)


def test_an_adobe_marker_of_luma_and_chroma_is_not_carried():
    source = inserted(master(), ADOBE[:-1] + b"\1")
    scan = read_scan(source, output_format="jpeg", max_pixels=10**6)
    assert scan.jpeg is not None and not any(s.startswith(ADOBE[:2]) for s in scan.jpeg.carried)


@pytest.mark.parametrize("luma_and_chroma", [True, False])
def test_without_a_marker_the_ids_of_the_components_count(luma_and_chroma):
    """The files of cameras have no JFIF header."""
    source = master(keep_rgb=not luma_and_chroma)
    bare = source[:2] + source[4 + int.from_bytes(source[4:6], "big") :]
    assert not {"jfif", "adobe_transform"} & opened(bare).info.keys()
    assert np.array_equal(pixels(bare, "RGB"), pixels(source, "RGB"))
    assert (read_scan(bare, output_format="jpeg", max_pixels=10**6).jpeg is not None) == luma_and_chroma


def test_a_tint_is_left_out_and_the_luma_stays():
    source = save(tinted())
    assert 0.5 < color_spread(np.asarray(opened(source))) < 3.3
    scan = read_scan(source, output_format="jpeg", max_pixels=10**6)
    assert scan.jpeg is not None and scan.luma is None
    assert np.array_equal(pixels(graft.alone(scan.jpeg)), pixels(source, "L"))


def test_the_guide_is_the_luma_reduced():
    source = save(tinted((1600, 1200)))
    guide = read_scan(source, output_format="jpeg", max_pixels=10**7).guide
    small = cv2.resize(pixels(source, "L").astype(np.uint8), guide.shape[::-1], interpolation=cv2.INTER_AREA)
    assert guide.shape == (600, 800)
    assert np.abs(guide.astype(int) - small).mean() < 1


def test_colour_is_refused_as_before():
    source = save(Image.fromarray(data.astronaut()))
    with pytest.raises(Refusal) as refusal:
        read_scan(source, output_format="jpeg", max_pixels=10**6)
    assert refusal.value.reason == Reason.ALREADY_COLOR
    assert read_scan(source, output_format="jpeg", max_pixels=10**6, colorize_color=True).jpeg is not None


@pytest.mark.parametrize(
    "source",
    [
        save(photograph(64, 64).convert("CMYK")),
        save(photograph(64, 64).convert("RGB"), keep_rgb=True),
        master().replace(
            b"\x03\x01\x22\x00\x02\x11\x01", b"\x03\x01\x11\x00\x02\x22\x01"
        ),  # luma is subsampled
    ],
    ids=["CMYK", "RGB", "subsampled luma"],
)
def test_other_jpegs_are_not_grafted(source):
    with pytest.raises(graft.NotGraftable):
        luminance.parse(source)


@pytest.mark.parametrize("stop", [50, 700, -2000, -2])
def test_a_truncated_master_is_not_grafted(stop):
    with pytest.raises(graft.NotGraftable):
        luminance.parse(master(400, 300)[:stop])


def test_without_a_coder_colour_jpegs_are_composed(monkeypatch):
    monkeypatch.setattr(luminance, "Transformation", None)
    scan = read_scan(master(), output_format="jpeg", max_pixels=10**6)
    assert scan.jpeg is None
    assert np.array_equal(scan.luma, pixels(master(), "L"))


@pytest.mark.parametrize("mode", MODES)
def test_a_master_with_separate_scans_comes_back_to_the_last_byte(mode):
    source = neutral(scan(67, 45, **MODES[mode])) + b"behind the end"
    assert recovery.recover(derivative(source)) == recovery.Recovered(source, True)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_of_a_master_with_joint_scans_the_luma_comes_back_to_the_last_coefficient(sampling):
    source = master(subsampling=sampling)
    found = recovery.recover(derivative(source))
    assert not found.exact and "luma and chroma together" in found.why
    assert np.array_equal(pixels(found.data), pixels(source, "L"))


@pytest.mark.parametrize("options", [["-arithmetic"], ["-arithmetic", "-progressive"]])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_luma_of_an_arithmetically_coded_master_is_kept(options, mode):
    ppm = io.BytesIO()
    photograph(131, 64).convert(mode).save(ppm, "PPM")
    source = tool("cjpeg", "-quality", "95", *options, stdin=ppm.getvalue())
    assert luminance.parse(source).recoded
    assert np.array_equal(pixels(neutral(source), "L"), pixels(source, "L"))
