"""Pillow with the job's limits in place of its own, which are lower."""

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence

from PIL import Image, PngImagePlugin

# A scanner's profile may be larger than the megabyte that Pillow allows; all chunks together may have 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)
_LIMIT = threading.RLock()


@contextlib.contextmanager
def unlimited() -> Iterator[None]:
    """While the block lasts, Pillow takes pictures of any size: of a TIFF it checks the size on decoding, too."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_image(data: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """`Image.open` of a file's bytes, however many pixels its header states: the caller checks `size`."""
    with unlimited():
        return Image.open(io.BytesIO(data), formats=formats)
