"""ImageNet classifiers as feature extractors: from lightness to an embedding, or to features at several sizes.

A classifier gets the grey picture in all three channels, scaled as in its training. Its weights come from
`keras.applications`, which downloads them once, from a Python package, or from a file.
"""

import contextlib
import functools
import socket
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import applications, layers, ops

from model.color import conversion
from model.networks import efficientnet_lite
from pipeline import storage

RANDOM, IMAGENET = "random", "imagenet"
EMBEDDINGS = {"logits": None, "probabilities": "softmax"}  # with the activation of the last layer
PATIENCE = 20.0  # seconds to wait for an answer of the download
_SUFFIXES = (".weights.h5", ".keras", ".h5")


class ExtractorError(ValueError):
    """An extractor cannot be made; the message is one line that says what to do."""


@dataclass(frozen=True)
class Extractor:
    """A classifier.

    Attributes:
        build: function of `keras.applications`, or one with the same arguments.
        scale: preprocessing of RGB 0..255 [N, S, S, 3].
        size: height and width of its training pictures in pixels.
    """

    build: Callable
    scale: Callable
    size: int


EXTRACTORS = {
    "inception_resnet_v2": Extractor(
        applications.InceptionResNetV2, applications.inception_resnet_v2.preprocess_input, 299
    ),
    "resnet50": Extractor(applications.ResNet50, applications.resnet50.preprocess_input, 224),
    "mobilenet_v2": Extractor(applications.MobileNetV2, applications.mobilenet_v2.preprocess_input, 224),
    # MobileNetV3 scales its input itself.
    "mobilenet_v3": Extractor(applications.MobileNetV3Large, applications.mobilenet_v3.preprocess_input, 224),
    "efficientnet_lite0": Extractor(efficientnet_lite.build, efficientnet_lite.preprocess, 224),
    # It was trained at 260 pixels, which cannot be halved five times.
    "efficientnet_lite2": Extractor(
        functools.partial(efficientnet_lite.build, variant=2), efficientnet_lite.preprocess, 256
    ),
}


def build(name: str, weights: str = IMAGENET, embedding: str = "logits") -> keras.Model:
    """Lightness [N, H, W, 1], L* 0..100, of any size to the embedding [N, 1000]; frozen.

    Args:
        name: a key of `EXTRACTORS`.
        weights: `imagenet`; a file, local or in an object store, with the weights of the whole classifier, including
            its top (`.weights.h5`, `.keras`, or `.h5` as `keras.applications` publishes); or `random`, for tests.
        embedding: `logits`, or `probabilities`, their softmax.

    Raises:
        ExtractorError: the weights cannot be loaded, or belong to another network.
    """
    check(name, embedding)
    extractor = EXTRACTORS[name]
    classifier = _classifier(name, weights, EMBEDDINGS[embedding])
    lightness = keras.Input((None, None, 1), name="seen_lightness")
    picture = Seen(extractor.size, extractor.scale, dtype="float32", name="seen")(lightness)
    model = keras.Model(lightness, Frozen(classifier, name="classifier")(picture), name="embedding")
    model.trainable = False
    return model


def pyramid(name: str, weights: str = IMAGENET, momentum: float = 0.99) -> keras.Model:
    """Lightness [N, H, W, 1], L* 0..100, to features at 1/4, 1/8, 1/16 and 1/32 of the size; trainable.

    H and W are multiples of 32. The features of each size come from the last layer of the classifier with that size.

    Args:
        name, weights: as for `build`.
        momentum: of batch norm.

    Raises:
        ExtractorError: as `build`; or the classifier does not halve its input evenly.
    """
    check(name)
    lightness = keras.Input((None, None, 1), name="seen_lightness")
    picture = Seen(None, EXTRACTORS[name].scale, dtype="float32", name="seen")(lightness)
    return keras.Model(lightness, _features(name, weights, momentum)(picture), name="pyramid")


def judge(name: str, weights: str = IMAGENET) -> keras.Model:
    """RGB [N, H, W, 3], sRGB 0..1, to features at 1/4 to 1/32 of the size, as in `pyramid`; frozen."""
    check(name)
    rgb = keras.Input((None, None, 3), name="rgb")
    picture = Scaled(EXTRACTORS[name].scale, dtype="float32", name="scaled")(rgb)
    model = keras.Model(rgb, _features(name, weights)(picture), name="judge")
    model.trainable = False
    return model


