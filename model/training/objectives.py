"""What a network learns from: one of its layers, what that layer should give, and how far it is from it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import cv2
import keras
import numpy as np
from keras import ops

from model import color, extractors, losses, networks, spaces
from model.networks import NETWORKS, fusion, gan
from model.options import SPACES, Options, OptionsError
from model.options import check as check_options
from model.photos import chroma

_TAUGHT = 0.7  # of what is learned, where there is a teacher
_JUDGE = "efficientnet_lite0"  # whose features the perceptual loss compares
_HUBER = 1 / 16  # of planes -1..1: 8 Lab units, beyond which an error counts once and not squared


@dataclass(frozen=True)
class Objective:
    """How a network is trained.

    Attributes:
        layer: whose output is trained, `logits` or `planes`.
        target: RGB [H, W, 3] uint8 to what the loss compares with, [H, W, K] float32; it is reduced by area to
            the size of the layer's output.
        loss: of (target, output), a number [N] for each picture.
        metric: a figure of (target, output) for people, [N].
    """

    layer: str
    target: Callable[[np.ndarray], np.ndarray]
    loss: Callable
    metric: Callable


def check(options: Options) -> None:
    """Raises OptionsError unless the options make sense for their network."""
    one = config(options, np.zeros((1, 2)))
    check_options(options, networks.stride(NETWORKS[options.network], one))


def require_weights(options: Options) -> None:
    """Raises ExtractorError where the network needs a classifier whose weights cannot be had.

    It takes seconds, which a run spares that would else read its photographs first.
    """
    if options.perceptual:
        extractors.judge(_JUDGE)
    one = config(options, np.zeros((1, 2)))
    one = getattr(one, "network_config", one)  # a GAN's generator
    if getattr(one, "extractor", fusion.JOINT) not in ("", fusion.JOINT):
        one.extract()


def unlearned(config):
    """The `Config` of the same network without a classifier's published weights: a run has its own."""
    if hasattr(config, "generator_config"):
        inner = unlearned(config.network_config)
        own = {"weights": inner.weights} if hasattr(inner, "extractor") else {}
        return replace(config, generator_config=config.generator_config | own)
    return replace(config, weights=extractors.RANDOM) if hasattr(config, "extractor") else config


def objective(options: Options, centres: np.ndarray, weights: np.ndarray) -> Objective:
    """The objective of a run, whose chroma bins have `centres` [Q, 2] and `weights` [Q] in the loss."""
    if classifies(options.network):
        if options.teacher:
            loss = losses.distilled_cross_entropy(centres, weights, _TAUGHT)
        else:
            loss = losses.rebalanced_cross_entropy(centres, weights)
        found = Objective("logits", chroma, loss, _error_of_bins(centres))
        return _perceptual(found, options, _mean_of_bins(centres))
    if options.network == "gan":  # it learns from the chroma itself, see `model.adversarial`
        return Objective("chroma", chroma, losses.mae, losses.mae)
    loss = partial(losses.huber, delta=_HUBER) if options.loss == "huber" else losses.mse
    metric = _error_of_planes(128.0 if options.space == "lab" else 1.0)
    found = Objective("planes", _planes(options.space), loss, metric)
    return _perceptual(found, options, lambda planes: 128.0 * planes)


def _perceptual(plain: Objective, options: Options, colors: Callable) -> Objective:
    """The objective with the loss of a classifier's features added; `colors` gives chroma of the layer's output.

    The target then has the lightness of the true colours behind its own planes.
    """
    if not options.perceptual:
        return plain
    distance = losses.perceptual(extractors.judge(_JUDGE))

    def target(pixels: np.ndarray) -> np.ndarray:
        lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        return np.concatenate([plain.target(pixels), lab], axis=-1)

    def loss(truth, output):
        own, lab = truth[..., :-3], truth[..., -3:]
        colored = ops.concatenate([lab[..., :1], ops.cast(colors(output), lab.dtype)], axis=-1)
        seen = distance(color.lab_to_rgb(lab), color.lab_to_rgb(colored))
        return plain.loss(own, output) + options.perceptual * seen

    def chroma_error(truth, output):
        return plain.metric(truth[..., :-3], output)

    return Objective(plain.layer, target, loss, chroma_error)


