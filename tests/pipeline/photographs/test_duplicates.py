"""Near-duplicates: copies share keys, so not all pairs are compared. Different photographs are not related."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from skimage import data
from sklearn.datasets import load_sample_image

from pipeline.photographs import duplicates

CROP = 0.03


def cropped(image: Image.Image, left=0.0, top=0.0, right=0.0, bottom=0.0) -> Image.Image:
    width, height = image.size
    return image.crop(
        (
            round(left * width),
            round(top * height),
            width - round(right * width),
            height - round(bottom * height),
        )
    )


def recompressed(image: Image.Image, quality: int = 30) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, scale: float = 0.4) -> Image.Image:
    return image.resize([round(scale * edge) for edge in image.size])


def brightened(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


COPIES = {
    "left": lambda image: cropped(image, left=CROP),
    "top": lambda image: cropped(image, top=CROP),
    "right": lambda image: cropped(image, right=CROP),
    "bottom": lambda image: cropped(image, bottom=CROP),
    "all_sides": lambda image: cropped(image, CROP, CROP, CROP, CROP),
    "recompressed": recompressed,
    "resized": resized,
    "brighter": lambda image: brightened(image, 1.1),
    "darker": lambda image: brightened(image, 0.9),
    "all_at_once": lambda image: recompressed(
        brightened(resized(cropped(image, CROP, CROP, CROP, CROP)), 0.9)
    ),
}


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Quarters of the installed photographs, which do not overlap."""
    whole = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    whole += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    parts = []
    for pixels in whole:
        height, width = (edge // 2 for edge in pixels.shape[:2])
        corners = itertools.product((0, height), (0, width))
        parts += [Image.fromarray(pixels[y : y + height, x : x + width]) for y, x in corners]
    return parts


def signature(image: Image.Image) -> bytes:
    return duplicates.signature(np.asarray(image))


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_shares_a_key_with_its_original_and_is_related_to_it(photographs, copy):
    for image in photographs:
        one, other = signature(image), signature(COPIES[copy](image))
        assert set(duplicates.keys(one)) & set(duplicates.keys(other))
        assert duplicates.similarity(one, other) >= duplicates.RELATED


def test_different_photographs_are_not_related(photographs):
    for one, other in itertools.combinations(map(signature, photographs), 2):
        assert duplicates.similarity(one, other) < duplicates.RELATED


def test_the_same_shapes_in_other_colours_are_not_a_copy():
    rgb = data.coffee()
    assert duplicates.similarity(duplicates.signature(rgb), duplicates.signature(rgb[..., ::-1])) == 0


def test_similarity_is_the_same_both_ways_and_1_for_a_picture_itself(photographs):
    one, other = signature(photographs[0]), signature(cropped(photographs[0], left=CROP))
    assert duplicates.similarity(one, other) == pytest.approx(duplicates.similarity(other, one))
    assert duplicates.similarity(one, one) == pytest.approx(1)


def test_signatures_and_keys_are_small(photographs):
    signed = signature(photographs[0])
    assert len(signed) <= 300
    assert sum(map(len, duplicates.keys(signed))) <= 800


@pytest.mark.parametrize("level", [0, 128, 255])
def test_pictures_of_one_colour_have_a_signature_and_are_no_relatives_of_photographs(photographs, level):
    flat = duplicates.signature(np.full((40, 30, 3), level, np.uint8))
    assert duplicates.keys(flat)
    assert duplicates.similarity(flat, signature(photographs[0])) < duplicates.RELATED


def test_a_rare_key_gives_all_pairs_and_a_common_key_a_bounded_number():
    assert set(duplicates.pairs("abc")) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert len(list(duplicates.pairs(range(1000), crowd=16))) < 16 * 1000


def test_a_copy_is_next_to_its_original_in_color_order(photographs):
    crowd = [duplicates.color_order(signature(image)) for image in photographs]
    steps = [
        sum(min(own, other) < color_order < max(own, other) for color_order in crowd)
        for image, own in zip(photographs, crowd, strict=True)
        for other in [duplicates.color_order(signature(COPIES["all_at_once"](image)))]
    ]
    assert np.mean(steps) < 1


def test_components_are_named_by_their_smallest_member():
    edges = [("b", "c"), ("x", "y"), ("c", "d"), ("a", "b")]
    assert duplicates.components(edges) == {"a": "a", "b": "a", "c": "a", "d": "a", "x": "x", "y": "x"}


def test_components_do_not_depend_on_the_order_of_edges():
    edges = [(1, 2), (3, 4), (2, 5), (6, 4), (7, 8), (5, 9)]
    rng = np.random.default_rng(0)
    expected = duplicates.components(edges)
    for _ in range(20):
        order = rng.permutation(len(edges))
        assert duplicates.components([edges[at][:: rng.choice([-1, 1])] for at in order]) == expected
