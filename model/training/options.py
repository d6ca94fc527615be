"""What a training run is made from. Needs the standard library only, so that `--help` is quick."""

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from model.files import replacing

# Names in `model.networks.NETWORKS`, which takes seconds to load.
NETWORKS = ("fusion_small", "alpha", "beta", "fusion", "classification", "unet", "attention_unet", "gan")
RATES = {"fusion_small": 2e-3, "classification": 2e-3, "gan": 2e-4}  # of the others 1e-3
# What the command line gives a network in place of the defaults of `Options`, which are those of `fusion_small`.
_PLAIN = {"gain": 1.0}
_LARGE = {"gain": 1.0, "sizes": (128,), "size": 128}  # their strides are 64 and 128
OWN = {
    "alpha": _PLAIN,
    "beta": _PLAIN,
    "fusion": _PLAIN,
    "classification": {"gain": 1.0, "temperature": 0.38, "debias": 0.0},
    "unet": _LARGE,
    "attention_unet": _LARGE,
    "gan": _LARGE,
}
# Options that say nothing to a network: of bins, of planes, and of the optimiser that a GAN has not.
_OF_BINS, _OF_PLANES = {"uniform", "temperature", "debias", "teacher"}, {"space", "loss"}
IDLE = {
    **dict.fromkeys(("alpha", "beta", "fusion", "unet", "attention_unet"), _OF_BINS),
    **dict.fromkeys(("fusion_small", "classification"), _OF_PLANES),
    "gan": {"loss", "perceptual", "average", "decay", "clip", *_OF_BINS},
}
SPACES = ("lab", "yuv", "hsv", "rgb")  # in `model.spaces.PLANES`
LOSSES = ("mse", "huber")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


class OptionsError(ValueError):
    """What is wrong with a run's options, in one line for a person."""


@dataclass(frozen=True)
class Options:
    """Options of a run; saved beside it as `options.json`.

    Attributes:
        network: name in `model.networks.NETWORKS`.
        layers: fields of the network's `Config` that differ from its defaults, such as filters.
        epochs, steps, batch: epochs of `steps` batches of `batch` pictures; a checkpoint after each epoch.
        sizes: heights and widths in pixels that training batches are squashed to, by turns.
        space: what a network predicts that does not classify: chroma in `lab`, `yuv` or `hsv`, or `rgb` outright.
        loss: of such a network, `mse` or `huber`.
        perceptual: weight of the distance of the features that EfficientNet-Lite0 finds in the coloured picture and in
            the true one, beside the network's own loss; 0 for none.
        rate: peak of the learning rate, reached after one epoch, then a cosine to zero; a GAN's is constant. None
            for the network's own, in `RATES`.
        average: momentum of the moving average of the weights that is exported, such as 0.999; 0 for none.
        precision: `float32`, or on a GPU `mixed_float16` or `mixed_bfloat16`.
        decay, clip: AdamW's weight decay, and the bound on the norm of all gradients together.
        uniform: parts of the uniform distribution in the rebalancing of bins (1 leaves bins unweighted).
        weights: how often a picture of a collection is drawn, against 1.
        teacher: folder of another run over the same bins, whose shares of them this one learns too; empty for none.
        aging: chance of a training picture to be made to look like an old scan, see `model.aging`.
        seed: of everything random.
        size: height and width in pixels of what the exported model takes.
        temperature: of the annealed mean.
        debias: how much of the rebalancing is taken back when bins are decoded, 0 none, 1 all.
        gain: factor on chroma within the exported model, so that its full strength is about as vivid as the truth.
        strength: factor on chroma that the card recommends; `strength_reason` says why.
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
        """Share, 0..1, of the weights that the run begins with in their average at its end."""
        return self.average ** (self.epochs * self.steps)


def check(options: Options, stride: int) -> None:
    """Raises OptionsError unless the options make sense for a network of that stride."""
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
        raise OptionsError("--perceptual goes with --space lab alone")
    for name in ("uniform", "aging", "debias"):
        if not 0 <= getattr(options, name) <= 1:
            raise OptionsError(f"--{name} must be between 0 and 1, got {getattr(options, name)}")
    if len(options.sizes) > 1:  # Keras learns from the first two batches that sizes differ
        for size, following in zip(options.sizes, (*options.sizes[1:], options.sizes[0]), strict=True):
            if size == following:
                raise OptionsError(f"--sizes are taken by turns; {size} must not follow {size}")
    for name, choices in (("space", SPACES), ("loss", LOSSES), ("precision", PRECISIONS)):
        if getattr(options, name) not in choices:
            raise OptionsError(f"--{name} must be one of {', '.join(choices)}, got {getattr(options, name)}")
    for size in (*options.sizes, options.size):
        if size <= 0 or size % stride:
            raise OptionsError(f"sizes must be multiples of {stride}, the network's stride, got {size}")
    for collection, weight in options.weights.items():
        if not 0 <= weight < float("inf"):
            raise OptionsError(f"the weight of {collection} must not be negative, got {weight}")


def write_json(path: Path, value) -> None:
    """Writes JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def save(options: Options, path: Path) -> None:
    """Writes the options as JSON."""
    write_json(path, dataclasses.asdict(options))


