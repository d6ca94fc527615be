"""A job's hold on its output: a file there that names the job, renewed while it lives.

    OUTPUT/.archive-colorize-lease   {"run": ..., "host": ..., "pid": ..., "renewed": ...}

A second job that finds it stops before any work. It cannot be held for ever: a job whose process is gone, as this
machine knows of its own, or that has not renewed it for `EXPIRES`, has lost it to whoever comes next.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline import stopping, storage
from pipeline.collections import JobError

FILE = ".archive-colorize-lease"
RENEW_SECONDS = 60.0
EXPIRES = timedelta(minutes=10)


@dataclass
class Lease:
    """The hold of this process.

    Attributes:
      since: the version (see `storage`) of the file when it was taken: what is older was not written by this job.
      lost: in words, that another job has taken it over meanwhile.
    """

    since: str
    lost: str = ""


@contextlib.contextmanager
def held(output: str, run: str, stop_file: str) -> Iterator[Lease]:
    """Holds the output for as long as the block lasts.

    Args:
      output: a folder, which need not be there, or gs://.
      run: this job's.
      stop_file: is made when the hold is lost, so that nothing new is begun; "" where there is none.

    Raises:
      JobError: another job holds it, or it cannot be written to.
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
                lease.lost = f"{_who(other)} has taken over the output {output} meanwhile"
                if stop_file:
                    with open(stop_file, "w"):
                        pass
                return

    def release() -> None:
        with contextlib.suppress(OSError):  # then it expires
            if (there := _read(file)) and there["run"] == run:
                storage.delete(file)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    with stopping.cleared(release):
        renewing.start()
        try:
            yield lease
        finally:
            over.set()
            renewing.join()
            release()


def _take(file: str, output: str, mine: dict) -> str:
    """Writes the file where nobody holds it; returns its version."""
    while True:
        info = storage.stat(file)
        other = _read(file) if info else None
        if other and _is_alive(other):
            raise JobError(
                f"{_who(other)} writes to the output {output}: wait for its end, or choose another output "
                f"(a job that was killed loses its hold after {EXPIRES.seconds // 60} minutes)"
            )
        try:
            version = _write(file, mine, info.version if info else "")
        except FileExistsError:  # another was quicker
            continue
        if (_read(file) or mine)["run"] == mine["run"]:  # storage may ignore the condition
            return version


def _write(file: str, mine: dict, over: str) -> str:
    """Raises FileExistsError where the file has another version than `over`."""
    storage.write(file, json.dumps(mine | {"renewed": _now()}).encode() + b"\n", over=over)
    info = storage.stat(file)
    return info.version if info else ""


def _read(file: str) -> dict | None:
    """What the file says; None where it is not there, or is none of ours."""
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
    # A clock that was wrong may have dated it later than now: such a date is no sign of life for ever.
    return abs(datetime.now(UTC) - other["renewed"]) < EXPIRES


def _who(other: dict) -> str:
    return (
        f"another job (run {other['run']}, process {other.get('pid')} on {other.get('host')}, "
        f"since {other.get('started')})"
    )


def _machine() -> str:
    """Identity of what process numbers count in: a boot of a kernel, and a container's own numbers."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def _born(pid: int) -> str:
    """When a process was started, in ticks since boot, which tells it from a later one of its number; "" if none is."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
