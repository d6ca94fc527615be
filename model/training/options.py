"""Options of a training run. Imports only the standard library, so that `--help` is quick."""

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.files import replacing

# Keys of `model.networks.NETWORKS`, which takes seconds to load.
NETWORKS = ("fusion_small", "alpha", "beta", "fusion", "classification", "unet", "attention_unet", "gan")
RATES = {"fusion_small": 2e-3, "classification": 2e-3, "gan": 2e-4}  # the others have 1e-3
# Defaults of the command line that differ from those of `Options`, which are for `fusion_small`.
_PLAIN: dict[str, Any] = {"gain": 1.0}
_LARGE: dict[str, Any] = {"gain": 1.0, "sizes": (128,), "size": 128}  # their strides are 64 and 128
DEFAULTS: dict[str, dict[str, Any]] = {
    "alpha": _PLAIN,
    "beta": _PLAIN,
    "fusion": _PLAIN,
    "classification": {"gain": 1.0, "temperature": 0.38, "debias": 0.0},
    "unet": _LARGE,
    "attention_unet": _LARGE,
    "gan": _LARGE,
}
# Options that have no effect with a network: those for bins, for planes, and for an optimiser that a GAN does not
# have.
_OF_BINS, _OF_PLANES = {"uniform", "temperature", "debias", "teacher"}, {"space", "loss"}
WITHOUT_EFFECT = {
    **dict.fromkeys(("alpha", "beta", "fusion", "unet", "attention_unet"), _OF_BINS | {"calm"}),
    **dict.fromkeys(("fusion_small", "classification"), _OF_PLANES),
    "gan": {"loss", "perceptual", "average", "decay", "clip", *_OF_BINS},
}
SPACES = ("lab", "yuv", "hsv", "rgb")  # in `model.color.spaces.PLANES`
LOSSES = ("mse", "huber")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


class OptionsError(ValueError):
    """The options of a run are wrong; the message is one line for a person."""


@dataclass(frozen=True)
class Options:
    """Options of a run, which are saved in its folder as `options.json`.

    Attributes:
        network: key of `model.networks.NETWORKS`.
        layers: fields of the network's `Config` that differ from its defaults, such as filters.
        epochs: number of epochs; each ends with a checkpoint.
        steps: batches in an epoch.
        batch: pictures in a batch.
        sizes: heights and widths in pixels of the training batches, used in turn.
        space: target of a regression network: chroma in `lab`, `yuv` or `hsv`, or `rgb`.
        loss: of a regression network, `mse` or `huber`.
        perceptual: weight of the perceptual loss, the distance between the features of EfficientNet-Lite0 in the
            coloured and in the true picture; 0 for none.
        rate: peak of the learning rate. It is reached after one epoch and then follows a cosine to zero; for a GAN it
            is constant. None stands for the network's rate in `RATES`.
        average: momentum of the moving average of the weights, such as 0.999; 0 for none. The average is exported.
        precision: `float32`; on a GPU also `mixed_float16` or `mixed_bfloat16`.
        decay: weight decay of AdamW.
        clip: bound on the global norm of the gradients.
        uniform: share of the uniform distribution in the rebalancing of the bins; 1 leaves them unweighted.
        weights: relative frequency of the pictures of a collection; the default is 1.
        teacher: folder of another run with the same bins, whose predictions this run learns, too; empty for none.
        aging: probability that a training picture is made to look like an old scan; see `model.data.aging`.
        seed: random seed.
        size: height and width in pixels of the input of the exported model.
        temperature: of the annealed mean.
        debias: how much of the rebalancing is undone when bins are decoded, from 0 (nothing) to 1 (all).
        gain: factor on chroma inside the exported model, which makes its full strength about as vivid as the truth.
        calm: recommended certainty, 0 to 1, of a place below which its chroma fades, for the card; 0 for never.
        strength: recommended factor on chroma, for the card; `strength_reason` says why.
    """

    network: str = "fusion_small"
    layers: dict = field(default_factory=dict)
    epochs: int = 20
    steps: int = 250
    batch: int = 32
    sizes: tuple[int, ...] = (96, 128, 96, 160)
    space: str = "lab"
    loss: str = "mse"
    perceptual: float = 0.0
    rate: float | None = None
    average: float = 0.0
    precision: str = "float32"
    decay: float = 1e-4
    clip: float = 1.0
    uniform: float = 0.5
    weights: dict[str, float] = field(default_factory=dict)
    teacher: str = ""
    aging: float = 0.0
    seed: int = 0
    size: int = 160
    temperature: float = 1.0
    debias: float = 0.5
    gain: float = 1.2
    calm: float = 0.0
    strength: float = 1.0
    strength_reason: str = "full strength; nobody has judged it by eye"

    @property
    def peak(self) -> float:
        """The peak of the learning rate."""
        if self.rate is not None:
            return self.rate
        return RATES.get(self.network, 1e-3)

    @property
    def kept(self) -> float:
        """Share, 0..1, of the initial weights in the average at the end of the run."""
        return self.average ** (self.epochs * self.steps)