def load(path: Path) -> Options:
    """Reads what `save` wrote."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return Options(**entries | {"sizes": tuple(entries["sizes"])})


def own(network: str) -> Options:
    """The options of a network where nothing else is given."""
    return Options(network=network, **OWN.get(network, {}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds an option of a command line for each of `Options`; none has a default there, see `from_arguments`."""
    add = parser.add_argument
    add("--network", choices=NETWORKS, help=_help("which network", "network"))
    add(
        "--layers",
        type=_json,
        metavar="JSON",
        help="fields of the network's Config, such as '{\"stem\": 16}'",
    )
    add("--epochs", type=int, help=_help("each ends with a checkpoint", "epochs"))
    add("--steps", type=int, help=_help("batches an epoch", "steps"))
    add("--batch", type=int, help=_help("pictures a batch", "batch"))
    add("--sizes", type=int, nargs="+", metavar="PX", help=_help("of batches, by turns", "sizes"))
    add("--space", choices=SPACES, help=_help("what is predicted, unless the network classifies", "space"))
    add("--loss", choices=LOSSES, help=_help("unless the network classifies", "loss"))
    words = "weight of a classifier's features in the loss (extra: imagenet)"
    add("--perceptual", type=float, help=_help(words, "perceptual"))
    add("--rate", type=float, help=f"peak learning rate (default: 0.001; {_rates()})")
    add("--average", type=float, help=_help("momentum of the weights' average", "average"))
    add("--precision", choices=PRECISIONS, help=_help("of the arithmetic", "precision"))
    add("--decay", type=float, help=_help("weight decay", "decay"))
    add("--clip", type=float, help=_help("bound on the norm of the gradients", "clip"))
    add("--uniform", type=float, help=_help("rebalancing of bins, 0 most, 1 none", "uniform"))
    words = "how often to draw a collection (default: 1)"
    add("--weights", type=_weight, nargs="+", metavar="NAME=X", help=words)
    add("--teacher", metavar="DIR", help="run whose shares of chroma bins are learned beside the true ones")
    add("--aging", type=float, help=_help("chance of a picture to look like an old scan", "aging"))
    add("--seed", type=int, help=_help("of everything random", "seed"))
    add("--size", type=int, metavar="PX", help=_help("of the exported model", "size"))
    add("--temperature", type=float, help=_help("of the annealed mean", "temperature"))
    add("--debias", type=float, help=_help("rebalancing taken back, 0 to 1", "debias"))
    add("--gain", type=float, help=_help("factor on chroma within the exported model", "gain"))
    add("--strength", type=float, help=_help("recommended factor on chroma", "strength"))
    add("--strength_reason", metavar="WORDS", help="why, for the card")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """The options that a command line gives, for the others the network's own.

    Raises OptionsError for an option that says nothing to the network.
    """
    names = {f.name for f in dataclasses.fields(Options)}
    given = {n: value for n, value in vars(arguments).items() if n in names and value is not None}
    if "weights" in given:
        given["weights"] = dict(given["weights"])
    if "sizes" in given:
        given["sizes"] = tuple(given["sizes"])
    result = dataclasses.replace(own(given.get("network", Options.network)), **given)
    idle = sorted(IDLE[result.network] & given.keys())
    if idle:
        raise OptionsError(f"--{idle[0]} says nothing to the network {result.network}: leave it out")
    return result


def _rates() -> str:
    return ", ".join(f"{network} {rate:g}" for network, rate in RATES.items())


def _help(words: str, option: str) -> str:
    defaults = {_shown(getattr(Options(), option)): ""}
    for network, its in OWN.items():
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
