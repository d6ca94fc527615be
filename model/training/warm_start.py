"""Warm start: a run's network begins as the function of an exported model."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from model import losses
from model.bins import BINS, read_bins
from model.card import read_card
from model.networks.layers import assign


class WarmStartError(ValueError):
    """Why a run cannot start from a model, in one line for a person."""


@dataclass(frozen=True)
class Exported:
    """What an exported model's folder tells about its training.

    Attributes:
        folder: where it is.
        weights: of the folded network, by layer and name, such as `logits/bias`.
        centres: of its chroma bins, [Q, 2] float32, Lab units.
        bin_weights: [Q], what pixels of each bin weighed in its loss.
        debias: how much of that was taken back in its logits, 0 none, 1 all.
    """

    folder: str
    weights: dict[str, np.ndarray]
    centres: np.ndarray
    bin_weights: np.ndarray
    debias: float


def read(folder: str) -> Exported:
    """Reads an exported model. Raises CardError where that is none, WarmStartError where its bins are not recorded."""
    # Reading a SavedModel needs TensorFlow, which the machine of another back end may lack.
    from model import serving

    card = read_card(folder)
    try:
        bins = read_bins(folder)
        centres = np.array(bins["centres"], np.float32)
        bin_weights = losses.rebalancing_weights(np.array(bins["shares"]), bins["uniform"])
    except (OSError, ValueError, KeyError) as error:
        raise WarmStartError(f"no start from {folder}: {BINS} lacks the model's bins ({error!r})") from None
    return Exported(str(folder), serving.weights(folder), centres, bin_weights, card.debias)


def begin(
    network, model: keras.Model, config, exported: Exported, bin_weights: np.ndarray, lightness: Iterable
) -> None:
    """Sets `model`, built by `network` from `config`, to what `exported` were if its loss had had `bin_weights` [Q].

    Weighted pixels teach a distribution proportional to weight times truth; in logits that is a sum.
    `lightness` are batches [N, H, W, 1] of training pictures. Raises WarmStartError where architectures differ.
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
            f"no start from {exported.folder}, an architecture of its own: {error}"
        ) from None
