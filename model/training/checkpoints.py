"""Callbacks that save the state of a training run: the checkpoint and the history. Each file is replaced atomically."""

import json
import time
from pathlib import Path

import h5py
import keras
from keras import ops

from model.files import replacing
from model.training.options import write_json
from model.training.run_folder import RunError

# In the checkpoint: number of batches seen (loss scaling may have skipped some), and the random state of dropout.
_STEP, _SEEDS = "step", "seeds"


class Checkpoint(keras.callbacks.Callback):
    """Saves a checkpoint for `restore` after each epoch and every `seconds` in between.

    Args:
        path: of the checkpoint, which is replaced atomically.
        seconds: between checkpoints.
        step: number of steps before this training starts or continues.
    """

    def __init__(self, path: Path, seconds: float, step: int):
        super().__init__()
        self.path, self.seconds, self.step, self.saved = path, seconds, step, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if time.monotonic() - self.saved >= self.seconds:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._save()

    def _save(self):
        with replacing(self.path) as partial:
            self.model.save_weights(partial, overwrite=True)
            with h5py.File(partial, "a") as file:
                file[_STEP] = self.step
                for number, seed in enumerate(_seeds(self.model)):
                    file[f"{_SEEDS}/{number}"] = ops.convert_to_numpy(seed)
        self.saved = time.monotonic()


class History(keras.callbacks.Callback):
    """Appends the figures of each epoch to the history of the run."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        # An epoch that was killed before its checkpoint is in the file already; it is repeated and replaced.
        before = json.loads(self.path.read_text(encoding="utf-8"))[:epoch] if self.path.exists() else []
        figures = {name: float(value) for name, value in (logs or {}).items()}
        write_json(self.path, [*before, {"epoch": epoch + 1, **figures}])


def restore(part: keras.Model, path: Path) -> int:
    """Restores weights, optimiser and random state from a `Checkpoint`. Returns its step."""
    with h5py.File(path) as file:
        if _STEP not in file:
            raise RunError(f"{path} does not belong to a run of this version; choose another folder")
        part.load_weights(path)
        for number, seed in enumerate(_seeds(part)):
            seed.assign(file[f"{_SEEDS}/{number}"][()])
        return int(file[_STEP][()])


def _seeds(part: keras.Model) -> list:
    return [variable for variable in part.variables if variable.name == "seed_generator_state"]