def classifies(network: str) -> bool:
    """Whether the network of that name gives shares of chroma bins, and not planes of a colour space."""
    return any(field.name == "centres" for field in fields(NETWORKS[network].Config))


def config(options: Options, centres: np.ndarray, **decoding: float):
    """The network's `Config`; `decoding` may be `temperature` and `gain`, of which it gets those that it has.

    Raises OptionsError where `options.layers` does not fit.
    """
    network = NETWORKS[options.network]
    if options.network == "gan":
        return _gan(options, centres, decoding)
    if classifies(options.network):
        decoding["centres"] = tuple((float(a), float(b)) for a, b in centres)
    else:
        decoding.pop("temperature", None)
        decoding["space"] = options.space
    try:
        _require_kinds(network.Config, options.layers)
        return network.Config(**options.layers, **decoding)
    except (TypeError, ValueError) as error:
        raise OptionsError(f"--layers does not fit the network {options.network}: {error}") from None


def _gan(options: Options, centres: np.ndarray, decoding: dict[str, float]):
    """A GAN's `Config`, whose generator has its own."""
    decoding.pop("temperature", None)
    try:
        config = gan.Config(**options.layers, **decoding)
        own = {field.name for field in fields(config.network.Config)}
        inner = {"space": options.space, "centres": tuple((float(a), float(b)) for a, b in centres)}
        _require_kinds(gan.Config, options.layers)
        _require_kinds(config.network.Config, config.generator_config)
        if config.generator_config.get("space", "lab") not in SPACES:
            raise ValueError(f"space must be one of {', '.join(SPACES)}")
        filled = {name: value for name, value in inner.items() if name in own} | config.generator_config
        config = replace(config, generator_config=filled)
        config.network_config  # noqa: B018 - raises where it does not fit
    except (TypeError, ValueError) as error:
        raise OptionsError(f"--layers does not fit the network gan: {error}") from None
    return config


def _require_kinds(config: type, given: dict) -> None:
    """Raises TypeError where a field that is a number or a text was given something else."""
    for field in fields(config):
        value = given.get(field.name, field.default)
        for kind, word in ((int | float, "number"), (str, "text")):
            if isinstance(field.default, kind) and not isinstance(value, kind):
                raise TypeError(f"{field.name} must be a {word}, got {value!r}")


def trained_part(model: keras.Model) -> keras.Model:
    """The network up to the layer that is trained, without what decodes it."""
    names = [layer.name for layer in model.layers]
    return keras.Model(model.input, model.get_layer("logits" if "logits" in names else "planes").output)


def _planes(space: str):
    def target(pixels: np.ndarray) -> np.ndarray:
        if space == "lab":  # OpenCV is quicker, and most runs are of this kind
            return chroma(pixels) / np.float32(128)
        return ops.convert_to_numpy(spaces.encode(pixels.astype(np.float32) / 255, space))

    return target


def _mean_of_bins(centres: np.ndarray):
    # Behind the network's own logits may be a teacher's.
    return lambda logits: color.annealed_mean(logits[..., : len(centres)], centres)


def _error_of_bins(centres: np.ndarray):
    mean = _mean_of_bins(centres)

    def chroma_error(truth, logits):
        """Root mean square distance [N] in the a*b* plane, at the mean of the bins."""
        squares = ops.sum((mean(logits) - truth) ** 2, axis=-1)
        return ops.sqrt(ops.mean(squares, axis=(1, 2)))

    return chroma_error


def _error_of_planes(unit: float):
    def chroma_error(truth, planes):
        """Root mean square distance [N] of the planes: in Lab units for Lab, else in their own -1..1."""
        squares = ops.sum((unit * (planes - truth)) ** 2, axis=-1)
        return ops.sqrt(ops.mean(squares, axis=(1, 2)))

    return chroma_error
