"""A guarded process for work that may crash or hang, such as decoding. It then costs one picture, not the job.

`serve` runs in the process and answers requests one by one. `GuardedProcess` is the other end of the socket.
"""

import contextlib
import fcntl
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2

from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records.record import Reason, Record, Refusal

_STARTING = 120  # seconds that a new process may take to import what it needs
# By default, glibc returns the buffers of a picture to the kernel after each step; page faults then cost a fifth of
# the time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
_SERVE = "from pipeline.codec.process import serve; serve()"


@dataclass(frozen=True, slots=True)
class Pixels:
    """Message with the number of pixels that will be decoded; it extends the time limit."""

    number: int


def seconds_for(pixels: int) -> int:
    """Additional time for a picture: one second per megapixel."""
    return -(-pixels // 1_000_000)


class GuardedProcess:
    """A process that answers requests. It is started for the first request, and again after a crash. Not thread-safe.

    Args:
      server: `module:class` of the server in the process. It is made from the settings and a function that must be
        called with the number of pixels before a picture is decoded.
      settings: of the job.
    """

    def __init__(self, server: str, settings: Settings):
        self.settings = settings
        self._server = server
        self._process: subprocess.Popen | None = None
        self._channel: Connection | None = None

    def close(self) -> None:
        """Ends the process."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._channel = self._process = None

    def ask(self, item: Item, method: str, *arguments, pixels: int = 0):
        """Calls a method of the server. Returns its answer, or a record if it crashed, hung or raised an exception.

        Args:
          item: for the record.
          method, arguments: of the call.
          pixels: of the picture, if known; they extend the time limit.
        """
        allowed = self.settings.codec_timeout + seconds_for(pixels)
        channel = self.start()
        try:
            channel.send((method, arguments, allowed))
            answer, until = Pixels(0), time.monotonic() + allowed
            while isinstance(answer, Pixels):
                allowed += seconds_for(answer.number)
                until += seconds_for(answer.number)
                if not channel.poll(max(0.0, until - time.monotonic())):
                    self.close()
                    words = f"no answer within {allowed:.0f} s (--codec_timeout)"
                    return self._failed(item, Reason.CODEC_TIMEOUT, words)
                answer = channel.recv()
        except (EOFError, OSError):
            return self._failed(item, Reason.CODEC_CRASHED, f"the decoder crashed ({self._ending()})")
        if isinstance(answer, Exception):
            return self._failed(item, Reason.CODEC_ERROR, str(answer))
        return answer

    def _failed(self, item: Item, reason: Reason, detail: str) -> Record:
        return self.settings.record(item).refuse(Refusal(reason, detail))

    def start(self) -> Connection:
        """Starts the process if it does not run, and returns its channel.

        Raises:
          RuntimeError: it does not start, and no scan could be processed.
        """
        return self._channel or self._start()

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            root = str(Path(__file__).resolve().parents[2])
            paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
            # -P: modules must not come from the current folder, which may be an archive.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _SERVE,
                    str(theirs.fileno()),
                    self._server,
                    self.settings.to_json(),
                ],
                stdin=subprocess.PIPE,  # nothing is written; the process notices when it is closed
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
                env=os.environ | _KEEP_MEMORY | {"PYTHONPATH": paths},
            )
        self._channel = Connection(ours.detach())
        with contextlib.suppress(EOFError, OSError):
            if self._channel.poll(_STARTING):
                self._channel.recv()
                return self._channel
        raise RuntimeError(f"the codec process does not start ({self._ending()}); see its messages above")

    def _ending(self) -> str:
        """Ends the process if it still runs. Returns how it ended, in words."""
        code: int | str = "no answer"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1) if self._process is not None else code
        self.close()
        if isinstance(code, int) and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}" if isinstance(code, int) else code


def serve() -> None:
    """Answers requests (method, arguments, time limit in seconds) on a socket until the other end is closed.

    A `Pixels` message before the answer asks for more time. The command line has the descriptor of the socket, the
    class of the server, and its settings. The worker holds the other end of stdin.
    """
    descriptor, answering, settings = sys.argv[1:]
    for request_to_stop in (signal.SIGINT, signal.SIGTERM):  # the worker finishes its work first
        signal.signal(request_to_stop, signal.SIG_IGN)
    # When the worker ends, the kernel ends this process (default action of SIGIO), even if it hangs.
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)
    cv2.setNumThreads(1)  # there is one worker on each core
    with Connection(int(descriptor)) as channel, open(os.devnull, "w") as nowhere:

        def announce(pixels: int) -> None:
            channel.send(Pixels(pixels))
            signal.alarm(signal.alarm(0) + seconds_for(pixels))

        module, name = answering.split(":")
        server = getattr(importlib.import_module(module), name)(Settings.from_json(settings), announce)
        channel.send("ready")
        os.dup2(nowhere.fileno(), 2)  # libraries print errors of broken files, which are in the record
        while True:
            try:
                method, arguments, deadline = channel.recv()
            except (EOFError, OSError):
                return
            signal.alarm(int(deadline) + 10)  # ends a hang even if the worker hangs, too
            try:
                answer = getattr(server, method)(*arguments)
            except Exception as error:  # a bug costs one scan, and is named in its record
                answer = RuntimeError(f"{type(error).__name__}: {error}")
            signal.alarm(0)
            channel.send(answer)
