"""What a training run is made from. Needs the standard library only, so that `--help` is quick."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path


class OptionsError(ValueError):
    """What is wrong with a run's options, in one line for a person."""


@dataclass(frozen=True)
class Options:
    """Options of a run; saved beside it as `options.json`.

    Attributes:
        network: name in `model.networks.NETWORKS`.
        layers: fields of the network's `Config` that differ from its defaults, such as filters.
        epochs, steps, batch: epochs of `steps` batches of `batch` pictures; a checkpoint after each epoch.
        sizes: heights and widths in pixels that training batches are squashed to.
        rate: peak of the learning rate, reached after one epoch, then a cosine to zero.
        decay, clip: AdamW's weight decay, and the bound on the norm of all gradients together.
        uniform: parts of the uniform distribution in the rebalancing of bins (1 leaves bins unweighted).
        weights: how often a picture of a collection is drawn, against 1.
        seed: of everything random.
        size: height and width in pixels of what the exported model takes.
        temperature: of the annealed mean.
        debias: how much of the rebalancing is taken back when bins are decoded, 0 none, 1 all.
        gain: factor on chroma within the exported model, so that its full strength is about as vivid as the truth.
        strength: factor on chroma that the card recommends; `strength_reason` says why.
    """

    network: str = "fusion"
    layers: dict = field(default_factory=dict)
    epochs: int = 20
    steps: int = 250
    batch: int = 32
    sizes: tuple[int, ...] = (96, 128, 160)
    rate: float = 2e-3
    decay: float = 1e-4
    clip: float = 1.0
    uniform: float = 0.5
    weights: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    size: int = 160
    temperature: float = 1.0
    debias: float = 0.5
    gain: float = 1.2
    strength: float = 1.0
    strength_reason: str = "full strength; nobody has judged it by eye"


def check(options: Options, stride: int) -> None:
    """Raises OptionsError unless the options make sense for a network of that stride."""
    for name in ("epochs", "steps", "batch", "rate", "clip", "temperature", "gain", "strength"):
        if not 0 < getattr(options, name) < float("inf"):
            raise OptionsError(f"--{name} must be positive, got {getattr(options, name)}")
    for name in ("uniform", "debias"):
        if not 0 <= getattr(options, name) <= 1:
            raise OptionsError(f"--{name} must be between 0 and 1, got {getattr(options, name)}")
    for size in (*options.sizes, options.size):
        if size <= 0 or size % stride:
            raise OptionsError(f"sizes must be multiples of {stride}, the network's stride, got {size}")
    for collection, weight in options.weights.items():
        if not 0 <= weight < float("inf"):
            raise OptionsError(f"the weight of {collection} must not be negative, got {weight}")


def write_json(path: Path, value) -> None:
    """Writes JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def save(options: Options, path: Path) -> None:
    """Writes the options as JSON."""
    write_json(path, dataclasses.asdict(options))
