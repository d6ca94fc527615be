"""Keys of pages. A file with several pictures has a record for each, with the key `FILE#page=1` and so on.

Names of files may have this form, too. `pipeline.inputs.collection` refuses them, so that a key means one thing.
"""

import re

PAGE = "#page="
LARGEST = 999_999
LONGEST = len(f"{PAGE}{LARGEST}")  # bytes
_PAGE = re.compile(rf"(.+){PAGE}([1-9][0-9]{{0,5}})", re.DOTALL)


def split(key: str) -> tuple[str, int]:
    """The key of the file, and the number of the page; 0 for the key of a file.

    Keys that are no paths below a collection (they are URIs of files that have no other key) are those of files.
    """
    found = None if key.startswith("/") or "://" in key else _PAGE.fullmatch(key)
    return (found[1], int(found[2])) if found else (key, 0)


def of_page(key: str, page: int) -> str:
    """The key of a page of a file."""
    return f"{key}{PAGE}{page}"


def split_name(name: bytes, ending: bytes) -> tuple[bytes, int]:
    """The name of the derivative of a file, and the number of the page, or 0, from the name of a derivative."""
    found = re.fullmatch(rb"(.+)#page=([1-9][0-9]{0,5})", name.removesuffix(ending), re.DOTALL)
    return (found[1] + ending, int(found[2])) if found else (name, 0)


def pages_between(key: bytes) -> tuple[bytes, bytes]:
    """Bounds of the keys of all pages of a file, as bytes: from the first, and below the second."""
    start = key + PAGE.encode()
    return start, start[:-1] + bytes([start[-1] + 1])
