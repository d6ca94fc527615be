"""Messages for intact files of unsupported kinds."""

import gzip
import io
import zipfile

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pipeline.decoding import kinds
from pipeline.imaging.scan import read_scan
from pipeline.records.record import Reason, Refusal

GREY = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)


def jpeg():
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG")
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", jpeg())
    return buffer.getvalue()


FILES = {
    "JPEG XL": lambda: imagecodecs.jpegxl_encode(GREY),
    "JPEG XR": lambda: imagecodecs.jpegxr_encode(GREY),
    "damaged at its beginning": lambda: jpeg()[:4],
    "HEIF": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "PSB": lambda: b"8BPS\0\2" + bytes(26),
    "JNG": lambda: b"\x8bJNG\r\n\x1a\n" + bytes(20),
    "PDF": lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "ZIP": zipped,
    "gzip": lambda: gzip.compress(jpeg()),
    "web page": lambda: b"<!DOCTYPE html><html><head>",
    "SVG": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "an XML file": lambda: b'<?xml version="1.0"?><mets/>',
    "UTF-16": lambda: "Findbuch".encode("utf-16"),
    "text": lambda: "Findbuch über\n".encode() * 400,
}


@pytest.mark.parametrize("kind", FILES)
def test_the_kind_of_an_intact_unsupported_file_is_named(kind):
    with pytest.raises(Refusal) as caught:
        read_scan(FILES[kind](), output_format="png", max_pixels=10**6)
    assert caught.value.reason == Reason.UNREADABLE
    assert kind in caught.value.detail and "not read" in caught.value.detail


@pytest.mark.parametrize("data", [b"", bytes(9_999), b"\x00\xff" * 500])
def test_an_unknown_kind_has_no_name(data):
    assert kinds.name(data) == ""
