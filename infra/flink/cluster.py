"""A Flink cluster on this machine, for trials and tests of the batch job.

    python -m infra.flink.cluster get    downloads the jars, once
    python -m infra.flink.cluster run    runs one JobManager and two TaskManagers until Ctrl-C

All of it listens on the loopback device only. A TaskManager that ends is replaced.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from infra.flink import jars
from infra.flink.jars import FlinkError

PORT = 8081
START_SECONDS = 120
STOP_SECONDS = 15

_LIBC = ctypes.CDLL(None)
_MAIN = "org.apache.flink.runtime"
# Such a cluster lives for minutes, in which Java's optimising compiler costs more than it saves.
_SHORT = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
# What Flink's own start scripts give to Java 17.
_JAVA = [f"--add-exports=java.base/{name}=ALL-UNNAMED" for name in ("sun.net.util", "sun.nio.ch")] + [
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in (
        *("java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.text"),
        *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
        "java.util.concurrent.locks",
    )
]
_JOB_MANAGER_JAVA = ["-Xmx768m", "-XX:MaxMetaspaceSize=256m"]
_TASK_MANAGER_JAVA = ["-Xmx640m", "-XX:MaxDirectMemorySize=768m", "-XX:MaxMetaspaceSize=256m"]
# Every size of memory is given, as Flink's scripts reckon them, so that they agree with the options of Java above.
# The delay of a restart is longer than the heartbeat's timeout, after which Flink knows that a TaskManager is lost, and
# than the ten seconds after which a worker takes no more tasks. A lost TaskManager costs two restarts: after the first,
# Flink asks it for data.
_CONFIGURATION = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.task.heap.size: 512m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.network.min: 640m
taskmanager.memory.network.max: 640m
taskmanager.memory.managed.size: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
classloader.resolve-order: parent-first
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 15 s
heartbeat.interval: 2000
heartbeat.timeout: 10000
io.tmp.dirs: {temporary}
"""
_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
"""


class Cluster:
    """A JobManager with its TaskManagers, which run within the block. Each TaskManager has one slot.

    Args:
      task_managers: their number at the start.
      port: of the web interface and of jobs; 0 takes a free one.
      home: folder of the jars.
      env: environment of the processes, and so of the workers that they start.

    Raises:
      FlinkError: the jars cannot be had, a port is in use, or the cluster did not start.
    """

    def __init__(
        self,
        task_managers: int = 2,
        *,
        port: int = 0,
        home: Path = jars.HOME,
        env: dict[str, str] | None = None,
    ):
        self._lib = jars.get(home)
        self._first, self._env = task_managers, env or dict(os.environ)
        self.port = _free(port)
        self.job_manager: subprocess.Popen | None = None
        self.task_managers: list[subprocess.Popen] = []
        self._all: list[subprocess.Popen] = []
        self.folder: Path = Path()

    @property
    def job_server(self) -> Path:
        return self._lib / jars.SERVER

    def options(self, *environment: str, parallelism: int | None = None) -> list[str]:
        """Options of the job that runs on this cluster, with `environment` for its workers."""
        return [
            "--runner=FlinkRunner",
            f"--flink_master=127.0.0.1:{self.port}",
            f"--flink_job_server_jar={self.job_server}",
            f"--parallelism={parallelism or self._first}",
            *environment,
        ]

    def __enter__(self) -> "Cluster":
        self._made = tempfile.TemporaryDirectory(prefix="flink-cluster-")
        self.folder = Path(self._made.name)
        try:
            values = dict(rpc=_free(0), rest=self.port, temporary=self.folder / "temporary")
            (self.folder / "config.yaml").write_text(_CONFIGURATION.format_map(values))
            (self.folder / "log4j.properties").write_text(_LOGGING)
            (self.folder / "temporary").mkdir()
            self.job_manager = self._start(
                "job-manager",
                _JOB_MANAGER_JAVA,
                f"{_MAIN}.entrypoint.StandaloneSessionClusterEntrypoint",
                "--executionMode",
                "cluster",
            )
            for _ in range(self._first):
                self.add_task_manager()
            self.wait_for(self._first)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """Ends all processes of the cluster, and workers that they have left."""
        for process in self._all:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._made.cleanup()

    def add_task_manager(self) -> subprocess.Popen:
        """Starts another TaskManager, without waiting for it."""
        process = self._start(
            f"task-manager-{len(self._all)}", _TASK_MANAGER_JAVA, f"{_MAIN}.taskexecutor.TaskManagerRunner"
        )
        self.task_managers.append(process)
        return process

    def wait_for(self, count: int) -> None:
        """Waits until that many TaskManagers are registered."""
        deadline = time.monotonic() + START_SECONDS
        while self.registered() < count:
            running = [self.job_manager, *self.task_managers]
            if ended := [process for process in running if process and process.poll() is not None]:
                raise FlinkError(
                    f"a process of the cluster ended with {ended[0].returncode}: {self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise FlinkError(f"the cluster did not start in {START_SECONDS} s: {self._last_words()}")
            time.sleep(0.3)

    def registered(self) -> int:
        """Number of TaskManagers that the JobManager knows."""
        try:
            return len(self.ask("taskmanagers")["taskmanagers"])
        except OSError:  # it has not started yet
            return 0

    def ask(self, path: str) -> dict:
        """Asks Flink's REST interface. Raises OSError if it does not answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            return json.load(answer)

    def logs(self) -> dict[str, str]:
        """What the processes have printed, by name."""
        return {path.stem: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    def _last_words(self) -> str:
        errors = [line for text in self.logs().values() for line in text.splitlines() if " ERROR " in line]
        return errors[0] if errors else "its logs have no errors"

    def _start(self, name: str, java: list[str], main: str, *arguments: str) -> subprocess.Popen:
        command = [
            "java",
            *java,
            *_SHORT,
            *_JAVA,
            f"-Dlog4j.configurationFile={self.folder}/log4j.properties",
        ]
        command += ["-cp", f"{self._lib}/*", main, "--configDir", str(self.folder), *arguments]
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self.folder,
                start_new_session=True,  # its group has the workers, too, and Ctrl-C does not reach it
                preexec_fn=_end_with_parent,
            )
        self._all.append(process)
        return process