def check(options: Options, stride: int) -> None:
    """Raises OptionsError if the options are wrong for a network with this stride."""
    for name in ("epochs", "steps", "batch", "peak", "clip", "temperature", "gain", "strength"):
        if not 0 < getattr(options, name) < float("inf"):
            named = "rate" if name == "peak" else name
            raise OptionsError(f"--{named} must be positive, got {getattr(options, name)}")
    if options.seed < 0:
        raise OptionsError(f"--seed must not be negative, got {options.seed}")
    if not 0 <= options.average < 1:
        raise OptionsError(f"--average must be 0 or more and less than 1, got {options.average}")
    if not 0 <= options.perceptual < float("inf"):
        raise OptionsError(f"--perceptual must not be negative, got {options.perceptual}")
    if options.perceptual and options.space != "lab":
        raise OptionsError("--perceptual needs --space lab")
    for name in ("uniform", "aging", "debias", "calm"):
        if not 0 <= getattr(options, name) <= 1:
            raise OptionsError(f"--{name} must be between 0 and 1, got {getattr(options, name)}")
    if len(options.sizes) > 1:  # Keras looks at the first two batches to see whether sizes vary
        for size, following in zip(options.sizes, (*options.sizes[1:], options.sizes[0]), strict=True):
            if size == following:
                raise OptionsError(f"--sizes are used in turn; {size} must not follow {size}")
    for name, choices in (("space", SPACES), ("loss", LOSSES), ("precision", PRECISIONS)):
        if getattr(options, name) not in choices:
            raise OptionsError(f"--{name} must be one of {', '.join(choices)}, got {getattr(options, name)}")
    for size in (*options.sizes, options.size):
        if size <= 0 or size % stride:
            raise OptionsError(f"sizes must be multiples of {stride}, the stride of the network, got {size}")
    for collection, weight in options.weights.items():
        if not 0 <= weight < float("inf"):
            raise OptionsError(f"the weight of {collection} must not be negative, got {weight}")


def write_json(path: Path, value) -> None:
    """Writes a JSON file atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def save(options: Options, path: Path) -> None:
    """Writes the options to a JSON file."""
    write_json(path, dataclasses.asdict(options))


def load(path: Path) -> Options:
    """Reads options that `save` wrote."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return Options(**entries | {"sizes": tuple(entries["sizes"])})


def defaults(network: str) -> Options:
    """Default options of a network."""
    return Options(network=network, **DEFAULTS.get(network, {}))


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds a command-line option for each field of `Options`. None of them has a default; see `from_arguments`."""
    add = parser.add_argument
    add("--network", choices=NETWORKS, help=_help("network to train", "network"))
    add(
        "--layers",
        type=_json,
        metavar="JSON",
        help="fields of the network's Config, such as '{\"stem\": 16}'",
    )
    add("--epochs", type=int, help=_help("each ends with a checkpoint", "epochs"))
    add("--steps", type=int, help=_help("batches per epoch", "steps"))
    add("--batch", type=int, help=_help("pictures per batch", "batch"))
    add(
        "--sizes",
        type=int,
        nargs="+",
        metavar="PX",
        help=_help("sizes of the batches, used in turn", "sizes"),
    )
    add("--space", choices=SPACES, help=_help("target of a regression network", "space"))
    add("--loss", choices=LOSSES, help=_help("loss of a regression network", "loss"))
    words = "weight of the perceptual loss (needs the extra imagenet)"
    add("--perceptual", type=float, help=_help(words, "perceptual"))
    add("--rate", type=float, help=f"peak learning rate (default: 0.001; {_rates()})")
    add("--average", type=float, help=_help("momentum of the average of the weights", "average"))
    add("--precision", choices=PRECISIONS, help=_help("numeric precision", "precision"))
    add("--decay", type=float, help=_help("weight decay", "decay"))
    add("--clip", type=float, help=_help("bound on the norm of the gradients", "clip"))
    add("--uniform", type=float, help=_help("rebalancing of the bins, from 0 (full) to 1 (none)", "uniform"))
    words = "relative frequency of a collection (default: 1)"
    add("--weights", type=_weight, nargs="+", metavar="NAME=X", help=words)
    add("--teacher", metavar="DIR", help="folder of a run whose predictions are learned, too")
    add("--aging", type=float, help=_help("probability that a picture is made to look old", "aging"))
    add("--seed", type=int, help=_help("random seed", "seed"))
    add("--size", type=int, metavar="PX", help=_help("input size of the exported model", "size"))
    add("--temperature", type=float, help=_help("temperature of the annealed mean", "temperature"))
    add("--debias", type=float, help=_help("how much of the rebalancing is undone, from 0 to 1", "debias"))
    add("--gain", type=float, help=_help("factor on chroma inside the exported model", "gain"))
    add(
        "--calm",
        type=float,
        help=_help("recommended certainty of a place below which its chroma fades, 0 to 1", "calm"),
    )
    add("--strength", type=float, help=_help("recommended factor on chroma", "strength"))
    add("--strength_reason", metavar="WORDS", help="reason for this strength, for the card")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """Makes options from a command line; options that were not given have the defaults of the network.

    Raises OptionsError for an option that has no effect with the network.
    """
    names = {f.name for f in dataclasses.fields(Options)}
    given = {n: value for n, value in vars(arguments).items() if n in names and value is not None}
    if "weights" in given:
        given["weights"] = dict(given["weights"])
    if "sizes" in given:
        given["sizes"] = tuple(given["sizes"])
    result = dataclasses.replace(defaults(given.get("network", Options.network)), **given)
    without = sorted(WITHOUT_EFFECT[result.network] & given.keys())
    if without:
        raise OptionsError(f"--{without[0]} has no effect with --network {result.network}; remove it")
    return result


def _rates() -> str:
    return ", ".join(f"{network} {rate:g}" for network, rate in RATES.items())


def _help(words: str, option: str) -> str:
    defaults = {_shown(getattr(Options(), option)): ""}
    for network, its in DEFAULTS.items():
        if option in its:
            defaults[_shown(its[option])] = defaults.get(_shown(its[option]), "") + f" {network}"
    first, *others = defaults.items()
    return f"{words} (default: {first[0]}{''.join(f'; {value} for{names}' for value, names in others)})"


def _shown(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, got {text}") from None


def _json(text: str) -> dict:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text}") from None
