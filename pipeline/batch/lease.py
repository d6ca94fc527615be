"""The lease of a job on its output: a file that names the job and is renewed while the job runs.

    OUTPUT/.archive-colorize-lease   {"run": ..., "host": ..., "pid": ..., "renewed": ...}

A second job that finds the file stops before any work. A lease ends with its process, if both jobs are on the same
machine, or when it has not been renewed for `EXPIRES`.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline import clock, storage
from pipeline.batch import stopping
from pipeline.errors import JobError

FILE = ".archive-colorize-lease"
RENEW_SECONDS = 60.0
EXPIRES = timedelta(minutes=10)


@dataclass
class Lease:
    """The lease of this process.

    Attributes:
      since: version (see `storage`) of the file at the start. Older files were not written by this job.
      lost: message if another job has taken over the output; otherwise empty.
    """

    since: str
    lost: str = ""


@contextlib.contextmanager
def held(output: str, run: str, stop: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Holds the lease on an output while the block lasts.

    Args:
      output: a folder, which need not exist, gs:// or s3://.
      run: of this job.
      stop: is called if the lease is lost, so that no new work is started.

    Raises:
      JobError: another job holds the lease, or the output cannot be written to.
    """
    file = storage.join(output, FILE)
    mine = {
        "run": run,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "started": _now(),
    }
    try:
        version = _take(file, output, mine)
    except OSError as error:
        raise JobError(f"cannot write to the output {output}: {error.strerror or error}") from error
    lease, over = Lease(version), threading.Event()

    def renew() -> None:
        version = lease.since
        while not over.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # it is tried again
                version = _write(file, mine, version)
                continue
            other = _read(file)
            if other is None or other["run"] == run:
                info = _stat(file)
                version = info.version if info else ""
            else:
                lease.lost = f"another job ({described(other)}) has taken over the output {output}"
                with contextlib.suppress(OSError):
                    stop()
                return

    def release() -> None:
        with contextlib.suppress(OSError):  # then it expires
            if (there := _read(file)) and there["run"] == run:
                storage.delete(file)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    with stopping.cleaning_up(release):
        renewing.start()
        try:
            yield lease
        finally:
            over.set()
            renewing.join()
            release()


def _take(file: str, output: str, mine: dict) -> str:
    """Writes the file if nobody holds the lease. Returns its version."""
    while True:
        info = storage.stat(file)
        other = _read(file) if info else None
        if other and _is_alive(other):
            raise JobError(
                f"another job ({described(other)}) writes to the output {output}: wait until it ends, stop it with "
                f"archive-colorize stop, or choose another output (the lease of a killed job ends after "
                f"{EXPIRES.seconds // 60} minutes)"
            )
        try:
            version = _write(file, mine, info.version if info else "")
        except FileExistsError:  # another job was faster
            continue
        if (_read(file) or mine)["run"] == mine["run"]:  # some storage ignores the condition
            return version


def _write(file: str, mine: dict, over: str) -> str:
    """Raises FileExistsError if the file has another version than `over`."""
    storage.write(file, json.dumps(mine | {"renewed": _now()}).encode() + b"\n", over=over)
    info = storage.stat(file)
    return info.version if info else ""


def _read(file: str) -> dict | None:
    """Reads the file. Returns None if there is none, or if it is not a lease."""
    try:
        said = json.loads(storage.read(file))
        said["renewed"] = datetime.fromisoformat(said["renewed"]).astimezone(UTC)
        return said if isinstance(said["run"], str) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _stat(file: str) -> storage.FileInfo | None:
    with contextlib.suppress(OSError):
        return storage.stat(file)
    return None


def _is_alive(other: dict) -> bool:
    if other.get("machine") == _machine() and isinstance(other.get("pid"), int):
        return other.get("born") == _born(other["pid"])
    # A wrong clock may have given it a future date, which must not hold the output for ever.
    return abs(clock.now() - other["renewed"]) < EXPIRES


def holder(output: str) -> dict | None:
    """The lease of the job that writes to the output now; None if there is none. Raises OSError."""
    other = _read(storage.join(output, FILE))
    return other if other and _is_alive(other) else None


def described(other: dict) -> str:
    """The holder of a lease in words."""
    return (
        f"run {other['run']}, process {other.get('pid')} on {other.get('host')}, since {other.get('started')}"
    )


def _machine() -> str:
    """Identity of the space of process numbers: the boot of the kernel, and the namespace of the container."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def _born(pid: int) -> str:
    """Start of a process in ticks since boot, which identifies it together with its number; "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
