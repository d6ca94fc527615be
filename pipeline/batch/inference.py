"""The exported network for Beam's RunInference: from batches of views to chroma and confidence."""

import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from model import folder_of
from model.card import weights_sha256
from model.color import fading
from model.color.srgb import LIGHTNESS
from pipeline import storage
from pipeline.batch.recall import Recall
from pipeline.codec.codec import View
from pipeline.errors import JobError
from pipeline.inputs.item import Item
from pipeline.storage import scratch

SIGNATURE, CERTAINTY = "serving_default", "certainty"
SHIPPED = "shipped:"  # before the name of a model that each worker takes from its own installation
_FULL = 1_000_000  # weight of a full batch


class ModelError(ValueError):
    """The job cannot use a model; the message is one line for a person."""


@dataclass(eq=False, slots=True)
class Opened:
    """An opened scan on its way to the network. Its pixels stay in the codec that opened it."""

    item: Item
    view: View
    codec: int  # number of this codec in the worker


@dataclass(eq=False, slots=True)
class Prediction:
    opened: Opened
    # float16 [K, S, S, 2], a*b* in Lab units; None if the network failed. It is NaN for neighbours on which it failed.
    chroma: np.ndarray | None
    confidence: float  # 0...1, mean over its own tiles
    seconds: float  # its share of the time of the batch
    faded: float = 0.0  # share of the chroma, 0...1
    error: str = ""


