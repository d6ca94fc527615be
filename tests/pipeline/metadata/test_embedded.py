"""Embedded metadata: a derivative in any format carries the metadata of its master that still apply."""

import functools
import io
import json
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, TiffImagePlugin
from skimage import data

from pipeline.imaging import chroma, graft
from pipeline.imaging.derivative import encode, paint
from pipeline.imaging.layout import WHOLE
from pipeline.imaging.scan import read_scan
from pipeline.metadata import containers, embedded, ifd, provenance
from pipeline.metadata.orientation import upright
from pipeline.records.record import Record

FORMATS = ["jpeg", "png", "tiff", "webp", "jp2"]
MASTERS = ["grey.jpg", "rgb.jpg", "png", "tif", "motorola.tif", "webp", "jp2"]
SIDE = 64

SAID = {
    "IFD0:Artist": "Jörg Müßig",
    "IFD0:Copyright": "© Stadtarchiv Zürich",
    "IFD0:ImageDescription": "Bahnhofstraße um 1890",
    "IFD0:Make": "Zeutschel",
    "ExifIFD:DateTimeOriginal": "1931:05:17 10:00:00",
    "ExifIFD:UserComment": "Kästen 12–14",
    "ExifIFD:LensModel": "Rodenstock",
    "GPS:GPSLatitude": "47.37",
    "GPS:GPSLatitudeRef": "N",
    "GPS:GPSLongitude": "8.54",
    "GPS:GPSLongitudeRef": "E",
    "GPS:GPSProcessingMethod": "MANUAL",
    "IPTC:Caption-Abstract": "Der Bahnhof",
    "IPTC:Credit": "Archiv",
    "IPTC:CopyrightNotice": "PD",
    "XMP-dc:Title": "Bahnhof – Zürich",
}


def photograph(mode="L", width=120, height=90):
    return Image.fromarray(data.camera()).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@functools.cache
def bare(kind):
    """A master without metadata. The luminance of a grey JPEG is grafted; other masters are encoded again."""
    suffix = kind.rpartition(".")[2]
    mode = "RGB" if kind.startswith("rgb") else "L"
    format = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP", "jp2": "JPEG2000"}[suffix]
    if kind == "motorola.tif":
        return motorola(photograph())
    options = {"dpi": (300, 300)} if suffix in ("jpg", "png", "tif") else {}
    if suffix == "webp":
        options["lossless"] = True
    return save(photograph(mode), format, **options)


def motorola(image):
    """A big-endian TIFF with one uncompressed strip."""
    order, (width, height) = ">", image.size
    directory = {
        tag: ifd.short(order, value)
        for tag, value in {256: width, 257: height, 258: 8, 259: 1, 262: 1}.items()
    }
    directory |= {
        277: ifd.short(order, 1),
        278: ifd.short(order, height),
        279: ifd.long(order, width * height),
    }
    directory |= {282: ifd.rational(order, 300), 283: ifd.rational(order, 300), 296: ifd.short(order, 2)}
    directory[273] = ifd.long(order, len(ifd.encode(directory | {273: ifd.long(order, 0)}, order)))
    return ifd.encode(directory, order) + image.tobytes()


