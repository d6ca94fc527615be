"""The exported network behind Beam's RunInference: batches of views in, chroma and confidence out."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from model.srgb import LIGHTNESS
from pipeline import scratch, storage
from pipeline.codec import View
from pipeline.collections import Item, JobError

SIGNATURE = "serving_default"
_FULL = 1_000_000  # weight of a full batch


class ModelError(ValueError):
    """A model that the job cannot use; one line for a person."""


@dataclass(eq=False, slots=True)
class Opened:
    """A scan on its way to the network; its pixels stay with the codec that opened it."""

    item: Item
    view: View
    codec: int  # which of the worker's codecs that is


@dataclass(eq=False, slots=True)
class Prediction:
    opened: Opened
    chroma: np.ndarray | None  # float16 [K, S, S, 2], a*b* in Lab units; None where the network failed
    confidence: float  # 0...1, the mean of the tiles'
    seconds: float  # its share of the batch's time
    error: str = ""


class Network:
    """A SavedModel with the signature of this project.

    Args:
      folder: on this machine.
      side: S in pixels.
      batch_size: tiles a call; every call has this shape, so that nothing depends on a tile's batch-mates.
      threads: of the network on a CPU; 0 leaves it to TensorFlow.

    Raises:
      ModelError: it cannot be loaded, or its signature is another.
    """

    def __init__(self, folder: str, side: int, batch_size: int = 8, threads: int = 0):
        import tensorflow as tf

        if threads:
            with contextlib.suppress(RuntimeError):  # TensorFlow has started already, in a notebook say
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            with contextlib.suppress(RuntimeError):  # it is in use already: how it shares memory is settled
                tf.config.experimental.set_memory_growth(gpu, True)
        try:
            with _in_utf8(folder) as name:
                self._model = tf.saved_model.load(name)
        except Exception as error:  # TensorFlow raises many kinds for a broken SavedModel
            raise ModelError(f"cannot load the model in {folder}: {str(error).splitlines()[0]}") from error
        self._call = _checked_signature(self._model, folder, side)
        self._constant, self._side, self._batch_size = tf.constant, side, batch_size

    def predict(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tiles of luma uint8 [K, S, S] -> chroma float16 [K, S, S, 2] and confidence float32 [K]."""
        chroma = np.empty((*tiles.shape, 2), np.float16)
        confidence = np.empty(len(tiles), np.float32)
        padded = np.zeros((self._batch_size, self._side, self._side), np.uint8)
        for start in range(0, len(tiles), self._batch_size):
            part = tiles[start : start + self._batch_size]
            padded[: len(part)] = part
            answer = self._call(lightness=self._constant(LIGHTNESS[padded][..., None]))
            chroma[start : start + len(part)] = answer["chroma"].numpy()[: len(part)]
            confidence[start : start + len(part)] = answer["confidence"].numpy()[: len(part)]
        return chroma, confidence


@contextlib.contextmanager
def _in_utf8(folder: str) -> Iterator[str]:
    """A name of a folder that TensorFlow takes: it refuses those that are not UTF-8."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        yield folder


def _checked_signature(model: Any, folder: str, side: int) -> Any:
    call = model.signatures.get(SIGNATURE) if hasattr(model, "signatures") else None
    if call is None:
        raise ModelError(f"the model in {folder} has no signature {SIGNATURE!r}")
    inputs = {name: spec.shape.as_list() for name, spec in call.structured_input_signature[1].items()}
    outputs = {name: spec.shape.as_list() for name, spec in call.structured_outputs.items()}
    wanted = {"lightness": [None, side, side, 1]}, {"chroma": [None, side, side, 2], "confidence": [None]}
    if (inputs, outputs) != wanted:
        raise ModelError(
            f"the model in {folder} has the signature {inputs} -> {outputs}, not {wanted[0]} -> {wanted[1]}"
        )
    return call


class LazyNetwork:
    """A network that is loaded when a worker has a batch for it: one that finds all current starts at once."""

    def __init__(self, *arguments):
        self._arguments = arguments

    @property
    def network(self) -> Network:
        return load(*self._arguments)


_LOADING = threading.Lock()


def load(model: str, side: int, batch_size: int, threads: int) -> Network:
    """A process's network: one, however many threads ask for it. Raises ModelError as `Network` does."""
    with _LOADING:
        return _load(model, side, batch_size, threads)


