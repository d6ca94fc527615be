"""Long pictures, with the shipped model: no seams between tiles, and the colours of their parts.

Photographs are put side by side with their mirror images, so that they are long and have no edges where they meet.
"""

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage.color import deltaE_ciede2000, rgb2lab

from model import default_model
from model.card import read_card
from pipeline import demo
from pipeline.imaging import chroma
from pipeline.notebook import colorize_image

PHOTOGRAPHS = [demo.ADMIRAL, demo.COFFEE, demo.ROCKET, demo.TEMPLE]
HEIGHT = 400  # pixels
BESIDE = 5  # pixels on each side of a seam, two of the network's view


def long(photograph, ratio):
    grey = photograph.open().convert("L")
    grey = grey.resize((round(grey.width * HEIGHT / grey.height), HEIGHT))
    whole = Image.new("L", (ratio * HEIGHT, HEIGHT))
    for number, left in enumerate(range(0, whole.width, grey.width)):
        whole.paste(ImageOps.mirror(grey) if number % 2 else grey, (left, 0))
    return whole


def step(lab, at, width):
    """Median over the rows of the difference in colour across a column, at the same lightness."""
    before, behind = lab[:, at - width : at].mean(1), lab[:, at : at + width].mean(1)
    behind[:, 0] = before[:, 0]
    return np.median(deltaE_ciede2000(before, behind))


def seams(picture):
    """Columns at which a tile begins or ends."""
    side = read_card(default_model()).size
    length = chroma.canvas_size(*picture.size, side)[0]
    starts = chroma._offsets(length, side)
    ends = [start + side for start in starts]
    return sorted({round(at * picture.width / length) for at in starts + ends if 0 < at < length})


@pytest.fixture(scope="module", params=[3, 5, 8], ids="{}:1".format)
def coloured(request):
    """Long pictures, and their L*a*b*."""
    pictures = [long(photograph, request.param) for photograph in PHOTOGRAPHS]
    return [(picture, rgb2lab(np.asarray(colorize_image(picture)))) for picture in pictures]


def test_there_is_no_step_at_the_seams(coloured):
    for picture, lab in coloured:
        found = [step(lab, at, 1) for at in seams(picture)]
        assert len(found) >= 4 and max(found) <= 2


def test_colours_change_at_the_seams_no_more_than_elsewhere(coloured):
    there, elsewhere = [], []
    for picture, lab in coloured:
        columns = seams(picture)
        there += [step(lab, at, BESIDE) for at in columns]
        others = range(20, picture.width - 20, 7)
        elsewhere += [step(lab, at, BESIDE) for at in others if min(abs(at - seam) for seam in columns) > 10]
    assert np.median(there) <= 2
    assert np.median(there) <= 1.5 * np.median(elsewhere)


def test_colours_are_those_of_the_parts(coloured):
    differences = []
    for picture, lab in coloured:
        for left in range(0, picture.width, HEIGHT):
            part = rgb2lab(np.asarray(colorize_image(picture.crop((left, 0, left + HEIGHT, HEIGHT)))))
            differences.append(np.median(deltaE_ciede2000(part, lab[:, left : left + HEIGHT])))
    assert np.median(differences) <= 5


def test_a_column_is_coloured_as_the_row_it_is_turned_from():
    """Only the network sees them differently; the tiles are the same."""
    picture = long(demo.TEMPLE, 8)
    column = picture.transpose(Image.Transpose.ROTATE_90)
    lab = rgb2lab(np.asarray(colorize_image(column).transpose(Image.Transpose.ROTATE_270)))
    assert max(step(lab, at, 1) for at in seams(picture)) <= 2
