"""Chroma from the network to the scan: colour conversion, gamut, tiles and edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import color, data
from skimage.measure import block_reduce
from skimage.transform import resize

from model.color import edges
from pipeline.imaging import chroma

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
CHROMA = st.floats(-300, 300, width=32)
SIDE = 192


def ycc(rgb):
    """Float RGB [H, W, 3] as Y', Cb and Cr of JFIF (ITU-T T.871, section 7), with 0 for neutral chroma."""
    luma = rgb @ LUMA_WEIGHTS
    return luma, (rgb[..., 2] - luma) / 1.772, (rgb[..., 0] - luma) / 1.402


def rgb_of(luma, cb, cr):
    return np.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], -1)


def near(array, expected, tolerance):
    return np.abs(array - expected).max() <= tolerance


def ciede2000(rgb, other):
    return color.deltaE_ciede2000(color.rgb2lab(rgb), color.rgb2lab(other))


# Colour conversion


def test_lightness_is_that_of_a_grey():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, -1)
    assert near(chroma.LIGHTNESS, color.rgb2lab(greys)[0, :, 0], 1e-3)


@pytest.mark.parametrize("picture", ["astronaut", "coffee", "chelsea", "rocket"])
def test_true_lab_chroma_is_converted_to_true_cb_and_cr(picture):
    rgb = getattr(data, picture)().astype(float)
    luma, cb, cr = ycc(rgb)
    ab = np.float32(color.rgb2lab(rgb / 255)[..., 1:])
    found = chroma.to_ycc(np.uint8(np.rint(luma)), ab)
    assert np.abs(found - [cb, cr]).mean() < 0.25
    assert np.quantile(np.abs(found - [cb, cr]), 0.999) < 3


def test_grey_stays_grey():
    luma = np.arange(256, dtype=np.uint8)[None]
    assert np.abs(chroma.to_ycc(luma, np.zeros((1, 256, 2), np.float32))).max() < 0.01


@settings(deadline=None)
@given(
    arrays.arrays(np.uint8, (5, 7)),
    arrays.arrays(np.float32, (5, 7, 2), elements=st.floats(-128, 128, width=32)),
)
def test_any_chroma_of_the_network_gives_finite_colour(luma, ab):
    assert np.isfinite(chroma.to_ycc(luma, ab)).all()


def test_colorfulness_is_the_metric_of_hasler_and_suesstrunk():
    rgb = data.astronaut()
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    rg, yb = red - green, 0.5 * (red + green) - blue
    expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert chroma.colorfulness(rgb) == pytest.approx(expected, rel=1e-3)
    assert chroma.colorfulness(np.full((4, 4, 3), 77, np.uint8)) == 0


# Gamut


@settings(deadline=None)
@given(arrays.arrays(np.uint8, (4, 6)), *[arrays.arrays(np.float32, (4, 6), elements=CHROMA)] * 2)
def test_limiting_keeps_luma_and_hue_and_ends_inside_the_gamut(luma, cb, cr):
    new_cb, new_cr = chroma.limit(luma, cb, cr)
    rgb = rgb_of(luma.astype(float), new_cb, new_cr)
    assert rgb.min() > -0.6
    assert rgb.max() < 255.6
    assert near(rgb @ LUMA_WEIGHTS, luma.astype(float), 0.01)
    assert near(new_cb * cr, new_cr * cb, 0.05)  # the same hue
    assert (new_cb * cb >= 0).all()
    assert (new_cr * cr >= 0).all()
    assert (np.hypot(new_cb, new_cr) <= np.hypot(cb, cr) * 1.0001).all()


def test_limiting_does_not_change_colours_inside_the_gamut():
    rgb = data.coffee().astype(float)
    luma = np.uint8(np.rint(rgb @ LUMA_WEIGHTS))
    _, cb, cr = ycc(rgb)
    inside = (rgb_of(luma.astype(float), cb, cr) >= 0).all(-1) & (
        rgb_of(luma.astype(float), cb, cr) <= 255
    ).all(-1)
    new_cb, new_cr = chroma.limit(luma, np.float32(cb), np.float32(cr))
    assert near(new_cb[inside], cb[inside], 0.01)
    assert near(new_cr[inside], cr[inside], 0.01)


def test_black_and_white_have_no_colour():
    luma = np.array([[0, 255]], np.uint8)
    cb, cr = chroma.limit(luma, np.full((1, 2), 90, np.float32), np.full((1, 2), -90, np.float32))
    assert np.abs([cb, cr]).max() < 0.5


