"""The codec process: all that touches a scan's bytes, kept out of the process that runs Beam and the network.

`serve` answers requests on a socket, one at a time, until it is closed. Between `open` and `paint` a scan stays
here, decoded; only its small view and its chroma travel. A decoder that dies takes this process along and
nothing else: `pipeline.guard` starts another.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import cv2
import numpy as np

from model.duplicates import signature
from pipeline import chroma, derivative, gallery, hints, metadata, provenance, storage
from pipeline.collections import Item, derivative_uri
from pipeline.icc import srgb_profile
from pipeline.judge import judge
from pipeline.pillow import open_image, unlimited
from pipeline.record import Outcome, Reason, Record, Refusal
from pipeline.scan import Scan, read_color, read_scan
from pipeline.settings import Settings
from pipeline.thumbnail import before_and_after, thumbnail

_A_TILES_PIXEL = 5  # bytes: its luma, and its chroma when the network has answered
_LIGHTLY = [cv2.IMWRITE_PNG_COMPRESSION, 2]  # read once, soon


@dataclass(frozen=True, slots=True)
class View:
    """What leaves the codec process of an opened scan."""

    tiles: np.ndarray  # uint8 [K, S, S], upright luma
    pixels: int  # what the scan and its tiles hold in memory


@dataclass(frozen=True, slots=True)
class Pixels:
    """How many pixels are going to be decoded: more of them may take longer."""

    number: int


def seconds_for(pixels: int) -> int:
    """What is added to the deadline of a picture: a second a megapixel."""
    return -(-pixels // 1_000_000)


@dataclass(frozen=True, slots=True)
class Examined:
    """A photograph fit for training."""

    sha256: str  # of the file
    bytes: int
    width: int  # of the upright original, pixels
    height: int
    mode: str
    colorfulness: float
    signature: bytes  # see `model.duplicates`
    image: bytes  # PNG, RGB, upright sRGB, reduced; empty unless asked for


@dataclass(slots=True)
class _Held:
    scan: Scan
    canvas: np.ndarray
    record: Record
    seconds: float
    marks: hints.Marks | None


class Codec:
    """The work itself, on the scans of one job; runs as well without a process around it.

    Errors of a scan are returned as its record. An OSError of the output that will hit every scan, such as a
    full disk, becomes a record too: the manifest's own write will stop the job.
    """

    def __init__(self, settings: Settings, announce: Callable[[int], None] = lambda pixels: None):
        self.settings = settings
        self._announce = announce  # called with the pixels of a picture before they are decoded
        self._held: dict[str, _Held] = {}

    def open(self, item: Item) -> View | Record:
        """Reads and decodes a master, and holds it for `paint`."""
        started = time.perf_counter()
        record = self._record(item)
        try:
            data = _read(item)
            if storage.contains(self.settings.output, item.source):  # through a link, or named in a manifest
                raise Refusal(Reason.BAD_KEY, "the source lies in the output: it is no master")
            record = record.replace(source_bytes=len(data), source_sha256=hashlib.sha256(data).hexdigest())
            scan = read_scan(
                data,
                output_format=self.settings.format,
                max_pixels=self.settings.max_pixels,
                colorize_color=self.settings.color_scans == "colorize",
                announce=self._announce,
            )
            width, height = scan.size
            record = record.replace(width=width, height=height, detail=scan.note)
            guide, marks = _upright_guide(scan), None
            if item.hints:
                given = hints.read(item)
                record = record.replace(hints_sha256=hashlib.sha256(given).hexdigest())
                marks = hints.marks(given, item.hints[0], guide, scan.size)
                record = record.replace(detail=_joined(scan.note, marks.words))
        except Refusal as refusal:
            return _refused(record, refusal, time.perf_counter() - started)
        canvas, tiles = chroma.view(guide, self.settings.side)
        self._held[item.key] = _Held(scan, canvas, record, time.perf_counter() - started, marks)
        return View(tiles, width * height + _A_TILES_PIXEL * tiles.size)

    def paint(
        self, item: Item, tiles: np.ndarray, confidence: float, seconds: float, show: bool = False
    ) -> Record | None:
        """Composes, encodes and writes the derivative of an opened scan.

        Args:
          tiles: float16 [K, S, S, 2], a*b* in Lab units.
          confidence: 0...1.
          seconds: the scan's share of the network's time.
          show: write its two pictures of the gallery, too.

        Returns:
          Its record, or None where the scan is not held: this process is not the one that opened it.
        """
        held = self._held.pop(item.key, None)
        if held is None:
            return None
        started = time.perf_counter()
        settings, record = self.settings, held.record.replace(confidence=round(confidence, 4))

        def spent() -> float:
            return held.seconds + seconds + time.perf_counter() - started

        target = derivative_uri(settings.output, item.key, settings.format)
        if confidence < settings.min_confidence and held.marks is None:  # with hints, a person has seen to it
            detail = f"the model's confidence {confidence:.2f} is below --min_confidence {settings.min_confidence:g}"
            with contextlib.suppress(OSError):
                storage.delete(target)  # ours, of an earlier run with other options
            return _refused(record, Refusal(Reason.LOW_CONFIDENCE, detail), spent())
        model, colorfulness = derivative.paint(held.scan, held.canvas, tiles, settings.strength, held.marks)
        record = record.replace(outcome=Outcome.COLORIZED, colorfulness=round(colorfulness, 2))
        packet = provenance.packet(record, held.scan.carried.xmp)
        data = derivative.encode(
            held.scan, model, format=settings.format, quality=settings.quality, packet=packet
        )
        try:
            storage.write(target, data)
        except OSError as error:
            return _refused(record.replace(outcome=""), Refusal(Reason.WRITE_ERROR, _words(error)), spent())
        record = _finished(record.replace(milliseconds=round(spent() * 1000), **_file(target, data)))
        if show:
            with contextlib.suppress(OSError):  # the report makes what is not there, or says what is wrong
                pictures = before_and_after(held.scan, model)
                for uri, picture in zip(gallery.pictures(settings.output, record), pictures, strict=True):
                    storage.write(uri, picture)
        return record

    def adopt(self, item: Item) -> Record | None:
        """The record of a derivative that a killed run wrote but did not record, or None if it is not current.

        It must say that it was made of these very bytes by this model with these options, and decode.
        """
        target = derivative_uri(self.settings.output, item.key, self.settings.format)
        try:
            data, master = storage.read(target), _read(item)
            with unlimited, open_image(data) as image:
                claimed = provenance.read_packet(metadata.packet(data))
                if claimed is None or image.info.get("icc_profile") != srgb_profile():
                    return None
                image.load()
        except Exception:  # whatever is wrong with it: the scan is done again
            return None
        ours = self._record(item).replace(source_sha256=hashlib.sha256(master).hexdigest())
        same = ("key", "source_sha256", "model_sha256", "options_sha256", "hints_sha256", "schema")
        if any(getattr(claimed, name) != getattr(ours, name) for name in same):
            return None
        words = "adopted: an earlier run wrote it and was stopped before its record"
        adopted = claimed.replace(source=item.source, source_version=item.version, run=self.settings.run)
        return _finished(adopted.replace(detail=_joined(claimed.detail, words), **_file(target, data)))

    def sha256(self, item: Item) -> str:
        """Of the master's bytes; empty where it cannot be read."""
        try:
            return hashlib.sha256(_read(item)).hexdigest()
        except Refusal:
            return ""

    def examine(self, item: Item, min_side: int, side: int, keep: bool) -> Examined | Record:
        """Looks at a photograph as training material.

        Args:
          min_side, side: as for `scan.read_color`.
          keep: whether its pixels are wanted, too.
        """
        started = time.perf_counter()
        record = item.record()
        try:
            data = _read(item)
            record = record.replace(source_bytes=len(data), source_sha256=hashlib.sha256(data).hexdigest())
            found = read_color(
                data,
                max_pixels=self.settings.max_pixels,
                min_side=min_side,
                side=side,
                announce=self._announce,
            )
            width, height = found.size
            record = record.replace(width=width, height=height)
            judge(found.rgb)
        except Refusal as refusal:
            return _refused(record, refusal, time.perf_counter() - started)
        image = b""
        if keep:
            encoded = cv2.imencode(".png", cv2.cvtColor(found.rgb, cv2.COLOR_RGB2BGR), _LIGHTLY)[1]
            image = encoded.tobytes()
        colorfulness = chroma.colorfulness(found.rgb)
        signed = signature(found.rgb)
        return Examined(
            record.source_sha256, len(data), width, height, found.mode, colorfulness, signed, image
        )

    def drop(self, item: Item) -> None:
        """Forgets an opened scan."""
        self._held.pop(item.key, None)

    def thumbnail(self, uri: str) -> bytes | None:
        """A small JPEG of a picture, upright; None where it cannot be read."""
        try:
            return thumbnail(storage.read(uri), max_pixels=self.settings.max_pixels)
        except Exception:  # a picture for people: where there is none, the words beside it stand alone
            return None

    def _record(self, item: Item) -> Record:
        settings = self.settings
        return item.record(
            model=settings.model,
            model_version=settings.model_version,
            run=settings.run,
            model_sha256=settings.model_sha256,
            options_sha256=settings.options_sha256,
        )


