"""Pillow with the job's limits in place of its own, which are lower."""

import contextlib
import io
import threading
from collections.abc import Sequence

from PIL import Image, PngImagePlugin

# A scanner's profile may be larger than the megabyte that Pillow allows; all chunks together may have 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)


class _Unlimited(contextlib.ContextDecorator):
    """Inside the block Pillow takes pictures of any size; the last of several threads to leave restores its limit."""

    def __init__(self):
        self._lock, self._inside, self._limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit


unlimited = _Unlimited()


@unlimited
def open_image(data: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """`Image.open` of a file's bytes, however many pixels its header states: the caller checks `size`.

    A TIFF is looked at again by Pillow's own limit when it is loaded: do that inside `unlimited`, too.
    """
    return Image.open(io.BytesIO(data), formats=formats)
