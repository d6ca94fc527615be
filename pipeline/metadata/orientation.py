"""The orientation of a picture (EXIF 3.0, 4.6.5.1.6): how its stored pixels are turned upright."""

import numpy as np
from PIL import Image

ORIENTATION_TAG = 0x0112


def orientation_of(image: Image.Image) -> int:
    """Orientation 1...8 of a picture that Pillow has opened; 1 if there is none, or it is invalid.

    Pillow decodes the pixels of a PNG to find the EXIF block after them, and raises its exceptions for broken pixels.
    """
    if image.format == "PNG":
        image.load()
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block does not concern the pixels
        return 1
    return value if value in range(1, 9) else 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [H, W, ...] upright. Returns a view."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Inverse of `upright`."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))
