"""SIGINT and SIGTERM end the process at once before and after the work; during the work, they let it finish first."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Prefix of a worker's command. A terminal sends Ctrl-C to the workers, too, and they must finish their work.
IGNORE_SIGNALS = "trap '' INT TERM; "
_CLEANUP_SECONDS = 5  # time limit of the clean-up after a signal

_cleanups: list[Callable[[], None]] = []
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stopped:
    by: signal.Signals | None = None


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
        # In a thread, because the interrupted code may hold a lock that the clean-up needs.
        cleaning = threading.Thread(target=_clean_up, daemon=True)
        cleaning.start()
        cleaning.join(_CLEANUP_SECONDS)
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


@contextlib.contextmanager
def finishing_on_signals(stop_file: str) -> Iterator[Stopped]:
    """Within the block, the first signal makes the stop file and is noted; the second ends the process at once.

    Without a stop file, and outside of the main thread, signals are not handled.
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
            os.write(2, b"\nfinishing work in progress; press Ctrl-C again to quit now\n")
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


def _clean_up() -> None:
    for function in list(_cleanups):
        with contextlib.suppress(Exception):  # the next run cleans up what is left
            function()