def _end_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free(port: int) -> int:
    """The port, or a free one for 0. Raises FlinkError if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise FlinkError(
                f"port {port} is in use: is another cluster running? (--port sets another)"
            ) from error
        return probe.getsockname()[1]


def _run(port: int, task_managers: int) -> None:
    cluster = Cluster(task_managers, port=port)
    worker = Path(sys.executable).with_name("archive-colorize-worker")
    if not worker.exists():
        raise FlinkError(f"{worker} is missing: install the project there (pip install -e . or make demo)")
    began = time.monotonic()
    print(f"starting a JobManager and {task_managers} TaskManagers ...", flush=True)
    with cluster:
        options = cluster.options(
            "--environment_type=PROCESS", f"--environment_option=process_command={worker}"
        )
        command = [str(worker.with_name("archive-colorize")), "--input", "SCANS", "--output", "DERIVATIVES"]
        command.append("--workers_share_files")
        print(f"Flink runs after {time.monotonic() - began:.0f} s: http://127.0.0.1:{port}\n")
        print("to colourise a collection on it, in another terminal:\n")
        print(" \\\n  ".join([shlex.join(command), *map(shlex.quote, options)]))
        print("\nCtrl-C stops the cluster", flush=True)
        while cluster.job_manager and cluster.job_manager.poll() is None:
            for process in [process for process in cluster.task_managers if process.poll() is not None]:
                print(f"a TaskManager ended with {process.returncode}; another one is started", flush=True)
                cluster.task_managers.remove(process)
                cluster.add_task_manager()
            time.sleep(1)
        raise FlinkError(f"the JobManager ended: {cluster._last_words()}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.flink.cluster", description="A Flink cluster on this machine, for trials."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="get|run")
    commands.add_parser("get", help="download the jars (325 MB), once")
    run = commands.add_parser("run", help="run a cluster until Ctrl-C")
    run.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"of its web interface (default: {PORT})"
    )
    run.add_argument(
        "--task_managers", type=int, default=2, metavar="N", help="with one slot each (default: 2)"
    )
    chosen = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        if chosen.command == "get":
            print(f"the jars are in {jars.get()}")
        else:
            _run(chosen.port, chosen.task_managers)
    except FlinkError as error:
        print(f"flink: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
