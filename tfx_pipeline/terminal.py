"""The terminal of a run: a line for each component; everything else goes to a log file."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Writes all log messages to a file, and a line for each component to the terminal."""
    logger = logging.getLogger()
    handlers = [logging.FileHandler(file), _Progress()]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before, level = logger.handlers[:], logger.level
    logger.handlers[:] = handlers
    logger.setLevel(logging.INFO)
    from absl import logging as absl_logging

    absl_logging.use_python_logging(quiet=True)
    # TFX changes the verbosity for a while, and then returns to this value.
    absl_logging.set_verbosity(absl_logging.INFO)
    try:
        yield
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)
        handlers[0].close()


@contextlib.contextmanager
def no_arguments() -> Iterator[None]:
    """Hides the arguments of the process, because TFX would look in them for its own flags, such as `-v`."""
    before, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = before


class _Progress(logging.Handler):
    """Prints TFX's messages about components as lines for people."""

    def __init__(self):
        super().__init__(logging.INFO)
        self._cached, self._since, self._again = False, 0.0, ""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        if record.msg == "Component %s is running.":
            self._cached, self._since = False, time.monotonic()
            # The training prints lines of its own.
            self._again = "" if name != "Trainer" else "Trainer ..."
            print(f"{name} ...", end="\n" if self._again else "", flush=True)
        elif record.msg == "A cached execution %d is used.":
            self._cached = True
        elif record.msg == "Component %s is finished.":
            took = "as before" if self._cached else f"{time.monotonic() - self._since:.0f} s"
            print(f"{self._again} {took}", flush=True)


def leave(code: int) -> None:
    """Ends the process at once. TensorFlow would print errors while the interpreter shuts down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
