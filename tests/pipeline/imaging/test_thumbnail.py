import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pipeline.imaging.scan import read_scan
from pipeline.imaging.thumbnail import thumbnail
from pipeline.photographs.reading import read_color
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


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_16_bits_of_a_png_are_decoded_for_scans_alone(monkeypatch, samples):
    decode, decoded = imagecodecs.png_decode, []
    data = imagecodecs.png_encode(np.full((60, 90, samples), 40_000, np.uint16))
    monkeypatch.setattr(imagecodecs, "png_decode", lambda data: decoded.append(data) or decode(data))
    assert opened(thumbnail(data, side=90, max_pixels=LIMIT)).size == (90, 60)
    if samples > 2:
        read_color(data, max_pixels=LIMIT, min_side=16, side=60)
    assert decoded == []
    read_scan(data, output_format="png", max_pixels=LIMIT)
    assert decoded == [data]


def test_a_picture_beyond_the_limit_is_not_decoded():
    with pytest.raises(Refusal, match="more than"):
        thumbnail(jpeg(picture(0)), max_pixels=100)
