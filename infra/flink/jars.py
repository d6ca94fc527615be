"""Gets the jars of Flink and of Beam's Flink runner, and builds the job server from them.

The registries have no job server of this version of Beam in one jar. It is put together here: the classes of the
runner and of what it needs are one jar, and Flink's own jars lie beside it.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parents[1] / "scratch" / "flink"
SERVER = "beam-flink-job-server.jar"
SAY_SECONDS = 10  # between lines of progress

_MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_FLINK = ("flink-dist-", "log4j-")  # the jars of Flink that a cluster for Beam needs
# Java would ignore Class-Path beside an INDEX.LIST, and refuse merged classes with signatures of single jars.
_LEFT_OUT = ("META-INF/INDEX.LIST", "META-INF/MANIFEST.MF", "META-INF/LICENSE", "META-INF/NOTICE")
_SIGNATURES = (".SF", ".RSA", ".DSA")
_OPENED = "java.base/java.lang java.base/java.util java.base/java.time"  # to reflection, for Flink on Java 17


class FlinkError(Exception):
    """Flink cannot be had or started; the message is one line for a person."""


def get(home: Path = HOME) -> Path:
    """Folder of the jars. They are downloaded and put together at the first call.

    Raises:
      FlinkError: Java or Maven is missing, or a download failed.
    """
    lib = home / "lib"
    for program, package in {"java": "openjdk-17-jre-headless", "mvn": "maven"}.items():
        if not shutil.which(program) and not (program == "mvn" and lib.is_dir()):
            raise FlinkError(f"{program} is missing: install it (Debian, Ubuntu: apt install {package})")
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be getting them
        if not lib.is_dir():
            with tempfile.TemporaryDirectory(dir=home, prefix="partial-") as name:
                _build(Path(name)).rename(lib)
    return lib


def _build(partial: Path) -> Path:
    sdist, beam, lib = (partial / name for name in ("sdist", "beam", "lib"))
    lib.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    pip += ["--no-binary=apache-flink-libraries", "-d", str(sdist), "-r", str(HERE / "requirements.txt")]
    _download("Flink 1.19.2 (230 MB)", pip, partial, partial)
    shutil.copy(HERE / "pom.xml", partial)  # Maven leaves files beside it
    maven = ["mvn", "-q", "-B", "-f", str(partial / "pom.xml"), "dependency:copy-dependencies"]
    maven += ["-DincludeScope=runtime", f"-DoutputDirectory={beam}"]
    _download("Beam's Flink runner (94 MB)", maven, partial, Path.home() / ".m2")
    with _progress("putting the job server together", partial):
        (archive,) = sdist.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                name = os.path.basename(member.name)
                if member.isfile() and name.startswith(_FLINK) and name.endswith(".jar"):
                    with open(lib / name, "wb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type]
        merge(sorted(beam.glob("*.jar")), lib / SERVER, sorted(path.name for path in lib.glob("*.jar")))
    return lib


def merge(jars: list[Path], target: Path, beside: list[str]) -> None:
    """Makes one jar of many. Of files with the same name the first counts, except that lists of services are joined.

    Args:
      jars: to merge.
      target: the jar.
      beside: names of jars in its folder that it needs, too.
    """
    seen: set[str] = set()
    services: dict[str, list[str]] = {}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as merged:
        merged.writestr("META-INF/MANIFEST.MF", _manifest(beside))
        for jar in jars:
            with zipfile.ZipFile(jar) as source:
                for name in source.namelist():
                    if name.startswith("META-INF/services/") and not name.endswith("/"):
                        services.setdefault(name, []).append(source.read(name).decode().strip())
                    elif not (name.endswith("/") or name in seen or _left_out(name)):
                        seen.add(name)
                        merged.writestr(name, source.read(name))
        for name, lists in services.items():
            merged.writestr(name, "\n".join(lists) + "\n")


def _left_out(name: str) -> bool:
    return (
        name.startswith(_LEFT_OUT)
        or name.endswith("module-info.class")
        or (name.startswith("META-INF/") and name.endswith(_SIGNATURES))
    )


def _manifest(beside: list[str]) -> str:
    fields = {
        "Manifest-Version": "1.0",
        "Main-Class": _MAIN,
        "Class-Path": " ".join(beside),
        "Add-Opens": _OPENED,
        "Multi-Release": "true",
    }
    lines = []
    for name, value in fields.items():
        line = f"{name}: {value}"
        while len(line) > 72:  # bytes at most; the next line continues it after a space
            lines.append(line[:72])
            line = f" {line[72:]}"
        lines.append(line)
    return "\n".join(lines) + "\n\n"


def _download(what: str, command: list[str], folder: Path, growing: Path) -> None:
    with _progress(f"getting {what}", growing), open(folder / "log", "w+") as log:
        env = os.environ | {"TMPDIR": str(folder)}
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env).returncode:
            log.seek(0)
            said = [line.strip() for line in log if "ERROR" in line]
            raise FlinkError(
                f"cannot get {what}: {said[0] if said else 'run it to see why: ' + shlex.join(command)}"
            )


@contextlib.contextmanager
def _progress(what: str, growing: Path) -> Iterator[None]:
    """Prints what is done and, every ten seconds, how much a folder has grown by it."""
    print(f"{what} ...", flush=True)
    began, before, over = time.monotonic(), _size(growing), threading.Event()

    def watch() -> None:
        while not over.wait(SAY_SECONDS):
            size = (_size(growing) - before) / 1e6
            print(f"  {size:,.0f} MB after {time.monotonic() - began:.0f} s", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    print(f"  done in {time.monotonic() - began:.0f} s", flush=True)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a temporary file that is gone
            total += path.stat().st_size
    return total