def test_rgb_is_restored_from_luma_and_chroma():
    rgb = data.astronaut()
    luma, cb, cr = ycc(rgb.astype(float))
    luma = np.uint8(np.rint(luma))
    found = chroma.to_rgb(luma, *chroma.limit(luma, np.float32(cb), np.float32(cr)))
    assert np.abs(found.astype(float) - rgb).max() <= 3  # luma is rounded


# Tiles


@pytest.mark.parametrize(
    ("width", "height", "canvas", "tiles"),
    [
        (1000, 1000, (SIDE, SIDE), 1),
        (2000, 1000, (SIDE, SIDE), 1),  # squashed by two, the maximum
        (1000, 2000, (SIDE, SIDE), 1),
        (2001, 1000, (384, SIDE), 3),
        (4000, 1000, (768, SIDE), 5),
        (1000, 4000, (SIDE, 768), 5),
    ],
)
def test_only_pictures_longer_than_2_to_1_are_seen_in_tiles(width, height, canvas, tiles):
    assert chroma.canvas_size(width, height, SIDE) == canvas
    seen, views = chroma.view(np.zeros((height, width), np.uint8), SIDE)
    assert seen.shape == canvas[::-1]
    assert views.shape == (tiles, SIDE, SIDE)


@settings(deadline=None, max_examples=50)
@given(st.integers(16, 3000), st.integers(16, 3000))
def test_the_canvas_squashes_no_picture_beyond_2_to_1_and_its_tiles_cover_it(width, height):
    canvas = chroma.canvas_size(width, height, 32)
    squash = (canvas[0] / canvas[1]) / (width / height)
    assert 1 / 2.1 <= squash <= 2.1
    _, tiles = chroma.view(np.zeros((height, width), np.uint8), 32)
    assert near(chroma.join_tiles(np.ones((*tiles.shape, 2)), canvas[::-1]), 1, 1e-5)


@pytest.mark.parametrize(("width", "height"), [(16, 60_000), (2_000_000, 16), (300_000, 17)])
def test_an_extremely_narrow_picture_has_a_bounded_number_of_tiles(width, height):
    canvas, tiles = chroma.view(np.zeros((height, width), np.uint8), 160)
    assert len(tiles) <= min(chroma.MANY_TILES, 6 * width * height / 160**2)
    joined = chroma.join_tiles(np.ones((*tiles.shape, 2), np.float16), canvas.shape)
    assert joined.shape == (*canvas.shape, 2)
    assert near(joined, 1, 1e-5)


def test_a_scroll_is_seen_at_full_height():
    assert chroma.canvas_size(66_000, 200, 160) == (52_800, 160)


@pytest.mark.parametrize("size", [(1600, 400), (400, 1600), (1000, 400), (640, 480)])
def test_tiles_show_the_picture_and_joining_them_gives_it_back(size):
    rng = np.random.default_rng(0)
    canvas, tiles = chroma.view(rng.integers(0, 255, size[::-1], np.uint8), SIDE)
    joined = chroma.join_tiles(np.stack([tiles, 255 - tiles], -1).astype(np.float16), canvas.shape)
    assert near(joined[..., 0], canvas, 0.01)
    assert near(joined[..., 1], 255 - canvas.astype(float), 0.01)


@pytest.mark.parametrize("shape", [(SIDE, 768), (768, SIDE)])
def test_tiles_that_differ_meet_without_a_step(shape):
    count = len(chroma.view(np.zeros(shape, np.uint8), SIDE)[1])
    levels = np.arange(count) % 2 * 20.0
    joined = chroma.join_tiles(np.broadcast_to(levels[:, None, None, None], (count, SIDE, SIDE, 2)), shape)
    assert joined.min() >= 0
    assert joined.max() <= 20
    assert np.abs(np.diff(joined[..., 0], axis=0 if shape[0] > SIDE else 1)).max() < 1.5


# Edges

BLEEDING = {120: 0.35, 60: 0.5, 30: 0.75}  # by step in luma: maximum error relative to enlarged chroma


