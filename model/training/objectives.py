"""The objective of a training: the trained layer, its target, its loss."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops

from model import networks
from model.color import conversion, spaces
from model.data.photos import chroma
from model.networks import NETWORKS, extractors, fusion, gan
from model.training import losses
from model.training.options import SPACES, Options, OptionsError
from model.training.options import check as check_options

_TAUGHT = 0.7  # share of the teacher in the target
_JUDGE = "efficientnet_lite0"  # its features are compared by the perceptual loss
_OF_BINS = ("temperature",)  # how bins are decoded
_HUBER = 1 / 16  # in planes of -1..1: 8 Lab units; larger errors count linearly


@dataclass(frozen=True)
class Objective:
    """How a network is trained.

    Attributes:
        layer: name of the trained layer, `logits` or `planes`.
        target: function from RGB [H, W, 3] uint8 to the target [H, W, K] float32, which is then reduced by area to
            the size of the layer's output.
        loss: function of (target, output) that returns a number [N] for each picture.
        metric: function of (target, output) that returns a figure [N] for people.
    """

    layer: str
    target: Callable[[np.ndarray], np.ndarray]
    loss: Callable
    metric: Callable


def check(options: Options) -> None:
    """Raises OptionsError if the options are wrong for their network."""
    one = config(options, np.zeros((1, 2)))
    check_options(options, networks.stride(NETWORKS[options.network], one))


def require_weights(options: Options) -> None:
    """Raises ExtractorError if the network needs the weights of a classifier that cannot be loaded.

    This takes seconds. A run calls it before it reads the photographs, which takes minutes.
    """
    if options.perceptual:
        extractors.judge(_JUDGE)
    one = config(options, np.zeros((1, 2)))
    one = getattr(one, "network_config", one)  # a GAN's generator
    if getattr(one, "extractor", fusion.JOINT) not in ("", fusion.JOINT):
        one.extract()


def without_pretrained(config):
    """The same `Config` without the published weights of a classifier, for a run that has weights of its own."""
    if hasattr(config, "generator_config"):
        inner = without_pretrained(config.network_config)
        own = {"weights": inner.weights} if hasattr(inner, "extractor") else {}
        return replace(config, generator_config=config.generator_config | own)
    return replace(config, weights=extractors.RANDOM) if hasattr(config, "extractor") else config


def objective(options: Options, centres: np.ndarray, weights: np.ndarray) -> Objective:
    """The objective of a run with chroma bins of `centres` [Q, 2] and `weights` [Q] in the loss."""
    if classifies(options.network):
        if options.teacher:
            loss = losses.distilled_cross_entropy(centres, weights, _TAUGHT)
        else:
            loss = losses.rebalanced_cross_entropy(centres, weights)
        found = Objective("logits", chroma, loss, _error_of_bins(centres))
        return _perceptual(found, options, _mean_of_bins(centres))
    if options.network == "gan":  # it is trained on the chroma itself; see `model.training.adversarial`
        return Objective("chroma", chroma, losses.mae, losses.mae)
    loss = partial(losses.huber, delta=_HUBER) if options.loss == "huber" else losses.mse
    metric = _error_of_planes(128.0 if options.space == "lab" else 1.0)
    found = Objective("planes", _planes(options.space), loss, metric)
    return _perceptual(found, options, lambda planes: 128.0 * planes)


def _perceptual(plain: Objective, options: Options, colors: Callable) -> Objective:
    """Adds the perceptual loss to an objective. `colors` converts the layer's output to chroma.

    The target then has three more planes: Lab of the true picture.
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
        seen = distance(conversion.lab_to_rgb(lab), conversion.lab_to_rgb(colored))
        return plain.loss(own, output) + options.perceptual * seen

    def chroma_error(truth, output):
        return plain.metric(truth[..., :-3], output)

    return Objective(plain.layer, target, loss, chroma_error)


def classifies(network: str) -> bool:
    """Whether the network predicts a distribution over chroma bins, and not planes of a colour space."""
    return any(field.name == "centres" for field in fields(NETWORKS[network].Config))


def config(options: Options, centres: np.ndarray, **decoding: Any):
    """Makes the `Config` of the network with its `decoding`: `gain` and, where it has one, `temperature`.

    Raises OptionsError if `options.layers` does not fit.
    """
    network = NETWORKS[options.network]
    if options.network == "gan":
        return _gan(options, centres, decoding)
    if classifies(options.network):
        decoding["centres"] = tuple((float(a), float(b)) for a, b in centres)
    else:
        decoding = {name: value for name, value in decoding.items() if name not in _OF_BINS}
        decoding["space"] = options.space
    try:
        _require_kinds(network.Config, options.layers)
        return network.Config(**options.layers, **decoding)
    except (TypeError, ValueError) as error:
        raise OptionsError(f"--layers does not fit the network {options.network}: {error}") from None


def _gan(options: Options, centres: np.ndarray, decoding: dict[str, Any]):
    """Makes the `Config` of a GAN, which contains that of its generator."""
    decoding = {name: value for name, value in decoding.items() if name not in _OF_BINS}
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
        config.network_config  # noqa: B018 - raises an exception if it does not fit
    except (TypeError, ValueError) as error:
        raise OptionsError(f"--layers does not fit the network gan: {error}") from None
    return config


def _require_kinds(config: type, given: dict) -> None:
    """Raises TypeError if a number or a text field has a value of another type."""
    for field in fields(config):
        value = given.get(field.name, field.default)
        for kind, word in ((int | float, "number"), (str, "text")):
            if isinstance(field.default, kind) and not isinstance(value, kind):
                raise TypeError(f"{field.name} must be a {word}, got {value!r}")


def trained_part(model: keras.Model) -> keras.Model:
    """The network up to the trained layer, without the decoding."""
    names = [layer.name for layer in model.layers]
    return keras.Model(model.input, model.get_layer("logits" if "logits" in names else "planes").output)


def _planes(space: str):
    def target(pixels: np.ndarray) -> np.ndarray:
        if space == "lab":  # OpenCV is faster, and most runs use Lab
            return chroma(pixels) / np.float32(128)
        return ops.convert_to_numpy(spaces.encode(pixels.astype(np.float32) / 255, space))

    return target


def _mean_of_bins(centres: np.ndarray):
    # The logits of a teacher may follow those of the network.
    return lambda logits: conversion.annealed_mean(logits[..., : len(centres)], centres)


def _error_of_bins(centres: np.ndarray):
    mean = _mean_of_bins(centres)

    def chroma_error(truth, logits):
        """Root mean square distance [N] in the a*b* plane between the truth and the mean of the bins."""
        squares = ops.sum((mean(logits) - truth) ** 2, axis=-1)
        return ops.sqrt(ops.mean(squares, axis=(1, 2)))

    return chroma_error


def _error_of_planes(unit: float):
    def chroma_error(truth, planes):
        """Root mean square distance [N] of the planes, in Lab units for Lab, otherwise in units of -1..1."""
        squares = ops.sum((unit * (planes - truth)) ** 2, axis=-1)
        return ops.sqrt(ops.mean(squares, axis=(1, 2)))

    return chroma_error
