"""Learning curves of a run as a picture, drawn anew after each epoch. Needs matplotlib, of the extra `train`."""

import importlib.util
import json
from pathlib import Path

import keras

from model.files import replacing
from model.options import OptionsError

CURVES = "curves.png"


class Curves(keras.callbacks.Callback):
    """Draws the history that a run keeps in the file `history` into `curves.png` beside it.

    Raises OptionsError where there is nothing to draw with, before hours of training.
    """

    def __init__(self, history: Path):
        super().__init__()
        if importlib.util.find_spec("matplotlib") is None:
            raise OptionsError("training draws its curves with matplotlib: pip install matplotlib")
        self.history = history

    def on_epoch_end(self, epoch, logs=None):
        rows = json.loads(self.history.read_text(encoding="utf-8"))
        draw(rows, self.history.with_name(CURVES))


def draw(history: list[dict], path: Path) -> None:
    """A diagram a figure over the epochs, training and validation in each, as a PNG."""
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
