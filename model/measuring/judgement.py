"""Figures of a model on an institution's own colour originals, by collection, era, label and skin tone.

Skin tones are read from faces that a cascade of Viola and Jones (2001) finds in the originals. The tone of a face is
its individual typology angle, atan((L* - 50) / b*) in degrees (Chardon, Cretois and Hourseau 1991). The cascade misses
faces in profile and in shadow, and light changes an angle, so that the groups are rough.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from keras import ops
from PIL import Image

from model.color import conversion
from model.data import batches
from model.data.photos import Photo
from model.measuring import evaluation, metrics
from model.predictor import Predictor
from pipeline import storage
from pipeline.inputs import snapshot
from pipeline.photographs.judge import photograph
from pipeline.records.record import Reason, Refusal
from pipeline.storage import scratch

FEWEST = 5  # pictures in a group
TONES = {"light skin": 41, "intermediate skin": 28, "tan skin": 10, "brown skin": -30, "dark skin": -91}
EXAMPLES, CELL = 12, 160  # pictures in the sheet, and their side in pixels
_CASCADE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
_FACE = 24  # pixels, smallest side of a face


@dataclass(frozen=True)
class Original:
    """A colour original, what is known about it, and its faces as (x, y, width, height) in pixels."""

    photo: Photo
    era: str
    labels: tuple[str, ...]
    faces: list[tuple[int, int, int, int]]


def read_originals(
    places: Sequence[str], side: int = 256, done: Callable[[int, int], None] = lambda number, total: None
) -> tuple[list[Original], Counter]:
    """Reads colour originals.

    Args:
        places: folders, globs, gs:// or s3:// prefixes, or manifests; see `pipeline.inputs.snapshot`.
        side: largest short side in pixels. It determines the memory: about 0.3 MB per picture at 256.
        done: called after each picture, with the number of pictures so far and of all.

    Returns:
        The originals, and the number of pictures that were left out, by reason.

    Raises:
        JobError: a place does not exist, cannot be read, or has no pictures.
    """
    originals: list[Original] = []
    left_out: Counter[str] = Counter()
    with scratch.folder() as folder:
        entries = [entry for manifest in snapshot.write(places, folder) for entry in snapshot.read(manifest)]
    for number, entry in enumerate(entries, 1):
        try:
            data = storage.read(entry.item.source)
            pixels = photograph(data, side)
        except Refusal as refusal:
            left_out[str(refusal.reason)] += 1
        except OSError:
            left_out[str(Reason.READ_ERROR)] += 1
        else:
            photo = Photo(entry.item.key, entry.collection, hashlib.sha256(data).hexdigest(), pixels)
            originals.append(Original(photo, entry.era, entry.labels, faces(pixels)))
        done(number, len(entries))
    return originals, left_out


def faces(rgb: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Frontal faces in RGB [H, W, 3] uint8, as (x, y, width, height)."""
    cascade = cv2.CascadeClassifier(str(_CASCADE))
    found = cascade.detectMultiScale(
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), minNeighbors=6, minSize=(_FACE, _FACE)
    )
    return [(int(x), int(y), int(width), int(height)) for x, y, width, height in found]