def model_of(luma, cb, cr):
    """Fit the edge model on its grid to planes of the canvas."""
    luma, cb, cr = (block_reduce(plane, chroma.GRID, np.mean) for plane in (luma, cb, cr))
    return edges.fit(np.uint8(np.rint(luma)), np.float32(np.stack([cb, cr])))


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20, width=32), st.floats(-20, 20, width=32), st.integers(0, 10**6))
def test_constant_chroma_stays_constant_whatever_the_picture(cb, cr, seed):
    rng = np.random.default_rng(seed)
    canvas = rng.integers(100, 150, (48, 64), np.uint8)
    model = model_of(canvas, np.full(canvas.shape, cb), np.full(canvas.shape, cr))
    found = chroma.apply_model(model, rng.integers(100, 150, (120, 160), np.uint8))
    assert near(found[0], cb, 0.02)
    assert near(found[1], cr, 0.02)


@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_chroma_over_a_flat_picture_is_smoothed_at_most(level):
    canvas = np.full((SIDE, SIDE), level, np.uint8)
    ramp = np.broadcast_to(np.linspace(-10, 10, SIDE), canvas.shape)
    cb, cr = chroma.apply_model(model_of(canvas, ramp, -ramp), np.full((3 * SIDE, 3 * SIDE), level, np.uint8))
    assert np.isfinite([cb, cr]).all()
    if level not in (0, 255):
        truth = np.broadcast_to(np.linspace(-10, 10, 3 * SIDE), cb.shape)
        assert np.abs(cb - truth)[:, 60:-60].max() < 0.5
        assert np.abs(cr + truth)[:, 60:-60].max() < 0.5


@pytest.mark.parametrize(("dark", "bright"), [(60, 180), (90, 150), (110, 140)])
@pytest.mark.parametrize("grain", [0, 6])
def test_chroma_does_not_bleed_over_an_edge_of_luma(dark, bright, grain):
    """The chroma is blurred like that of a network, over 8 of 192 pixels. The scan is four times as large."""
    rng = np.random.default_rng(0)
    big, half = 4 * SIDE, 2 * SIDE
    sign = np.where(np.arange(big) < half, -1, 1)
    luma = (dark + bright) / 2 + sign * (bright - dark) / 2 + rng.normal(0, grain, (big, big))
    luma = np.uint8(np.rint(luma.clip(0, 255)))
    canvas, _ = chroma.view(luma, SIDE)
    blurred = np.broadcast_to(
        np.interp(np.arange(SIDE), [SIDE / 2 - 4.5, SIDE / 2 + 3.5], [-20, 20]), canvas.shape
    )
    cb, _ = chroma.apply_model(model_of(canvas, blurred, 0 * blurred), luma)
    enlarged = np.interp((np.arange(big) + 0.5) / 4 - 0.5, np.arange(SIDE), blurred[0])
    near = np.r_[
        half - 12 : half - 1, half + 1 : half + 12
    ]  # within three canvas pixels of the edge, but not at the edge
    bleeding = np.abs(cb.mean(0) - 20 * sign)[near].mean()
    assert bleeding < BLEEDING[bright - dark] * np.abs(enlarged - 20 * sign)[near].mean()
    assert np.abs(cb.mean(0)).max() < 24  # no halo of stronger colour


def test_an_edge_in_luma_does_not_add_one_in_chroma():
    canvas = np.uint8(np.where(np.arange(SIDE) < SIDE // 2, 60, 180)) + np.zeros((SIDE, 1), np.uint8)
    constant = np.full(canvas.shape, 12.0)
    cb, _ = chroma.apply_model(model_of(canvas, constant, constant), np.repeat(np.repeat(canvas, 4, 0), 4, 1))
    assert near(cb, 12, 0.05)


@pytest.mark.parametrize("picture", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("resolution", [24, 48])
def test_chroma_along_edges_is_nearer_to_the_truth_than_enlarged_chroma(picture, resolution):
    """The chroma is that of the photograph at the resolution of a network."""
    rgb = getattr(data, picture)()
    luma = np.uint8(np.rint(rgb @ LUMA_WEIGHTS))
    coarse = resize(color.rgb2lab(rgb)[..., 1:], (resolution, resolution), anti_aliasing=True)
    canvas = np.uint8(np.rint(255 * resize(luma, (SIDE // 2, SIDE // 2), anti_aliasing=True)))
    planes = chroma.to_ycc(canvas, np.float32(resize(coarse, canvas.shape, order=1)))
    along_edges = chroma.apply_model(edges.fit(canvas, planes), luma)
    enlarged = chroma.limit(luma, *(np.float32(resize(plane, luma.shape, order=1)) for plane in planes))
    errors = [ciede2000(chroma.to_rgb(luma, *found), rgb).mean() for found in (along_edges, enlarged)]
    assert errors[0] < errors[1] * 1.005
