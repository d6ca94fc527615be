"""Grafted JPEGs, checked with decoders that are independent of `pipeline.imaging.graft`."""

import io
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.imaging.graft import (
    NotGraftable,
    app1_exif,
    app1_xmp,
    app2_icc,
    app13_photoshop,
    comment,
    graft,
    parse,
)

SIZES = [(1, 1), (7, 9), (17, 8), (16, 16), (131, 64)]  # width, height
MODES = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "row restarts": {"restart_marker_rows": 1},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 1},
    "16-bit table": {"qtables": [[16 + 7 * i for i in range(64)]], "quality": -1},
}
DQT, SOF0, SOS = b"\xff\xdb\x00\x43\x00", b"\xff\xc0\x00\x0b", b"\xff\xda\x00\x08"  # as Pillow writes them
ADOBE = b"\xff\xee\x00\x0eAdobe\0d\0\0\0\0\0"


def scan(width, height, **options):
    """A grey JPEG with edges, a gradient and grain."""
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(width * height).normal(0, 6, (height, width))
    grey = 40 + 150 * x / width + 60 * ((x // 11 + y // 7) % 2) - 40 * y / height + grain
    buffer = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def planes(width, height):
    """Smooth Cb and Cr planes for a picture of this size."""
    y, x = np.mgrid[: -(-height // 2), : -(-width // 2)]
    return (105 + x / 2).astype(np.uint8), (150 - y / 2).astype(np.uint8)


def grafted(jpeg, quality=90, segments=None):
    master = parse(jpeg)
    chroma = planes(master.width, master.height)
    return graft(master, *chroma, quality=quality, segments=master.carried if segments is None else segments)


def opened(jpeg, mode=None):
    """The decoded picture. With a mode ("L" or "YCbCr"), the components are returned as coded."""
    image = Image.open(io.BytesIO(jpeg))
    if mode:
        image.draft(mode, image.size)
        assert image.mode == mode
    image.load()
    return image


def pixels(jpeg, mode=None):
    return np.asarray(opened(jpeg, mode)).astype(int)


def opencv(jpeg, mode):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), mode)


def tool(name, *arguments, stdin, package="libjpeg-turbo-progs"):
    if not shutil.which(name):
        pytest.skip(f"{name} is missing: apt-get install {package}")
    result = subprocess.run([name, *arguments], input=stdin, capture_output=True, timeout=30, check=True)
    assert b"orrupt" not in result.stderr, result.stderr.decode()
    return result.stdout


def inserted(jpeg, segment):
    """The JPEG with a segment inserted after its JFIF header."""
    return jpeg[:20] + segment + jpeg[20:]


def patched(jpeg, signature, offset, value):
    """The JPEG with one byte replaced, at an offset from the first occurrence of a signature."""
    at = jpeg.index(signature) + offset
    return jpeg[:at] + bytes([value]) + jpeg[at + 1 :]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_greyscale_of_the_derivative_is_the_master_in_every_pixel(size, mode):
    master = scan(*size, **MODES[mode])
    derivative = grafted(master)
    assert opened(derivative).mode == "RGB" and opened(derivative).size == size
    assert np.array_equal(pixels(derivative, "L"), pixels(master))
    assert np.array_equal(opencv(derivative, cv2.IMREAD_GRAYSCALE), pixels(master))


@pytest.mark.parametrize("mode", MODES)
def test_djpeg_sees_the_masters_greyscale(mode):
    master = scan(131, 64, **MODES[mode])
    assert tool("djpeg", "-grayscale", stdin=grafted(master)) == tool("djpeg", stdin=master)


@pytest.mark.parametrize("mode", MODES)
def test_jpegtran_gives_the_masters_coefficients_back(mode):
    master = scan(131, 64, **MODES[mode])
    restored = tool("jpegtran", "-grayscale", "-optimize", stdin=grafted(master))
    assert restored == tool("jpegtran", "-optimize", stdin=master)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    quality=st.integers(1, 100),
    chroma_quality=st.integers(1, 100),
    progressive=st.booleans(),
    optimize=st.booleans(),
    restart_marker_blocks=st.integers(0, 4),
)
def test_the_greyscale_is_kept_for_any_coding_of_the_master(width, height, chroma_quality, **options):
    master = scan(width, height, **options)
    assert np.array_equal(pixels(grafted(master, chroma_quality), "L"), pixels(master))


def test_luminance_is_the_masters_bytes():
    master = scan(131, 64)
    coded = master[master.index(SOS) + 10 : -2]
    assert grafted(master).count(coded) == 1


@pytest.mark.parametrize("quality", [90, 95, 100])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_chroma_decodes_to_what_was_given(size, mode, quality):
    chroma = opened(grafted(scan(*size, **MODES[mode]), quality), "YCbCr").split()[1:]
    for decoded, plane in zip(chroma, planes(*size), strict=True):
        difference = np.abs(np.asarray(decoded).astype(int)[::2, ::2] - plane)
        assert difference.mean() <= 1 and difference.max() <= 3


@pytest.mark.parametrize("quality", [1, 40, 75, 90, 100])
def test_chroma_is_quantised_as_pillow_does_it_at_that_quality(quality):
    reference = io.BytesIO()
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=quality)
    master = scan(16, 16, quality=33)
    tables = opened(grafted(master, quality)).quantization
    assert tables == {0: opened(master).quantization[0], 1: opened(reference.getvalue()).quantization[1]}


