"""Progress of a run on any runner: finished records, rate and time left, from the growing manifest in the output."""

import contextlib
import sys
import threading
import time

from pipeline import storage
from pipeline.console import say
from pipeline.errors import JobError
from pipeline.records import manifest

POLL_SECONDS = 0.5
CLOUD_SECONDS = 10.0  # between listings of a manifest in an object store, which cost money
PAUSE = 20  # pause between listings, in units of the time that a listing takes
LINE_SECONDS = 30.0  # between lines, without a terminal


class Progress:
    """Shows the progress of a run while the block lasts.

    Args:
      output: of the job.
      run: whose shards are counted.
      todo: number of tasks; a file with several pages is one, and makes more records. None if the workers plan.
    """

    def __init__(self, output: str, run: str, todo: int | None):
        self._output, self._run, self._todo = output, run, todo
        self._seen: set[str] = set()
        self._done = 0
        self._next = 0.0  # time of the next listing
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    @property
    def _total(self) -> int | None:
        """Expected records; at least those that there are, because a file may turn out to have several pages."""
        return None if self._todo is None else max(self._todo, self._done)

    def _watch(self) -> None:
        draw = self._bar if sys.stderr.isatty() else self._lines
        draw()

    def _bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting workers", total=self._total or None, rate="")
            first = None
            while not self._over.wait(POLL_SECONDS):
                if self._count() and first is None:
                    first = time.monotonic()
                    bar.update(task, description="scans")
                rate = "" if first is None else f"{self._done / max(time.monotonic() - first, 2):.1f}/s"
                bar.update(task, completed=self._done, total=self._total or None, rate=rate)

    def _lines(self) -> None:
        started = said = time.monotonic()
        while not self._over.wait(POLL_SECONDS):
            now = time.monotonic()
            if now - said < LINE_SECONDS:
                continue
            said = now
            self._count()
            rate = self._done / (now - started)
            total = left = ""
            if self._total is not None:
                total = f" of {self._total:,}"
                left = f", about {(self._total - self._done) / rate:,.0f} s left" if self._done else ""
            say(f"{self._done:,}{total} scans, {rate:.1f} a second{left}", error=True)

    def _count(self) -> int:
        """Number of records so far. Only the shards of this run are listed, and each is read once."""
        began = time.monotonic()
        if began < self._next:
            return self._done
        with contextlib.suppress(JobError, OSError):  # if it matters, the job itself will report it
            for uri in manifest.shards(self._output, self._run):
                if uri not in self._seen:
                    self._done += storage.read(uri).count(b"\n")
                    self._seen.add(uri)
        now = time.monotonic()
        pause = CLOUD_SECONDS if storage.is_cloud(self._output) else POLL_SECONDS
        self._next = now + max(pause, PAUSE * (now - began))
        return self._done
