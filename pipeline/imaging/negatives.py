"""Recognises negatives by a small network, which `python -m model.negatives` trains.

The network runs in NumPy: the process that decodes scans loads no TensorFlow.
"""

import functools
from pathlib import Path

import cv2
import numpy as np

WEIGHTS = Path(__file__).with_name("negatives.npz")


def is_negative(luma: np.ndarray) -> bool:
    """Whether luma uint8 [H, W] is that of a negative: light and dark are exchanged.

    It is said only where the network is certain: about one positive of 300 is taken for a negative.
    """
    return bool(evidence(luma) > _weights()["threshold"])


def evidence(luma: np.ndarray) -> float:
    """Evidence for a negative, from luma uint8 [H, W]: a logit. That of the inverted picture has the other sign."""
    side = int(_weights()["side"])
    view = cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    plane = view[..., None] / np.float32(127.5) - 1
    return _positive(-plane) - _positive(plane)


def _positive(plane: np.ndarray) -> float:
    """How much a plane float32 [S, S, 1], -1...1, looks like a positive."""
    weights, layer = _weights(), 0
    while f"kernel{layer}" in weights:
        kernel = weights[f"kernel{layer}"]
        plane = _convolved(plane, kernel, int(weights[f"stride{layer}"])) + weights[f"bias{layer}"]
        plane, layer = np.maximum(plane, 0), layer + 1
    return float(plane.mean(axis=(0, 1)) @ weights["dense"])


def _convolved(plane: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Convolution of a plane [h, w, C] with a kernel [k, k, C, N], padded as TensorFlow's "same"."""
    size, _, channels, number = kernel.shape
    pads = [_padding(side, size, stride) for side in plane.shape[:2]]
    padded = np.pad(plane, [*pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size, channels))[::stride, ::stride, 0]
    height, width = windows.shape[:2]
    columns = windows.reshape(height * width, -1)
    return (columns @ kernel.reshape(-1, number)).reshape(height, width, number)


def _padding(side: int, size: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Arrays float32: `kernelN` [k, k, C, N], `biasN`, `strideN` of the layers; `dense` [C]; `side`, `threshold`."""
    with np.load(WEIGHTS) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays}