def told(tmp_path, kind, *arguments, source=None):
    """A master with metadata that exiftool writes."""
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is missing: apt-get install libimage-exiftool-perl")
    path = tmp_path / f"master.{kind.rpartition('.')[2]}"
    path.write_bytes(source or bare(kind))
    command = ["exiftool", "-q", "-overwrite_original", *arguments, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


def rich(tmp_path, kind, *more):
    return told(tmp_path, kind, *(f"-{name}={value}" for name, value in SAID.items()), *more)


def read(tmp_path, file, *arguments):
    """Tags that exiftool reads from a file."""
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is missing: apt-get install libimage-exiftool-perl")
    path = tmp_path / "read.bin"
    path.write_bytes(file)
    run = subprocess.run(
        ["exiftool", "-j", "-G1", "-n", "-a", *arguments, str(path)], capture_output=True, check=False
    )
    (tags,) = json.loads(run.stdout)
    return tags


def warnings(tmp_path, file, suffix):
    path = tmp_path / f"validated.{suffix}"
    path.write_bytes(file)
    command = ["exiftool", "-validate", "-warning", "-error", "-a", "-s3", str(path)]
    lines = subprocess.run(command, capture_output=True, check=False, text=True).stdout.splitlines()
    return {re.sub(r"\b(JPEG|TIFF|PNG)\b", "", line) for line in lines[1:]}


def opened(file):
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def derive(master, format, quality=90):
    """The derivative, and the note about what was left out."""
    scan = read_scan(master, output_format=format, max_pixels=10**8)
    guide = np.ascontiguousarray(upright(scan.guide, scan.orientation))
    canvas, seen = chroma.view(guide, SIDE)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    tile = 30 * np.stack([np.sin(5 * x + 2 * y), np.cos(4 * y - 3 * x)], -1)
    model, _ = paint(
        scan, [(WHOLE, canvas)], np.float16(np.broadcast_to(tile, (len(seen), *tile.shape))), 1.0
    )
    record = Record("a", "a", source_sha256="ab" * 32, model="fusion", model_version="1.0", detail=scan.note)
    packet = provenance.packet(record, scan.carried.xmp)
    return encode(scan, model, format=format, quality=quality, packet=packet), scan.note


def segment(marker, payload):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def in_jpeg(file, *segments):
    return file[:2] + b"".join(segments) + file[2:]


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def in_png(file, *chunks):
    return file[:33] + b"".join(chunks) + file[33:]


def packet_with(statements="", attributes=""):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:ps="http://ns.adobe.com/photoshop/1.0/" '
        f'xmlns:foo="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" {attributes}>'
        f"{statements}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


# Carried metadata


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", MASTERS)
def test_exif_gps_iptc_and_xmp_are_carried_without_new_warnings(tmp_path, kind, format):
    master = rich(tmp_path, kind)
    # WebP has no place for IPTC.
    said = {name for name in SAID if not ("webp" in (kind, format) and name.startswith("IPTC"))}
    before = read(tmp_path, master)
    derivative, words = derive(master, format)
    after = read(tmp_path, derivative)
    assert {name: after.get(name) for name in said} == {name: before[name] for name in said}
    assert words == ("left out: IPTC" if format == "webp" and kind != "webp" else "")
    suffix = kind.rpartition(".")[2]
    new = warnings(tmp_path, derivative, format[:4]) - warnings(tmp_path, master, suffix)
    assert not new


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", MASTERS)
def test_a_master_without_metadata_has_a_valid_derivative(tmp_path, kind, format):
    derivative, words = derive(bare(kind), format)
    assert not warnings(tmp_path, derivative, format[:4])
    assert words == ""


TEXTS = {
    "UTF-8": "Jörg Müßig".encode(),
    "Latin-1": "Jörg Müßig".encode("latin-1"),
    "Shift JIS": "写真館".encode("shift_jis"),
    "short": b"\xe9",
}


def exif_with(text, order, comment=b"ASCII\0\0\0Kasten 12"):
    """An EXIF block with Artist, and an Exif directory with UserComment."""
    text += b"\0"
    at = 8 + 2 + 2 * 12 + 4
    artist = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack(f"{order}I", at)
    below = at + len(text) + len(text) % 2
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 2)
    block += struct.pack(f"{order}HHI", 0x013B, 2, len(text)) + artist
    block += struct.pack(f"{order}HHIII", 0x8769, 4, 1, below, 0) + text.ljust(below - at, b"\0")
    block += struct.pack(f"{order}HHHIII", 1, 0x9286, 7, len(comment), below + 18, 0) + comment
    return block


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "png", "webp"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_in_exif_keeps_its_bytes(kind, format, order, text):
    comment = b"UNICODE\0" + "Kästen".encode("utf-16-le" if order == "<" else "utf-16-be")
    block = exif_with(TEXTS[text], order, comment)
    format_of = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind.rpartition(".")[2]]
    master = save(opened(bare(kind)), format_of, exif=b"Exif\0\0" + block)
    derivative, _ = derive(master, format)
    said = embedded.read(derivative)
    assert said.order == order
    assert bytes(said.exif[0x013B].value) == TEXTS[text] + b"\0"
    assert bytes(said.exif[0x8769][0x9286].value) == comment


