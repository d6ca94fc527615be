"""Batches of lightness and chroma from photographs, each a pure function of the seed, the epoch and its index."""

import math
from collections.abc import Iterable

import cv2
import keras
import numpy as np

from model import color
from model.aging import aged, emulsion
from model.photos import Photo, PhotosError, chroma

_LIGHTNESS = np.asarray(color.lightness_of_grey(np.arange(256) / 255), np.float32)


def lightness(pixels: np.ndarray) -> np.ndarray:
    """Network input [H, W, 1] float32, L* 0..100, of RGB [H, W, 3] uint8: the lightness of its grey scan."""
    return _LIGHTNESS[color.luma_uint8(pixels)][..., None]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels [H, W, C] at another size: by area where it shrinks, bilinear where it grows."""
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def squashed(photo: Photo, size: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """A whole photograph as the network sees it: lightness [S, S, 1] and chroma [S/scale, S/scale, 2]."""
    square = resized(photo.pixels, size, size)
    return lightness(square), resized(chroma(square), size // scale, size // scale)


def random_crop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the picture, at most 2:1, mirrored half of the time.

    Height and width are drawn each on its own, 65 to 100 % of the side: squashed to a square, the part has
    aspect jitter of up to 1.54:1 either way.
    """
    height, width = pixels.shape[:2]
    high, wide = (rng.uniform(0.65, 1, 2) * (height, width)).astype(int)
    high, wide = min(high, 2 * wide), min(wide, 2 * high)
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    part = pixels[top : top + high, left : left + wide]
    return part[:, ::-1] if rng.random() < 0.5 else part


def as_scanned(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lightness [H, W, 1], 0..100, with the contrast and gamma of some other exposure, half of the time."""
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


def drawn_size(sizes: tuple[int, ...], step: int, rng: np.random.Generator) -> int:
    """Size of the batch of a step, drawn such that each of `sizes` costs the same arithmetic."""
    # Keras reads from the first batches that sizes differ, so those are not left to chance.
    if step < len(sizes):
        return sizes[step]
    cost = np.array(sizes, float) ** -2
    return int(rng.choice(sizes, p=cost / cost.sum()))


def augmented(
    pictures: Iterable[np.ndarray], size: int, scale: int, rng: np.random.Generator, aging: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Random views of B RGB pictures [H, W, 3] uint8, each with the chance `aging` made to look like an old scan.

    Returns lightness [B, size, size, 1] and chroma [B, size/scale, size/scale, 2], float32.
    """
    pairs = [_view(pixels, size, scale, rng, aging) for pixels in pictures]
    return tuple(np.stack(column) for column in zip(*pairs, strict=True))


def _view(pixels: np.ndarray, size: int, scale: int, rng: np.random.Generator, aging: float):
    square = resized(np.ascontiguousarray(random_crop(pixels, rng)), size, size)
    target = resized(chroma(square), size // scale, size // scale)
    if aging and rng.random() < aging:
        return aged(_LIGHTNESS[emulsion(square, rng)][..., None], rng), target
    return as_scanned(lightness(square), rng), target


class TrainingBatches(keras.utils.PyDataset):
    """Random batches without end: lightness [B, S, S, 1], chroma [B, S/scale, S/scale, 2].

    S is drawn for each batch from `sizes`; `aging` is the chance of a picture to look like an old scan.
    A batch is that of a step of an epoch of `steps`, counted from the given epoch on, so that a resumed
    run sees the batches it would have seen.
    """

    num_batches = None

    def __init__(self, photos, weights, *, sizes, batch, steps, scale, seed, epoch=0, aging=0.0):
        super().__init__()
        self.photos, self.weights = photos, weights
        self.sizes, self.batch, self.steps, self.scale = sizes, batch, steps, scale
        self.seed, self.epoch, self.aging = seed, epoch, aging

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        later, step = divmod(index, self.steps)
        rng = np.random.default_rng([self.seed, self.epoch + later, step])
        size = drawn_size(self.sizes, step, rng)
        drawn = rng.choice(len(self.photos), self.batch, p=self.weights)
        return augmented((self.photos[which].pixels for which in drawn), size, self.scale, rng, self.aging)


class WholePhotos(keras.utils.PyDataset):
    """Every photograph once, squashed to `size`, in order: lightness and chroma as in `TrainingBatches`."""

    def __init__(self, photos: list[Photo], *, size: int, batch: int, scale: int):
        super().__init__()
        self.photos, self.size, self.batch, self.scale = photos, size, batch, scale

    def __len__(self) -> int:
        return math.ceil(len(self.photos) / self.batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.photos[index * self.batch : (index + 1) * self.batch]
        pairs = [squashed(photo, self.size, self.scale) for photo in chosen]
        return tuple(np.stack(column) for column in zip(*pairs, strict=True))
