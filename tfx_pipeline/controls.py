"""The fitted controls of the quality gate: a file beside an exported model, from the Trainer for the Evaluator."""

import json
from pathlib import Path

import numpy as np

CONTROLS = "controls.json"


def read(folder: str | Path) -> dict[str, np.ndarray]:
    """Reads the controls of a model: `mean_chroma` [2] and `lightness_table` [101, 2] in Lab units.

    They are NaN if the model has none.
    """
    try:
        entries = json.loads(Path(folder, CONTROLS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        entries = {"mean_chroma": np.full(2, np.nan), "lightness_table": np.full((101, 2), np.nan)}
    return {name: np.asarray(values, np.float32) for name, values in entries.items()}
