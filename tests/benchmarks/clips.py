"""A film of a few shots, made from the colour photographs of installed packages, with its true colours.

A camera pans or zooms over each photograph, a disc with a pattern moves through one of them, and hard cuts are between
the shots. Two cuts join parts of one photograph. The grey frames have grain, and their exposure flickers; one frame is
a flash, and the last shot fades out. Everything is deterministic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.demo import CAT, COFFEE, DAHLIA, MOTORCYCLE, TEMPLE, Photograph

WIDTH, HEIGHT = 400, 300
FLICKER = 0.05  # standard deviation of a frame's exposure
GRAIN = 7.0  # levels: standard deviation of the grain, before the blur of the scanner
GRAIN_SIZE = 0.5  # pixels


@dataclass(frozen=True, slots=True)
class Shot:
    """A camera that moves evenly over a photograph."""

    photograph: Photograph
    # Centre, and width of what it sees, in shares of the photograph's width:
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    disc: bool = False  # whether something moves through it
    flash: bool = False  # whether the frame in its middle is overexposed
    fade: bool = False  # whether it fades out


SHOTS = (
    Shot(TEMPLE, (0.35, 0.3, 0.55), (0.65, 0.36, 0.55)),
    Shot(CAT, (0.5, 0.33, 0.8), (0.47, 0.33, 0.6), flash=True),
    Shot(COFFEE, (0.45, 0.33, 0.75), (0.55, 0.36, 0.75), disc=True),
    Shot(DAHLIA, (0.5, 0.35, 0.6), (0.45, 0.3, 0.75)),
    Shot(TEMPLE, (0.7, 0.42, 0.4), (0.6, 0.45, 0.5)),  # two shots of one place
    Shot(TEMPLE, (0.25, 0.25, 0.45), (0.3, 0.3, 0.35)),
    Shot(MOTORCYCLE, (0.4, 0.35, 0.6), (0.55, 0.33, 0.6), fade=True),
)


@dataclass(eq=False, slots=True)
class Frame:
    shot: int
    luma: np.ndarray  # uint8 [HEIGHT, WIDTH], of the film
    rgb: np.ndarray  # uint8 [HEIGHT, WIDTH, 3], the true colours
    to_scene: np.ndarray  # float [2, 3], from pixels of the frame to those of the photograph
    still: np.ndarray  # bool [HEIGHT, WIDTH]: what moves with the camera only


def frames(length: int, shots: Sequence[Shot] = SHOTS, seed: int = 0) -> Iterator[Frame]:
    """Yields the frames of shots, each with this length."""
    rng = np.random.default_rng(seed)
    for number, shot in enumerate(shots):
        photograph = np.asarray(shot.photograph.open())
        wide = photograph.shape[1]
        for at in range(length):
            share = at / (length - 1)
            x, y, seen = (1 - share) * np.array(shot.start) + share * np.array(shot.end)
            scale = seen * wide / WIDTH
            to_scene = np.array(
                [[scale, 0, x * wide - scale * WIDTH / 2], [0, scale, y * wide - scale * HEIGHT / 2]]
            )
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            soft = cv2.GaussianBlur(photograph, (0, 0), max(0.3, 0.4 * scale))
            rgb = cv2.warpAffine(soft, to_scene, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REFLECT)
            still = np.ones((HEIGHT, WIDTH), bool)
            if shot.disc:
                _add_disc(rgb, still, share)
            exposure = 1 + FLICKER * rng.normal()
            if shot.flash and at == length // 2:
                exposure = 2.2
            if shot.fade:
                exposure *= np.clip(2 * (1 - share), 0.03, 1)
            grain = cv2.GaussianBlur(rng.normal(0, GRAIN, (HEIGHT, WIDTH)), (0, 0), GRAIN_SIZE)
            luma = exposure * cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) + grain
            yield Frame(number, np.uint8(np.rint(np.clip(luma, 0, 255))), rgb, to_scene, still)


def _add_disc(rgb: np.ndarray, still: np.ndarray, share: float) -> None:
    """Draws a disc with a pattern on its way from left to right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centre, radius = WIDTH * (0.15 + 0.7 * share), HEIGHT * 0.14
    inside = np.hypot(x - centre, y - 0.3 * HEIGHT) < radius
    stripes = (np.floor((x - centre) / radius * 3) % 2)[..., None]
    rgb[inside] = (stripes * [60, 110, 190] + (1 - stripes) * [120, 170, 220])[inside]
    still[inside] = False
