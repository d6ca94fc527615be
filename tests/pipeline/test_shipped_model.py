"""The shipped model, on photographs that scikit-image and scikit-learn install."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from model import MODELS, default_model, folder_of
from model.card import read_card
from pipeline import demo
from pipeline.batch.inference import Network
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
    assert _bytes(folder) <= 10 * 10**6


def test_the_size_of_a_batch_changes_nothing(photos):
    side = read_card(Path(default_model())).size
    tiles = np.stack([np.asarray(photo.convert("L").resize((side, side))) for photo in photos])
    alone, together = (
        Network(default_model(), side, batch_size=size, calm=0.5).predict(tiles) for size in (1, 8)
    )
    for one, same in zip(alone, together, strict=True):
        assert np.array_equal(one, same)


def test_the_open_model_says_that_it_is_free_and_both_are_small_together():
    folder = Path(folder_of("open"))
    card = read_card(folder)
    assert (card.name, card.terms.splitlines()[0]) == ("open", "The weights in this folder: free for any use")
    assert "CC0" in (folder / "LICENSE.txt").read_text()
    assert "--warm" not in card.command and "--teacher" not in card.command, (
        "it knows nothing of other weights"
    )
    assert sum(_bytes(Path(folder_of(name))) for name in MODELS) <= 16 * 10**6


def _bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
