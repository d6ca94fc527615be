"""Draws the learning curves of a run. Needs matplotlib, from the extra `train`."""

import importlib.util
import json
from pathlib import Path

import keras

from model.files import replacing
from model.training.options import OptionsError

CURVES = "curves.png"


class Curves(keras.callbacks.Callback):
    """Draws `curves.png` from the file `history` of a run after each epoch.

    Raises OptionsError before the training if matplotlib is missing.
    """

    def __init__(self, history: Path):
        super().__init__()
        if importlib.util.find_spec("matplotlib") is None:
            raise OptionsError("training needs matplotlib for its curves: pip install matplotlib")
        self.history = history

    def on_epoch_end(self, epoch, logs=None):
        rows = json.loads(self.history.read_text(encoding="utf-8"))
        draw(rows, self.history.with_name(CURVES))


def draw(history: list[dict], path: Path) -> None:
    """Draws a PNG with one diagram for each figure, over the epochs, for training and validation."""
    from matplotlib.figure import Figure

    names = [name for name in history[-1] if name != "epoch" and not name.startswith("val_")]
    names += [name for name in history[-1] if name.startswith("val_") and name[4:] not in names]
    figure = Figure(figsize=(4.2 * len(names), 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for label, key in (("training", name), ("validation", f"val_{name}")):
            points = [(row["epoch"], row[key]) for row in history if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
