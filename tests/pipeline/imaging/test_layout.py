"""Pictures in borders and on pages are found; pages without pictures are skipped."""

import os

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from pipeline.imaging import layout
from pipeline.records.record import Outcome, Reason, Refusal

FONT = os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSerif.ttf")
WORDS = [
    word * 2 for word in ("the", "old", "town", "council", "met", "on", "Tuesday", "and", "spoke", "bridge")
]
PHOTOGRAPHS = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "camera", "rocket")}


def grey(name):
    picture = PHOTOGRAPHS[name]
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def noisy(levels, deviation=3.0):
    noise = np.random.default_rng(0).normal(0, deviation, levels.shape)
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


def framed(picture, top, bottom, left, right, level):
    height, width = picture.shape
    whole = np.full((top + height + bottom, left + width + right), float(level))
    whole[top : top + height, left : left + width] = picture
    return noisy(whole)


def screened(picture, pitch=5):
    """A half-tone of two levels, as in print."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    waves = np.cos((x + y) * 4.44 / pitch) + np.cos((x - y) * 4.44 / pitch)
    return np.where(picture / 255 + 0.22 * waves > 0.5, 235, 25).astype(np.uint8)


def printed(pictures=(), columns=3, size=15, paper=238):
    """A page of text, 1000 x 1400 pixels, with pictures at (left, top)."""
    page = Image.new("L", (1000, 1400), paper)
    draw, font = ImageDraw.Draw(page), ImageFont.truetype(FONT, size)
    rng, wide = np.random.default_rng(0), 900 // columns
    for column in range(columns):
        for top in range(130, 1340, round(1.35 * size)):
            line = ""
            while draw.textlength(line, font) < wide - 40:
                line += rng.choice(WORDS) + " "
            draw.text((50 + column * wide, top), line, 30, font)
    draw.text((50, 40), "THE DAILY NEWS", 20, ImageFont.truetype(FONT, 60))
    levels = np.array(page)
    for picture, (left, top) in pictures:
        height, width = picture.shape
        levels[top - 8 : top + height + 8, left - 8 : left + width + 8] = paper
        levels[top : top + height, left : left + width] = picture
    return noisy(levels.astype(float))


def map_of(seed, side=1200, paper=232):
    """A map: contours or hachures, a coast with lines along it, rivers, places with names, and a grid."""
    rng = np.random.default_rng(seed)
    heights = sum(cv2.resize(rng.normal(size=(k, k)) / k, (side, side), interpolation=2) for k in (3, 6, 12))
    levels, land = np.full((side, side), paper, np.uint8), heights > np.quantile(heights, 0.3)

    def outline(mask, ink, thickness):
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(levels, lines, -1, ink, thickness, cv2.LINE_AA)

    if seed % 2:
        for share in np.linspace(0.3, 0.95, 14):
            outline(heights > np.quantile(heights, share), 90, 1)
    else:
        down, across = np.gradient(cv2.GaussianBlur(heights, (0, 0), 6))
        for y, x in rng.integers(0, side, (12_000, 2)):
            length = max(np.hypot(down[y, x], across[y, x]), 1e-9) / 9
            end = (int(x + across[y, x] / length), int(y + down[y, x] / length))
            cv2.line(levels, (int(x), int(y)), end, 70, 1, cv2.LINE_AA)
    shore = cv2.distanceTransform((~land).astype(np.uint8), cv2.DIST_L2, 5)
    for away in (0, 8, 18, 30):
        outline(shore > away, 50 + away, 2 if away == 0 else 1)
    for _ in range(8):
        river = rng.uniform(0, side, 2) + np.cumsum(rng.normal(0, 25, (40, 2)) + rng.normal(0, 20, 2), axis=0)
        cv2.polylines(levels, [river.astype(np.int32)], False, 50, 2, cv2.LINE_AA)
    sheet = Image.fromarray(levels)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 17)
    for x, y in rng.uniform(0, side, (60, 2)):
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), outline=30)
        draw.text((x + 6, y - 8), rng.choice(WORDS).capitalize(), 30, font)
    for at in range(0, side, side // 5):
        draw.line((at, 0, at, side), 80)
        draw.line((0, at, side, at), 80)
    return noisy(np.asarray(sheet).astype(float))


def near(box, scan, left, top, width, height, pixels):
    rows, columns = scan.shape
    found = np.array([box.left * columns, box.top * rows, box.right * columns, box.bottom * rows])
    return np.abs(found - (left, top, left + width, top + height)).max() <= pixels


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_taken_whole_with_its_grain(name):
    for grain in (0, 3, 8):
        assert layout.find(noisy(grey(name).astype(float), grain)) == ((layout.WHOLE,), "")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("level", [245, 150, 10])
def test_the_picture_inside_of_a_border_is_found(name, level):
    picture = grey(name)
    height, width = picture.shape
    scan = framed(picture, 30, 60, 40, 25, level)
    (box,), words = layout.find(scan)
    assert words == "its border was left without colour"
    assert near(box, scan, 40, 30, width, height, 0.05 * max(scan.shape))


@pytest.mark.parametrize("grain", [8, 14])
@pytest.mark.parametrize("level", [60, 120])
def test_the_picture_inside_of_a_grainy_border_is_found(level, grain):
    scan = np.full((1100, 1500), float(level))
    scan[100:1000, 100:1400] = cv2.resize(grey("camera"), (1300, 900))
    scan = noisy(scan, grain)
    (box,), _ = layout.find(scan)
    assert near(box, scan, 100, 100, 1300, 900, 0.05 * max(scan.shape))


def test_a_sky_is_no_border():
    sky = np.concatenate([np.full((150, 512), 200, np.uint8), grey("camera")])
    assert layout.find(sky)[0] == (layout.WHOLE,)


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("size", [12, 24])
def test_a_page_of_text_is_refused_as_such(columns, size):
    with pytest.raises(Refusal) as refusal:
        layout.find(printed(columns=columns, size=size))
    assert refusal.value.reason == Reason.TEXT_PAGE
    assert refusal.value.outcome == Outcome.SKIPPED
    assert "--layout whole" in refusal.value.detail


@pytest.mark.parametrize("form", [lambda picture: picture, screened], ids=["photograph", "half-tone"])
def test_pictures_among_text_are_found_and_the_text_is_not(form):
    large = form(cv2.resize(grey("astronaut"), (500, 500)))
    small = form(cv2.resize(grey("chelsea"), (270, 180)))
    page = printed([(large, (60, 200)), (small, (660, 900))])
    (first, second), words = layout.find(page)
    assert words == "a page with text: only 2 pictures in it got colour"
    assert near(first, page, 60, 200, 500, 500, 40)
    assert near(second, page, 660, 900, 270, 180, 40)


def test_empty_paper_is_refused_even_if_it_is_unevenly_lit():
    light = np.linspace(210, 245, 500)[None] + np.linspace(-5, 5, 700)[:, None]
    with pytest.raises(Refusal) as refusal:
        layout.find(noisy(light))
    assert refusal.value.reason == Reason.BLANK_PAGE


def test_a_faint_drawing_is_not_empty_paper():
    paper = noisy(np.full((700, 500), 235.0))
    cv2.circle(paper, (250, 300), 90, 120, 6)
    assert not layout.is_blank(paper)


@pytest.mark.parametrize("seed", range(6))
def test_a_map_is_refused_as_a_drawing_in_lines(seed):
    with pytest.raises(Refusal) as refusal:
        layout.find(map_of(seed, paper=200 + 10 * (seed // 2)))
    assert refusal.value.reason == Reason.LINE_DRAWING
    assert refusal.value.outcome == Outcome.SKIPPED
    assert "--layout whole" in refusal.value.detail


def test_a_map_with_a_border_is_refused_too():
    with pytest.raises(Refusal) as refusal:
        layout.find(framed(map_of(1), 60, 60, 60, 60, 20))
    assert refusal.value.reason == Reason.LINE_DRAWING


def test_a_portrait_on_a_map_is_found():
    sheet, portrait = map_of(3), cv2.resize(grey("astronaut"), (300, 300))
    sheet[690:1010, 690:1010] = 232
    sheet[700:1000, 700:1000] = portrait
    (box,), words = layout.find(sheet)
    assert words == "a drawing in lines: only 1 picture in it got colour"
    assert near(box, sheet, 700, 700, 300, 300, 40)


def test_a_bright_photograph_with_fine_branches_is_no_drawing_in_lines():
    bright = cv2.addWeighted(grey("camera"), 0.4, np.full_like(grey("camera"), 255), 0.6, 0)
    for seed in range(60):
        ends = np.random.default_rng(seed).integers(0, 512, (2, 2)).tolist()
        cv2.line(bright, *ends, 60, 1, cv2.LINE_AA)
    assert not layout.is_line_drawing(bright)


@pytest.mark.parametrize("level", [130, 180, 230])
@pytest.mark.parametrize("grain", [10, 20, 40])
def test_grain_is_no_drawing_in_lines(level, grain):
    assert not layout.is_line_drawing(noisy(np.full((700, 500), float(level)), grain))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("dither", [Image.Dither.FLOYDSTEINBERG, Image.Dither.NONE])
@pytest.mark.parametrize("brighter", [0, 30])
def test_a_bilevel_photograph_is_no_drawing_in_lines(name, dither, brighter):
    picture = cv2.add(grey(name), brighter)
    bilevel = Image.fromarray(picture).convert("1", dither=dither).convert("L")
    assert not layout.is_line_drawing(np.array(bilevel))
    assert not layout.is_line_drawing(screened(picture, pitch=4))


def test_a_box_in_a_box_has_its_place_in_the_scan():
    outer = layout.Box(0.2, 0.6, 0.5, 1.0)
    inner = outer.around(layout.Box(0.25, 0.5, 0, 0.5))
    assert (inner.top, inner.bottom, inner.left, inner.right) == pytest.approx((0.3, 0.4, 0.5, 0.75))


def test_a_job_leaves_borders_and_text_without_colour(colorize, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    border = framed(grey("astronaut"), 60, 60, 60, 60, 240)
    page = printed([(cv2.resize(grey("astronaut"), (500, 500)), (60, 200))])
    for name, levels in {"border": border, "page": page, "text": printed()}.items():
        Image.fromarray(levels).save(folder / f"{name}.png")
    records = colorize(folder, tmp_path / "out", "--format", "png").records
    assert records["text.png"].reason == Reason.TEXT_PAGE
    assert records["border.png"].detail == "its border was left without colour"
    assert "only 1 picture in it" in records["page.png"].detail

    def chroma(name):
        rgb = np.asarray(Image.open(records[name].derivative)).astype(int)
        return np.ptp(rgb, axis=-1)

    edge = np.ones(border.shape, bool)
    edge[60:-60, 60:-60] = False
    assert chroma("border.png")[edge].max() == 0 and chroma("border.png")[~edge].mean() > 10
    text = np.ones(page.shape, bool)
    text[170:730, 30:590] = False
    assert chroma("page.png")[text].max() == 0 and chroma("page.png")[~text].mean() > 10

    whole = colorize(folder, tmp_path / "whole", "--format", "png", "--layout", "whole").records
    assert all(record.outcome == Outcome.COLORIZED for record in whole.values())


@pytest.mark.parametrize("shape", [(16, 16), (16, 4000), (4000, 16), (30, 17)])
@pytest.mark.parametrize("level", [0, 130, 250])
def test_scans_of_any_shape_have_an_answer(shape, level):
    luma = noisy(np.full(shape, float(level)), 30)
    try:
        boxes, _ = layout.find(luma)
    except Refusal as refusal:
        assert refusal.reason in (Reason.BLANK_PAGE, Reason.TEXT_PAGE, Reason.LINE_DRAWING)
    else:
        assert boxes and all(box.of(luma).size for box in boxes)
