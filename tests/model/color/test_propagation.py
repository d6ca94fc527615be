"""Colour propagation: marked colours spread over surfaces, stop at edges, and leave the rest unchanged."""

import numpy as np
import pytest
from skimage import data

from model.color import propagation
from model.color.propagation import corrected, gathered, propagate, reduced, weights

RED, BLUE = (-20.0, 60.0), (50.0, -15.0)
REACH = dict(reach=1.0, contrast=50.0)


def crop(size=12, at=(60, 200)):
    """A crop of a photograph's luma, uint8, with parts of low and of high contrast."""
    return np.ascontiguousarray(data.camera()[at[0] : at[0] + size, at[1] : at[1] + size + 3])


def halves(height=24, width=32, levels=(60, 180)):
    """Luma that is dark on the left and light on the right, with grain."""
    grain = np.random.default_rng(0).normal(0, 2, (height, width))
    return np.uint8(np.where(np.arange(width) < width // 2, *levels) + grain)


def mark(shape, *marks):
    """Chroma planes and mask for marks (y, x, colour) of 3 x 3 pixels."""
    planes, marked = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
    for y, x, color in marks:
        planes[y - 1 : y + 2, x - 1 : x + 2], marked[y - 1 : y + 2, x - 1 : x + 2] = color, True
    return planes, marked


def dense_system(luma, pull=0.0):
    """The matrix of a picture without marks, computed pixel by pixel from the definition."""
    level, (height, width) = luma / 255, luma.shape
    system = np.zeros((luma.size, luma.size))
    for y in range(height):
        for x in range(width):
            window = [
                (v, u)
                for v in range(max(0, y - 1), min(height, y + 2))
                for u in range(max(0, x - 1), min(width, x + 2))
            ]
            others = [place for place in window if place != (y, x)]
            denominator = 0.6 * np.var([level[place] for place in window])
            least = min((level[place] - level[y, x]) ** 2 for place in others)
            denominator = max(denominator, -least / np.log(0.01), 2e-6)
            weight = np.array(
                [np.exp(-((level[place] - level[y, x]) ** 2) / denominator) for place in others]
            )
            row = y * width + x
            system[row, row] = 1 + pull
            for (v, u), share in zip(others, weight / weight.sum(), strict=True):
                system[row, v * width + u] = -share
    return system


def test_weights_are_those_of_the_definition():
    luma = crop()
    assert np.allclose(np.eye(luma.size) - weights(luma).toarray(), dense_system(luma), atol=1e-12)


def test_a_flat_picture_weighs_its_neighbours_alike_also_at_the_border():
    found = weights(np.full((3, 4), 90, np.uint8)).toarray()
    assert found[0, 1] == pytest.approx(1 / 3)
    assert found[5, 0] == pytest.approx(1 / 8)
    assert np.allclose(found.sum(axis=1), 1)


def test_the_sparse_solution_agrees_with_the_dense_one():
    luma = crop()
    planes, marked = mark(luma.shape, (2, 2, RED), (9, 11, BLUE))
    system, given = dense_system(luma), planes.reshape(-1, 2).astype(float)
    rows = np.flatnonzero(marked)
    system[rows] = np.eye(luma.size)[rows]
    expected = np.linalg.solve(system, given).reshape(planes.shape)
    assert np.abs(propagate(luma, planes, marked) - expected).max() < 1e-3


def test_a_constant_mark_gives_constant_chroma():
    luma = crop(40)
    planes, marked = mark(luma.shape, (5, 5, RED), (30, 33, RED))
    assert np.abs(propagate(luma, planes, marked) - RED).max() < 1e-2


def test_a_step_of_luma_blocks_the_flow():
    luma = halves()
    found = propagate(luma, *mark(luma.shape, (12, 4, RED), (12, 27, BLUE)))
    assert np.abs(found[:, :14] - RED).max() < 8
    assert np.abs(found[:, 18:] - BLUE).max() < 8


def test_on_an_even_surface_colour_passes_over_gradually():
    luma = np.full((9, 41), 120, np.uint8)
    found = propagate(luma, *mark(luma.shape, (4, 1, RED), (4, 39, BLUE)))[4, :, 0]
    assert (np.diff(found) > -1e-3).all()
    assert found[20] == pytest.approx((RED[0] + BLUE[0]) / 2, abs=0.5)


def test_marked_pixels_are_as_they_were_given_and_luma_is_only_read():
    luma = crop(30)
    before = luma.copy()
    planes, marked = mark(luma.shape, (5, 5, RED), (20, 23, BLUE))
    assert np.array_equal(propagate(luma, planes, marked)[marked], planes[marked])
    assert np.array_equal(luma, before)


def test_no_mark_is_an_error():
    with pytest.raises(ValueError, match="no pixel is marked"):
        propagate(crop(), *mark(crop().shape))


def test_a_large_picture_is_solved_reduced_and_keeps_its_edges():
    luma = halves(240, 320)
    planes, marked = mark(luma.shape, (120, 40, RED), (120, 270, BLUE))
    found = propagate(luma, planes, marked, largest=2000)
    assert found.shape == planes.shape
    assert np.abs(found[:, :150] - RED).mean() < 4
    assert np.abs(found[:, 170:] - BLUE).mean() < 4
    assert np.abs(found[:, 159] - RED).mean() < np.abs(found[:, 159] - BLUE).mean()
    assert np.abs(found[:, 160] - BLUE).mean() < np.abs(found[:, 160] - RED).mean()


@pytest.mark.parametrize("shape", [(1200, 900), (40, 50), (10, 30_000)])
def test_a_picture_is_reduced_to_the_limit_and_no_further(shape):
    luma = np.zeros(shape, np.uint8)
    small = reduced(luma, 100_000)
    if luma.size <= 100_000:
        assert small is luma
    else:
        assert small.size == pytest.approx(100_000, rel=0.05)


def test_marks_of_a_cell_are_averaged():
    colors = np.array([RED, BLUE, BLUE])
    planes, marked = gathered(np.array([[0, 0], [1, 1], [9, 9]]), colors, (10, 10), (5, 5))
    assert np.allclose(planes[0, 0], np.mean([RED, BLUE], axis=0))
    assert np.allclose(planes[4, 4], BLUE)
    assert np.argwhere(marked).tolist() == [[0, 0], [4, 4]]


# Corrections


def wavy(shape):
    """Base chroma that varies within every surface."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.float32(np.stack([10 * np.sin(x / 5), 10 * np.cos(y / 4)], axis=-1))


def test_without_marks_the_base_stays():
    luma = halves()
    base = wavy(luma.shape)
    assert np.array_equal(corrected(luma, base, *mark(luma.shape), **REACH), base)


def test_a_marked_surface_takes_on_the_marks_even_colour_and_its_neighbour_keeps_the_base():
    luma = halves(60, 80)
    base = wavy(luma.shape)
    found = corrected(luma, base, *mark(luma.shape, (30, 20, RED)), **REACH)
    assert np.abs(found[:, :36] - RED).mean() < 0.25 * np.abs(base[:, :36] - RED).mean()
    assert np.abs(found[:, 44:] - base[:, 44:]).max() < 1


def test_a_correction_fades_with_the_distance():
    luma = np.full((11, 101), 120, np.uint8)
    found = corrected(luma, np.zeros((11, 101, 2)), *mark(luma.shape, (5, 1, RED)), reach=0.1, contrast=50.0)
    share = found[5, :, 1] / RED[1]
    assert (np.diff(share[2:]) < 0).all()
    assert share[12] == pytest.approx(np.exp(-1), rel=0.15)  # reach * 101 pixels beyond the edge of the mark
    assert share[-1] < 1e-3


def test_a_correction_lies_between_the_base_and_the_marks():
    luma = crop(40)
    base = np.zeros((*luma.shape, 2), np.float32)
    found = corrected(luma, base, *mark(luma.shape, (8, 8, RED), (30, 30, RED)), **REACH)
    assert found[..., 1].min() >= -1e-3
    assert found[..., 1].max() <= RED[1] + 1e-3


def test_a_neutral_mark_takes_colour_away():
    luma = halves()
    base = np.full((*luma.shape, 2), 30, np.float32)
    found = corrected(luma, base, *mark(luma.shape, (12, 6, (0.0, 0.0))), **REACH)
    assert np.abs(found[:, :14]).mean() < 10
    assert np.abs(found[:, 20:] - 30).max() < 2


def test_the_fixed_marks_are_exact():
    luma = crop(30)
    planes, marked = mark(luma.shape, (5, 5, RED), (20, 23, BLUE))
    assert np.array_equal(corrected(luma, wavy(luma.shape), planes, marked, **REACH)[marked], planes[marked])


def test_contrast_adds_up_over_weak_edges():
    ramp = np.broadcast_to(np.uint8(np.arange(60) * 4), (20, 60)).copy()
    _, marked = mark(ramp.shape, (10, 2, RED))
    found = propagation._contrast_to(ramp, marked, 500.0)[10]
    assert found[40] == pytest.approx(4 * 37, rel=0.1)
