"""Evaluates a model: figures by collection at the operating point, beside three controls.

Photographs are squashed to S x S pixels. Predicted chroma is joined with the luma of the photograph, as in a
derivative, before it is measured.
"""

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from model.color import conversion
from model.data import batches
from model.data.photos import Photo, chroma
from model.measuring import metrics
from model.predictor import Predictor
from model.traditional import luminance_table

SHARE = 0.6  # mean colourfulness at the operating point, as a share of the true one
_BATCH = 32


@dataclass(frozen=True)
class Measures:
    """Measures of pictures, [P] each: errors of the joined colours, colourfulness, share of brown, confidence."""

    rmse: np.ndarray
    ciede2000: np.ndarray
    colorfulness: np.ndarray
    brown: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Truth:
    """The same of the photographs themselves: colourfulness and share of brown, [P] each."""

    colorfulness: np.ndarray
    brown: np.ndarray


def measure(photos: list[Photo], size: int, predictor: Predictor, strength: float = 1.0) -> Measures:
    """Measures all photographs, with the predicted chroma times `strength`."""
    rows = []
    for rgb, grey, lightness in pictures(photos, size):
        predicted, confidence = predictor(lightness)
        joined = conversion.join(grey, strength * predicted)
        truth, found = conversion.rgb_to_lab(rgb), conversion.rgb_to_lab(joined)
        row = (
            metrics.chroma_rmse(truth[..., 1:], found[..., 1:]),
            ops.mean(metrics.ciede2000(truth, found), axis=(1, 2)),
            metrics.colorfulness(joined),
            metrics.brown(found),
            confidence,
        )
        rows.append([ops.convert_to_numpy(column) for column in row])
    return Measures(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def truth(photos: list[Photo], size: int) -> Truth:
    """Measures the photographs themselves."""
    rows = []
    for rgb, _, _ in pictures(photos, size):
        row = metrics.colorfulness(rgb), metrics.brown(conversion.rgb_to_lab(rgb))
        rows.append([ops.convert_to_numpy(column) for column in row])
    return Truth(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def operating_strength(photos: list[Photo], size: int, predictor: Predictor) -> float:
    """The factor on chroma, at most 8, at which the mean colourfulness is `SHARE` of the true one."""
    strengths = np.array([0, 0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.5, 4, 8])
    batches_of = [(grey, predictor(lightness)[0]) for _, grey, lightness in pictures(photos, size)]

    @functools.cache
    def found(index: int) -> float:
        """Colourfulness of all pictures at a strength; it grows with the strength."""
        joined = (conversion.join(grey, strengths[index] * chroma) for grey, chroma in batches_of)
        return sum(float(ops.sum(metrics.colorfulness(rgb))) for rgb in joined) if index else 0.0

    wanted = SHARE * sum(float(ops.sum(metrics.colorfulness(rgb))) for rgb, _, _ in pictures(photos, size))
    above = bisect.bisect_left(range(1, len(strengths) - 1), wanted, key=found) + 1
    return float(np.interp(wanted, [found(above - 1), found(above)], strengths[above - 1 : above + 1]))


def ranges(photos: list[Photo], size: int, predictor: Predictor, strength: float) -> dict[str, list[float]]:
    """The quantiles at 5, 50 and 95 % of confidence and colourfulness over photographs, for the model card."""
    measures = measure(photos, size, predictor, strength)
    figures = {"confidence": measures.confidence, "colorfulness": measures.colorfulness}
    return {
        name: [round(float(value), 3) for value in np.quantile(values, (0.05, 0.5, 0.95))]
        for name, values in figures.items()
    }


def pictures(photos: list[Photo], size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of RGB [N, S, S, 3] and luma [N, S, S], both float32 0..1, and lightness [N, S, S, 1]."""
    for start in range(0, len(photos), _BATCH):
        some = photos[start : start + _BATCH]
        squares = np.stack([batches.resized(photo.pixels, size, size) for photo in some])
        grey = conversion.luma_uint8(squares).astype(np.float32) / 255
        yield squares.astype(np.float32) / 255, grey, batches.lightness(squares)


def grey(lightness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Control: no colour."""
    return constant(0, 0)(lightness)


def constant(a: float, b: float) -> Predictor:
    """Control: the same chroma everywhere."""

    def predictor(lightness):
        flat = np.broadcast_to(np.array([a, b], np.float32), (*lightness.shape[:3], 2))
        return flat, np.zeros(len(lightness), np.float32)

    return predictor


def report(photos: list[Photo], train: list[Photo], size: int, predictor: Predictor, strength: float) -> dict:
    """Reports the model, at `strength` and at full strength, and the controls, by collection.

    Each figure is [mean over pictures, lower, upper] with the bounds of a 95 % bootstrap interval over pictures.
    Figures named `over_...` are ratios of means. A figure is None if there are too few pictures. Controls are
    measured at their own strength.
    """
    by_lightness = luminance_table.fit(train)
    average = np.mean([chroma(photo.pixels).mean(axis=(0, 1)) for photo in train], axis=0)
    controls = {
        "grey": measure(photos, size, grey),
        "mean_chroma": measure(photos, size, constant(*average)),
        "lightness_table": measure(photos, size, luminance_table.predictor(by_lightness)),
    }
    true = truth(photos, size)
    chosen, full = measure(photos, size, predictor, strength), measure(photos, size, predictor)
    names = np.array([photo.collection for photo in photos])
    result: dict[str, Any] = {
        "size": size,
        "strength": round(strength, 3),
        "model": {},
        "controls": {name: {} for name in controls},
    }
    blank = controls["grey"]
    for name in sorted(set(names)):
        at = names == name
        result["model"][name] = figures(chosen, full, blank, true, at)
        for control, measures in controls.items():
            result["controls"][control][name] = _figures(measures, blank, true, at)
    everywhere = np.ones(len(names), bool)
    result["all"] = {
        "pictures": len(names),
        "full_strength_colorfulness_over_truth": ratio(full.colorfulness, true.colorfulness),
        "confidence_spearman_with_rmse": _correlation(full.confidence[everywhere], full.rmse),
    }
    return result


def figures(chosen: Measures, full: Measures, blank: Measures, true: Truth, at: np.ndarray) -> dict[str, Any]:
    """The figures of a model for some pictures, each with the bounds of its interval, as in the model card.

    Args:
        chosen, full, blank: measures at the strength of the report, at full strength, and of grey.
        true: of the photographs.
        at: which of the pictures, bool [P].
    """
    return _figures(chosen, blank, true, at) | {
        "full_strength_rmse_over_grey": ratio(full.rmse[at], blank.rmse[at]),
        "full_strength_ciede2000": mean(full.ciede2000[at]),
        "full_strength_brown_over_truth": ratio(full.brown[at], true.brown[at]),
        "full_strength_colorfulness_over_truth": ratio(full.colorfulness[at], true.colorfulness[at]),
        "confidence_spearman_with_rmse": _correlation(full.confidence[at], full.rmse[at]),
    }


def _figures(measures: Measures, blank: Measures, true: Truth, at: np.ndarray) -> dict:
    return {
        "pictures": int(at.sum()),
        "rmse": mean(measures.rmse[at]),
        "rmse_over_grey": ratio(measures.rmse[at], blank.rmse[at]),
        "ciede2000": mean(measures.ciede2000[at]),
        "ciede2000_over_grey": ratio(measures.ciede2000[at], blank.ciede2000[at]),
        "colorfulness_over_truth": ratio(measures.colorfulness[at], true.colorfulness[at]),
    }


def mean(values: np.ndarray) -> list[float | None]:
    """The mean of values [P], with the bounds of its interval. None stands for what too few pictures leave unknown."""
    return _rounded(np.mean, values)


def ratio(values: np.ndarray, others: np.ndarray) -> list[float | None]:
    """The ratio of the means of values and others, [P] each, with the bounds of its interval."""
    with np.errstate(divide="ignore", invalid="ignore"):  # the others may all be zero
        return _rounded(lambda one, other: one.mean() / other.mean(), values, others)


def _correlation(values: np.ndarray, others: np.ndarray) -> list[float | None]:
    return _rounded(metrics.rank_correlation, values, others)


def _rounded(statistic, *series: np.ndarray) -> list[float | None]:
    values = statistic(*series), *metrics.bootstrap(statistic, *series)
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]  # JSON has no NaN