@pytest.mark.parametrize("format", FORMATS)
def test_text_in_the_directory_of_a_tiff_keeps_its_bytes(format):
    tags = Image.Exif()
    tags[0x013B], tags[0x010E] = "J@rg", "Stra@e"
    master = (
        save(photograph(), "TIFF", exif=tags).replace(b"J@rg", b"J\xf6rg").replace(b"Stra@e", b"Stra\xdfe")
    )
    said = embedded.read(derive(master, format)[0])
    assert bytes(said.exif[0x013B].value) == b"J\xf6rg\0"
    assert bytes(said.exif[0x010E].value) == b"Stra\xdfe\0"


@pytest.mark.parametrize("format", FORMATS)
def test_only_a_tag_of_a_wrong_type_is_left_out(format):
    block = exif_with(b"Market", "<").replace(
        struct.pack("<HHI", 0x013B, 2, 7), struct.pack("<HHI", 0x013B, 99, 7)
    )
    derivative, words = derive(save(photograph("RGB"), "JPEG", exif=b"Exif\0\0" + block), format)
    assert embedded.read(derivative).exif[0x8769][0x9286].value == b"ASCII\0\0\0Kasten 12"
    assert words == "left out: EXIF's damaged Artist"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "png", "webp"])
@pytest.mark.parametrize("block", [b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_a_broken_block_is_named(kind, format, block):
    format_of = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind.rpartition(".")[2]]
    master = save(opened(bare(kind)), format_of, exif=b"Exif\0\0" + block)
    assert derive(master, format)[1].startswith("left out: EXIF (")


MAKER_NOTE = struct.pack("<HH", 0x9286, 7), struct.pack("<HH", 0x927C, 7)  # replaces UserComment


@pytest.mark.parametrize("format", FORMATS)
def test_the_maker_note_keeps_its_offset(format):
    note = b"MakerNote of more than four bytes"
    block = exif_with(b"x" * 400, "<", note).replace(*MAKER_NOTE)
    derivative, words = derive(save(photograph("RGB"), "JPEG", exif=b"Exif\0\0" + block), format)
    assert embedded.read(derivative).exif[0x8769][0x927C].at == block.index(note)
    assert words == ""


@pytest.mark.parametrize("format", FORMATS)
def test_a_makers_note_that_cannot_stay_is_left_out_and_named(format):
    block = exif_with(b"x", "<", b"MakerNote of more than four bytes").replace(*MAKER_NOTE)
    derivative, words = derive(save(photograph("RGB"), "JPEG", exif=b"Exif\0\0" + block), format)
    assert 0x927C not in embedded.read(derivative).exif.get(0x8769, {})
    assert words == "left out: EXIF's MakerNote"


def test_values_too_large_for_a_jpeg_are_left_out_and_named():
    master = save(photograph(), "PNG", exif=b"Exif\0\0" + exif_with(b"Market", "<", b"x" * 70_000))
    derivative, words = derive(master, "jpeg")
    assert bytes(embedded.read(derivative).exif[0x013B].value) == b"Market\0"
    assert words == "left out: EXIF's UserComment"
    assert derive(master, "png")[1] == derive(master, "tiff")[1] == ""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "tif", "png"])
def test_photoshops_resources_are_carried_without_thumbnails_or_named(kind, format):
    iptc = b"\x1c\x02\x78\x00\x0bDer Bahnhof"
    block = containers.resource(0x0404, iptc) + containers.resource(0x040B, b"https://archive.example")
    block += containers.resource(0x0409, b"grey thumbnail") + containers.resource(0x040C, b"grey thumbnail")
    if kind == "tif":
        master = save(photograph(), "TIFF", tiffinfo={34377: block})
    elif kind == "png":
        profile = f"\niptc\n{len(block):8}\n{block.hex()}\n".encode()
        master = in_png(bare("png"), chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile)))
    else:
        master = in_jpeg(bare(kind), segment(0xED, b"Photoshop 3.0\0" + block))
    derivative, words = derive(master, format)
    said = embedded.read(derivative)
    left_out = {"webp": ["IPTC", "Photoshop's resources"], "jp2": ["Photoshop's resources"]}.get(format, [])
    assert all(name in words for name in left_out) and bool(words) == bool(left_out)
    assert said.iptc.rstrip(b"\0") == (b"" if "IPTC" in left_out else iptc)
    assert ((0x040B, b"\0", b"https://archive.example") in said.resources) == (not left_out)
    assert b"grey thumbnail" not in derivative


