"""The work of TFX's Trainer: trains on the Lab examples, and exports a candidate with its card."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tfx.components.trainer.fn_args_utils import FnArgs

from model import release
from model.card import read_card, write_card
from model.data import records
from model.data.photos import Photos, chroma
from model.traditional import luminance_table
from model.training import fit, run_folder
from model.training.options import Options, write_json
from model.training.progress import RunProgress
from pipeline import storage
from pipeline.photographs.splits import PARTS
from tfx_pipeline import folders
from tfx_pipeline.artifacts import PENDING
from tfx_pipeline.controls import CONTROLS

# Pictures that are held in memory, by split: for chroma bins and controls, for calibration, for the card.
SAMPLES = {"train": 3000, "validation": 1000, "test": 1000}
GATES = ("data", "quality", "serving")


def run_fn(arguments: FnArgs) -> None:
    """Entry point for TFX.

    `arguments.custom_config` has:
        options: fields of `model.training.options.Options`.
        checkpoints: folder, local, gs:// or s3://, for the checkpoints of a killed run. It is outside of the folders
            of the execution, which a retry does not see.
        warm: folder of an exported model to start from; empty for the base model of the component, if any.
        warm_sha256: digest of its weights; if they change, the model is trained again.
        name, terms: for the model card. The Pusher adds the command, which does not affect the training.
        sources: digest of the code; if it changes, the model is trained again.
    """
    config = arguments.custom_config
    options = _options(config["options"])
    splits = {part: _files(arguments.train_files, part) for part in PARTS}
    photos = Photos(
        **{part: records.read_photos(files, SAMPLES[part]) for part, files in splits.items()},
        grey={},
        broken={},
    )
    warm = config["warm"] or arguments.base_model
    with checkpoints(config["checkpoints"], _digest(config, splits)) as (run, saved):
        with folders.filled(arguments.model_run_dir) as board, folders.here(warm or run) as start:
            fit.train(
                photos,
                options,
                run,
                callbacks=(
                    RunProgress(options),
                    keras.callbacks.TensorBoard(board, write_graph=False),
                    saved,
                ),
                batches=partial(records.training_batches, splits["train"], weights=options.weights),
                warm=start if warm else None,
            )
            shutil.copy(Path(run, run_folder.HISTORY), Path(board, run_folder.HISTORY))
        release.release(
            photos,
            options,
            run,
            name=config["name"],
            version="candidate",
            command="",
            terms=config["terms"],
            counts={part: records.count(files) for part, files in splits.items()},
        )
        model = Path(run, release.MODEL)
        card = dataclasses.replace(
            read_card(model), gates=[{"gate": gate, "verdict": PENDING} for gate in GATES]
        )
        write_card(model, card)
        write_json(model / CONTROLS, controls(photos))
        folders.copy(str(model), arguments.serving_model_dir)


def controls(photos: Photos) -> dict[str, list]:
    """Fits the controls to the training photographs; see `tfx_pipeline.controls`."""
    mean = np.mean([chroma(photo.pixels).mean(axis=(0, 1)) for photo in photos.train], axis=0)
    return {"mean_chroma": mean.tolist(), "lightness_table": luminance_table.fit(photos.train).tolist()}


class Saved(keras.callbacks.Callback):
    """Copies the folder of a run to shared storage after each epoch."""

    def __init__(self, run: str, target: str):
        super().__init__()
        self.run, self.target = run, target

    def on_epoch_end(self, epoch, logs=None):
        if self.run != self.target:
            folders.copy(self.run, self.target)


@contextmanager
def checkpoints(root: str, digest: str) -> Iterator[tuple[str, Saved]]:
    """Yields a local folder with the checkpoints of an earlier attempt, and a callback that copies it to storage.

    Both are deleted when the run is finished, because its model is an artifact then.
    """
    home = storage.join(storage.normalize(root), digest)
    if not storage.is_cloud(home):
        os.makedirs(home, exist_ok=True)
        yield home, Saved(home, home)
        shutil.rmtree(home)
        return
    with tempfile.TemporaryDirectory(prefix="train-") as local:
        folders.copy(home, local)
        yield local, Saved(local, home)
    for info in list(storage.list_files(home)):
        storage.delete(info.uri)


def _options(entries: dict) -> Options:
    lists = {name: tuple(value) for name, value in entries.items() if isinstance(value, list)}
    return Options(**entries | lists)


def _digest(config: dict, splits: dict[str, list[str]]) -> str:
    """Digest of everything that identifies a run."""
    what = {name: value for name, value in config.items() if name != "checkpoints"}
    return hashlib.sha256(json.dumps([what, splits], sort_keys=True).encode()).hexdigest()[:16]


def _files(patterns: list[str], part: str) -> list[str]:
    """Shards of a split, from the patterns of the training split that TFX gives."""
    folders_of_part = {
        os.path.dirname(pattern).replace("Split-train", f"Split-{part}") for pattern in patterns
    }
    return sorted(info.uri for folder in folders_of_part for info in storage.list_files(folder))
