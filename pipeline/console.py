"""Output of the command line, one line at a time. It copes with any names, and with readers that have gone."""

import io
import os
import re
import sys
import time

_PAUSE = 10.0  # seconds between lines of progress
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def prepare() -> None:
    """Makes stdout and stderr write characters that they cannot encode as escapes, such as names that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Replaces control characters, which names of files may have, by escapes."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def say(text: str = "", *, error: bool = False) -> bool:
    """Prints to stdout or stderr. If nobody reads any more (`... | head`), the output ends, but the work continues.

    Returns:
      Whether the text was written.
    """
    stream, descriptor = (sys.stderr, 2) if error else (sys.stdout, 1)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)  # also for buffered text that is written at the end of the process
        os.close(nowhere)
        return False
    return True


class Pace:
    """Says every ten seconds on stderr how far a long piece of work is.

    It is called with the number of things that are done, and of all.
    """

    def __init__(self, things: str):
        self.number, self._things = 0, things
        self._started = self._said = time.monotonic()

    def __call__(self, number: int, total: int) -> None:
        self.number, now = number, time.monotonic()
        if now - self._said < _PAUSE:
            return
        self._said, rate = now, number / (now - self._started)
        left = (total - number) / rate / 60
        say(f"{number:,} of {total:,} {self._things}, {rate:.1f} a second, {left:.0f} min left", error=True)


def complain(text: str) -> None:
    """Prints an error as one line on stderr."""
    say(f"archive-colorize: {one_line(text)}", error=True)
