"""Colour science and networks. Importing the package loads nothing heavy; a batch job needs `model.card`."""

from pathlib import Path

MODELS = (
    "fusion-small",
    "open",
)  # ship with the package, each a SavedModel with its model card; the first by default


def default_model() -> str:
    """Folder of the model that a job takes by default."""
    return folder_of(MODELS[0])


def folder_of(model: str) -> str:
    """Folder of a model that ships with the package, by its name. Any other text is the place of a model already."""
    return str(Path(__file__).parent / "pretrained" / model) if model in MODELS else model
