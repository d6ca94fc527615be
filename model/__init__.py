"""Colour science and networks. Importing the package loads nothing heavy; a batch job needs `model.card`."""

from pathlib import Path

DEFAULT_MODEL = "fusion-small"


def default_model() -> str:
    """Folder of the model that ships with the package: a SavedModel with its model card."""
    return str(Path(__file__).parent / "pretrained" / DEFAULT_MODEL)
