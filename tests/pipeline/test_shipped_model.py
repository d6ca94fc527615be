"""The shipped model, on photographs that scikit-image and scikit-learn install."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from model import default_model
from model.card import read_card
from pipeline import demo
from pipeline.imaging.chroma import colorfulness
from pipeline.notebook import colorize_image

PHOTOGRAPHS = [demo.ADMIRAL, demo.ASTRONAUT, demo.CAT, demo.COFFEE, demo.DAHLIA, demo.ROCKET, demo.TEMPLE]


@pytest.fixture(scope="module")
def photos():
    return [photograph.open() for photograph in PHOTOGRAPHS]


def test_the_model_has_a_card_and_a_licence_note_and_is_small():
    folder = Path(default_model())
    card = read_card(folder)
    assert card.command.startswith("python -m model.train")
    assert card.limits
    assert "research" in (folder / "LICENSE.txt").read_text().lower()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10 * 2**20


def test_the_model_produces_colour(photos):
    for image in photos:
        derivative = np.asarray(colorize_image(image.convert("L")))
        assert colorfulness(derivative) > 5


def test_a_panorama_is_coloured_like_its_parts(photos):
    differences = []
    for image in photos:
        grey = image.convert("L")
        side = min(grey.height, grey.width // 4)
        top = (grey.height - side) // 2
        panorama = grey.crop((0, top, 4 * side, top + side))
        for wide in (panorama, panorama.transpose(Image.Transpose.ROTATE_90)):
            whole = rgb2lab(np.asarray(colorize_image(wide)))
            along = 1 if wide.width > wide.height else 0
            for number in range(4):
                start = number * side
                box = (start, 0, start + side, side) if along else (0, start, side, start + side)
                part = rgb2lab(np.asarray(colorize_image(wide.crop(box))))
                there = whole[:, start : start + side] if along else whole[start : start + side]
                differences.append(np.median(deltaE_ciede2000(part, there)))
    assert np.median(differences) <= 5
