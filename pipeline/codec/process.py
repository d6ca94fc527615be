"""Runs the codec in a process of its own, so that a decoder that dies or hangs costs its picture, not the job."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pipeline.codec import Examined, Pixels, View, refused, seconds_for
from pipeline.collections import Item
from pipeline.record import Reason, Record, Refusal
from pipeline.settings import Settings

_STARTING = 120  # seconds that a new process may take to import what it needs
# glibc otherwise gives a picture's buffers back to the kernel after each step: page faults, a fifth of the time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
_SERVE = "from pipeline.codec import serve; serve()"


class Guard:
    """One codec process, started when it is first asked and again after a death. Not for several threads."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._process: subprocess.Popen | None = None
        self._channel: Connection | None = None

    def open(self, item: Item) -> View | Record:
        return self._ask(item, "open", item)

    def paint(
        self,
        item: Item,
        tiles: np.ndarray,
        confidence: float,
        seconds: float,
        pixels: int = 0,
        show: bool = False,
    ) -> Record:
        """`Codec.paint`; where the process that held the scan has died meanwhile, the scan is opened again."""
        arguments = item, tiles, confidence, seconds, show
        record = self._ask(item, "paint", *arguments, pixels=pixels)
        if record is None:
            view = self.open(item)
            if isinstance(view, Record):
                return view
            record = self._ask(item, "paint", *arguments, pixels=pixels)
        return record

    def adopt(self, item: Item) -> Record | None:
        answer = self._ask(item, "adopt", item)
        return answer if isinstance(answer, Record) and not answer.reason else None

    def sha256(self, item: Item) -> str:
        answer = self._ask(item, "sha256", item)
        return answer if isinstance(answer, str) else ""

    def examine(self, item: Item, min_side: int, side: int, keep: bool) -> Examined | Record:
        return self._ask(item, "examine", item, min_side, side, keep)

    def drop(self, item: Item) -> None:
        self._ask(item, "drop", item)

    def thumbnail(self, uri: str) -> bytes | None:
        answer = self._ask(Item(uri, uri), "thumbnail", uri)
        return answer if isinstance(answer, bytes) else None

    def close(self) -> None:
        """Ends the process; it holds nothing that is not on disk or recorded."""
        if self._process is not None:
            self._channel.close()
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
        self._channel = self._process = None

    def _ask(self, item: Item, method: str, *arguments, pixels: int = 0):
        """The codec's answer, or the record of a scan that killed it, hung it or met a defect in it."""
        allowed = self.settings.codec_timeout + seconds_for(pixels)
        if self._process is None:
            self._start()
        try:
            self._channel.send((method, arguments, allowed))
            answer, until = Pixels(0), time.monotonic() + allowed
            while isinstance(answer, Pixels):
                allowed += seconds_for(answer.number)
                until += seconds_for(answer.number)
                if not self._channel.poll(max(0.0, until - time.monotonic())):
                    self.close()
                    words = f"no answer within {allowed:.0f} s (--codec_timeout)"
                    return self._failed(item, Reason.CODEC_TIMEOUT, words)
                answer = self._channel.recv()
        except (EOFError, OSError):
            return self._failed(item, Reason.CODEC_CRASHED, f"the decoder died ({self._ending()})")
        if isinstance(answer, Exception):
            return self._failed(item, Reason.CODEC_ERROR, str(answer))
        return answer

    def _failed(self, item: Item, reason: Reason, detail: str) -> Record:
        return refused(item, Refusal(reason, detail), self.settings)

    def _start(self) -> None:
        """Raises RuntimeError where the process does not come up: then no scan could be done."""
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            root = str(Path(__file__).resolve().parents[1])
            paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
            # -P: the current folder is somebody's archive, not a place of modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno()), self.settings.to_json()],
                stdin=subprocess.PIPE,  # nothing is written there: its end is how the process learns of ours
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
                env=os.environ | _KEEP_MEMORY | {"PYTHONPATH": paths},
            )
        self._channel = Connection(ours.detach())
        with contextlib.suppress(EOFError, OSError):
            if self._channel.poll(_STARTING):
                self._channel.recv()
                return
        raise RuntimeError(f"the codec process does not start ({self._ending()}); what it said is above")

    def _ending(self) -> str:
        """Ends the process, if it still runs, and says how it ended."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            code = "no answer"
        self.close()
        if isinstance(code, int) and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}" if isinstance(code, int) else code
