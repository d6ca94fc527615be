"""A grey JPEG with a grey profile is grafted, and its tone curve becomes that of an RGB profile.

Little CMS converts master and derivative.
"""

import hashlib
import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data
from skimage.color import rgb2lab

from model.color.srgb import encoded
from pipeline.imaging import chroma, icc, recovery
from pipeline.imaging.derivative import encode, paint
from pipeline.imaging.layout import WHOLE
from pipeline.imaging.scan import read_scan
from pipeline.metadata import provenance
from pipeline.records.record import Record
from tests.pipeline.imaging.test_scan import GREY_DOTS, curve, profile, s15

SIDE = 64
LEVEL = np.linspace(0, 1, 256)


def para(kind, *values):
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(s15, values))


def dot_gain(gain):
    """Light by the dots of a print that grow by this share at a half (Yule-Nielsen, n = 2)."""
    dots = 1 - LEVEL
    grown = dots + 4 * gain * dots * (1 - dots)
    return (1 - grown * (1 - 0.08**0.5)) ** 2 / 0.92 - 0.08 / 0.92


PROFILES = {
    "gamma 1.8": b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(1.8 * 256), 0),
    "gamma 2.2": b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(2.2 * 256), 0),
    "linear": b"curv\0\0\0\0" + struct.pack(">I", 0),
    "table of 1.8": curve(np.linspace(0, 1, 1024) ** 1.8),
    "dot gain 15 %": curve(dot_gain(0.15)),
    "dot gain 20 %": curve(dot_gain(0.20)),
    "dot gain 30 %": curve(dot_gain(0.30)),
    "para 0": para(0, 1.8),
    "para 1": para(1, 2.0, 0.9, 0.1),
    "para 2": para(2, 2.0, 0.9, 0.08, 1 - 0.98**2),
    "para 3": para(3, 2.6, 1 / 1.1, 0.1 / 1.1, 0.05, 0.045),
    "para 4": para(4, 2.6, 1 / 1.1, 0.1 / 1.1, 0.05, 0.045, 0.0, 0.0),
}


GREY_OF_SRGB = profile(b"GRAY", {"kTRC": para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)})


@pytest.fixture(params=PROFILES)
def grey_profile(request):
    return profile(b"GRAY", {"kTRC": PROFILES[request.param]})


def save(luma, icc_profile, **options):
    buffer = io.BytesIO()
    Image.fromarray(luma).save(buffer, "JPEG", quality=92, icc_profile=icc_profile, **options)
    return buffer.getvalue()


def photograph(width=400, height=300):
    return cv2.resize(np.asarray(Image.fromarray(data.astronaut()).convert("L")), (width, height))


def opened(jpeg, mode=None):
    image = Image.open(io.BytesIO(jpeg))
    if mode:
        image.draft(mode, image.size)
    image.load()
    return image


