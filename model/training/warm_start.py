"""Warm start: the network of a run starts with the weights of an exported model."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from model.card import read_card
from model.data.bins import BINS, read_bins
from model.networks.layers import assign
from model.training import losses


class WarmStartError(ValueError):
    """A run cannot start from this model; the message is one line for a person."""


@dataclass(frozen=True)
class Exported:
    """What the folder of an exported model tells about its training.

    Attributes:
        folder: of the model.
        weights: of the folded network, by layer and name, such as `logits/bias`.
        centres: of the chroma bins, [Q, 2] float32, Lab units.
        bin_weights: weights of the bins in the loss, [Q].
        debias: how much of these weights was undone in the logits, from 0 (nothing) to 1 (all).
    """

    folder: str
    weights: dict[str, np.ndarray]
    centres: np.ndarray
    bin_weights: np.ndarray
    debias: float


def read(folder: str) -> Exported:
    """Reads an exported model. Raises CardError if it is not a model, WarmStartError if its bins are not recorded."""
    # Reading a SavedModel needs TensorFlow, which may be missing with another back end.
    from model import serving

    card = read_card(folder)
    try:
        bins = read_bins(folder)
        centres = np.array(bins["centres"], np.float32)
        bin_weights = losses.rebalancing_weights(np.array(bins["shares"]), bins["uniform"])
    except (OSError, ValueError, KeyError) as error:
        raise WarmStartError(
            f"cannot start from {folder}: {BINS} lacks the bins of the model ({error!r})"
        ) from None
    return Exported(str(folder), serving.weights(folder), centres, bin_weights, card.debias)


def begin(
    network, model: keras.Model, config, exported: Exported, bin_weights: np.ndarray, lightness: Iterable
) -> None:
    """Sets the weights of `model` to those of `exported`, corrected for other weights of the bins.

    A weighted loss teaches a distribution proportional to weight times truth; for logits this is a sum.

    Args:
        network: module of `model.networks` that built the model.
        model: new network.
        config: of the network.
        exported: model to start from.
        bin_weights: weights [Q] of the bins in the loss of the new run.
        lightness: batches [N, H, W, 1] of training pictures, for the statistics of batch norm.

    Raises:
        WarmStartError: the architectures differ.
    """
    weights = dict(exported.weights)
    if "logits/bias" in weights:
        kept = (1 - exported.debias) * np.log(exported.bin_weights)
        weights["logits/bias"] = weights["logits/bias"] - kept + np.log(bin_weights)
    try:
        if hasattr(network, "unfold"):
            network.unfold(model, config, weights, lightness)
        else:
            assign(model, weights)
    except ValueError as error:
        raise WarmStartError(
            f"cannot start from {exported.folder}, which has another architecture: {error}"
        ) from None
