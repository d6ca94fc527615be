"""SIGINT and SIGTERM: what is in flight is finished, nothing new is begun."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Stopped:
    by: signal.Signals | None = None


@contextlib.contextmanager
def finishing_on_signals(stop_file: str) -> Iterator[Stopped]:
    """SIGINT and SIGTERM let the scans in flight finish and begin no more; the second one ends at once.

    They are blocked, here and in the processes started meanwhile, and waited for in a thread: a terminal sends
    Ctrl-C to all of them.
    """
    stopped = Stopped()
    if not stop_file or threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    wanted = {signal.SIGINT, signal.SIGTERM}
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            received = signal.sigtimedwait(wanted, 0.2)
            if received is None:
                continue
            if stopped.by is not None:
                os._exit(128 + received.si_signo)
            stopped.by = signal.Signals(received.si_signo)
            with open(stop_file, "w"):
                print(
                    "\nstopping: what has begun is being finished (once more to end at once)", file=sys.stderr
                )

    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    try:
        yield stopped
    finally:
        over.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
