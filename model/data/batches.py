"""Batches of lightness and what is to be learned from photographs, each a pure function of the seed and its step."""

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import keras
import numpy as np

from model import color
from model.aging import aged, emulsion
from model.photos import Photo, PhotosError, chroma
from model.srgb import LIGHTNESS


def lightness(pixels: np.ndarray) -> np.ndarray:
    """Network input [H, W, 1] float32, L* 0..100, of RGB [H, W, 3] uint8: the lightness of its grey scan."""
    return LIGHTNESS[color.luma_uint8(pixels)][..., None]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels [H, W, C] at another size: by area where it shrinks, bilinear where it grows."""
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def squashed(
    photo: Photo, size: int, scale: int, target: Callable[[np.ndarray], np.ndarray] = chroma
) -> tuple[np.ndarray, np.ndarray]:
    """A whole photograph as the network sees it: lightness [S, S, 1] and its target [S/scale, S/scale, K]."""
    square = resized(photo.pixels, size, size)
    return lightness(square), resized(target(square), size // scale, size // scale)


def random_crop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the picture, at most 2:1, mirrored half of the time.

    Height and width are drawn each on its own, half to all of the side: squashed to a square, the part has
    aspect jitter of up to 2:1 either way.
    """
    height, width = pixels.shape[:2]
    high, wide = (rng.uniform(0.5, 1, 2) * (height, width)).astype(int)
    high, wide = min(high, 2 * wide), min(wide, 2 * high)
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    part = pixels[top : top + high, left : left + wide]
    # A mirrored view takes twenty times as long to copy, and must be copied.
    return cv2.flip(part, 1) if rng.random() < 0.5 else part


def as_scanned(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W, 1], 0..100, as another scan of the same picture.

    Half of the time it has the contrast and gamma of some other exposure, and a third of the time the blur of a scan
    of 40 to 100 % of the pixels: a photograph's colours must not depend on how sharp it is.
    """
    if rng.random() < 1 / 3:
        height, width = lightness.shape[:2]
        share = rng.uniform(0.4, 1)
        fewer = resized(lightness, round(share * height), round(share * width))
        lightness = resized(fewer, height, width)[..., None]
    if rng.random() < 0.5:
        return lightness
    gamma, contrast, offset = np.exp(rng.uniform(-0.25, 0.25)), rng.uniform(0.8, 1.1), rng.uniform(-4, 4)
    toned = 100 * (lightness / 100) ** gamma
    return np.clip((toned - 50) * contrast + 50 + offset, 0, 100).astype(np.float32)


def picture_weights(photos: list[Photo], by_collection: dict[str, float]) -> np.ndarray:
    """Chance [P] of each photograph to be drawn, from the weights of their collections (1 where none is given).

    Raises PhotosError where all are weighed 0.
    """
    weights = np.array([by_collection.get(photo.collection, 1.0) for photo in photos])
    if not weights.any():
        raise PhotosError("every collection of training photographs has weight 0")
    return weights / weights.sum()


@dataclass(frozen=True)
class Views:
    """Random views of pictures, as a network is trained on them.

    Attributes:
        sizes: heights and widths in pixels of the batches, by turns; two that follow each other differ.
        batch: pictures a batch.
        scale: of how much smaller the target is than the input.
        seed: of everything random.
        aging: chance of a picture to look like an old scan.
        target: RGB [H, W, 3] uint8 to what is learned, [H, W, K] float32; reduced by area.
    """

    sizes: tuple[int, ...]
    batch: int
    scale: int
    seed: int = 0
    aging: float = 0.0
    target: Callable[[np.ndarray], np.ndarray] = chroma

    def generator(self, step: int) -> np.random.Generator:
        """What is random in the batch of a step, counted from 0: a function of the seed and the step."""
        return np.random.default_rng([self.seed, step])

    def of(
        self, pictures: Iterable[np.ndarray], step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step, of RGB pictures [H, W, 3] uint8, with the step's `generator`.

        Returns lightness [B, S, S, 1], L* 0..100, and targets [B, S/scale, S/scale, K], float32.
        """
        size = self.sizes[step % len(self.sizes)]
        pairs = [self._view(pixels, size, rng) for pixels in pictures]
        return tuple(np.stack(column) for column in zip(*pairs, strict=True))

    def _view(self, pixels: np.ndarray, size: int, rng: np.random.Generator):
        square = resized(random_crop(pixels, rng), size, size)
        target = resized(self.target(square), size // self.scale, size // self.scale)
        if self.aging and rng.random() < self.aging:
            return aged(LIGHTNESS[emulsion(square, rng)][..., None], rng), target
        return as_scanned(lightness(square), rng), target


class TrainingBatches:
    """Batches of `views` without end, of photographs drawn with the chances `weights` [P].

    The first is that of the step `start`: a resumed run sees the batches it would have seen.
    """

    def __init__(self, photos: list[Photo], weights: np.ndarray, views: Views, start: int = 0):
        self.photos, self.weights, self.views, self.start = photos, weights, views, start

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """In order; made ahead by as many threads as there are cores, for OpenCV works outside Python's lock."""
        cores = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(cores) as pool:
            ahead = deque(pool.submit(self.__getitem__, index) for index in range(2 * cores))
            for index in itertools.count(len(ahead)):
                yield ahead.popleft().result()
                ahead.append(pool.submit(self.__getitem__, index))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        step = self.start + index
        rng = self.views.generator(step)
        drawn = rng.choice(len(self.photos), self.views.batch, p=self.weights)
        return self.views.of((self.photos[which].pixels for which in drawn), step, rng)


class WholePhotos(keras.utils.PyDataset):
    """Every photograph once, squashed to `size`, in order: lightness and targets as of `Views`."""

    def __init__(self, photos: list[Photo], *, size: int, batch: int, scale: int, target: Callable = chroma):
        super().__init__()
        self.photos, self.size, self.batch, self.scale, self.target = photos, size, batch, scale, target

    def __len__(self) -> int:
        return math.ceil(len(self.photos) / self.batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.photos[index * self.batch : (index + 1) * self.batch]
        pairs = [squashed(photo, self.size, self.scale, self.target) for photo in chosen]
        return tuple(np.stack(column) for column in zip(*pairs, strict=True))
