"""The pictures of a TIFF, and each page as a file of its own: the same pixels and the same metadata."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from pipeline.decoding import pages, tiff
from pipeline.imaging.scan import read_scan
from pipeline.metadata import embedded
from tests.pipeline.conftest import picture
from tests.pipeline.decoding.test_decoders import without_tag

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def written(*arrays, order="<", big=False, flags=(), **options):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        for number, array in enumerate(arrays):
            kind = "rgb" if array.ndim == 3 else "minisblack"
            said = {"photometric": kind, "metadata": None, "subfiletype": flags[number] if flags else 0}
            writer.write(array, **said | options)
    return buffer.getvalue()


def found(data):
    return tiff.find(data, lambda width, height: None)


def read(data):
    return read_scan(data, output_format="png", max_pixels=10**7)


GREYS = [picture(seed, 90 + 7 * seed, 70) for seed in range(3)]
KINDS = {
    "strips": {"rowsperstrip": 16},
    "one strip": {},
    "tiles": {"tile": (32, 32)},
    "LZW": {"compression": "lzw", "predictor": True},
    "JPEG": {"compression": "jpeg", "rowsperstrip": 16},
    "with a profile": {"iccprofile": SRGB},
    "with long texts": {"description": "x" * 5000, "software": "scanner"},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deep", [False, True])
def test_a_page_has_the_pixels_and_the_texts_of_a_file_with_it_alone(kind, deep, big, order):
    if deep and kind == "JPEG":
        return
    arrays = [luma.astype(np.uint16) * 257 if deep else luma for luma in GREYS]
    data = written(*arrays, order=order, big=big, **KINDS[kind])
    places = found(data).places
    assert len(places) == 3
    for place, array in zip(places, arrays, strict=True):
        page, alone = pages.extract(data, place), written(array, order=order, big=big, **KINDS[kind])
        assert np.array_equal(read(page).luma, read(alone).luma)
        assert len(page) <= len(alone) + 64
        assert embedded.read(page).exif.keys() == embedded.read(alone).exif.keys()
        assert found(page).directories == 1


def test_planes_palettes_and_facsimiles_are_pages_too():
    planes = written(*[np.stack([luma] * 3) for luma in GREYS], planarconfig="separate", photometric="rgb")
    for place, luma in zip(found(planes).places, GREYS, strict=True):
        assert np.abs(np.int16(read(pages.extract(planes, place)).luma) - luma).max() <= 1
    for compression in ("group3", "group4", "packbits", "jpeg"):
        images = [Image.fromarray(luma).convert("1" if "group" in compression else "L") for luma in GREYS]
        buffer = io.BytesIO()
        images[0].save(buffer, "TIFF", compression=compression, save_all=True, append_images=images[1:])
        data = buffer.getvalue()
        for place, image in zip(found(data).places, images, strict=True):
            luma = read(pages.extract(data, place)).luma
            assert np.abs(np.int16(luma) - np.asarray(image.convert("L"))).mean() < 4


def test_a_page_keeps_its_exif_its_orientation_and_its_place_in_gps():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    exif.get_ifd(0x8769)[0x9003] = "1901:02:03 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(GREYS[0]).save(buffer, "TIFF", exif=exif.tobytes())
    data = buffer.getvalue()
    page = pages.extract(data, found(data).places[0])
    for one in (data, page):
        metadata = embedded.read(one)
        assert metadata.orientation == 6
        assert {0x8769, 0x8825} <= metadata.exif.keys()
    assert read(page).size == read(data).size == (70, 90)


def test_a_page_without_the_sizes_of_its_strips_is_read():
    data = without_tag(written(GREYS[0]), 279)
    page = pages.extract(data, found(data).places[0])
    assert np.array_equal(read(page).luma, GREYS[0])


# What is a page, and what is a copy


def reduced(luma, factor):
    image = Image.fromarray(luma)
    return np.asarray(
        image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.BOX)
    )


@pytest.mark.parametrize("factors", [(1, 2, 4), (1, 3), (4, 1), (4, 2, 1), (1, 5.5)])
def test_levels_and_thumbnails_in_any_order_are_copies_of_one_picture(factors):
    luma = picture(1, 400, 300)
    data = written(*[reduced(luma, factor) for factor in factors])
    assert len(found(data).places) == 1
    assert np.array_equal(read(data).luma, luma)
    assert "reduced copies" in read(data).note


def test_each_page_may_have_its_levels():
    first, second = picture(1, 400, 300), picture(2, 400, 300)
    levels = [reduced(luma, factor) for luma in (first, second) for factor in (1, 2, 4)]
    for flags in ((), (0, 1, 1, 0, 1, 1)):
        data = written(*levels, flags=flags)
        places = found(data).places
        assert [read(pages.extract(data, place)).size for place in places] == [(400, 300)] * 2


def test_pages_of_text_in_two_sizes_are_two_pages():
    rng = np.random.default_rng(0)

    def text(height, width):
        lines = np.full((height, width), 250, np.uint8)
        for top in range(20, height - 20, 12):
            for left in range(20, width - 20, 7):
                if rng.random() < 0.6:
                    lines[top : top + 7, left : left + 4] = 20
        return lines

    assert len(found(written(text(800, 600), text(400, 300))).places) == 2


def test_two_pages_of_the_same_picture_and_size_are_two_pages():
    assert len(found(written(GREYS[0], GREYS[0])).places) == 2


def test_a_damaged_page_of_half_the_size_stays_a_page():
    luma = picture(1, 400, 300)
    data = bytearray(written(luma, reduced(luma, 2), compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place, size = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    data[place : place + size] = bytes(size)
    assert len(found(bytes(data)).places) == 2
