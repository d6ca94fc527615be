"""JPEGs of all processes, samplings and depths, as other programs write them."""

import io
import shutil
import subprocess

import imagecodecs
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal

Y, X = np.mgrid[:64, :80]
PICTURE = (0.1 + 0.8 * (np.sin(X / 9) * np.cos(Y / 7) / 2 + 0.5)).clip(0, 1)  # fraction of full intensity
GREY = np.rint(PICTURE * 255).astype(np.uint8)


def deep(bits, channels=1):
    samples = np.rint(PICTURE * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return samples if channels == 1 else np.stack([samples] * channels, -1)


def pillows(array=GREY, format="JPEG", **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, format, quality=95, **options)
    return buffer.getvalue()


def luma(data):
    return read_scan(data, output_format="png", max_pixels=10**6).luma.astype(float)


def guide(data):
    return read_scan(data, output_format="jpeg", max_pixels=10**6).guide.astype(float)


def same(data, expected=PICTURE * 255, tolerance=4.0):
    return all(np.abs(reader(data) - expected).max() <= tolerance for reader in (luma, guide))


FILES = {
    "grey": pillows,
    "YCbCr": lambda: pillows(deep(8, 3)),
    "RGB": lambda: pillows(deep(8, 3), keep_rgb=True),
    "progressive": lambda: pillows(progressive=True),
    "progressive, optimised scans": lambda: pyvips.Image.new_from_array(GREY).jpegsave_buffer(
        Q=95, interlace=True, optimize_scans=True, trellis_quant=True
    ),
    "CMYK, inverted as by Adobe": lambda: pillows(Image.fromarray(deep(8, 3)).convert("CMYK")),
    "restart intervals": lambda: pillows(restart_marker_blocks=3),
    "restart intervals, YCbCr": lambda: pillows(deep(8, 3), restart_marker_rows=1),
    "other pictures behind it (MPF)": lambda: pillows(
        deep(8, 3), "MPO", save_all=True, append_images=[Image.fromarray(255 - deep(8, 3))]
    ),
    "12 bits": lambda: imagecodecs.jpeg8_encode(deep(12), level=95, bitspersample=12),
    "12 bits, YCbCr": lambda: imagecodecs.jpeg8_encode(deep(12, 3), level=95, bitspersample=12),
    "lossless": lambda: imagecodecs.jpeg8_encode(GREY, lossless=True),
    "lossless, RGB": lambda: imagecodecs.jpeg8_encode(deep(8, 3), lossless=True),
    "lossless, 16 bits": lambda: imagecodecs.ljpeg_encode(deep(16)),
    "JPEG-LS": lambda: imagecodecs.jpegls_encode(GREY),
    "JPEG-LS, 16 bits": lambda: imagecodecs.jpegls_encode(deep(16)),
    "JPEG-LS, RGB": lambda: imagecodecs.jpegls_encode(deep(8, 3)),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_process_is_read(kind):
    assert same(FILES[kind]())


@pytest.mark.parametrize("kind", ["grey", "YCbCr", "progressive", "12 bits", "JPEG-LS"])
@pytest.mark.parametrize("behind", [b"\0" * 100, b"\n", b"words" * 1000, b"\xff" * 7, pillows(255 - GREY)])
def test_bytes_behind_the_end_do_not_matter(kind, behind):
    assert same(FILES[kind]() + behind)


@pytest.mark.parametrize("factors", [0x22, 0x31, 0x12, 0x44])
def test_the_sampling_factors_of_a_single_component_do_not_matter(factors):
    data = bytearray(pillows())
    data[data.index(b"\xff\xc0") + 11] = factors
    assert same(bytes(data))


def test_12_bits_keep_their_colours_and_their_profile():
    green = np.stack([deep(12) * 0.9, deep(12), deep(12) * 0.9], -1).astype(np.uint16)
    data = imagecodecs.jpeg8_encode(green, level=98, bitspersample=12)
    assert np.abs(luma(data) - PICTURE * 255 * (1 - 0.1 * 0.413)).max() < 2
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    parts = [linear[at : at + 300] for at in range(0, len(linear), 300)]
    segments = [
        b"\xff\xe2"
        + (2 + 14 + len(part)).to_bytes(2, "big")
        + b"ICC_PROFILE\0"
        + bytes([number, len(parts)])
        + part
        for number, part in enumerate(parts, 1)
    ]
    scan = read_scan(
        data[:2] + b"".join(reversed(segments)) + data[2:], output_format="png", max_pixels=10**6
    )
    assert "profile could not be used" in scan.note  # it was found, and is not one of RGB


@pytest.mark.parametrize("kind", ["12 bits", "lossless, 16 bits", "JPEG-LS, 16 bits"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_cut_file_of_a_rare_kind_is_refused(kind, share):
    data = FILES[kind]()
    with pytest.raises(Refusal) as caught:
        luma(data[: int(share * len(data))])
    assert caught.value.reason in (Reason.TRUNCATED, Reason.UNREADABLE)


@pytest.mark.skipif(not shutil.which("cjpeg"), reason="needs cjpeg of libjpeg-turbo")
@pytest.mark.parametrize(
    "options",
    [
        ["-arithmetic"],
        ["-arithmetic", "-progressive"],
        ["-restart", "1"],
        ["-sample", "2x1,1x2,1x1"],
        ["-sample", "2x2,2x1,1x2"],
        ["-sample", "3x1,1x1,1x1"],
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_arithmetic_coding_and_odd_samplings_are_read(options, channels, tmp_path):
    file = tmp_path / "picture.ppm"
    Image.fromarray(deep(8, channels)).save(file)
    run = subprocess.run(["cjpeg", "-quality", "95", *options, file], capture_output=True, check=True)
    assert same(run.stdout, tolerance=5)