def test_resources_larger_than_a_segment_are_split_and_joined():
    block = containers.resource(0x0404, b"\x1c\x02\x78\x00\x03abc") + containers.resource(
        1083, b"x" * 150_000
    )
    master = save(photograph(), "TIFF", tiffinfo={34377: block})
    said = embedded.read(derive(master, "jpeg")[0])
    assert (1083, b"\0", b"x" * 150_000) in said.resources


TEXT_CHUNKS = [
    chunk(b"tEXt", b"Author\0J\xf6rg"),
    chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"Market")),
    chunk(b"iTXt", b"Disclaimer\0\0\0de\0\0" + "nur für Sie".encode()),
    chunk(b"tEXt", b"Comment\0plate 7"),
    chunk(b"tEXt", b"Thumb::Image::Width\x00120"),
]


def test_texts_of_a_png_are_carried_as_chunks_in_a_png():
    derivative, words = derive(in_png(bare("png"), *TEXT_CHUNKS), "png")
    for text in TEXT_CHUNKS[:4]:
        assert text in derivative
    assert b"Thumb::" not in derivative and words == ""


def test_texts_of_a_png_are_carried_as_tags_in_other_formats_or_named():
    master = in_png(bare("png"), *TEXT_CHUNKS)
    jpeg, words = derive(master, "jpeg")
    said = embedded.read(jpeg)
    assert (
        bytes(said.exif[0x013B].value) == "Jörg\0".encode() and bytes(said.exif[0x010E].value) == b"Market\0"
    )
    assert said.comment == b"plate 7" and words == "left out: its texts 'Disclaimer'"
    assert derive(master, "tiff")[1] == "left out: its texts 'Disclaimer', its comment"


def test_all_comments_of_a_jpeg_are_carried():
    master = in_jpeg(bare("grey.jpg"), *(segment(0xFE, text) for text in (b"plate 7", b"", b"box 3")))
    assert embedded.read(master).comment == b"plate 7\nbox 3"


@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg"])
@pytest.mark.parametrize("comment", [b"plate 7", b"K\xe4sten", "Kästen".encode()])
def test_the_comment_of_a_jpeg_is_carried_or_named(kind, comment):
    master = in_jpeg(bare(kind), segment(0xFE, comment))
    assert embedded.read(derive(master, "jpeg")[0]).comment == comment
    text = opened(derive(master, "png")[0]).text["Comment"]
    assert text in (comment.decode("utf-8", "replace"), comment.decode("latin-1"))
    assert derive(master, "tiff")[1] == "left out: its comment"


@pytest.mark.parametrize("format", FORMATS)
def test_the_resolution_of_a_jp2_is_carried(format):
    # 11,811 samples per metre vertically and 23,622 horizontally: ITU-T T.800, I.5.3.7.1
    resolution = struct.pack(">HHHHbb", 11811, 1, 23622, 1, 0, 0)

    def box(kind, payload):
        return struct.pack(">I", len(payload) + 8) + kind + payload

    jp2 = bare("jp2")
    at = jp2.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", jp2, at)
    header = jp2[at + 8 : at + size] + box(b"res ", box(b"resc", resolution))
    scan = read_scan(
        jp2[:at] + box(b"jp2h", header) + jp2[at + size :], output_format=format, max_pixels=10**8
    )
    assert scan.carried.dpi == pytest.approx((600, 300), rel=1e-4)


