"""Keys, and the names of derivatives."""

import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.batch.plan import Action, plan
from pipeline.codec.settings import Settings
from pipeline.inputs.collection import expand
from pipeline.inputs.item import EXTENSIONS, check_key, derivative_uri
from pipeline.records.record import Reason, Refusal

KEYS = st.lists(
    st.sampled_from(["a", "b", ".", "_", "/", " ", "é", "_color", ".jpg", ".tif"]), min_size=1
).map("".join)
FORMATS = st.sampled_from(sorted(EXTENSIONS))


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/.", "a\0b", "a/"])
def test_a_key_that_points_outside_the_output_is_refused(key):
    with pytest.raises(Refusal) as caught:
        check_key(key)
    assert caught.value.reason == Reason.BAD_KEY


@pytest.mark.parametrize("key", ["a", "a/b.tif", "..a/b..", "a b/é", "..."])
def test_any_other_key_is_fine(key):
    check_key(key)


def valid(key):
    try:
        check_key(key)
    except Refusal:
        return False
    return True


@given(KEYS, KEYS, FORMATS)
def test_no_two_scans_share_a_derivative(key, other, format):
    assume(key != other)
    assert derivative_uri("/out", key, format) != derivative_uri("/out", other, format)


@given(KEYS.filter(valid), FORMATS)
def test_a_derivative_is_inside_the_output_and_has_its_suffix(key, format):
    uri = derivative_uri("/out", key, format)
    assert os.path.normpath(uri) == uri
    assert uri.startswith("/out/")
    assert uri.endswith("_color" + EXTENSIONS[format])


def test_the_name_depends_only_on_the_key_and_the_format():
    assert derivative_uri("gs://b/out/", "box/a.tif", "jpeg") == "gs://b/out/box/a.tif_color.jpg"
    assert derivative_uri("/out", "box/a.jpg", "tiff") == "/out/box/a.jpg_color.tif"


@given(
    st.lists(
        st.text(
            st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=300
        ),
        min_size=1,
        max_size=3,
    ),
    FORMATS,
)
def test_every_part_of_a_derivatives_path_fits_a_file_system(parts, format):
    uri = derivative_uri("/out", "/".join(parts), format)
    assert all(len(os.fsencode(part)) <= 255 for part in uri.split("/"))
    uri.encode()  # no character is truncated
    assert uri.endswith("_color" + EXTENSIONS[format])


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀", "\udce9"])
def test_long_names_are_shortened_and_keep_apart(letter):
    width = len(os.fsencode(letter))
    longest = letter * (233 // width)  # with room for the number of a page
    assert derivative_uri("/out", longest, "jpeg") == f"/out/{longest}_color.jpg"
    names = [letter * (300 // width) + ending for ending in ("", "1.tif", "2.tif")]
    short = [derivative_uri("/out", name, "jpeg") for name in names]
    assert len(set(short)) == 3
    assert all(228 < len(os.fsencode(uri.removeprefix("/out/"))) <= 243 for uri in short)
    forged = short[0].removeprefix("/out/").removesuffix("_color.jpg")
    assert derivative_uri("/out", forged, "jpeg") not in short
    assert derivative_uri("gs://b/out", names[0], "jpeg") == f"gs://b/out/{names[0]}_color.jpg"


@pytest.mark.parametrize("extension", [".ptif", ".ptiff", ".jpc", ".j2c", ".TIF"])
def test_the_extensions_that_image_servers_and_codestreams_have_are_pictures(extension, tmp_path):
    (tmp_path / f"page{extension}").write_bytes(b"opened to see what it is")
    (item,) = expand(str(tmp_path))
    (task,) = plan([item], [], {}, Settings(output="/out", run="r"), "stale")
    assert task.action == Action.COLORIZE
