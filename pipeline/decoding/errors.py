"""Converts the exceptions of decoders to Refusals."""

import contextlib
from collections.abc import Iterator

from PIL import Image

from pipeline.decoding import kinds
from pipeline.records.record import Reason, Refusal

_TRUNCATED = ("truncated", "not enough", "eof", "unexpected end", "incomplete")  # in messages of decoders


@contextlib.contextmanager
def refusing(data: bytes = b"") -> Iterator[None]:
    """Converts exceptions of decoders inside of the block to Refusals. `data` is used to name an unknown format."""
    try:
        yield
    except Refusal:
        raise
    except Image.UnidentifiedImageError as error:
        kind = kinds.name(data)
        words = (
            f"it is {kind}, which is not read"
            if kind
            else "no known kind of image, or its beginning is damaged"
        )
        raise Refusal(Reason.UNREADABLE, words) from error
    except MemoryError as error:
        raise Refusal(Reason.TOO_LARGE, "decoding it took more memory than there is") from error
    except Exception as error:  # decoders raise any exception for broken files
        words = _words(error)
        truncated = any(sign in words.lower() for sign in _TRUNCATED)
        raise Refusal(Reason.TRUNCATED if truncated else Reason.UNREADABLE, words) from error


def _words(error: Exception) -> str:
    """Describes an error of a decoder."""
    said = str(error)
    if "decoder error" in said:  # libtiff writes its messages to stderr
        return "its compressed pixels are damaged"
    if isinstance(error, OSError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
