"""Orientation and the descriptive metadata that travel from a master to its derivative."""

import numpy as np
from PIL import Image

ORIENTATION_TAG = 0x0112
# Of a TIFF: document, description, make, model, page, software, date, artist, host, copyright.
DESCRIPTIVE_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1...8; 1 where there is none or the tag is nonsense.

    Raises whatever Pillow does for broken pixels of a PNG, which it decodes to find the EXIF block behind them.
    """
    if image.format == "PNG":
        image.load()
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def upright_exif(image: Image.Image) -> bytes:
    """The EXIF block with its orientation set to upright, empty where there is none to keep."""
    try:
        exif = image.getexif()
        if image.format == "TIFF":  # its "EXIF" is the file's own directory, strip offsets and all
            directory, exif = exif, Image.Exif()
            exif.update({tag: directory[tag] for tag in DESCRIPTIVE_TAGS if tag in directory})
        if not exif:
            return b""
        exif[ORIENTATION_TAG] = 1
        return exif.tobytes()
    except Exception:
        return b""


def xmp(image: Image.Image) -> bytes:
    """The master's XMP packet, empty where there is none."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return packet.encode() if isinstance(packet, str) else bytes(packet)


def dpi(image: Image.Image, turned: bool) -> tuple[float, float] | None:
    """Resolution across and down, as a person sees the picture if it is `turned` by a quarter; None if unsaid."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < across < 65536 and 0 < down < 65536):
        return None
    return (down, across) if turned else (across, down)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, ...] -> as a person sees them; a view."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `upright`."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))