@functools.lru_cache(maxsize=1)
def _load(model: str, side: int, batch_size: int, threads: int) -> Network:
    return Network(local_copy(model), side, batch_size, threads)


def try_out(network: Network, side: int) -> None:
    """Raises ModelError unless the network has a sound answer to a plain grey."""
    try:
        chroma, confidence = network.predict(np.full((1, side, side), 128, np.uint8))
    except Exception as error:  # whatever its kernels raise
        words = next(filter(None, map(str.strip, str(error).splitlines())), "")
        raise ModelError(f"the model fails on a plain grey: {type(error).__name__}: {words}") from error
    if not (np.isfinite(chroma).all() and 0 <= confidence[0] <= 1):
        raise ModelError("the model answers a plain grey with no sound chroma and confidence")


class ColorizationHandler(ModelHandler[Opened, Prediction, LazyNetwork]):
    """Loads the network once a process; batches are bounded by tiles and by the pixels held for them."""

    def __init__(self, model: str, side: int, *, batch_size: int, max_batch_pixels: int, threads: int = 0):
        super().__init__()
        self._model, self._side, self._threads = model, side, threads
        self._batch_size, self._max_batch_pixels = batch_size, max_batch_pixels

    def load_model(self) -> "LazyNetwork":
        return LazyNetwork(self._model, self._side, self._batch_size, self._threads)

    def run_inference(
        self, batch: Sequence[Opened], model: "LazyNetwork", inference_args: dict[str, Any] | None = None
    ) -> Iterable[Prediction]:
        return predict(batch, model.network)

    def batch_elements_kwargs(self) -> dict[str, Any]:
        return {"min_batch_size": _FULL, "max_batch_size": _FULL, "element_size_fn": self.weight}

    def weight(self, opened: Opened) -> int:
        """A scan's share of a full batch, by count or by pixels, whichever is more.

        At most a full batch: before a heavier element, Beam emits a batch that is still empty.
        """
        by_count = len(opened.view.tiles) / self._batch_size
        return min(_FULL, round(_FULL * max(by_count, opened.view.pixels / self._max_batch_pixels)))

    def get_num_bytes(self, batch: Sequence[Opened]) -> int:
        return sum(opened.view.tiles.nbytes for opened in batch)

    def get_metrics_namespace(self) -> str:
        return "Colorize"


def predict(batch: Sequence[Opened], network: Network) -> list[Prediction]:
    """A prediction for each scan. If the batch fails they go through singly: only the culprit fails."""
    if not batch:
        return []
    started = time.perf_counter()
    tiles = np.concatenate([opened.view.tiles for opened in batch])
    try:
        chroma, confidence = network.predict(tiles)
    except Exception as error:  # out of memory, or a kernel's error: whatever it is belongs to some scan
        if len(batch) > 1:
            return [prediction for opened in batch for prediction in predict([opened], network)]
        return [
            Prediction(batch[0], None, 0.0, time.perf_counter() - started, f"{type(error).__name__}: {error}")
        ]
    seconds = (time.perf_counter() - started) / len(tiles)
    predictions, start = [], 0
    for opened in batch:
        part = slice(start, start := start + len(opened.view.tiles))
        sound = np.isfinite(chroma[part]).all() and np.isfinite(confidence[part]).all()
        predictions.append(
            Prediction(opened, chroma[part], float(confidence[part].mean()), seconds * len(opened.view.tiles))
            if sound
            else Prediction(opened, None, 0.0, seconds, "the network's chroma is not finite")
        )
    return predictions


def local_copy(model: str) -> str:
    """A folder on this machine; a model in Cloud Storage is copied down (TensorFlow's own reader ignores emulators).

    Raises:
      JobError: there is no room for it. OSError: it cannot be read.
    """
    if not storage.is_gcs(model):
        return model
    target = Path(scratch.make())
    for info in storage.list_files(model):
        file, data = target / info.uri[len(model) :].lstrip("/"), storage.read(info.uri)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        except OSError as error:
            raise JobError(scratch.no_room(error)) from error
    return str(target)