@pytest.mark.parametrize("mode", MODES)
def test_neutral_chroma_leaves_the_picture_grey(mode):
    jpeg = scan(33, 20, **MODES[mode])
    neutral = np.full(parse(jpeg).chroma_shape, 128, np.uint8)
    rgb = pixels(graft(parse(jpeg), neutral, neutral, quality=75, segments=[]))
    assert np.array_equal(rgb, np.repeat(pixels(jpeg)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_opencv_pillow_and_djpeg_see_the_same_colours(size, mode):
    derivative = grafted(scan(*size, **MODES[mode]))
    pillow = pixels(derivative)
    assert np.abs(opencv(derivative, cv2.IMREAD_COLOR)[..., ::-1] - pillow).max() <= 2
    djpeg = np.asarray(Image.open(io.BytesIO(tool("djpeg", stdin=derivative)))).astype(int)
    assert np.abs(djpeg - pillow).max() <= 2


@pytest.mark.parametrize("table", range(4))
def test_the_masters_quantisation_table_may_have_any_id_beside_others(table):
    master = scan(40, 24)
    at = master.index(DQT)
    own = patched(master[at : at + 69], DQT, 4, table)
    others = b"".join(DQT[:4] + bytes([i]) + bytes([99] * 64) for i in range(4) if i != table)
    renumbered = patched(master[:at] + own + others + master[at + 69 :], SOF0, 12, table)
    assert np.array_equal(pixels(renumbered), pixels(master))
    assert grafted(renumbered) == grafted(master)


@pytest.mark.parametrize("component", [0, 1, 82, 255])
def test_the_masters_component_may_have_any_id(component):
    master = scan(40, 24)
    renamed = patched(patched(master, SOF0, 10, component), SOS, 5, component)
    assert grafted(renamed) == grafted(master)


def test_the_masters_sampling_factors_do_not_matter():
    master = scan(40, 24)
    assert grafted(patched(master, SOF0, 11, 0x22)) == grafted(master)


def test_a_quantisation_table_of_16_bits_is_carried():
    master = scan(40, 24, **MODES["16-bit table"])
    at = master.index(b"\xff\xdb\x00\x83\x10")
    assert master[at : at + 133] in grafted(master)


def test_extended_sequential_masters_stay_extended():
    master = patched(scan(40, 24), SOF0, 1, 0xC1)
    assert b"\xff\xc1\x00\x11\x08" in grafted(master)
    assert np.array_equal(pixels(grafted(master), "L"), pixels(master))


def test_bytes_after_the_end_are_dropped():
    master = scan(40, 24)
    assert grafted(master + b"\0\0" + scan(8, 8)) == grafted(master)


def test_fill_bytes_before_markers_are_understood():
    master = scan(40, 24)
    filled = master[:-2] + b"\xff\xff\xff\xd9"
    assert np.array_equal(pixels(grafted(filled), "L"), pixels(master))
    assert grafted(inserted(master, b"\xff\xff")) == grafted(master)


def test_density_is_kept():
    for dpi in ((300, 300), (72, 144)):
        assert opened(grafted(scan(16, 16, dpi=dpi))).info["dpi"] == dpi


def test_a_master_without_jfif_gets_one():
    master = scan(40, 24)
    assert grafted(master[:2] + master[20:]) == grafted(master)


def test_comments_and_segments_of_others_are_carried():
    others = b"\xff\xea\x00\x08photo7"
    derivative = grafted(inserted(scan(40, 24, comment=b"plate 7"), others))
    assert opened(derivative).info["comment"] == b"plate 7"
    assert others in derivative


def test_outdated_and_replaced_metadata_are_not_carried():
    mpf, jumbf = b"\xff\xe2\x00\x0cMPF\0II*\0\0\0", b"\xff\xeb\x00\x08JP\0\1\0\0"
    photoshop = app13_photoshop(b"8BIM\x04\x09\0\0\0\0\0\0")[0]
    master = scan(40, 24, icc_profile=b"a grey profile", exif=Image.Exif(), xmp=b"<old/>")
    assert grafted(inserted(master, ADOBE + mpf + jumbf + photoshop)) == grafted(scan(40, 24))


def test_the_caller_adds_metadata():
    master = parse(scan(40, 24, exif=Image.Exif(), xmp=b"<old/>", comment=b"plate 7"))
    segments = [*app1_xmp(b"<new/>"), *master.carried, *comment(b"a copy")]
    derivative = opened(grafted(master.data, segments=segments))
    assert derivative.info["xmp"] == b"<new/>"
    assert derivative.applist.count(("COM", b"plate 7")) == derivative.applist.count(("COM", b"a copy")) == 1
    assert "exif" not in derivative.info


@pytest.mark.parametrize("size", [1, 65519, 65520, 200_000])
def test_an_icc_profile_of_any_usual_size_is_read_back(size):
    profile = np.random.default_rng(size).bytes(size)
    assert opened(grafted(scan(16, 16), segments=app2_icc(profile))).info["icc_profile"] == profile


def test_exiftool_reads_exif_xmp_and_icc():
    exif = Image.Exif()
    exif[0x013B] = "A. Photographer"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="a colouriser"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    segments = [app1_exif(exif.tobytes().removeprefix(b"Exif\0\0")), *app1_xmp(xmp), *app2_icc(profile)]
    derivative = grafted(scan(40, 24, dpi=(300, 300)), segments=segments)
    options = ("-json", "-validate", "-warning", "-all", "-")
    read = json.loads(tool("exiftool", *options, stdin=derivative, package="libimage-exiftool-perl"))[0]
    assert read["Artist"] == "A. Photographer"
    assert read["CreatorTool"] == "a colouriser"
    assert read["ProfileDescription"] == "sRGB built-in"
    assert (read["XResolution"], read["ColorComponents"]) == (300, 3)
    assert read["YCbCrSubSampling"] == "YCbCr4:2:0 (2 2)"


def test_metadata_that_do_not_fit_are_refused():
    assert [len(segment) for segment in app1_xmp(bytes(65504))] == [65537]
    assert len(app1_exif(bytes(65527))) == 65537
    with pytest.raises(ValueError, match="do not fit"):
        app1_xmp(bytes(65505))
    with pytest.raises(ValueError, match="do not fit"):
        app1_exif(bytes(65528))
    with pytest.raises(ValueError, match="does not fit"):
        app2_icc(bytes(255 * 65519 + 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cb": np.zeros((12, 19), np.uint8)}, "must be uint8"),
        ({"cr": np.zeros((24, 40), np.uint8)}, "must be uint8"),
        ({"cr": np.zeros((12, 20), np.float32)}, "must be uint8"),
        ({"quality": 0}, "1…100"),
        ({"quality": 101}, "1…100"),
        ({"segments": [b"Exif\0\0"]}, "not an APPn or COM"),
        ({"segments": [ADOBE[:-1]]}, "not an APPn or COM"),
        ({"segments": [b""]}, "not an APPn or COM"),
    ],
)
def test_wrong_arguments_are_named(change, reason):
    neutral = np.full((12, 20), 128, np.uint8)
    with pytest.raises(ValueError, match=reason):
        graft(parse(scan(40, 24)), **{"cb": neutral, "cr": neutral, "quality": 90, "segments": []} | change)


def colour(mode):
    buffer = io.BytesIO()
    Image.new(mode, (16, 16)).save(buffer, "JPEG")
    return buffer.getvalue()


GREY = scan(24, 16)
FRAME = GREY[GREY.index(SOF0) :][:13]
SCAN = GREY[GREY.index(SOS) : -2]


@pytest.mark.parametrize(
    ("jpeg", "reason"),
    {
        "nothing": (b"", "does not begin like a JPEG"),
        "PNG": (b"\x89PNG\r\n\x1a\n", "does not begin like a JPEG"),
        "RGB": (colour("RGB"), "3 components"),
        "CMYK": (colour("CMYK"), "4 components"),
        "12 bits": (patched(GREY, SOF0, 4, 12), "12 bits"),
        "arithmetic": (patched(GREY, SOF0, 1, 0xC9), "arithmetically"),
        "lossless": (patched(GREY, SOF0, 1, 0xC3), "losslessly"),
        "hierarchical": (patched(GREY, SOF0, 1, 0xC5), "hierarchical"),
        "JPEG-LS": (patched(GREY, SOF0, 1, 0xF7), "FFF7"),
        "height by DNL": (patched(GREY, SOF0, 6, 0), "DNL"),
        "no width": (patched(GREY, SOF0, 8, 0), "width is 0"),
        "no frame": (GREY.replace(FRAME, b""), "0 frame headers"),
        "short frame header": (GREY[:2] + FRAME[:2] + b"\0\2\xff\xd9", "frame header is damaged"),
        "two frames": (inserted(GREY, FRAME), "2 frame headers"),
        "two scans": (GREY[:-2] + SCAN + GREY[-2:], "several scans"),
        "two pictures": (GREY[:-2] + GREY, "another JPEG"),
        "scan first": (GREY[:20] + SCAN + GREY[20:], "no scan follows"),
        "no scan": (GREY.replace(SCAN, b""), "no scan follows"),
        "scan of another component": (patched(GREY, SOS, 5, 2), "does not have"),
        "no quantisation table": (patched(GREY, SOF0, 12, 2), "table is missing"),
        "half a quantisation table": (inserted(GREY, b"\xff\xdb\x00\x22" + bytes(32)), "table is damaged"),
        "garbage between segments": (inserted(GREY, b"garbage"), "no marker where"),
    }.values(),
)
def test_a_jpeg_that_cannot_be_grafted_is_refused_with_a_reason(jpeg, reason):
    with pytest.raises(NotGraftable, match=reason):
        parse(jpeg)


@pytest.mark.parametrize("mode", ["baseline", "progressive restarts"])
def test_a_truncated_master_is_refused_wherever_it_ends(mode):
    master = scan(24, 16, **MODES[mode])
    for stop in range(2, len(master)):
        with pytest.raises(NotGraftable, match="cut short"):
            parse(master[:stop])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400)
    | st.binary(max_size=400).map(lambda tail: b"\xff\xd8\xff" + tail)
    | st.lists(st.tuples(st.integers(0, len(GREY) - 1), st.integers(0, 255)), max_size=8).map(
        lambda edits: bytes(dict(edits).get(i, byte) for i, byte in enumerate(GREY))
    )
)
def test_parsing_arbitrary_bytes_raises_only_not_graftable(data):
    try:
        parse(data)
    except NotGraftable as reason:
        assert str(reason)


def test_parsing_is_linear_in_adversarial_bytes():
    with pytest.raises(NotGraftable):
        parse(GREY[:-2] + b"\xff" * 2_000_000)
