"""Colour science and networks. Importing this package loads nothing heavy; see `model.card` for what a batch job needs."""

from pathlib import Path

DEFAULT_MODEL = "fusion-small"


def default_model() -> str:
    """Folder of the model that ships with the package: a SavedModel with its model card."""
    return str(Path(__file__).parent / "pretrained" / DEFAULT_MODEL)
