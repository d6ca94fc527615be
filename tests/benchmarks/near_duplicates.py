"""Recall and false positives of near-duplicate detection in ingestion.

    python -m tests.benchmarks.near_duplicates --photos DIR        takes some minutes for 900 photographs

Each photograph gets sixteen copies: crops that remove 3 % at each corner, JPEG at quality 30, 40 % of the size, 10 %
darker, 10 % lighter, and combinations of these. A copy counts as found if it shares a key with its photograph and its
similarity is at least `COPY`. Photographs that share a key with each other are compared, too.
"""

import argparse
import itertools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from model.data.photos import PhotosError, read_photos
from pipeline.photographs import duplicates

CROP = 0.03  # fraction of a side


def crop(rgb: np.ndarray, left: bool = True, top: bool = True) -> np.ndarray:
    dy, dx = (max(1, round(CROP * side)) for side in rgb.shape[:2])
    rows = slice(dy, None) if top else slice(-dy)
    columns = slice(dx, None) if left else slice(-dx)
    return np.ascontiguousarray(rgb[rows, columns])


def recompress(rgb: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)


def shrink(rgb: np.ndarray) -> np.ndarray:
    return cv2.resize(rgb, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)


def brighten(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rgb: cv2.convertScaleAbs(rgb, alpha=factor)


def copies(rgb: np.ndarray) -> Iterator[np.ndarray]:
    """Sixteen copies of RGB [H, W, 3] uint8."""
    yield from (crop(rgb, left, top) for left, top in itertools.product((True, False), repeat=2))
    changes = recompress, shrink, brighten(0.9), brighten(1.1)
    for change in changes:
        yield change(rgb)
        yield change(crop(rgb))
    yield recompress(shrink(rgb))
    yield recompress(shrink(crop(rgb, left=False)))
    yield brighten(0.9)(recompress(rgb))
    yield brighten(1.1)(shrink(crop(rgb, top=False)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="folder of colour photographs without duplicates")
    parser.add_argument(
        "--most", type=int, default=900, help="maximum number of photographs (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        read = read_photos(arguments.photos)
    except PhotosError as error:
        print(error, file=sys.stderr)
        return 2
    photos = [photo.pixels for part in (read.train, read.validation, read.test) for photo in part]
    photos = photos[:: max(1, len(photos) // arguments.most)]
    own = [duplicates.signature(photo) for photo in photos]
    own_keys = [set(duplicates.keys(signature)) for signature in own]
    found, tried, started = Counter(), 0, time.perf_counter()
    for photo, signature, keys in zip(photos, own, own_keys, strict=True):
        for copy in copies(photo):
            tried += 1
            other = duplicates.signature(copy)
            met = not keys.isdisjoint(duplicates.keys(other))
            similarity = duplicates.similarity(signature, other) if met else 0.0
            found["copy"] += similarity >= duplicates.COPY
            found["related"] += similarity >= duplicates.RELATED
    milliseconds = 1000 * (time.perf_counter() - started) / tried
    by_key = defaultdict(list)
    for number, keys in enumerate(own_keys):
        for key in keys:
            by_key[key].append(number)
    met = {pair for members in by_key.values() for pair in itertools.combinations(members, 2)}
    alike = sum(duplicates.similarity(own[one], own[other]) >= duplicates.RELATED for one, other in met)
    print(f"{tried:,} copies of {len(photos):,} photographs: {found['copy']:,} are detected as copies,")
    print(f"{found['related']:,} as related ({milliseconds:.1f} ms per copy, including making it);")
    print(f"{len(met):,} pairs of photographs share a key: {alike:,} are detected as related")
    return 0


if __name__ == "__main__":
    sys.exit(main())