class Network:
    """A SavedModel with the signature of this project.

    Args:
      folder: of the model, on this machine.
      side: S in pixels.
      batch_size: tiles in a call. All calls have this size, but at least two tiles, so that the result for a tile does
        not depend on others.
      threads: on a CPU; 0 lets TensorFlow choose.
      gpu_memory: limit on a GPU, in MB, where several processes share it; 0 for no limit. Memory is taken as needed.
      calm: certainty of a place below which its chroma fades (see `model.color.fading`); 0 for never.

    Raises:
      ModelError: the model cannot be loaded, has another signature, or has no certainty although `calm` needs it.
    """

    def __init__(
        self,
        folder: str,
        side: int,
        batch_size: int = 8,
        threads: int = 0,
        gpu_memory: int = 0,
        calm: float = 0.0,
    ):
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            words = "TensorFlow is not installed: pip install 'archive-colorize[cpu]', or [gpu] for a GPU"
            raise ModelError(words) from error
        if threads:
            with contextlib.suppress(
                RuntimeError
            ):  # TensorFlow is running already, for example in a notebook
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU") if gpu_memory else ():
            with contextlib.suppress(RuntimeError):  # the GPU is in use already, and its memory is configured
                part = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory)
                tf.config.set_logical_device_configuration(gpu, [part])
        try:
            with _in_utf8(folder) as name:
                self._model = tf.saved_model.load(name)
        except Exception as error:  # TensorFlow raises many kinds of errors for a broken SavedModel
            raise ModelError(f"cannot load the model in {folder}: {str(error).splitlines()[0]}") from error
        self._call = _checked_signature(self._model, folder, side)
        self._constant, self._batch_size = tf.constant, batch_size
        self._shape = max(2, batch_size), side, side  # for one tile, TensorFlow adds in another order
        if calm and CERTAINTY not in self._call.structured_outputs:
            raise ModelError(f"the model in {folder} has no {CERTAINTY}, which fading needs (--calm)")
        self._calm = calm
        self.recall = Recall()

    def predict(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicts the colours of tiles of luma.

        Args:
          tiles: uint8 [K, S, S].

        Returns:
          Chroma float16 [K, S, S, 2] in Lab units, confidence float32 [K], and the share float32 [K] of the chroma
          that was faded.
        """
        chroma = np.empty((*tiles.shape, 2), np.float16)
        confidence = np.empty(len(tiles), np.float32)
        shares = np.zeros(len(tiles), np.float32)
        padded = np.zeros(self._shape, np.uint8)
        for start in range(0, len(tiles), self._batch_size):
            part = tiles[start : start + self._batch_size]
            padded[: len(part)] = part
            answer = self._call(lightness=self._constant(LIGHTNESS[padded][..., None]))
            here = slice(start, start + len(part))
            colors = answer["chroma"].numpy()[: len(part)]
            if self._calm:
                full, certainty = colors, answer[CERTAINTY].numpy()[: len(part)]
                colors = fading.faded(full, certainty, self._calm)
                shares[here] = fading.share(full, colors)
            chroma[here], confidence[here] = colors, answer["confidence"].numpy()[: len(part)]
        return chroma, confidence, shares


@contextlib.contextmanager
def _in_utf8(folder: str) -> Iterator[str]:
    """Yields a path that TensorFlow accepts; it refuses names that are not UTF-8."""
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
    with_certainty = wanted[1] | {CERTAINTY: [None, side, side]}
    if inputs != wanted[0] or outputs not in (wanted[1], with_certainty):
        raise ModelError(
            f"the model in {folder} has the signature {inputs} -> {outputs}, not {wanted[0]} -> {wanted[1]}"
        )
    return call


class LazyNetwork:
    """A network that is loaded for the first batch, so that a worker without work does not load it."""

    def __init__(self, *arguments):
        self._arguments = arguments

    @property
    def network(self) -> Network:
        return load(*self._arguments)


_LOADING = threading.Lock()


def load(
    model: str,
    sha256: str,
    side: int,
    batch_size: int,
    threads: int,
    gpu: bool = False,
    gpu_memory: int = 0,
    calm: float = 0.0,
) -> Network:
    """The network of this process, loaded and tried out. All threads share it.

    Args:
      model: folder or URI, or `SHIPPED` and a name.
      sha256: of its graph and weights, from its card.
      side, batch_size, threads, gpu_memory, calm: as for `Network`.
      gpu: whether this machine must have a GPU.

    Raises:
      ModelError: the model cannot be loaded, is another one, has another signature, or fails; or there is no GPU.
    """
    with _LOADING:
        return _load(model, sha256, side, batch_size, threads, gpu, gpu_memory, calm)


@functools.lru_cache(maxsize=1)
def _load(
    model: str,
    sha256: str,
    side: int,
    batch_size: int,
    threads: int,
    gpu: bool,
    gpu_memory: int,
    calm: float,
) -> Network:
    if gpu:
        _require_gpu()
    folder = local_copy(model)
    try:
        differs = folder != model and weights_sha256(folder) != sha256
    except OSError as error:
        raise ModelError(f"cannot read the model {model} on {socket.gethostname()}: {error}") from error
    if differs:
        raise ModelError(
            f"the model {model} on the worker {socket.gethostname()} is not the one that this job was started with: "
            "install the same version of this package everywhere, or push the model again"
        )
    network = Network(folder, side, batch_size, threads, gpu_memory, calm)
    try_out(network, side)  # the first call takes longer; no scan shall wait for it
    return network


def _require_gpu() -> None:
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise ModelError(
            f"the worker {socket.gethostname()} sees no GPU, but --gpu asks for one: check its driver, that TensorFlow "
            "is installed with CUDA (the extra gpu), and that LD_LIBRARY_PATH has the folders of CUDA (see the manual)"
        )


def try_out(network: Network, side: int) -> None:
    """Raises ModelError unless the network returns a valid result for a plain grey picture."""
    try:
        chroma, confidence, _ = network.predict(np.full((1, side, side), 128, np.uint8))
    except Exception as error:  # any error of its kernels
        words = next(filter(None, map(str.strip, str(error).splitlines())), "")
        raise ModelError(
            f"the model fails on a plain grey picture: {type(error).__name__}: {words}"
        ) from error
    if not (np.isfinite(chroma).all() and 0 <= confidence[0] <= 1):
        raise ModelError("the model returns no valid chroma and confidence for a plain grey picture")


class ColorizationHandler(ModelHandler[Opened, Prediction, LazyNetwork]):
    """Loads the network once in each process. Batches are limited by tiles and by the pixels of their scans."""

    def __init__(
        self,
        model: str,
        sha256: str,
        side: int,
        *,
        batch_size: int,
        max_batch_pixels: int,
        threads: int = 0,
        gpu: bool = False,
        gpu_memory: int = 0,
        calm: float = 0.0,
    ):
        super().__init__()
        self._batch_size, self._max_batch_pixels = batch_size, max_batch_pixels
        self._network = LazyNetwork(model, sha256, side, batch_size, threads, gpu, gpu_memory, calm)

    def load_model(self) -> "LazyNetwork":
        return self._network

    def run_inference(
        self, batch: Sequence[Opened], model: "LazyNetwork", inference_args: dict[str, Any] | None = None
    ) -> Iterable[Prediction]:
        return predict(batch, model.network)

    def batch_elements_kwargs(self) -> dict[str, Any]:
        return {"min_batch_size": _FULL, "max_batch_size": _FULL, "element_size_fn": self.weight}

    def weight(self, opened: Opened) -> int:
        """Share of a scan in a full batch, by tiles or by pixels, whichever is larger.

        It is at most a full batch, because Beam would emit an empty batch before a heavier element.
        """
        by_count = (len(opened.view.tiles) - opened.view.beside) / self._batch_size
        return min(_FULL, round(_FULL * max(by_count, opened.view.pixels / self._max_batch_pixels)))

    def get_num_bytes(self, batch: Sequence[Opened]) -> int:
        return sum(opened.view.tiles.nbytes for opened in batch)

    def get_metrics_namespace(self) -> str:
        return "Colorize"


def predict(batch: Sequence[Opened], network: Network) -> list[Prediction]:
    """Predictions for all scans.

    If a batch fails, its scans are repeated one by one, so that only the culprit fails.
    """
    if not batch:
        return []
    started = time.perf_counter()
    tiles = np.concatenate([opened.view.tiles for opened in batch])
    try:
        if any(opened.view.beside for opened in batch):
            chroma, confidence, faded = network.recall.predict(network.predict, tiles)
        else:
            chroma, confidence, faded = network.predict(tiles)
    except Exception as error:  # out of memory, or an error of a kernel: one of the scans causes it
        if len(batch) > 1:
            return [prediction for opened in batch for prediction in predict([opened], network)]
        if batch[0].view.beside:
            return [_one_by_one(batch[0], network)]
        return [
            Prediction(
                batch[0],
                None,
                0.0,
                time.perf_counter() - started,
                error=f"{type(error).__name__}: {error}",
            )
        ]
    seconds = (time.perf_counter() - started) / len(tiles)
    predictions, start = [], 0
    for opened in batch:
        own = slice(start, start + len(opened.view.tiles) - opened.view.beside)
        part = slice(start, start := start + len(opened.view.tiles))
        sound = np.isfinite(chroma[own]).all() and np.isfinite(confidence[own]).all()
        predictions.append(
            Prediction(
                opened,
                chroma[part],
                float(confidence[own].mean()),
                seconds * len(opened.view.tiles),
                float(faded[own].mean()),
            )
            if sound
            else Prediction(opened, None, 0.0, seconds, error="the chroma of the network is not finite")
        )
    return predictions


def _one_by_one(opened: Opened, network: Network) -> Prediction:
    """The prediction for a scan whose neighbours may be the cause of an error. Their chroma is not a number then."""
    number = len(opened.view.tiles) - opened.view.beside
    own, theirs = opened.view.tiles[:number], opened.view.tiles[number:]
    (prediction,) = predict([Opened(opened.item, View(own, opened.view.pixels), opened.codec)], network)
    if prediction.chroma is not None:
        chroma = np.full((len(opened.view.tiles), *prediction.chroma.shape[1:]), np.nan, np.float16)
        chroma[:number] = prediction.chroma
        for at, tile in enumerate(theirs, number):
            with contextlib.suppress(Exception):
                chroma[at] = network.predict(tile[None])[0][0]
        prediction.chroma = chroma
    prediction.opened = opened
    return prediction


def local_copy(model: str) -> str:
    """Folder of a model on this machine. A model in an object store is copied.

    Raises:
      JobError: there is no room for the copy.
      OSError: the model cannot be read.
    """
    if model.startswith(SHIPPED):
        return folder_of(model.removeprefix(SHIPPED))
    if not storage.is_cloud(model):
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