def refused(item: Item, refusal: Refusal, settings: Settings) -> Record:
    """The record of a scan that never reached a codec."""
    return _refused(Codec(settings)._record(item), refusal, 0.0)


def _upright_guide(scan: Scan) -> np.ndarray:
    return np.ascontiguousarray(metadata.upright(scan.guide, scan.orientation))


def _read(item: Item) -> bytes:
    try:
        return storage.read(item.source)
    except FileNotFoundError as error:
        raise Refusal(Reason.MISSING, "the file is not there (any more)") from error
    except OSError as error:
        raise Refusal(Reason.READ_ERROR, _words(error)) from error
    except ValueError as error:
        raise Refusal(Reason.READ_ERROR, "no file can have this name") from error


def _refused(record: Record, refusal: Refusal, seconds: float) -> Record:
    return _finished(
        record.replace(
            outcome=refusal.outcome,
            reason=refusal.reason,
            detail=_joined(record.detail, refusal.detail),
            milliseconds=round(seconds * 1000),
        )
    )


def _file(uri: str, data: bytes) -> dict[str, str | int]:
    """What a record says of the derivative's file."""
    sha256 = hashlib.sha256(data).hexdigest()
    return {"derivative": uri, "derivative_bytes": len(data), "derivative_sha256": sha256}