def tone(rgb: np.ndarray, face: tuple[int, int, int, int]) -> str | None:
    """The name in `TONES` of the skin in a face; None if its middle has no colour of skin."""
    lab = cv2.cvtColor(_middle(rgb, face).astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    lightness, a, b = np.median(lab, axis=0)
    if not (2 < a < 40 and 2 < b < 50):
        return None
    angle = np.degrees(np.arctan2(lightness - 50, b))
    return next(name for name, least in TONES.items() if angle > least)


def _middle(rgb: np.ndarray, face: tuple[int, int, int, int]) -> np.ndarray:
    """Cheeks, nose and brow: the middle half of a face, which has little hair and background."""
    x, y, width, height = face
    return rgb[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4]


def groups(originals: Sequence[Original]) -> dict[str, np.ndarray]:
    """Indices of the originals by group, as "collection: harbour". Small groups are left out."""
    found: dict[str, list[int]] = {}
    for index, original in enumerate(originals):
        names = {f"collection: {original.photo.collection}"}
        if original.era != snapshot.UNKNOWN:
            names.add(f"era: {original.era}")
        names |= {label.replace("=", ": ", 1) for label in original.labels}
        for name in sorted(names):
            found.setdefault(name, []).append(index)
    kept = {name: np.array(some) for name, some in sorted(found.items()) if len(some) >= FEWEST}
    return {"all": np.arange(len(originals))} | kept


def judge(originals: Sequence[Original], size: int, predictor: Predictor, strength: float) -> dict:
    """Figures of the model by group, at `strength` and at full strength, and of skin by tone.

    Each is [mean over pictures, lower, upper] with a 95 % bootstrap interval, as in `evaluation.report`.
    """
    photos = [original.photo for original in originals]
    blank, truth = (
        evaluation.measure(photos, size, evaluation.grey),
        evaluation.truth(photos, size),
    )
    chosen = evaluation.measure(photos, size, predictor, strength)
    full = evaluation.measure(photos, size, predictor)
    result = {}
    for name, indices in groups(originals).items():
        at = np.zeros(len(photos), bool)
        at[indices] = True
        result[name] = evaluation.figures(chosen, full, blank, truth, at)
    return {
        "strength": strength,
        "groups": result,
        "skin": _skin(originals, size, predictor, strength),
    }


def colored(original: Original, size: int, predictor: Predictor, strength: float) -> np.ndarray:
    """The original's luma with the colours of the model: RGB [H, W, 3] uint8."""
    pixels = original.photo.pixels
    squared = batches.resized(pixels, size, size)
    chroma, _ = predictor(batches.lightness(squared[None]))
    height, width = pixels.shape[:2]
    luma = conversion.luma_uint8(pixels[None]).astype(np.float32) / 255
    stretched = cv2.resize(np.asarray(chroma[0], np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    joined = ops.convert_to_numpy(conversion.join(luma, strength * stretched[None]))[0]
    return np.rint(255 * np.clip(joined, 0, 1)).astype(np.uint8)


def _skin(originals: Sequence[Original], size: int, predictor: Predictor, strength: float) -> dict:
    """Mean CIEDE2000 in the middle of faces, of the model and of grey, by skin tone."""
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in TONES}
    for original in originals:
        if not original.faces:
            continue
        pixels = original.photo.pixels
        found = colored(original, size, predictor, strength)
        grey = colored(original, size, evaluation.grey, 0.0)
        for face in original.faces:
            if (name := tone(pixels, face)) is not None:
                truth, *others = (_lab(_middle(one, face)) for one in (pixels, found, grey))
                errors = [float(ops.mean(metrics.ciede2000(truth, other))) for other in others]
                rows[name].append((errors[0], errors[1]))
    return {
        name: {
            "faces": len(some),
            "ciede2000": evaluation.mean(np.array(some)[:, 0]),
            "ciede2000_over_grey": evaluation.ratio(*np.array(some).T),
        }
        for name, some in rows.items()
        if len(some) >= FEWEST
    }


def _lab(rgb: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(conversion.rgb_to_lab(rgb[None].astype(np.float32) / 255))


def sheet(originals: Sequence[Original], size: int, predictor: Predictor, strength: float) -> Image.Image:
    """Pictures from all collections in turn: grey, coloured, original, one below the other."""
    columns = []
    for original in _in_turn(originals):
        one = original.photo.pixels
        grey = np.repeat(conversion.luma_uint8(one[None])[0][..., None], 3, axis=-1)
        three = (grey, colored(original, size, predictor, strength), one)
        columns.append(np.concatenate([batches.resized(picture, CELL, CELL) for picture in three]))
    return Image.fromarray(np.concatenate(columns, axis=1))


def _in_turn(originals: Sequence[Original]) -> Iterator[Original]:
    by_collection: dict[str, list[Original]] = {}
    for original in sorted(originals, key=lambda one: one.photo.digest):
        by_collection.setdefault(original.photo.collection, []).append(original)
    turns = [some[turn] for turn in range(EXAMPLES) for some in by_collection.values() if turn < len(some)]
    return iter(turns[:EXAMPLES])


def _or_blank(value: float | None, width: int) -> str:
    return " " * width if value is None else f"{value:{width}.2f}"


def table(report: dict) -> str:
    """The main figures as lines of text."""
    lines = [
        f"chroma × {report['strength']}, means over pictures; below 1, the colours are better than none:"
    ]
    lines.append(
        f"{'':32}{'pictures':>9}{'RMSE/grey':>11}{'dE00/grey':>11}{'colour':>8}{'brown':>8}{'confidence':>12}"
    )
    for name, figures in report["groups"].items():
        correlation = figures["confidence_spearman_with_rmse"][0]
        lines.append(
            f"{name:32.32}{figures['pictures']:9}{figures['rmse_over_grey'][0]:11.3f}"
            f"{figures['ciede2000_over_grey'][0]:11.3f}{figures['colorfulness_over_truth'][0]:8.2f}"
            f"{_or_blank(figures['full_strength_brown_over_truth'][0], 8)}{_or_blank(correlation, 12)}"
        )
    for name, figures in report["skin"].items():
        over = figures["ciede2000_over_grey"][0]
        lines.append(f"{name:32}{figures['faces']:9}{'':11}{over:11.3f}    of faces")
    return "\n".join(lines)
