"""How a job is stopped: by SIGINT, by SIGTERM, or from anywhere by a stop file in its output.

Before and after the work, a signal ends the process at once. During the work, the first signal makes the stop file.
Workers on any machine see it, start no new scan, and finish what they have begun.
"""

import atexit
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline import storage

# Prefix of a worker's command. A terminal sends Ctrl-C to the workers, too, and they must finish their work.
IGNORE_SIGNALS = "trap '' INT TERM; "
_FILE = ".archive-colorize-stop-"  # in the output, with the identity of the run
_POLL_SECONDS = {
    False: 0.0,
    True: 5.0,
}  # between looks for the stop file, on a file system and in an object store
_CLEANUP_SECONDS = 5  # time limit of the clean-up after a signal
_CANCEL_SECONDS = 30  # time limit for cancelling a job on its runner

_cleanups: list[Callable[[], None]] = []
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within the block, a signal ends the process with one line and the exit code 128 + its number.

    It raises no exception, because code such as an import cannot be interrupted by one without harm. Outside of the
    main thread, signals are not handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _) -> None:
        for again in _SIGNALS:
            signal.signal(again, lambda number, _: os._exit(128 + number))
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            os.write(
                2, f"archive-colorize: stopped by {name}; run the same command to start again\n".encode()
            )
        _in_time(_clean_up, _CLEANUP_SECONDS)  # in a thread, because the interrupted code may hold its locks
        os._exit(128 + number)

    with _handled_by(stop):
        yield


@contextlib.contextmanager
def cleaning_up(function: Callable[[], None]) -> Iterator[None]:
    """Within the block, a signal that ends the process at once calls a function first."""
    _cleanups.append(function)
    try:
        yield
    finally:
        _cleanups.remove(function)


class Stop:
    """The stop file of a run."""

    def __init__(self, file: str):
        self.file = file
        self._seen, self._next = False, 0.0

    def request(self) -> None:
        """Makes the file. Raises OSError."""
        storage.write(self.file, b"")

    def is_requested(self) -> bool:
        """Whether the file exists. This is cheap enough to be called for each scan. Errors of storage count as no."""
        now = time.monotonic()
        if self._seen or not self.file or now < self._next:
            return self._seen
        with contextlib.suppress(OSError):
            self._seen = storage.stat(self.file) is not None
        self._next = now + _POLL_SECONDS[storage.is_cloud(self.file)]
        return self._seen


def is_requested(file: str) -> bool:
    """Whether the run with this stop file shall stop. A process may work for several runs."""
    return _stop(file).is_requested()


_stop = functools.lru_cache(maxsize=4)(Stop)


def file(output: str, run: str) -> str:
    """URI of the stop file of a run."""
    return storage.join(output, f"{_FILE}{run}")


def clear(output: str) -> None:
    """Removes the stop files of all runs. Raises OSError."""
    for info in storage.list_files(output, enter=lambda folder: False, hidden=True, prefix=_FILE):
        storage.delete(info.uri)


@dataclass
class Stopped:
    """How signals act on a run.

    Attributes:
      by: the signal that stopped the run, if any did.
      cancel: cancels the run on its runner; the second signal calls it.
      rearm: takes the signals over again, after other code has.
    """

    by: signal.Signals | None = None
    cancel: Callable[[], object] = lambda: None
    rearm: Callable[[], None] = lambda: None


@contextlib.contextmanager
def finishing_on_signals(request: Callable[[], None]) -> Iterator[Stopped]:
    """Within the block, the first signal calls `request`; the second cancels the job and ends the process.

    Outside of the main thread, signals are not handled.
    """
    stopped = Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def ask() -> None:
        try:
            request()
        except OSError as error:
            words = (
                f"archive-colorize: cannot stop the workers: {error.strerror or error}; press Ctrl-C again\n"
            )
            os.write(2, words.encode(errors="backslashreplace"))

    def stop(number: int, _) -> None:
        # In threads, because storage and runners may need long, and the interrupted code may hold their locks.
        if stopped.by is None:
            stopped.by = signal.Signals(number)
            with contextlib.suppress(OSError):
                os.write(2, b"\nfinishing work in progress; press Ctrl-C again to quit now\n")
            threading.Thread(target=ask, name="stop", daemon=True).start()
            return
        for again in _SIGNALS:
            signal.signal(again, lambda number, _: os._exit(128 + number))
        _in_time(stopped.cancel, _CANCEL_SECONDS)
        _in_time(_clean_up, _CLEANUP_SECONDS)
        os._exit(128 + number)

    def rearm() -> None:
        for number in _SIGNALS:
            signal.signal(number, stop)

    stopped.rearm = rearm
    with _handled_by(stop):
        yield stopped


def _in_time(function: Callable[[], object], seconds: float) -> None:
    def quietly() -> None:
        with contextlib.suppress(Exception):
            function()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(seconds)


@contextlib.contextmanager
def _handled_by(handler: Callable) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _clean_up() -> None:
    for function in list(_cleanups):
        with contextlib.suppress(Exception):  # the next run cleans up what is left
            function()
    atexit._run_exitfuncs()  # Beam stops the process of a job server so
