"""Properties of the synthetic scans that the benchmarks rely on."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.scans import grey_jpeg, grey_png, make_scan, rgb_jpeg


@pytest.fixture(scope="module")
def scans():
    return [make_scan(seed) for seed in (0, 1)]


def opened(data):
    return Image.open(io.BytesIO(data))


def test_a_three_megapixel_scan_is_a_jpeg_of_about_one_megabyte(scans):
    for luma in scans:
        assert luma.shape == (1536, 2048)
        assert luma.dtype == np.uint8
        assert 0.9e6 <= len(grey_jpeg(luma)) <= 1.1e6


def test_a_seed_always_gives_the_same_scan_and_another_seed_another(scans):
    assert np.array_equal(make_scan(5, 640, 480), make_scan(5, 640, 480))
    assert not np.array_equal(scans[0], scans[1])


def test_a_scan_uses_the_range_without_clipping(scans):
    for luma in scans:
        assert np.percentile(luma, 99) - np.percentile(luma, 1) > 120
        assert np.mean((luma == 0) | (luma == 255)) < 0.02


def test_detail_reaches_the_scale_of_single_pixels(scans):
    amplitude = np.abs(np.fft.rfft(scans[0][::4], axis=1)).mean(0)
    middle = len(amplitude) // 2
    # An enlargement has almost no energy in the highest octave.
    assert amplitude[-100:].mean() > 0.4 * amplitude[middle - 50 : middle + 50].mean()


def test_every_format_holds_the_same_grey(scans):
    luma = scans[0][:480, :640]
    assert np.array_equal(opened(grey_png(luma)), luma)
    grey, color = opened(grey_jpeg(luma)), opened(rgb_jpeg(luma))
    assert (grey.mode, color.mode) == ("L", "RGB")
    assert np.abs(np.int16(color.convert("L")) - np.int16(grey)).max() <= 1
    assert opened(grey_jpeg(luma, progressive=True)).info["progressive"]
