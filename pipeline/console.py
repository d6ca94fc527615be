"""What the command line says: one line at a time, whatever names are in it and whoever still reads."""

import contextlib
import os
import re
import sys

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def prepare() -> None:
    """Has stdout and stderr write what they cannot encode, such as a name that is not UTF-8, as an escape."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a notebook's
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Control characters, which a file's name may hold, as escapes."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def say(text: str = "", *, error: bool = False) -> bool:
    """Prints to stdout or stderr. Where nobody reads any more (`... | head`) the output ends; the work does not.

    Returns:
      Whether it was written.
    """
    stream, descriptor = (sys.stderr, 2) if error else (sys.stdout, 1)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)  # also for what is buffered, and written at the process's end
        os.close(nowhere)
        return False
    return True


def complain(text: str) -> None:
    """An error, in one line on stderr."""
    say(f"archive-colorize: {one_line(text)}", error=True)