def _features(name: str, weights: str, momentum: float = 0.99) -> keras.Model:
    """Pictures [N, H, W, 3], scaled for the classifier, to its features at 1/4, 1/8, 1/16 and 1/32 of the size."""
    extractor = EXTRACTORS[name]
    classifier = _classifier(name, weights, None)
    # The same layers for pictures of any size, without the top.
    free = extractor.build(weights=None, include_top=False, input_shape=(None, None, 3))
    last = {}
    for layer, source in zip(free.layers, classifier.layers, strict=False):
        layer.set_weights(source.get_weights())
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum
        last[source.output.shape[1:-1]] = layer.output
    try:
        outputs = [last[(extractor.size // factor,) * 2] for factor in (4, 8, 16, 32)]
    except KeyError:
        raise ExtractorError(f"{name} does not halve its input evenly; choose another extractor") from None
    return keras.Model(free.input, outputs, name="features")


def check(name: str, embedding: str = "logits") -> None:
    """Raises ExtractorError if there is no classifier or no embedding of that name."""
    for value, known in ((name, EXTRACTORS), (embedding, EMBEDDINGS)):
        if value not in known:
            raise ExtractorError(f"there is no {value}; choose one of {', '.join(known)}")


class Seen(layers.Layer):
    """Lightness [N, H, W, 1] to the input of a classifier [N, size, size, 3]: `scale` of the grey in 0..255.

    With `size` None, the size does not change.
    """

    def __init__(self, size: int | None, scale: Callable, **kwargs):
        super().__init__(**kwargs)
        self.size, self.scale = size, scale

    def call(self, lightness):
        grey = 255 * conversion.grey_of_lightness(lightness)
        if self.size is not None:
            grey = ops.image.resize(grey, (self.size, self.size), data_format="channels_last")
        return self.scale(ops.repeat(grey, 3, axis=-1), data_format="channels_last")

    def compute_output_shape(self, shape):
        return (shape[0], self.size or shape[1], self.size or shape[2], 3)


class Scaled(layers.Layer):
    """RGB 0..1 [N, H, W, 3] to the input of a classifier: `scale` of RGB 0..255."""

    def __init__(self, scale: Callable, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, rgb):
        return self.scale(255 * rgb, data_format="channels_last")


class Frozen(layers.Layer):
    """A network that always runs in inference mode, also while the model around it is trained."""

    def __init__(self, network: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def call(self, x):
        return self.network(x, training=False)

    def compute_output_shape(self, shape):
        return self.network.compute_output_shape(shape)


def _classifier(name: str, weights: str, activation: str | None) -> keras.Model:
    extractor = EXTRACTORS[name]
    make = functools.partial(extractor.build, input_shape=(extractor.size, extractor.size, 3))
    if weights == IMAGENET:
        with _reachable(name):
            return make(weights=IMAGENET, classifier_activation=activation)
    if weights != RANDOM and not weights.endswith(_SUFFIXES):
        raise ExtractorError(
            f"{weights} is not a file of weights; its name must end with one of {', '.join(_SUFFIXES)}"
        )
    if weights == RANDOM:
        return make(weights=None, classifier_activation=activation)
    with _local(weights) as path:
        classifier = make(weights=None, classifier_activation=activation)
        _load(classifier, path, name, weights)
    return classifier


@contextlib.contextmanager
def _reachable(name: str) -> Iterator[None]:
    """Limits the waiting time of a download, and describes its failure."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except efficientnet_lite.PackageError as error:
        raise ExtractorError(str(error)) from error
    except Exception as error:  # the download raises no narrower exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExtractorError(
            f"the ImageNet weights of {name} cannot be downloaded here ({reason}); give a local, gs:// or s3:// file "
            "with them (keras.applications keeps them in ~/.keras/models of a machine with a network), or choose the "
            "extractor joint, which needs none"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _load(classifier: keras.Model, path: Path, name: str, weights: str) -> None:
    # Keras skips weights that are missing in some files, at most with a warning.
    for variable in classifier.weights:
        variable.assign(ops.full(variable.shape, np.nan, variable.dtype))
    try:
        with warnings.catch_warnings(action="ignore"):
            classifier.load_weights(path)
        missing = sum(not np.all(np.isfinite(weight)) for weight in classifier.get_weights())
        if missing:
            raise ValueError(f"{missing} of {len(classifier.weights)} weights are missing or not finite")
    except (ValueError, KeyError, OSError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExtractorError(
            f"{weights} does not hold the weights of {name} with its top of 1000 classes ({reason}); give a file of "
            "this classifier, or name the extractor that the file belongs to"
        ) from error


@contextlib.contextmanager
def _local(weights: str) -> Iterator[Path]:
    """Yields a local file: the file itself, or a temporary copy of an object in a bucket."""
    if not storage.is_cloud(weights):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ExtractorError(f"there is no file of weights {weights}")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / weights.rsplit("/", 1)[-1]
        try:
            path.write_bytes(storage.read(weights))
        except OSError as error:
            raise ExtractorError(
                f"{weights} cannot be read ({error}); check its name and your rights"
            ) from error
        yield path
