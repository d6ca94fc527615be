"""Colour photographs are fit for training. Drawings, pages of text and grey or tinted pictures are not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data
from sklearn.datasets import load_sample_image

from pipeline.photographs.judge import judge
from pipeline.records.record import Reason, Refusal

PHOTOGRAPHS = {
    "astronaut": data.astronaut,
    "cat": data.chelsea,
    "coffee": data.coffee,
    "rocket": data.rocket,
    "retina": data.retina,
    "tissue": data.immunohistochemistry,
    "temple": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}


def reason(rgb: np.ndarray) -> str:
    try:
        judge(rgb)
    except Refusal as refusal:
        assert refusal.detail and "\n" not in refusal.detail
        return refusal.reason
    return ""


def reduced(rgb: np.ndarray, side: int = 256) -> np.ndarray:
    scale = side / min(rgb.shape[:2])
    return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb


def jpeg(rgb: np.ndarray, quality: int = 70) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def sepia(rgb: np.ndarray, *, hue: float, strength: float, stains: float = 0.0) -> np.ndarray:
    """A toned print: chroma of one hue (in degrees), strongest in the middle tones. Stains vary its strength."""
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    height, width = light.shape
    cells = np.random.default_rng(0).normal(0, 1, (4, 4)).astype(np.float32)
    stained = 1 + stains * cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    chroma = strength * (0.4 + 2.4 * light * (1 - light)) * stained
    angle = np.radians(hue)
    lab = np.stack([5 + 90 * light, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)
    toned = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return jpeg(np.uint8(np.rint(255 * np.clip(toned, 0, 1))))


def page(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> np.ndarray:
    """A scanned page of text, with grain and JPEG compression."""
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (620, 760), paper)
    draw = ImageDraw.Draw(image)
    for y in range(40, 720, 16):
        draw.text((40, y), "".join(rng.choice(list("abcdefgh ijklmno pqrst"), 76)), fill=ink)
    grain = rng.normal(0, 4, (760, 620, 1))
    return jpeg(np.uint8(np.clip(np.asarray(image) + grain, 0, 255)))


def drawing(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (600, 500), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y, wide, high = (int(number) for number in rng.integers(40, 300, 4))
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        color = tuple(int(level) for level in rng.integers(0, 256, 3))
        shape([x, y, x + wide, y + high], fill=color, outline="black", width=3)
    return np.asarray(image)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("quality", [95, 40])
def test_a_colour_photograph_is_fit_for_training(name, quality):
    assert reason(jpeg(reduced(PHOTOGRAPHS[name]()), quality)) == ""


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_grey_photograph_in_rgb_is_grey(name):
    luma = cv2.cvtColor(reduced(PHOTOGRAPHS[name]()), cv2.COLOR_RGB2GRAY)
    assert reason(jpeg(np.repeat(luma[..., None], 3, axis=-1))) == Reason.GREY


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("hue", [60, 85])
@pytest.mark.parametrize("strength", [6, 16, 26])
def test_a_sepia_print_is_grey(name, hue, strength):
    print_ = sepia(reduced(PHOTOGRAPHS[name]()), hue=hue, strength=strength)
    assert reason(print_) == Reason.GREY


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_an_unevenly_stained_print_is_grey(name):
    stained = sepia(reduced(PHOTOGRAPHS[name]()), hue=75, strength=16, stains=0.2)
    assert reason(stained) == Reason.GREY


def test_blue_landscapes_are_not_tinted_prints():
    """Ice, haze and sea are blue everywhere, but in several hues."""
    y, x = np.mgrid[:200, :300] / 200
    ridges = np.sin(5 * x + 3 * np.sin(4 * y)) * 10
    lab = np.stack([85 - 45 * y + ridges, -2 - 6 * y + ridges / 5, -14 - 16 * y + ridges / 2], axis=-1)
    lab[y > 0.7] += [0, -6, 10]
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    grain = np.random.default_rng(0).normal(0, 4, (200, 300, 1))
    assert reason(np.uint8(np.clip(255 * rgb + grain, 0, 255))) == ""


@pytest.mark.parametrize("paper", [(255, 255, 255), (240, 228, 200)])
def test_a_page_of_text_is_not_a_photograph(paper):
    assert reason(reduced(page(paper, (30, 28, 25)))) in (Reason.TEXT_PAGE, Reason.GREY)


def test_a_page_in_coloured_ink_is_a_page_of_text():
    assert reason(page((250, 244, 225), (30, 40, 120))) == Reason.TEXT_PAGE


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quality", [None, 75, 40])
def test_a_drawing_is_clip_art_however_it_was_compressed(seed, quality):
    rgb = drawing(seed) if quality is None else jpeg(drawing(seed), quality)
    assert reason(reduced(rgb)) == Reason.CLIP_ART
