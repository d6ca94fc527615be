"""Pillow without its own limits, which are lower than those of the job."""

import contextlib
import io
import threading

from PIL import Image, PngImagePlugin

# Profiles of scanners may be larger than the megabyte that Pillow allows. The limit for all chunks is 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)


class _Unlimited(contextlib.ContextDecorator):
    """Lifts Pillow's limit on pixels inside of the block. The last of several threads restores it."""

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
def open_image(data: bytes, formats: list[str] | tuple[str, ...] | None = None) -> Image.Image:
    """`Image.open` for the bytes of a file, without a limit on pixels. The caller must check `size`.

    Pillow checks a TIFF again when it is loaded, so this must be done inside of `unlimited`, too.
    """
    return Image.open(io.BytesIO(data), formats=formats)
