"""Training batches of lightness and targets. Each batch is a pure function of the seed and the step."""

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

from model.color import conversion
from model.color.srgb import LIGHTNESS
from model.data.aging import aged, emulsion
from model.data.photos import Photo, PhotosError, chroma


def lightness(pixels: np.ndarray) -> np.ndarray:
    """Network input [H, W, 1] float32, L* 0..100, for RGB [H, W, 3] uint8: the lightness of its grey scan."""
    return LIGHTNESS[conversion.luma_uint8(pixels)][..., None]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes pixels [H, W, C]: by area if the result is smaller, bilinearly if it is larger."""
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def squashed(
    photo: Photo, size: int, scale: int, target: Callable[[np.ndarray], np.ndarray] = chroma
) -> tuple[np.ndarray, np.ndarray]:
    """Squashes a whole photograph to a square: lightness [S, S, 1] and target [S/scale, S/scale, K]."""
    square = resized(photo.pixels, size, size)
    return lightness(square), resized(target(square), size // scale, size // scale)


def random_crop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crops a random part of the picture, at most 2:1, and mirrors it half of the time.

    Height and width are drawn independently, from half of the side to all of it. When the part is squashed to a
    square, this is an aspect jitter of up to 2:1 in both directions.
    """
    height, width = pixels.shape[:2]
    high, wide = (rng.uniform(0.5, 1, 2) * (height, width)).astype(int)
    high, wide = min(high, 2 * wide), min(wide, 2 * high)
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    part = pixels[top : top + high, left : left + wide]
    # A mirrored view would be copied later, which takes twenty times as long.
    return cv2.flip(part, 1) if rng.random() < 0.5 else part


def as_scanned(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Varies lightness [H, W, 1], 0..100, like another scan of the same picture.

    Half of the time contrast and gamma change, as with another exposure. A third of the time the picture is blurred
    like a scan with 40 to 100 % of the pixels, because the colours must not depend on the sharpness.
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
    """Probability [P] of drawing each photograph, from the weights of the collections (default 1).

    Raises PhotosError if all weights are 0.
    """
    weights = np.array([by_collection.get(photo.collection, 1.0) for photo in photos])
    if not weights.any():
        raise PhotosError("every collection of training photographs has weight 0")
    return weights / weights.sum()


@dataclass(frozen=True)
class Views:
    """Random views of pictures for training.

    Attributes:
        sizes: heights and widths of the batches in pixels, used in turn.
        batch: number of pictures in a batch.
        scale: downsampling factor of the target.
        seed: random seed.
        aging: probability that a picture is made to look like an old scan.
        target: function from RGB [H, W, 3] uint8 to the target [H, W, K] float32, which is then reduced by area.
    """

    sizes: tuple[int, ...]
    batch: int
    scale: int
    seed: int = 0
    aging: float = 0.0
    target: Callable[[np.ndarray], np.ndarray] = chroma

    def generator(self, step: int) -> np.random.Generator:
        """Random generator for the batch of a step, counted from 0."""
        return np.random.default_rng([self.seed, step])

    def of(
        self, pictures: Iterable[np.ndarray], step: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Makes the batch of a step from RGB pictures [H, W, 3] uint8, with the `generator` of the step.

        Returns lightness [B, S, S, 1], L* 0..100, and targets [B, S/scale, S/scale, K], float32.
        """
        size = self.sizes[step % len(self.sizes)]
        pairs = [self._view(pixels, size, rng) for pixels in pictures]
        return _stacked(pairs)

    def _view(self, pixels: np.ndarray, size: int, rng: np.random.Generator):
        square = resized(random_crop(pixels, rng), size, size)
        target = resized(self.target(square), size // self.scale, size // self.scale)
        if self.aging and rng.random() < self.aging:
            return aged(LIGHTNESS[emulsion(square, rng)][..., None], rng), target
        return as_scanned(lightness(square), rng), target


def _stacked(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs])


class TrainingBatches:
    """Endless batches of `views`, from photographs drawn with the probabilities `weights` [P].

    The first batch is that of step `start`, so that a resumed run sees the same batches as an uninterrupted one.
    """

    def __init__(self, photos: list[Photo], weights: np.ndarray, views: Views, start: int = 0):
        self.photos, self.weights, self.views, self.start = photos, weights, views, start

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the batches in order.

        As many threads as there are cores prepare them; OpenCV releases Python's lock.
        """
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
    """All photographs in order, squashed to `size`: lightness and targets as in `Views`."""

    def __init__(self, photos: list[Photo], *, size: int, batch: int, scale: int, target: Callable = chroma):
        super().__init__()
        self.photos, self.size, self.batch, self.scale, self.target = photos, size, batch, scale, target

    def __len__(self) -> int:
        return math.ceil(len(self.photos) / self.batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.photos[index * self.batch : (index + 1) * self.batch]
        pairs = [squashed(photo, self.size, self.scale, self.target) for photo in chosen]
        return _stacked(pairs)
