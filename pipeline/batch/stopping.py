"""SIGINT and SIGTERM: at once before and after the work; during it, what is in flight is finished first."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Before a worker's command: a terminal sends Ctrl-C to the workers too, and they have work to finish.
DEAF = "trap '' INT TERM; "
_CLEARING = 5  # seconds that clearing away may take once the process was asked to end

_clearing: list[Callable[[], None]] = []
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stopped:
    by: signal.Signals | None = None


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While the block lasts, a signal ends the process with one line and 128 + its number as the exit code.

    No exception is raised for it: there is none that any code, an import say, can be interrupted by without harm.
    Signals are left as they are outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _) -> None:
        for again in _SIGNALS:
            signal.signal(again, lambda number, _: os._exit(128 + number))
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            os.write(2, f"archive-colorize: stopped by {name}; the same command begins again\n".encode())
        # In a thread: what was interrupted may hold a lock that clearing away needs.
        clearing = threading.Thread(target=_clear, daemon=True)
        clearing.start()
        clearing.join(_CLEARING)
        os._exit(128 + number)

    with _handled_by(stop):
        yield


@contextlib.contextmanager
def cleared(function: Callable[[], None]) -> Iterator[None]:
    """Has a signal that ends the process at once call a function first, while the block lasts."""
    _clearing.append(function)
    try:
        yield
    finally:
        _clearing.remove(function)


@contextlib.contextmanager
def finishing_on_signals(stop_file: str) -> Iterator[Stopped]:
    """While the block lasts, a first signal makes the stop file and is noted; a second one ends the process at once.

    Signals are left as they are where there is no stop file, and outside the main thread.
    """
    stopped = Stopped()
    if not stop_file or threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, _) -> None:
        if stopped.by is not None:
            os._exit(128 + number)
        stopped.by = signal.Signals(number)
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping: what has begun is being finished (again to end at once)\n")
        with open(stop_file, "w"):
            pass

    with _handled_by(stop):
        yield stopped


@contextlib.contextmanager
def _handled_by(handler: Callable) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _clear() -> None:
    for function in list(_clearing):
        with contextlib.suppress(Exception):  # the next run clears away what is left
            function()
