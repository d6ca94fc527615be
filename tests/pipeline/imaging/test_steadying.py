"""Chroma of film frames, on photographs that installed packages have."""

import cv2
import numpy as np
import pytest

from pipeline import demo
from pipeline.imaging import steadying
from pipeline.imaging.steadying import Other

SIDE = 96
PHOTOGRAPHS = [
    demo.ADMIRAL,
    demo.ASTRONAUT,
    demo.CAT,
    demo.COFFEE,
    demo.DAHLIA,
    demo.MOTORCYCLE,
    demo.ROCKET,
    demo.TEMPLE,
]


def tile(
    photograph, x: float = 0.5, y: float = 0.5, seen: float = 0.6, exposure: float = 1.0, grain: int = 0
) -> np.ndarray:
    """What a camera sees, uint8 [1, SIDE, SIDE]: its centre and its width in shares of the photograph."""
    luma = np.asarray(photograph.open().convert("L"))
    height, width = luma.shape
    high, wide = int(seen * height), int(seen * width)
    top, left = int(y * height - high / 2), int(x * width - wide / 2)
    part = cv2.resize(luma[top : top + high, left : left + wide], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(grain).normal(0, 4 if grain else 0, part.shape)
    return np.uint8(np.clip(exposure * part + noise, 0, 255))[None]


def plain(a: float, b: float = 0.0) -> np.ndarray:
    return np.full((1, SIDE, SIDE, 2), (a, b), np.float16)


def used(one: np.ndarray, other: np.ndarray) -> bool:
    return steadying.steadied(one, plain(0), [Other(1, other, plain(9))], 2)[1] == [0]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.path)
def test_a_moving_camera_makes_no_cut(photograph):
    here = tile(photograph, grain=1)
    moved = {
        "pan": tile(photograph, x=0.53, y=0.52, grain=2),
        "zoom": tile(photograph, seen=0.56, grain=3),
        "darker": tile(photograph, x=0.51, exposure=0.6, grain=4),
        "fading": tile(photograph, x=0.51, exposure=0.25),
        "brighter": tile(photograph, x=0.51, exposure=1.3, grain=5),
    }
    assert [name for name, there in moved.items() if not used(here, there)] == []


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.path)
def test_colour_does_not_run_over_cuts(photograph):
    here = tile(photograph, grain=1)
    others = {other.path: tile(other, grain=2) for other in PHOTOGRAPHS if other is not photograph}
    others |= {
        "the same place from another side": tile(photograph, x=0.7, seen=0.5)[:, :, ::-1],
        "black": np.zeros_like(here),
        "white": np.full_like(here, 255),
        "grain": np.random.default_rng(1).normal(30, 4, here.shape).astype(np.uint8),
    }
    assert [name for name, there in others.items() if used(here, there)] == []
    for there in others.values():
        steady, _ = steadying.steadied(here, plain(3), [Other(1, there, plain(90))], 2)
        np.testing.assert_array_equal(steady, plain(3))


def test_a_frame_behind_a_flash_is_of_the_same_shot():
    here, flash, there = (tile(demo.CAT, x=0.5 + 0.01 * at, grain=at) for at in range(3))
    flash = np.uint8(np.clip(flash * 6.0, 0, 255))
    others = [Other(1, flash, plain(0)), Other(2, there, plain(9))]
    assert 1 in steadying.steadied(here, plain(0), others, 2)[1]


def test_near_frames_count_more_and_the_mean_is_kept():
    here = tile(demo.TEMPLE)
    steady, indices = steadying.steadied(
        here, plain(10), [Other(1, here, plain(4)), Other(-2, here, plain(1))], 2
    )
    assert indices == [0, 1]
    np.testing.assert_allclose(steady[..., 0], (10 + 4 * 2 / 3 + 1 / 3) / 2, atol=0.01)
    np.testing.assert_allclose(steady[..., 1], 0, atol=0.01)


def test_colour_moves_with_what_it_belongs_to():
    """A red disc moves over a blue ground. Between its two places nothing is mixed."""
    y, x = np.mgrid[:SIDE, :SIDE]
    ground = tile(demo.TEMPLE)[0].astype(float) * 0.6 + 60
    texture = tile(demo.DAHLIA)[0].astype(float) * 0.6

    def frame(left: int) -> tuple[np.ndarray, np.ndarray]:
        disc = np.hypot(x - left, y - 48) < 18
        luma = np.where(disc, np.roll(texture, left - 48, axis=1), ground)
        return np.uint8(luma)[None], np.where(disc[..., None], (40, 10), (0, -30))[None].astype(np.float16)

    (luma, chroma), (there, its) = frame(40), frame(45)
    steady, indices = steadying.steadied(luma, chroma, [Other(1, there, its)], 2)
    assert indices == [0]
    away = np.abs(steady - chroma)[0, ..., 0]
    assert np.quantile(away, 0.97) < 2, "elsewhere the colours stay"
    assert np.abs(chroma - its)[0, ..., 0].mean() > 2 * away.mean(), "an average in place would mix them"


def test_noise_of_the_chroma_is_averaged_where_the_camera_moves():
    rng = np.random.default_rng(3)
    soft = [cv2.resize(rng.normal(0, 10, (6, 6, 2)).astype(np.float32), (SIDE, SIDE))[None] for _ in range(5)]
    film = [tile(demo.TEMPLE, x=0.46 + 0.02 * at, grain=at + 1) for at in range(5)]
    others = [Other(at - 2, film[at], soft[at]) for at in (0, 1, 3, 4)]
    steady, indices = steadying.steadied(film[2], soft[2], others, 2)
    assert len(indices) == 4
    assert steady.std() < 0.65 * soft[2].std()


def test_a_neighbour_without_chroma_is_left_out():
    here = tile(demo.CAT)
    steady, indices = steadying.steadied(here, plain(5), [Other(1, here, plain(np.nan))], 2)
    assert indices == []
    np.testing.assert_array_equal(steady, plain(5))


def test_tiles_of_a_wide_frame_are_of_one_shot():
    here = np.concatenate([tile(demo.TEMPLE), tile(demo.TEMPLE, x=0.6)])
    flat = np.concatenate([here[:1], np.full_like(here[1:], 20)])  # one of them cannot be matched
    chroma = np.concatenate([plain(2), plain(4)])
    steady, indices = steadying.steadied(here, chroma, [Other(1, here, chroma + 3)], 2)
    assert indices == [0]
    np.testing.assert_allclose(steady, chroma + 3 * np.float32(2 / 3) / (1 + 2 / 3), atol=0.01)
    assert steadying.steadied(here, chroma, [Other(1, flat, chroma)], 2)[0].shape == (2, SIDE, SIDE, 2)


@pytest.mark.parametrize("side", [16, 32, 50])
def test_small_networks_can_be_steadied_too(side):
    here = cv2.resize(tile(demo.CAT)[0], (side, side))[None]
    chroma = np.zeros((1, side, side, 2), np.float16)
    steady, indices = steadying.steadied(here, chroma, [Other(1, here, chroma + 5)], 2)
    assert indices == [0] and steady.shape == chroma.shape
    np.testing.assert_allclose(steady, 2, atol=0.01)