def test_metadata_of_a_bigtiff_are_read_in_either_byte_order():
    for order, head in (("<", b"II+\0\x08\0\0\0"), (">", b"MM\0+\0\x08\0\0")):
        text = b"Market\0"
        entries = struct.pack(f"{order}HHQ", 270, 2, len(text)) + text.ljust(8, b"\0")
        entries += struct.pack(f"{order}HHQHxxxxxx", 274, 3, 1, 6)
        entries += struct.pack(f"{order}HHQQ", 34665, 18, 1, 16 + 8 + 60 + 8)
        below = (
            struct.pack(f"{order}QHHQQQ", 1, 36867, 2, 20, 16 + 8 + 60 + 8 + 36, 0) + b"1931:05:17 10:00:00\0"
        )
        file = head + struct.pack(f"{order}QQ", 16, 3) + entries + bytes(8) + below
        said = embedded.read(file)
        assert bytes(said.exif[270].value) == text and said.orientation == 6
        assert bytes(said.exif[34665][36867].value) == b"1931:05:17 10:00:00\0"


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_that_pillow_reads_from_other_formats_are_carried(format):
    exif = Image.Exif()
    exif[270], exif[274] = "Market", 6
    packet = packet_with("<dc:source>box 7</dc:source>")
    derivative, _ = derive(save(photograph(), "AVIF", exif=exif, xmp=packet), format)
    assert bytes(embedded.read(derivative).exif[270].value) == b"Market\0" and b"box 7" in derivative
    assert ImageOps.exif_transpose(opened(derivative)).size == (90, 120)
    derivative, words = derive(save(photograph(), "GIF", comment=b"plate 7"), format)
    assert b"plate 7" in derivative or words == "left out: its comment"


# Metadata that are left out


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "png", "tif"])
def test_no_thumbnail_is_carried(tmp_path, kind, format):
    thumbnail = tmp_path / "thumbnail.jpg"
    thumbnail.write_bytes(save(photograph(width=32, height=24), "JPEG"))
    master = told(
        tmp_path, kind, "-IFD0:Make=Zeutschel", *([f"-ThumbnailImage<={thumbnail}"] if kind != "tif" else [])
    )
    packet = packet_with(
        "<xmp:Thumbnails><rdf:Alt><rdf:li>Z3JleSB0aHVtYm5haWw=</rdf:li></rdf:Alt></xmp:Thumbnails>"
    )
    sidecar = tmp_path / "thumbnails.xmp"
    sidecar.write_bytes(packet)
    master = told(tmp_path, kind, f"-xmp<={sidecar}", source=master)
    assert b"Z3JleSB0aHVtYm5haWw" in master
    derivative, words = derive(master, format)
    tags = read(tmp_path, derivative)
    assert tags["IFD0:Make"] == "Zeutschel"
    assert not [name for name in tags if "Thumbnail" in name or name.startswith("IFD1")]
    assert b"Z3JleSB0aHVtYm5haWw" not in derivative
    assert words == ""


UNTRUE = {
    "foo:Orientation": "6",
    "foo:ImageWidth": "9999",
    "foo:BitsPerSample": "16",
    "foo:PhotometricInterpretation": "1",
    "foo:NativeDigest": "256,257",
    "exif:PixelXDimension": "9999",
    "exif:ColorSpace": "65535",
    "exif:NativeDigest": "36864",
    "ps:ColorMode": "1",
    "ps:ICCProfile": "Dot Gain 20%",
    "dc:format": "image/tiff",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("form", ["attributes", "elements"])
def test_statements_about_the_coding_of_the_master_are_left_out(tmp_path, form, format):
    attributes = " ".join(f'{name}="{value}"' for name, value in UNTRUE.items())
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in UNTRUE.items())
    packet = packet_with("", attributes) if form == "attributes" else packet_with(elements)
    for mode in ("L", "RGB"):
        derivative, _ = derive(save(photograph(mode), "JPEG", xmp=packet), format)
        groups = ("XMP-tiff", "XMP-exif", "XMP-photoshop", "XMP-dc")
        assert not [name for name in read(tmp_path, derivative) if name.startswith(groups)]


@pytest.mark.parametrize("format", FORMATS)
def test_exif_describes_the_coding_of_the_derivative(tmp_path, format):
    master = told(
        tmp_path,
        "rgb.jpg",
        *("-ColorSpace=65535", "-ExifImageWidth=9999", "-ExifImageHeight=9", "-Gamma=2.2", "-Orientation#=6"),
    )
    tags = read(tmp_path, derive(master, format)[0])
    assert tags["ExifIFD:ColorSpace"] == 1
    width, height = (
        (120, 90) if format == "jpeg" else (90, 120)
    )  # the coded luma of a JPEG is kept as it lies
    found = tags.get("ExifIFD:ExifImageWidth", width), tags.get("ExifIFD:ExifImageHeight", height)
    assert found == (width, height)
    assert "ExifIFD:Gamma" not in tags


