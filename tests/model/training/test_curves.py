"""Learning curves are drawn as a valid PNG, with one diagram per figure."""

import numpy as np
from PIL import Image

from model.training import curves

HISTORY = [
    {"epoch": number, "loss": 1 / number, "val_loss": 2 / number, "val_chroma_error": 30 - number}
    for number in (1, 2, 3)
]


def drawn(history: list[dict], folder) -> np.ndarray:
    """Draw the curves and return the picture [H, W, 3] uint8. No other file may remain in the folder."""
    curves.draw(history, folder / curves.CURVES)
    assert [file.name for file in folder.iterdir()] == [curves.CURVES]
    with Image.open(folder / curves.CURVES) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_every_figure_has_a_diagram_also_one_of_validation_alone(tmp_path):
    two = drawn(HISTORY, tmp_path)
    one = drawn([{"epoch": row["epoch"], "loss": row["loss"]} for row in HISTORY], tmp_path)
    assert two.shape[1] == 2 * one.shape[1]
    # Each diagram contains a coloured line.
    for diagram in (two[:, : one.shape[1]], two[:, one.shape[1] :], one):
        assert np.ptp(diagram.astype(int), axis=-1).max() > 50


def test_training_and_validation_are_two_lines(tmp_path):
    def colors(history):
        pixels, counts = np.unique(drawn(history, tmp_path).reshape(-1, 3), axis=0, return_counts=True)
        return sum((np.ptp(pixels.astype(int), axis=-1) > 100) & (counts > 50))

    both = [{key: row[key] for key in ("epoch", "loss", "val_loss")} for row in HISTORY]
    training = [{key: row[key] for key in ("epoch", "loss")} for row in HISTORY]
    assert (colors(both), colors(training)) == (2, 1)


def test_a_single_epoch_and_an_epoch_without_a_figure_can_be_drawn(tmp_path):
    drawn(HISTORY[:1], tmp_path)
    drawn([{"epoch": 1, "loss": 1.0}, *HISTORY[1:]], tmp_path)
