"""Digests of the code that components run, so that changed code is never served from the cache."""

import hashlib
from pathlib import Path

_ROOT = Path(__file__).parents[1]

# What each component runs of ours, as patterns below the root.
INGESTION = (
    "pipeline/*.py",
    "model/duplicates.py",
    "model/features.py",
    "model/photos.py",
    "tfx_pipeline/components/example_gen.py",
)
TRANSFORM = ("tfx_pipeline/preprocessing.py", "model/color.py", "model/features.py")
TRAINING = ("model/*.py", "model/networks/*.py", "tfx_pipeline/trainer.py")
EVALUATION = ("model/color.py", "model/metrics.py", "tfx_pipeline/evaluation.py")
GATES = ("pipeline/*.py", "tfx_pipeline/*.py", "tfx_pipeline/components/*.py")


def digest(patterns: tuple[str, ...], root: Path = _ROOT) -> str:
    """Hexadecimal digest of the names and contents of all files that match."""
    found = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in root.glob(pattern)}):
        found.update(f"{file.relative_to(root)}\n".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]
