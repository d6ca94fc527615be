"""Thresholds of the gates, which are read from a YAML file and checked before any work."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.photographs.splits import PARTS

DEFAULT = Path(__file__).with_name("thresholds.yaml")

# Figures of the quality gate, and whether higher values are better.
HIGHER_IS_BETTER = {
    "psnr": True,
    "ssim": True,
    "rmse": False,
    "ciede2000": False,
    "colorfulness_over_truth": True,
    "grey_rate": False,
    "bleeding_over_truth": False,
    "luma_drift": False,
    "rmse_over_grey": False,
    "rmse_over_mean_chroma": False,
    "rmse_over_lightness_table": False,
    "ciede2000_over_grey": False,
}


class ThresholdsError(ValueError):
    """A file of thresholds is wrong; the message is one line for a person."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the three gates; `thresholds.yaml` explains each entry.

    Attributes:
        name: of these thresholds.
        least_pictures: smallest number of pictures, by split.
        most_quarantined, most_unreadable: largest shares of all files, 0..1.
        drift: largest Jensen-Shannon divergence, 0..1, between the training splits of this run and of the current
            model, by feature.
        skew: the same between the training and the test split.
        least_pictures_in_slice: smallest number of pictures in a slice that is compared.
        bounds: (least, most) by figure; infinite if there is no bound.
        tolerances: ("absolute" or "relative", how much worse than the baseline) by figure.
        most_seconds, most_memory_mb: limits of the batch job on canary scans.
    """

    name: str
    least_pictures: dict[str, int]
    most_quarantined: float
    most_unreadable: float
    drift: dict[str, float]
    skew: dict[str, float]
    least_pictures_in_slice: int
    bounds: dict[str, tuple[float, float]]
    tolerances: dict[str, tuple[str, float]]
    most_seconds: float
    most_memory_mb: float


def read(path: str | Path) -> Thresholds:
    """Reads a file of thresholds. Raises ThresholdsError if it does not have the form of `thresholds.yaml`."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ThresholdsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ThresholdsError(f"{path} is not UTF-8 text") from None
    except ThresholdsError as error:
        raise ThresholdsError(f"{path}: {error}") from None


def parse(text: str) -> Thresholds:
    """Parses thresholds. Raises ThresholdsError."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ThresholdsError(f"not YAML: {' '.join(str(error).split())}") from None
    name, data, quality, serving = _sections(tree, "name", "data", "quality", "serving")
    pictures, quarantined, unreadable, drift, skew = _sections(
        data, "least_pictures", "most_quarantined", "most_unreadable", "drift", "skew", of="data"
    )
    least, bounds, tolerances = _sections(
        quality, "least_pictures_in_slice", "bounds", "tolerances", of="quality"
    )
    seconds, memory = _sections(serving, "most_seconds", "most_memory_mb", of="serving")
    return Thresholds(
        name=str(name),
        least_pictures={
            part: int(_number(count, f"least_pictures: {part}"))
            for part, count in zip(PARTS, _sections(pictures, *PARTS, of="least_pictures"), strict=True)
        },
        most_quarantined=_number(quarantined, "most_quarantined"),
        most_unreadable=_number(unreadable, "most_unreadable"),
        drift=_divergences(drift, "drift"),
        skew=_divergences(skew, "skew"),
        least_pictures_in_slice=int(_number(least, "least_pictures_in_slice")),
        bounds={name: _bound(name, bound) for name, bound in _figures(bounds, "bounds").items()},
        tolerances={
            name: _tolerance(name, bound) for name, bound in _figures(tolerances, "tolerances").items()
        },
        most_seconds=_number(seconds, "most_seconds"),
        most_memory_mb=_number(memory, "most_memory_mb"),
    )


def _sections(tree, *names: str, of: str = "the file") -> list:
    if not isinstance(tree, dict) or set(tree) != set(names):
        raise ThresholdsError(f"{of} must have exactly the entries {', '.join(names)}")
    return [tree[name] for name in names]


def _divergences(tree, of: str) -> dict[str, float]:
    if not isinstance(tree, dict):
        raise ThresholdsError(f"{of} must name features, or be {{}}")
    return {str(name): _number(bound, f"{of}: {name}") for name, bound in tree.items()}


def _figures(tree, of: str) -> dict:
    if not isinstance(tree, dict):
        raise ThresholdsError(f"{of} must name figures")
    unknown = set(tree) - set(HIGHER_IS_BETTER)
    if unknown:
        known = ", ".join(HIGHER_IS_BETTER)
        raise ThresholdsError(f"{of}: unknown figure {min(map(str, unknown))}; choose from {known}")
    return tree


def _bound(name: str, bound) -> tuple[float, float]:
    if not isinstance(bound, dict) or not bound or set(bound) - {"at_least", "at_most"}:
        raise ThresholdsError(f"bounds: {name} must have at_least, at_most or both")
    infinite = float("inf")
    return (
        _number(bound.get("at_least", -infinite), name),
        _number(bound.get("at_most", infinite), name),
    )


def _tolerance(name: str, bound) -> tuple[str, float]:
    if not isinstance(bound, dict) or len(bound) != 1 or set(bound) - {"absolute", "relative"}:
        raise ThresholdsError(f"tolerances: {name} must have either absolute or relative")
    [(kind, amount)] = bound.items()
    if not _number(amount, name) >= 0:
        raise ThresholdsError(f"tolerances: {name} must not be negative")
    return kind, float(amount)


def _number(value, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ThresholdsError(f"{name} must be a number, got {value!r}")
    return float(value)