def imagemagick(file):
    """Size of the upright picture as read by ImageMagick, which evaluates EXIF and XMP."""
    tool = shutil.which("convert")
    if not tool or b"ImageMagick" not in subprocess.run([tool, "-version"], capture_output=True).stdout:
        return None
    run = subprocess.run(
        [tool, "-", "-auto-orient", "-format", "%w %h", "info:"], input=file, capture_output=True, check=True
    )
    return tuple(map(int, run.stdout.split()))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("stated", ["exif", "xmp", "both", "contradiction"])
def test_orientation_is_applied_once_wherever_it_is_stated(kind, format, stated):
    exif = Image.Exif()
    if stated != "xmp":
        exif[0x0112] = 6
    turn = {"xmp": 6, "both": 6, "contradiction": 3}.get(stated)
    packet = packet_with("", f'foo:Orientation="{turn}"').replace(b"foo", b"tiff") if turn else None
    suffix = kind.rpartition(".")[2]
    format_of = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP"}[suffix]
    options = {"exif": exif} if stated != "xmp" else {}
    if packet and suffix in ("jpg", "webp"):
        options["xmp"] = packet
    elif packet and suffix == "tif":
        options = {"tiffinfo": {700: packet} | dict(exif)}
    master = save(opened(bare(kind)), format_of, **options)
    if packet and suffix == "png":
        master = in_png(master, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    derivative, words = derive(master, format)
    turned = opened(bare(kind)).convert("L").transpose(Image.Transpose.ROTATE_270)
    shown = ImageOps.exif_transpose(opened(derivative))
    assert shown.size == turned.size == (90, 120)
    assert np.abs(np.asarray(shown.convert("L")).astype(int) - np.asarray(turned)).mean() < 4
    assert imagemagick(derivative) in (None, (90, 120))
    assert embedded.read(derivative).orientation == (6 if (suffix, format) == ("jpg", "jpeg") else 1)
    assert words == ""


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_regions_of_a_turned_picture_are_left_out_and_named(format):
    packet = packet_with(
        '<r:Regions xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/">a face</r:Regions>'
    )
    exif = Image.Exif()
    assert derive(save(photograph("RGB"), "JPEG", xmp=packet), format)[1] == ""
    exif[0x0112] = 6
    derivative, words = derive(save(photograph("RGB"), "JPEG", xmp=packet, exif=exif), format)
    assert words == "left out: places in the picture (regions, paths), for it was turned"
    assert b"a face" not in derivative


C2PA = struct.pack(">I4sI4s", 30, b"jumb", 22, b"jumd") + b"c2pa" + bytes(10)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg", "png", "tif", "webp", "jp2"])
def test_a_c2pa_manifest_is_left_out_and_named(kind, format):
    master = bare(kind)
    if kind.endswith("jpg"):
        master = in_jpeg(master, segment(0xEB, b"JP\0\1\0\0\0\1" + C2PA))
    elif kind == "png":
        master = in_png(master, chunk(b"caBX", C2PA))
    elif kind == "tif":
        master = save(photograph(), "TIFF", tiffinfo={0xCD41: C2PA})
    elif kind == "webp":
        master = master + b"C2PA" + struct.pack("<I", len(C2PA)) + C2PA
        master = master[:4] + struct.pack("<I", len(master) - 8) + master[8:]
    else:
        at = master.index(b"jp2c") - 4
        master = master[:at] + C2PA + master[at:]
    derivative, words = derive(master, format)
    assert words == "left out: its C2PA manifest, which is bound to the bytes of the master"
    assert b"c2pa" not in derivative.replace(words.encode(), b"").lower().replace(b"its c2pa manifest", b"")


def test_a_tiffs_georeference_is_named():
    tags = {33550: (1.0, 1.0, 0.0), 33922: (0.0, 0.0, 0.0, 8.5, 47.4, 0.0)}
    assert derive(save(photograph(), "TIFF", tiffinfo=tags), "tiff")[1] == "left out: its georeference"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_further_pictures_of_a_jpeg_are_left_out_and_named(mode, format):
    master = save(photograph(mode), "MPO", save_all=True, append_images=[photograph(mode, 60, 45)])
    derivative, words = derive(master, format)
    assert opened(derivative).size == (120, 90)
    assert words == "left out: other pictures in the file (MPF)"


def test_a_tag_of_a_tiff_whose_meaning_is_not_known_is_named():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65_111], tags.tagtype[65_111] = b"12345678", 7
    assert derive(save(photograph(), "TIFF", tiffinfo=tags), "jpeg")[1] == "left out: its tag 0xFE57"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_an_unusable_packet_is_named_and_the_rest_carried(kind, format):
    exif = Image.Exif()
    exif[270] = "Market"
    master = save(photograph("RGB"), kind, xmp=packet_with("<dc:a>" * 8_000), exif=exif)
    derivative, words = derive(master, format)
    assert words == "left out: the XMP packet, which is nested more than 100 levels deep"
    assert bytes(embedded.read(derivative).exif[270].value) == b"Market\0"
    assert provenance.read_packet(embedded.packet(derivative)) is not None


