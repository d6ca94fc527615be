"""Pillow with the job's limits in place of its own, which are lower."""

import io
import threading
from collections.abc import Sequence

from PIL import Image, PngImagePlugin

# A scanner's profile may be larger than the megabyte that Pillow allows; all chunks together may have 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)
_LIMIT = threading.Lock()


def open_image(data: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """`Image.open` of a file's bytes, however many pixels its header states: the caller checks `size`."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
