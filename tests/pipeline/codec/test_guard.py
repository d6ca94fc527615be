"""The guard of the codec process: a crash, a hang or a file error costs only one scan, which gets a record."""

import dataclasses
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline import storage
from pipeline.codec.codec import Codec, View
from pipeline.codec.guard import Guard
from pipeline.codec.settings import Settings
from pipeline.gallery import pictures
from pipeline.inputs.item import Item, Neighbor
from pipeline.photographs.examiner import Examiner
from pipeline.records.record import Outcome, Reason, Record

ROOT = Path(__file__).parents[3]
SIDE = 32
CHROMA = np.float16(np.full((1, SIDE, SIDE, 2), 20))

# A Pillow plugin for a test format. It is saved as `sitecustomize.py`, which Python imports at start-up.
DEADLY = """
import ctypes, re, time
from PIL import Image, ImageFile

class Deadly(ImageFile.ImageFile):
    format = "DEADLY"
    def _open(self):
        what = self.fp.read(7)
        if what == b"CRASHES":
            ctypes.string_at(0)
        if what == b"HANGS!!":
            re.match("(a+)+$", 60 * "a" + "b")  # without releasing the GIL
        self._mode, self._size = "L", tuple(100 * side for side in self.fp.read(2))
    def load(self):
        if self._im is None:
            time.sleep(3)
            self.im = Image.core.fill("L", self.size, 90)
        return Image.Image.load(self)

Image.register_open("DEADLY", Deadly, lambda prefix: prefix[:7] in (b"CRASHES", b"HANGS!!", b"SLOWLY!"))
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def settings(tmp_path):
    return Settings(
        str(tmp_path / "out"), run="1", model="none", model_sha256="00", side=SIDE, codec_timeout=30
    )


@pytest.fixture
def guard(settings):
    guard = Guard(settings)
    yield guard
    guard.close()


def picture(level=100, size=(60, 40)):
    y, x = np.mgrid[: size[1], : size[0]]
    return Image.fromarray(np.uint8(level + x + y))


def item(folder, key="a.jpg", content=None):
    path = folder / "in" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        picture().save(path)
    else:
        path.write_bytes(content)
    return Item(key, str(path), path.stat().st_size, str(path.stat().st_mtime_ns))


def colorize(guard, item):
    view = guard.open(item)
    return view if isinstance(view, Record) else guard.paint(item, CHROMA, 0.75, 0.1)


def codec_process():
    (process,) = psutil.Process().children()
    return process


def gone(process, seconds=5):
    try:
        stop = time.monotonic() + seconds
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < stop:
            time.sleep(0.02)
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Success


@pytest.mark.parametrize(("name", "format"), [("a.jpg", "jpeg"), ("a.png", "jpeg"), ("a.png", "tiff")])
def test_gallery_pictures_show_the_scan_and_the_derivative(settings, tmp_path, name, format):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=(1300, 800)).convert("L").save(tmp_path / name, exif=exif)
    scan = Item("a", str(tmp_path / name))
    codec = Codec(dataclasses.replace(settings, format=format))
    view = codec.open(scan)
    record = codec.paint(scan, np.full((len(view.tiles), SIDE, SIDE, 2), 20, np.float16), 0.75, 0, show=True)
    for made, uri in zip(
        pictures.uris(settings.output, record), (scan.source, record.derivative), strict=True
    ):
        shown = Image.open(made)
        decoded = Image.open(io.BytesIO(codec.thumbnail(uri)))
        assert shown.mode == decoded.mode
        assert shown.size == decoded.size == (394, 640)
        assert np.abs(np.int16(shown) - np.int16(decoded)).mean() < 3


def test_pictures_of_the_gallery_that_cannot_be_written_cost_nothing_else(settings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/gallery").write_bytes(b"")
    scan, codec = item(tmp_path), Codec(settings)
    codec.open(scan)
    assert codec.paint(scan, CHROMA, 0.75, 0, show=True).outcome == Outcome.COLORIZED


def test_a_scan_becomes_a_derivative_and_a_record(guard, tmp_path):
    scan = item(tmp_path)
    view = guard.open(scan)
    assert isinstance(view, View)
    assert view.tiles.shape == (1, SIDE, SIDE)
    assert view.tiles.dtype == np.uint8
    assert view.pixels == 2400 + 5 * SIDE**2  # the scan, its tile, and the chroma of the tile
    record = guard.paint(scan, CHROMA, 0.75, 0.1, view.pixels)
    assert (record.outcome, record.reason, record.key, record.source) == (
        Outcome.COLORIZED,
        "",
        "a.jpg",
        scan.source,
    )
    assert (record.width, record.height, record.confidence, record.model) == (60, 40, 0.75, "none")
    assert record.milliseconds >= 100
    written = Path(record.derivative).read_bytes()
    assert record.derivative == f"{tmp_path}/out/a.jpg_color.jpg"
    assert len(written) == record.derivative_bytes
    assert hashlib.sha256(written).hexdigest() == record.derivative_sha256
    assert (
        hashlib.sha256(Path(scan.source).read_bytes()).hexdigest()
        == record.source_sha256
        == guard.sha256(scan)
    )
    assert Image.open(io.BytesIO(written)).mode == "RGB"


def test_several_scans_are_held_at_once(guard, tmp_path):
    scans = [item(tmp_path, f"{n}.png") for n in range(5)]
    views = [guard.open(scan) for scan in scans]
    records = [
        guard.paint(scan, CHROMA, 0.5, 0, view.pixels) for scan, view in zip(scans, views, strict=True)
    ]
    assert [record.outcome for record in records] == [Outcome.COLORIZED] * 5


def test_a_scan_that_is_dropped_is_opened_again_when_it_is_needed(guard, tmp_path):
    scan = item(tmp_path)
    guard.open(scan)
    guard.drop(scan)
    assert guard.paint(scan, CHROMA, 0.5, 0).outcome == Outcome.COLORIZED


def test_little_confidence_withholds_the_derivative_and_removes_an_earlier_one(settings, tmp_path):
    scan = item(tmp_path)
    earlier = colorize(Codec(settings), scan)
    strict = Codec(dataclasses.replace(settings, min_confidence=0.9))
    record = colorize(strict, scan)
    assert (record.outcome, record.reason) == (Outcome.SKIPPED, Reason.LOW_CONFIDENCE)
    assert record.confidence == 0.75
    assert not Path(earlier.derivative).exists()


def test_a_thumbnail_is_upright_and_small_and_none_for_a_missing_file(guard, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=(1280, 960)).save(tmp_path / "a.jpg", exif=exif)
    assert Image.open(io.BytesIO(guard.thumbnail(str(tmp_path / "a.jpg")))).size == (480, 640)
    Image.fromarray(np.uint16(6 * np.arange(10_000).reshape(100, 100))).save(tmp_path / "deep.tif")
    assert np.ptp(np.asarray(Image.open(io.BytesIO(guard.thumbnail(str(tmp_path / "deep.tif")))))) > 200
    assert guard.thumbnail(str(tmp_path / "none.jpg")) is None


def test_the_decoding_timeout_grows_with_the_size_of_the_picture(deadly, settings, tmp_path):
    """The decoder takes 3 seconds. The timeout is 1 second plus 1 second per started megapixel."""
    guard = Guard(dataclasses.replace(settings, codec_timeout=1.0))
    try:
        large = guard.open(item(tmp_path, "large", b"SLOWLY!" + bytes([40, 10])))
        small = guard.open(item(tmp_path, "small", b"SLOWLY!" + bytes([1, 1])))
    finally:
        guard.close()
    assert isinstance(large, View)
    assert (small.outcome, small.reason) == (Outcome.FAILED, Reason.CODEC_TIMEOUT)


@pytest.mark.parametrize("size", [(16, 60_000), (60_000, 16)])
def test_an_extremely_narrow_picture_needs_a_bounded_amount_of_memory(guard, tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "thread.png")
    view = guard.open(Item("thread.png", str(tmp_path / "thread.png")))
    assert isinstance(view, View)
    assert view.tiles.nbytes <= 1_000_000
    # A batch holds the scan, its tiles and their chroma.
    assert view.pixels <= 6_000_000


# Adoption


def test_a_derivative_without_a_record_is_adopted_with_the_record_it_carries(guard, settings, tmp_path):
    for key in ("a.jpg", "b.png"):
        scan = item(tmp_path, key)
        record = colorize(guard, scan)
        adopted = guard.adopt(scan)
        assert "adopted" in adopted.detail
        facts = {"detail": "", "finished": "", "milliseconds": 0}
        assert adopted.replace(**facts) == record.replace(**facts)


@pytest.mark.parametrize(
    "change", [{"model_sha256": "01"}, {"quality": 80}, {"strength": 0.5}, {"min_confidence": 0.1}]
)
def test_a_derivative_of_another_model_or_other_options_is_not_adopted(settings, tmp_path, change):
    scan = item(tmp_path)
    colorize(Codec(settings), scan)
    other = dataclasses.replace(settings, **change)
    assert Codec(settings).adopt(scan) is not None
    assert Codec(other).adopt(scan) is None


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("master", ["a.jpg", "a.png", "a.tif", "a.webp", "a.gif", "a.jp2"])
def test_pillows_own_limit_on_pixels_refuses_nothing(settings, tmp_path, monkeypatch, master, format):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    codec, scan = Codec(dataclasses.replace(settings, format=format)), item(tmp_path, master)
    assert colorize(codec, scan).outcome == Outcome.COLORIZED
    assert codec.adopt(scan) is not None
    assert codec.thumbnail(scan.source) is not None
    assert Examiner(settings).examine(scan, 16, 32, keep=False).reason == Reason.GREY
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_derivative_with_a_record_of_a_later_schema_is_not_adopted(settings, tmp_path, monkeypatch):
    scan = item(tmp_path)
    with monkeypatch.context() as later:
        later.setattr(
            Item, "record", lambda self, **fields: Record(self.source, self.key, schema=2, **fields)
        )
        colorize(Codec(settings), scan)
    assert Codec(settings).adopt(scan) is None


def test_a_derivative_of_other_bytes_is_not_adopted(guard, tmp_path):
    scan = item(tmp_path)
    colorize(guard, scan)
    picture(90).save(scan.source)
    assert guard.adopt(scan) is None


def test_the_derivative_of_another_scan_is_not_adopted(guard, tmp_path):
    first, second = item(tmp_path, "a.jpg"), item(tmp_path, "b.jpg")
    record = colorize(guard, first)
    os.rename(record.derivative, record.derivative.replace("a.jpg_color", "b.jpg_color"))
    assert guard.adopt(second) is None
    assert guard.adopt(first) is None


@pytest.mark.parametrize(
    ("key", "format"), [("a.jpg", "jpeg"), ("a.png", "jpeg"), ("a.png", "png"), ("a.png", "tiff")]
)
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_truncated_derivative_is_not_adopted(settings, tmp_path, key, format, share):
    codec = Codec(dataclasses.replace(settings, format=format))
    scan = item(tmp_path, key)
    path = Path(colorize(codec, scan).derivative)
    assert codec.adopt(scan) is not None
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert codec.adopt(scan) is None


def test_a_picture_of_somebody_else_is_not_adopted(guard, tmp_path):
    scan = item(tmp_path)
    storage.write(f"{tmp_path}/out/a.jpg_color.jpg", Path(scan.source).read_bytes())
    assert guard.adopt(scan) is None


# Decoder faults


def test_a_decoder_that_dies_costs_its_scan_alone(deadly, guard, tmp_path):
    before, crash, after = item(tmp_path, "a.jpg"), item(tmp_path, "b", b"CRASHES"), item(tmp_path, "c.jpg")
    assert colorize(guard, before).outcome == Outcome.COLORIZED
    record = guard.open(crash)
    assert (record.outcome, record.reason, record.key) == (Outcome.FAILED, Reason.CODEC_CRASHED, "b")
    assert "SIGSEGV" in record.detail
    assert colorize(guard, after).outcome == Outcome.COLORIZED


def test_a_decoder_that_hangs_is_ended_at_the_deadline(deadly, settings, tmp_path):
    guard = Guard(dataclasses.replace(settings, codec_timeout=1))
    try:
        assert colorize(guard, item(tmp_path, "a.jpg")).outcome == Outcome.COLORIZED
        started, process = time.monotonic(), codec_process()
        record = guard.open(item(tmp_path, "b", b"HANGS!!"))
        assert 0.9 < time.monotonic() - started < 5
        assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.CODEC_TIMEOUT)
        assert "--codec_timeout" in record.detail
        assert gone(process)
        assert colorize(guard, item(tmp_path, "c.jpg")).outcome == Outcome.COLORIZED
    finally:
        guard.close()


def test_a_neighbour_that_kills_its_decoder_is_left_out(deadly, guard, tmp_path):
    scan, crash, other = (
        item(tmp_path, "a.jpg"),
        item(tmp_path, "b", b"CRASHES"),
        item(tmp_path, "c.jpg"),
    )
    near = [
        Neighbor(away, one.key, one.source, one.size, one.version) for away, one in ((1, crash), (2, other))
    ]
    view = guard.open(dataclasses.replace(scan, neighbors=tuple(near)))
    assert len(view.tiles) == 2 and view.beside == 1
    record = guard.paint(scan, np.concatenate([CHROMA, CHROMA]), 0.5, 0, view.pixels)
    assert record.outcome == Outcome.COLORIZED
    assert record.detail.startswith("not steadied with b: the decoder crashed")


@pytest.mark.parametrize("appears", [True, False])
def test_neighbours_that_have_come_or_gone_when_a_scan_is_opened_again_are_left_out(guard, tmp_path, appears):
    other = item(tmp_path, "b.jpg")
    beside = Path(other.source), tmp_path / "hidden"
    scan = dataclasses.replace(item(tmp_path), neighbors=(Neighbor(1, "b.jpg", other.source, -1, ""),))
    os.rename(*beside) if appears else None
    view = guard.open(scan)
    assert view.beside == (not appears)
    guard.close()  # as after a crash of another scan
    os.rename(*(beside[::-1] if appears else beside))
    record = guard.paint(scan, np.concatenate([CHROMA] * len(view.tiles)), 0.5, 0, view.pixels)
    assert (record.outcome, record.neighbors) == (Outcome.COLORIZED, ())
    assert record.detail.endswith("not steadied: other neighbours can be read now than at first")


def test_scans_that_were_open_when_a_decoder_died_are_opened_again(deadly, guard, tmp_path):
    scans = [item(tmp_path, f"{n}.jpg") for n in range(3)]
    views = [guard.open(scan) for scan in scans]
    guard.open(item(tmp_path, "crash", b"CRASHES"))
    records = [
        guard.paint(scan, CHROMA, 0.5, 0, view.pixels) for scan, view in zip(scans, views, strict=True)
    ]
    assert [record.outcome for record in records] == [Outcome.COLORIZED] * 3
    assert [record.key for record in records] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_scan_that_vanished_before_it_could_be_opened_again_is_missing(guard, tmp_path):
    scan = item(tmp_path)
    guard.open(scan)
    codec_process().kill()
    assert guard.paint(scan, CHROMA, 0.5, 0).reason == Reason.CODEC_CRASHED
    os.unlink(scan.source)
    assert guard.paint(scan, CHROMA, 0.5, 0).reason == Reason.MISSING


def test_an_internal_error_is_recorded_with_its_name(guard, tmp_path):
    scan = item(tmp_path)
    guard.open(scan)
    record = guard.paint(scan, CHROMA[0, 0], 0.5, 0)
    assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.CODEC_ERROR)
    assert "Error" in record.detail or "error" in record.detail
    assert colorize(guard, scan).outcome == Outcome.COLORIZED


def test_a_process_that_does_not_start_is_an_error_of_the_job(deadly, guard, tmp_path):
    (deadly / "sitecustomize.py").write_text("import os; os._exit(3)")
    with pytest.raises(RuntimeError, match=r"does not start \(exit code 3\)"):
        guard.open(item(tmp_path))


def test_modules_in_the_current_folder_are_not_imported(guard, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from an archive')")
    monkeypatch.chdir(tmp_path)
    assert colorize(guard, item(tmp_path)).outcome == Outcome.COLORIZED


# File errors


def test_a_missing_file_is_missing(guard, tmp_path):
    record = guard.open(Item("a.jpg", str(tmp_path / "none.jpg")))
    assert (record.outcome, record.reason, record.key) == (Outcome.FAILED, Reason.MISSING, "a.jpg")


def test_an_unreadable_file_is_a_read_error(guard, tmp_path):
    (tmp_path / "a.jpg").symlink_to("/proc/self/mem")  # reading its first byte fails, even for root
    record = guard.open(Item("a.jpg", str(tmp_path / "a.jpg")))
    assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.READ_ERROR)
    assert record.detail == os.strerror(5)


@pytest.mark.parametrize("name", ["nul\0byte", "n" * 300])
def test_an_impossible_file_name_is_a_read_error(guard, tmp_path, name):
    record = guard.open(Item("a.jpg", f"{tmp_path}/{name}"))
    assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.READ_ERROR)


def test_a_folder_in_place_of_a_file_is_a_read_error(guard, tmp_path):
    assert guard.open(Item("a.jpg", str(tmp_path))).reason == Reason.READ_ERROR


def test_an_empty_file_is_unreadable(guard, tmp_path):
    assert guard.open(item(tmp_path, content=b"")).reason == Reason.UNREADABLE


def test_a_full_output_is_a_write_error_that_leaves_nothing(guard, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", out], capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted: that takes root")
    try:
        buffer = io.BytesIO()
        picture(size=(90, 60)).resize((900, 600)).save(buffer, "JPEG")
        record = colorize(guard, item(tmp_path, content=buffer.getvalue()))
        assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.WRITE_ERROR)
        assert record.detail == os.strerror(28)
        assert os.listdir(out) == []
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def test_a_master_inside_the_output_is_never_overwritten(guard, tmp_path):
    master = tmp_path / "out" / "a_color.jpg"
    master.parent.mkdir()
    picture().save(master)
    content = master.read_bytes()
    (tmp_path / "link").symlink_to("out")
    for source in (master, tmp_path / "link" / master.name):
        record = colorize(guard, Item("a", str(source)))
        assert (record.outcome, record.reason) == (Outcome.FAILED, Reason.BAD_KEY)
    assert master.read_bytes() == content


# Shutdown


WORKER = """
import sys
from pipeline.codec.guard import Guard
from pipeline.inputs.item import Item
from pipeline.codec.settings import Settings
guard = Guard(Settings(sys.argv[1], run="1", side=32))
guard.sha256(Item("a", "/none"))
print("ready", flush=True)
guard.open(Item("b", sys.argv[2])) if len(sys.argv) > 2 else sys.stdin.read()
"""


@pytest.mark.parametrize("hung", [False, True])
def test_the_process_ends_with_its_worker_even_when_it_hangs(deadly, tmp_path, hung):
    arguments = [tmp_path / "out"] + [item(tmp_path, "b", b"HANGS!!").source] * hung
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as worker:
        assert worker.stdout.readline() == b"ready\n"
        (process,) = psutil.Process(worker.pid).children()
        time.sleep(0.3 if hung else 0)
        worker.kill()
        assert gone(process)


def test_closing_ends_the_process_and_a_closed_guard_can_be_asked_again(guard, tmp_path):
    guard.open(item(tmp_path))
    process = codec_process()
    guard.close()
    guard.close()
    assert gone(process)
    assert colorize(guard, item(tmp_path)).outcome == Outcome.COLORIZED


@pytest.mark.parametrize("request_to_stop", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_does_not_reach_the_scan_in_flight(guard, tmp_path, request_to_stop):
    scan = item(tmp_path)
    view = guard.open(scan)
    codec_process().send_signal(request_to_stop)
    assert guard.paint(scan, CHROMA, 0.5, 0, view.pixels).outcome == Outcome.COLORIZED


def test_a_forgotten_guard_leaves_no_process(settings, tmp_path):
    guard = Guard(settings)
    guard.open(item(tmp_path))
    process = codec_process()
    del guard
    assert gone(process)


@pytest.mark.parametrize("format", ["tiff", "ptif", "jpeg"])
def test_three_hundred_megapixels_fit_into_two_gigabytes(tmp_path, format):
    """Peak memory of the codec process, with what is mapped from files, for a further pixel."""
    peaks = []
    for side in (3000, 7000):
        file = tmp_path / f"{side}.tif"
        Image.fromarray(np.tile(np.arange(side, dtype=np.uint8) // 2 + 60, (side, 1))).save(file)
        guard = Guard(
            Settings(output=str(tmp_path / "out"), run="r", side=SIDE, format=format, layout="whole")
        )
        item = Item(file.name, str(file))
        assert isinstance(guard.open(item), View)
        assert guard.paint(item, CHROMA, 0.5, 0.0, 0).outcome == Outcome.COLORIZED
        (codec,) = psutil.Process().children()
        status = Path(f"/proc/{codec.pid}/status").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10)
        guard.close()
    small, large = peaks
    assert small + (large - small) / (49e6 - 9e6) * (300e6 - 9e6) < 2e9
