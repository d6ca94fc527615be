import io

import numpy as np
import pytest
from PIL import Image

from pipeline.imaging.thumbnail import thumbnail
from pipeline.records.record import Refusal
from tests.pipeline.conftest import jpeg, picture

LIMIT = 10**6


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_thumbnail_is_small_and_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    small = opened(thumbnail(jpeg(picture(0, 400, 300), exif=exif), side=100, max_pixels=LIMIT))
    assert small.size == (75, 100)


def test_a_deep_scan_keeps_its_tones():
    luma = picture(1, 90, 60) // 2  # contains no white, so normalising to the maximum would brighten it
    buffer = io.BytesIO()
    Image.fromarray(np.uint16(luma) * 257).save(buffer, "TIFF")
    small = np.int16(opened(thumbnail(buffer.getvalue(), side=90, max_pixels=LIMIT)))
    assert abs(small.mean() - luma.mean()) < 1


def test_a_picture_beyond_the_limit_is_not_decoded():
    with pytest.raises(Refusal, match="more than"):
        thumbnail(jpeg(picture(0)), max_pixels=100)
