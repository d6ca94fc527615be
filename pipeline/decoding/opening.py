"""Opens a picture: chooses decoder and page, checks the size, and converts errors to Refusals."""

import contextlib
from collections.abc import Callable, Iterator

from PIL import Image

from pipeline.decoding import jpeg, jpeg2000, png, pnm, tiff
from pipeline.decoding.errors import refusing
from pipeline.decoding.limits import MIN_SIDE
from pipeline.decoding.pillow import open_image, unlimited
from pipeline.decoding.samples import DEEP
from pipeline.records.record import Reason, Refusal

_WITH_OTHERS = ("MPO", "PSD")  # a JPEG of a camera with other pictures; layers behind the whole picture
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")


@contextlib.contextmanager
def opened(
    data: bytes,
    *,
    max_pixels: int,
    min_side: int = MIN_SIDE,
    notes: list[str] | None = None,
    announce: Callable[[int], None] = lambda pixels: None,
    deep: bool = False,
) -> Iterator[Image.Image]:
    """Opens the full-size picture of a file.

    Args:
      data: the whole file.
      max_pixels: larger pictures are refused before they are decoded.
      min_side: pictures with a shorter side are refused, too.
      notes: remarks for people about assumptions and omissions are added.
      announce: called with the number of pixels before they are decoded.
      deep: decode the 16 bits of a PNG with colour or opacity, too, for which Pillow has only 8 (see `samples.DEEP`).

    Raises:
      Refusal: the file is wrong; also for errors inside of the block.
    """
    notes = [] if notes is None else notes

    def check(width: int, height: int) -> None:
        check_size(width, height, max_pixels, min_side)
        announce(width * height)

    if not data:
        raise Refusal(Reason.UNREADABLE, "the file is empty")
    with refusing(data), unlimited:
        if tiff.is_tiff(data):
            image = tiff.open_tiff(data, check, notes)
        elif jpeg2000.is_jpeg2000(data):
            image = jpeg2000.open_jpeg2000(data, check, notes)
        elif jpeg.is_rare(data):
            image = jpeg.open_rare(data, check)
        else:
            image = open_image(data)
            check_pages(image)
            check(*image.size)
            if image.format == "PPM" and pnm.has_another(data, image):
                raise Refusal(Reason.MULTIPAGE, "several pictures in one file: split it into single ones")
            if image.format == "PNG":
                png.mend_transparency(data, image)
                if deep and (samples := png.deep(data)) is not None:
                    image.info[DEEP] = samples
        with image:
            yield image
            if image.format == "PNG" and (fault := png.fault(data, image)):
                raise fault


def check_size(width: int, height: int, max_pixels: int, min_side: int = MIN_SIDE) -> None:
    """Raises Refusal for a picture that is too large or too small."""
    if width * height > max_pixels:
        raise Refusal(Reason.TOO_LARGE, f"{width} x {height} is more than --max_pixels {max_pixels}")
    if min(width, height) < min_side:
        raise Refusal(Reason.TOO_SMALL, f"{width} x {height}: a side is under {min_side} pixels")


def check_pages(image: Image.Image) -> None:
    """Raises Refusal for an image with several pages or frames."""
    if image.format in _WITH_OTHERS:
        return
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in _ANIMATED:
        raise Refusal(Reason.ANIMATION, f"it is an animation of {frames} frames")
    if frames > 1:
        raise Refusal(Reason.MULTIPAGE, f"{frames} pages in one file: split it, a page a file")