def lab(image):
    """L*a*b* (D50) of a picture by its own profile."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    # Otherwise Little CMS interpolates between few levels of grey.
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    shown = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), intent, "RGB", flags=flags
    )
    return rgb2lab(np.asarray(shown))


def derivative(source, color):
    scan = read_scan(source, output_format="jpeg", max_pixels=10**7)
    canvas, tiles = chroma.view(scan.guide, SIDE)
    ab = np.float16(np.broadcast_to(color, (len(tiles), SIDE, SIDE, 2)))
    model, _ = paint(scan, [(WHOLE, canvas)], ab, 1.0)
    record = Record("scan.jpg", "scan.jpg", source_sha256=hashlib.sha256(source).hexdigest())
    labels = provenance.Labels(remainder=recovery.remainder(scan.jpeg))
    packet = provenance.packet(record, labels=labels)
    return encode(scan, model, format="jpeg", quality=95, packet=packet)


def test_the_luma_is_the_masters_and_so_is_its_lightness(grey_profile):
    source = save(photograph(), grey_profile)
    result = derivative(source, (0, 0))
    assert np.array_equal(np.asarray(opened(result, "L")), np.asarray(opened(source)))
    assert np.abs(lab(opened(result)) - lab(opened(source))).max() < 1


@pytest.mark.parametrize("color", [(30, 20), (-25, 25), (5, -35)])
@pytest.mark.parametrize("level", [95, 119, 145])  # of sRGB
def test_the_colour_is_that_of_the_network_whatever_the_profile(grey_profile, color, level):
    own = np.full((120, 150), np.rint(icc.grey_tone(grey_profile).coded(level)), np.uint8)
    source = save(own, grey_profile)
    found = lab(opened(derivative(source, color))).mean((0, 1))
    assert np.abs(found[1:] - color).max() < 2


@pytest.mark.parametrize("color", [(20, 15), (-15, 15), (5, -20)])
def test_coloured_lightness_differs_from_the_masters_no_more_than_in_srgb(grey_profile, color):
    """Equal luma is not quite equal lightness, in sRGB neither. With linear levels they differ most."""
    differences = []
    for icc_profile in (grey_profile, GREY_OF_SRGB):
        source = save(photograph(), icc_profile)
        differences.append(
            np.abs(lab(opened(derivative(source, color)))[..., 0] - lab(opened(source))[..., 0]).mean()
        )
    assert differences[0] <= differences[1] + 1 and differences[0] < 2.5


def test_the_profile_is_one_of_three_channels_with_the_masters_curve(grey_profile):
    tone = icc.grey_tone(grey_profile)
    found = ImageCms.ImageCmsProfile(io.BytesIO(tone.profile)).profile
    assert (found.xcolor_space, found.connection_space) == ("RGB ", "XYZ ")
    assert "tone curve of the grey master" in found.profile_description
    assert int.from_bytes(tone.profile[:4], "big") == len(tone.profile)
    assert icc.is_of_derivatives(tone.profile) and icc.is_of_derivatives(icc.srgb_profile())
    assert not icc.is_of_derivatives(grey_profile) and not icc.is_of_derivatives(tone.profile[:-1])


def test_a_grey_profile_is_converted_within_a_level_in_the_dark_too(grey_profile):
    levels = icc.grey_tone(grey_profile).levels
    found = icc.grey_curve(grey_profile, [])
    assert np.abs(found - levels).max() < 1.2


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2, 2.6])
def test_levels_are_converted_there_and_back(gamma):
    tone = icc.grey_tone(profile(b"GRAY", {"kTRC": para(0, gamma)}))
    assert np.allclose(tone.levels, 255 * encoded(LEVEL**gamma), atol=0.02)
    assert np.allclose(tone.coded(tone.levels), np.arange(256))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_the_master_comes_back_with_its_profile(options):
    source = save(photograph(131, 65), GREY_DOTS, **options)
    assert recovery.recover(derivative(source, (20, 10))) == recovery.Recovered(source, True)


@pytest.mark.parametrize(
    "tag",
    [
        curve(1 - LEVEL),  # falls
        curve(LEVEL * 0 + 0.5),
        para(2, 2.0, 0.9, 0.08, 0.01),  # white is not the lightest
        para(7, 2.2),
        para(3, 2.2),  # cut short
        para(1, 2.2, 0.0, 0.1),
        b"curv\0\0\0\0\xff\xff\xff\xff",
        b"XYZ \0\0\0\0" + bytes(12),
        b"",
    ],
)
def test_a_curve_that_cannot_be_kept_is_converted_to_srgb(tag):
    assert icc.grey_tone(profile(b"GRAY", {"kTRC": tag})) is None
    scan = read_scan(
        save(photograph(), profile(b"GRAY", {"kTRC": tag})), output_format="jpeg", max_pixels=10**7
    )
    assert scan.tone is None


def test_a_profile_with_another_table_is_not_answered_by_its_curve():
    """Little CMS prefers a table for a rendering intent to the curve."""
    table = profile(b"GRAY", {"kTRC": curve(LEVEL**1.8), "A2B0": b"damaged"})
    assert icc.grey_tone(table) is None
