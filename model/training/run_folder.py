"""The folder of a training run: its files, and the checks before a run is started or continued in it."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from model import networks
from model.data.bins import BINS, count_bins, fit_bins, read_bins
from model.data.photos import Photo
from model.networks import NETWORKS
from model.training import objectives
from model.training.options import Options, load

OPTIONS, STATE, ADVERSARY, HISTORY = "options.json", "state.weights.h5", "state.npz", "history.json"
MODEL = "model"  # folder of the exported model, in the folder of the run
# Options that may change when a run is continued.
_CHANGEABLE = {
    "epochs",
    "steps",
    "rate",
    "size",
    "temperature",
    "debias",
    "gain",
    "calm",
    "strength",
    "strength_reason",
}


class RunError(ValueError):
    """A run cannot be started or continued in its folder; the message is one line for a person."""


def begin(options: Options, folder: Path, base: str | None = None) -> None:
    """Makes and checks the folder of a run. It is quick, and is called before the photographs are read.

    Args:
        options: of the run.
        folder: of the run.
        base: folder of a model or a run with the bins for this run.

    Raises:
        RunError: the folder cannot be made, holds a run with other options, `base` has no bins, or the teacher does
            not fit.
    """
    if base is not None:
        _centres(base)
    if options.teacher:
        _require_teacher(options, base or options.teacher)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be used as the output folder: {error.strerror}") from None
    if not (folder / OPTIONS).exists():
        return
    there, here = dataclasses.asdict(options_of(folder)), dataclasses.asdict(options)
    there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))  # makes lists of tuples
    changed = [name for name in here if name not in _CHANGEABLE and there[name] != here[name]]
    if changed:
        words = "; ".join(f"--{name} was {there[name]}, not {here[name]}" for name in changed)
        raise RunError(f"{folder} holds a run with other options ({words}); choose another folder")


def is_begun(folder: Path) -> bool:
    """Whether the folder has a checkpoint."""
    return any((folder / state).exists() for state in (STATE, ADVERSARY))


def options_of(folder: str | Path) -> Options:
    """Options of the run in a folder. Raises RunError if there are none of this version."""
    path = Path(folder, OPTIONS)
    try:
        return load(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} does not belong to a run of this version ({error}); choose another folder"
        ) from None


def bins_of(photos: list[Photo], folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Centres and shares of the bins: of the photographs, or those in the folder of a model or a run."""
    if not folder:
        return fit_bins(photos)
    centres = _centres(folder)
    return centres, count_bins(photos, centres)


def require_same_bins(folder: Path, centres: np.ndarray, shares: np.ndarray) -> None:
    """Raises RunError if the run in the folder has other bins."""
    if not (folder / BINS).exists():
        return
    bins = read_bins(folder)
    same = np.array_equal(bins["centres"], centres.tolist())
    # OpenCV on another machine may count a pixel or two differently.
    if not same or not np.allclose(bins["shares"], shares, atol=1e-3):
        raise RunError(
            f"{folder} holds a run on other photographs, or with other bins (--warm, --like, --teacher); "
            "choose another folder"
        )


def _require_teacher(options: Options, base: str) -> None:
    """Raises RunError unless the teacher predicts logits over the bins in `base` for the batches of this run."""
    folder = options.teacher
    its = options_of(folder)
    if not objectives.classifies(its.network) or not Path(folder, STATE).exists():
        raise RunError(
            f"{folder} cannot be the teacher; it must be a trained run of a network with chroma bins"
        )
    if not np.array_equal(_centres(folder), _centres(base)):
        raise RunError(f"the teacher {folder} has other chroma bins; train it with --like {base}")
    stride = networks.stride(NETWORKS[its.network], objectives.config(its, np.zeros((1, 2))))
    if any(size % stride for size in options.sizes):
        raise RunError(f"--sizes must be multiples of {stride}, the stride of the teacher {folder}")


def _centres(folder: str) -> np.ndarray:
    try:
        return np.array(read_bins(folder)["centres"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder} has no chroma bins ({error!r}); name another folder") from None