def _finished(record: Record) -> Record:
    return record.replace(finished=datetime.now(UTC).isoformat(timespec="milliseconds"))


def _joined(*words: str) -> str:
    return "; ".join(filter(None, words))


def _words(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, str(error))


def serve() -> None:
    """Answers requests (method, arguments, deadline in seconds) on a socket until its other end is gone.

    Before the answer, `Pixels` may ask for more time. The command line has the socket's descriptor and the settings.
    The worker holds the other end of stdin.
    """
    settings = Settings.from_json(sys.argv[2])
    for request_to_stop in (signal.SIGINT, signal.SIGTERM):  # the worker finishes what is in flight
        signal.signal(request_to_stop, signal.SIG_IGN)
    # When the worker is gone, the kernel ends this process (SIGIO's default action), even one that hangs.
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)
    cv2.setNumThreads(1)  # a worker a core already
    with Connection(int(sys.argv[1])) as channel, open(os.devnull, "w") as nowhere:

        def announce(pixels: int) -> None:
            channel.send(Pixels(pixels))
            signal.alarm(signal.alarm(0) + seconds_for(pixels))

        codec = Codec(settings, announce)
        channel.send("ready")
        os.dup2(nowhere.fileno(), 2)  # what libraries print there of broken files is in the record
        while True:
            try:
                method, arguments, deadline = channel.recv()
            except (EOFError, OSError):
                return
            signal.alarm(int(deadline) + 10)  # should the worker hang as well, a hang still ends here
            try:
                answer = getattr(codec, method)(*arguments)
            except Exception as error:  # a defect of ours costs its scan, and says where it is
                answer = RuntimeError(f"{type(error).__name__}: {error}")
            signal.alarm(0)
            channel.send(answer)
