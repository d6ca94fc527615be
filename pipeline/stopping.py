"""SIGINT and SIGTERM: what is in flight is finished, nothing new is begun."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

# Before a worker's command: a terminal sends Ctrl-C to the workers too, and they have work to finish.
DEAF = "trap '' INT TERM; "


@dataclass
class Stopped:
    by: signal.Signals | None = None


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
        with open(stop_file, "w"):
            os.write(
                sys.stderr.fileno(), b"\nstopping: what has begun is being finished (again to end at once)\n"
            )

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