# ExtendedXMP


def extended(count=5_000):
    main = packet_with("<dc:source>box 7</dc:source>")
    extension = packet_with(f"<ps:History>{'Scanned; cleaned; ' * count}</ps:History>")
    segments = graft.app1_xmp(main, extension)
    note = segments[1][39:71].decode()
    noted = main.replace(
        b'rdf:about=""',
        f'rdf:about="" n:HasExtendedXMP="{note}"'.encode() + b' xmlns:n="http://ns.adobe.com/xmp/note/"',
    )
    return graft.app1_xmp(noted, extension)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg"])
def test_extended_xmp_is_carried(tmp_path, kind, format):
    derivative, words = derive(in_jpeg(bare(kind), *extended()), format)
    tags = read(tmp_path, derivative, "-all", "-validate", "-warning")
    assert tags["XMP-photoshop:History"].count("Scanned; cleaned;") == 5_000
    assert tags["XMP-dc:Source"] == "box 7"
    assert "ExifTool:Warning" not in tags and words == ""
    assert ("XMP-xmpNote:HasExtendedXMP" in tags) == (format == "jpeg")


@pytest.mark.parametrize("kind", ["grey.jpg", "rgb.jpg"])
def test_extended_xmp_that_is_incomplete_is_named_and_its_note_removed(kind):
    derivative, words = derive(in_jpeg(bare(kind), *extended()[:-1]), "jpeg")
    assert words == "left out: its ExtendedXMP, which is incomplete"
    assert b"HasExtendedXMP" not in derivative and b"box 7" in derivative


def test_a_packet_too_long_for_a_segment_goes_on_in_an_extension(tmp_path):
    packet = packet_with(f"<dc:source>box 7</dc:source><ps:History>{'cleaned; ' * 20_000}</ps:History>")
    master = in_png(bare("png"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    derivative, words = derive(master, "jpeg")
    tags = read(tmp_path, derivative, "-all", "-validate", "-warning")
    assert tags["XMP-photoshop:History"].count("cleaned") == 20_000 and tags["XMP-dc:Source"] == "box 7"
    assert "ExifTool:Warning" not in tags and words == ""
    assert provenance.read_packet(embedded.packet(derivative)) is not None


# Arbitrary bytes


HEADS = [bare(kind)[:200] for kind in MASTERS] + [b"8BPS\0\1" + bytes(20), b""]


@given(st.sampled_from(HEADS), st.binary(max_size=300), st.integers(0, 200))
def test_no_bytes_make_reading_or_carrying_fail(head, tail, stop):
    for format in FORMATS:
        embedded.carry(embedded.read(head[:stop] + tail), format=format, size=(10, 10), orientation=1)


BLOCK = exif_with(b"Market, 1931", ">")


@given(st.lists(st.tuples(st.integers(0, len(BLOCK) - 1), st.integers(0, 255)), max_size=6))
def test_no_exif_makes_reading_or_carrying_fail(edits):
    block = bytearray(BLOCK)
    for at, value in edits:
        block[at] = value
    master = in_jpeg(bare("grey.jpg"), segment(0xE1, b"Exif\0\0" + block))
    for format in FORMATS:
        embedded.carry(embedded.read(master), format=format, size=(10, 10), orientation=1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", MASTERS)
def test_the_same_work_gives_the_same_bytes(tmp_path, kind, format):
    master = rich(tmp_path, kind)
    assert derive(master, format)[0] == derive(master, format)[0]
