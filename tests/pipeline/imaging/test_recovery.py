"""A master comes back from its derivative: to the last byte, or with words that say what is missing."""

import hashlib
import io
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import run
from pipeline.imaging import graft, luminance, recovery
from pipeline.metadata import provenance
from pipeline.records.record import Record
from tests.pipeline.imaging.test_graft import MODES, inserted, pixels, scan


def derivative(master, remainder=None):
    """A grafted JPEG of a master, with its record and its remainder, or another one."""
    parsed = luminance.parse(master)
    neutral = np.full(parsed.chroma_shape, 128, np.uint8)
    record = Record("scan.jpg", "scan.jpg", source_sha256=hashlib.sha256(master).hexdigest())
    labels = provenance.Labels(remainder=recovery.remainder(parsed) if remainder is None else remainder)
    segments = graft.app1_xmp(provenance.packet(record, labels=labels))
    return graft.graft(parsed, neutral, neutral, quality=90, segments=segments)


def without_packet(colored):
    start = colored.index(b"http://ns.adobe.com/xap") - 4
    return colored[:start] + colored[start + 2 + int.from_bytes(colored[start + 2 : start + 4], "big") :]


def exif(size):
    return graft.app1_exif(np.random.default_rng(0).bytes(size))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "change",
    [
        lambda master: master,
        lambda master: master + b"trailing data",
        lambda master: inserted(master, exif(20_000)),
        lambda master: inserted(master, b"\xff\xff\xff" + graft.comment(b"fill bytes")[0]),
        lambda master: master.replace(b"\x01\x01\x11\x00", b"\x01\x07\x11\x00").replace(
            b"\xff\xda\x00\x08\x01\x01", b"\xff\xda\x00\x08\x01\x07"
        ),
    ],
    ids=["plain", "trailing", "metadata", "fill bytes", "component 7"],
)
def test_a_master_comes_back_to_the_last_byte(mode, change):
    master = change(scan(67, 45, **MODES[mode]))
    found = recovery.recover(derivative(master))
    assert found == recovery.Recovered(master, True)


def test_a_master_with_restart_intervals_comes_back():
    master = scan(67, 45, restart_marker_blocks=2)
    assert recovery.recover(derivative(master)).data == master


def test_a_master_comes_back_after_a_caption_was_added(tmp_path):
    """ExifTool writes the whole packet anew, and makes elements of attributes."""
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is missing: apt-get install libimage-exiftool-perl")
    master, file = scan(67, 45), tmp_path / "a.jpg"
    file.write_bytes(derivative(master))
    command = ["exiftool", "-q", "-overwrite_original", "-Artist=A", "-XMP-dc:Title=T", str(file)]
    subprocess.run(command, check=True)
    assert recovery.recover(file.read_bytes()) == recovery.Recovered(master, True)


def test_headers_that_do_not_fit_are_lost_but_no_coefficient():
    master = scan(67, 45) + np.random.default_rng(0).bytes(100_000)
    found = recovery.recover(derivative(master))
    assert not found.exact and "too large" in found.why
    assert np.array_equal(pixels(found.data), pixels(master))
    assert Image.open(io.BytesIO(found.data)).mode == "L"


def test_scans_of_chroma_that_do_not_fit_are_named():
    grey = luminance.parse(scan(640, 480))
    chroma = np.random.default_rng(0).integers(118, 138, (2, *grey.chroma_shape), np.uint8)
    master = graft.graft(grey, *chroma, quality=100, segments=[])
    found = recovery.recover(derivative(master))
    assert not found.exact and "other scans were too large" in found.why
    assert np.array_equal(pixels(found.data), pixels(master, "L"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"text", "does not begin like a JPEG"),
        (scan(67, 45), "it has 1 component, not 3"),
        (without_packet(derivative(scan(67, 45))), "names no grey JPEG"),
        (derivative(scan(67, 45), b"damaged"), "damaged"),
        (derivative(scan(67, 45), recovery.remainder(graft.parse(scan(67, 45, progressive=True)))), "scans"),
        (
            derivative(scan(67, 45), recovery.remainder(graft.parse(scan(67, 45, quality=3)))),
            "SHA-256 differs",
        ),
    ],
    ids=["text", "grey", "stripped", "damaged", "other scans", "other master"],
)
def test_what_carries_no_master_is_refused_with_a_reason(file, reason):
    with pytest.raises(recovery.NotRecoverable, match=reason):
        recovery.recover(file)


def test_a_job_writes_derivatives_that_give_their_masters_back(colorize, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    master = inserted(scan(120, 80), graft.app1_exif(b"II*\0\x08\0\0\0\0\0\0\0\0\0"))
    (tmp_path / "in" / "page.jpg").write_bytes(master)
    (record,) = colorize(tmp_path / "in", tmp_path / "out").records.values()
    back = tmp_path / "back.jpg"
    assert run(["recover", record.derivative, str(back)]) == 0
    assert back.read_bytes() == master
    assert "the master to the last byte" in capsys.readouterr().out
    assert run(["recover", record.derivative, str(back)]) == 2
    assert f"{back} exists" in capsys.readouterr().err


def test_a_derivative_of_a_tiff_has_no_master_to_give_back(colorize, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.open(io.BytesIO(scan(120, 80))).save(tmp_path / "in" / "page.tif")
    (record,) = colorize(tmp_path / "in", tmp_path / "out").records.values()
    assert run(["recover", record.derivative, str(tmp_path / "back.jpg")]) == 2
    assert "names no grey JPEG" in capsys.readouterr().err


def test_a_job_says_what_it_kept_of_a_colour_jpeg_that_is_grey(colorize, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.open(io.BytesIO(scan(120, 80))).convert("RGB").save(tmp_path / "in" / "page.jpg", quality=90)
    (record,) = colorize(tmp_path / "in", tmp_path / "out").records.values()
    back = tmp_path / "back.jpg"
    assert run(["recover", record.derivative, str(back)]) == 0
    assert np.array_equal(pixels(back.read_bytes()), pixels((tmp_path / "in" / "page.jpg").read_bytes(), "L"))
    assert "to the last coefficient only: its scans had luma and chroma together" in capsys.readouterr().out
