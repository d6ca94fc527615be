"""The gallery's pictures: OUTPUT/gallery/pictures/DIGEST-before.jpg and -after.jpg.

The codec writes them while it holds a scan, so that no file is decoded a second time for the gallery.
"""

import contextlib
import hashlib
import heapq

from pipeline import storage
from pipeline.records.record import Outcome, Record

FOLDER = "gallery"
REPORT = "report.html"  # beside this folder


def uris(output: str, record: Record) -> tuple[str, str]:
    """URIs of a scan's two pictures, before and after."""
    folder = storage.join(output, FOLDER)
    before, after = names(record)
    return storage.join(folder, before), storage.join(folder, after)


def names(record: Record) -> tuple[str, str]:
    """Names of a scan's two pictures, relative to the gallery. They depend on the contents of master and derivative."""

    def digest(*words: str) -> str:
        return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    scan = record.key, record.source, record.source_sha256  # two masters may claim one key
    return (
        f"pictures/{digest(*scan)}-before.jpg",
        f"pictures/{digest(*scan, record.derivative_sha256)}-after.jpg",
    )


class Shown:
    """The scans whose pictures this process has put into the gallery: those with the lowest confidence so far.

    The report chooses among the scans of all processes. It makes missing pictures and removes superfluous ones.

    Args:
      size: the largest number of scans.
    """

    def __init__(self, output: str, size: int):
        self._output, self._size = output, size
        self._heap: list[tuple[float, tuple[str, str]]] = []  # the highest confidence is in front

    def wants(self, confidence: float) -> bool:
        """Whether a scan of this confidence belongs to the `size` scans with the lowest."""
        return len(self._heap) < self._size or (self._size > 0 and -confidence > self._heap[0][0])

    def add(self, record: Record) -> None:
        """Counts a scan whose pictures were written, and deletes the pictures of the scan that it replaces."""
        if (
            record.outcome != Outcome.COLORIZED
            or record.confidence is None
            or not self.wants(record.confidence)
        ):
            return
        entry = -record.confidence, uris(self._output, record)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
            return
        for uri in heapq.heappushpop(self._heap, entry)[1]:
            with contextlib.suppress(OSError):  # the report tries again, and says what is wrong
                storage.delete(uri)
