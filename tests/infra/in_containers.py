"""Builds images without Docker, and runs them: `make test-images`. It needs root, a network, and these programs of
Debian: buildah, debootstrap, podman, runc.

The base image is a fresh Debian made with debootstrap. buildah follows the Dockerfile, and podman runs the images as
Docker would. The images of others are made here, too, because Docker's registries may be out of reach.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from model import default_model
from pipeline.demo import ARCHIVE, make_archive

ROOT = Path(__file__).parents[2]
STORAGE = ROOT / "scratch" / "containers"
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
PROGRAMS = ("buildah", "debootstrap", "podman", "runc")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = "1234:1234"  # in no image's list of users
BOOT = "github.com/apache/beam/sdks/v2/python/container@v2.73.0"  # the proxy of Go modules has no 2.72
FILES = min(resource.getrlimit(resource.RLIMIT_NOFILE))  # a container may not have more than this process
CONTAINED = ("--read-only", "--cap-drop=all", f"--ulimit=nofile={FILES}:{FILES}", "--ulimit=nproc=4096:4096")
SOURCES = """\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
"""
# As in Debian's own image.
KEEP_NOTHING = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""

pytestmark = pytest.mark.timeout(1800)


class Engine:
    """Images and containers in a folder of this checkout, apart from any others on the machine."""

    def __init__(self, folder: Path):
        self._places = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]
        self.names = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE))

    def has(self, image: str) -> bool:
        return self._podman("image", "exists", image, check=False).returncode == 0

    def add(self, image: str, tree: Path) -> None:
        """Makes an image of one layer, the files in a folder."""
        with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
            self._podman("import", "-", image, stdin=tar.stdout)
        assert tar.returncode == 0

    def build(self, target: str) -> str:
        """Builds a target of the Dockerfile. Returns the name of the image."""
        image = f"localhost/archive-colorize-{target}"
        command = ["buildah", *self._places, "bud", "--isolation=chroot", "--layers", "--pull-never"]
        command += ["--file", str(DOCKERFILE), "--target", target, "--tag", image, str(ROOT)]
        subprocess.run(command, check=True)
        return image

    def build_from(self, image: str, steps: str, folder: Path) -> str:
        """Builds an image with further steps, which may copy from the folder. Returns its name."""
        command = ["buildah", *self._places, "bud", "--isolation=chroot", "--pull-never", "--file=-"]
        command += [f"--tag={image}-more", str(folder)]
        subprocess.run(command, check=True, input=f"FROM {image}\n{steps}", text=True)
        return f"{image}-more"

    def megabytes(self, image: str) -> float:
        return json.loads(self._podman("image", "inspect", image).stdout)[0]["Size"] / 1e6

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Runs a container: any user, nothing to write to but mounts and /tmp, no network."""
        contained = ("--network=none", f"--user={USER}", *CONTAINED)
        return self._podman("run", "--rm", *contained, *options, image, *arguments, check=False)

    def podman(self) -> list[str]:
        return ["podman", *self._places, "--cgroup-manager=cgroupfs", "--runtime=runc"]

    def _podman(self, *arguments: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.podman(), *arguments], check=check, capture_output=True, text=True, **more
        )


@pytest.fixture(scope="session")
def engine():
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"missing: {', '.join(missing)} (Debian: apt install {' '.join(PROGRAMS)})")
    if os.getuid():
        pytest.skip("debootstrap and the file systems of containers need root")
    engine = Engine(STORAGE)
    if not engine.has(engine.names["DEBIAN"]):
        with tempfile.TemporaryDirectory(prefix="debian-") as folder:
            subprocess.run(["debootstrap", "--variant=minbase", "bookworm", folder], check=True)
            Path(folder, "etc/apt/sources.list").write_text(SOURCES)
            Path(folder, "etc/apt/apt.conf.d/docker-clean").write_text(KEEP_NOTHING)
            shutil.rmtree(Path(folder, "var/cache/apt/archives"))
            shutil.rmtree(Path(folder, "var/lib/apt/lists"))
            # The authorities that this machine trusts, for a network with one of its own.
            authorities = Path(folder, "usr/local/share/ca-certificates")
            authorities.mkdir()
            shutil.copy(CERTIFICATES, authorities / "machine.crt")
            engine.add(engine.names["DEBIAN"], Path(folder))
    yield engine
    # The images stay for the next time, but their folder can be deleted.
    subprocess.run(["umount", "--recursive", STORAGE / "images" / "overlay"], capture_output=True)


def built(engine: Engine, target: str) -> str:
    began = time.monotonic()
    image = engine.build(target)
    own = engine.megabytes(image) - engine.megabytes(engine.names["DEBIAN"])
    print(f"{image}: {own:,.0f} MB over the base image, built in {time.monotonic() - began:.0f} s")
    return image


@pytest.fixture(scope="session")
def main_image(engine):
    return built(engine, "main")


@pytest.fixture(scope="session")
def worker_image(engine, tmp_path_factory):
    """With Beam's own program that starts workers, compiled from its source (in Go)."""
    if not engine.has(engine.names["BEAM"]):
        folder = tmp_path_factory.mktemp("beam")
        env = os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0"}
        subprocess.run(["go", "install", BOOT], check=True, env=env)
        boot = folder / "tree" / "opt" / "apache" / "beam" / "boot"
        boot.parent.mkdir(parents=True)
        (folder / "container").rename(boot)
        engine.add(engine.names["BEAM"], folder / "tree")
    return built(engine, "worker")


@pytest.fixture(scope="session")
def launcher_image(engine, worker_image, tmp_path_factory):
    """With a stand-in for Google's program, whose source is not public: it calls Python with the file and arguments."""
    if not engine.has(engine.names["LAUNCHER"]):
        launcher = tmp_path_factory.mktemp("google") / "opt/google/dataflow/python_template_launcher"
        launcher.parent.mkdir(parents=True)
        launcher.write_text('#!/bin/sh\nexec python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"\n')
        launcher.chmod(0o755)
        engine.add(engine.names["LAUNCHER"], launcher.parents[3])
    return built(engine, "launcher")


def test_the_image_colours_the_demonstration_archive_without_rights_or_network(engine, main_image, tmp_path):
    scans, derivatives = tmp_path / "scans", tmp_path / "derivatives"
    make_archive(scans)
    derivatives.mkdir()
    os.chown(derivatives, *map(int, USER.split(":")))
    tmp_path.chmod(0o755)
    mounts = (f"--volume={scans}:/in:ro", f"--volume={derivatives}:/out", "--tmpfs=/tmp")

    ended = engine.run(main_image, "--input", "/in", "--output", "/out", options=mounts)

    assert ended.returncode == 0, ended.stderr
    print(ended.stdout)
    outcomes = json.loads((derivatives / "summary.json").read_text())["outcomes"]
    assert outcomes == {"colorized": len(ARCHIVE) - 2, "skipped": 1, "failed": 1}
    assert len(list(derivatives.rglob("*_color.jpg"))) == len(ARCHIVE) - 2
    assert {path.stat().st_uid for path in derivatives.rglob("*")} == {1234}


def test_an_output_that_the_user_may_not_write_is_one_line(engine, main_image, tmp_path):
    make_archive(tmp_path / "scans")
    (tmp_path / "derivatives").mkdir()
    tmp_path.chmod(0o755)
    mounts = (f"--volume={tmp_path}/scans:/in:ro", f"--volume={tmp_path}/derivatives:/out", "--tmpfs=/tmp")
    ended = engine.run(main_image, "--input", "/in", "--output", "/out", options=mounts)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "cannot write to the output /out" in ended.stderr


def test_a_container_that_is_stopped_finishes_work_in_progress_and_the_next_one_continues(
    engine, main_image, tmp_path
):
    make_archive(tmp_path / "archive")
    scans, derivatives = tmp_path / "scans", tmp_path / "derivatives"
    for number in range(50):
        shutil.copytree(tmp_path / "archive", scans / f"copy{number}")
    derivatives.mkdir()
    os.chown(derivatives, *map(int, USER.split(":")))
    tmp_path.chmod(0o755)
    options = (f"--volume={scans}:/in:ro", f"--volume={derivatives}:/out", "--tmpfs=/tmp", "--name=stopped")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(engine.run, main_image, "--input=/in", "--output=/out", options=options)
        while not list(derivatives.rglob("*_color.jpg")):
            assert not running.done(), running.result().stderr
            time.sleep(0.1)
        subprocess.run([*engine.podman(), "stop", "--time=120", "stopped"], check=True)
        ended = running.result()
    assert ended.returncode == 143, ended.stderr
    first = len(list(derivatives.rglob("*_color.jpg")))
    assert first < 50 * (len(ARCHIVE) - 2)

    again = engine.run(main_image, "--input=/in", "--output=/out", options=options)
    assert again.returncode == 0, again.stderr
    summary = json.loads((derivatives / "summary.json").read_text())
    assert summary["outcomes"]["colorized"] == 50 * (len(ARCHIVE) - 2)
    assert summary["kept"] >= first


def test_the_image_has_no_compiler_and_nothing_that_installs(engine, main_image):
    found = engine.run(main_image, "-c", "command -v cc gcc pip uv curl", options=("--entrypoint=sh",))
    assert found.stdout == ""


def test_workers_in_containers_colour_a_collection(engine, worker_image, tmp_path):
    """Beam's local runner starts the image with Beam's program in it, by a `docker` that is podman."""
    scans, derivatives, bin = tmp_path / "scans", tmp_path / "derivatives", tmp_path / "bin"
    make_archive(scans)
    bin.mkdir()
    model = f"--volume={default_model()}:{default_model()}:ro"
    mounts = (f"--volume={tmp_path}:{tmp_path}", model, "--tmpfs=/tmp")
    # The user is root, whose files the launcher writes, but without the rights of root.
    run = shlex.join([*engine.podman(), "run", "--user=0:0", *CONTAINED, *mounts])
    (bin / "docker").write_text(
        f'#!/bin/sh\nif [ "$1" = run ]; then shift; exec {run} "$@"; fi\nexec {shlex.join(engine.podman())} "$@"\n'
    )
    (bin / "docker").chmod(0o755)
    command = [sys.executable, "-m", "pipeline.colorize", f"--input={scans}", f"--output={derivatives}"]
    command += ["--runner=PortableRunner", "--job_endpoint=embed", "--workers_share_files"]
    command += ["--environment_type=DOCKER", f"--environment_config={worker_image}"]
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads((derivatives / "summary.json").read_text())["outcomes"]
    assert outcomes == {"colorized": len(ARCHIVE) - 2, "skipped": 1, "failed": 1}


def test_a_pool_of_workers_starts_in_its_image(engine, worker_image):
    """As beside a TaskManager, until it is told to end."""
    options = ("--entrypoint=timeout", "--tmpfs=/tmp")
    ended = engine.run(worker_image, "--signal=INT", "15", "archive-colorize", "worker-pool", options=options)
    assert "starting workers for runners that call localhost:50000" in ended.stdout, ended.stderr


def test_the_launcher_starts_the_job(engine, launcher_image):
    """Here only as far as the first check of its options, because there is no Dataflow."""
    given = ("--input=gs://archive/scans", "--output=gs://archive/colour", "--runner=DataflowRunner")
    ended = engine.run(launcher_image, *given, options=("--tmpfs=/tmp",))
    assert ended.returncode == 2
    assert "--project is missing" in ended.stderr


# A machine with systemd, and with the environments at the places that the units name.
MACHINE = """\
USER 0
RUN apt-get update && apt-get install --yes --no-install-recommends dbus systemd \
    && useradd --system --no-create-home colorize \
    && install -d -o colorize /srv/archive/derivatives /srv/archive/pipeline /srv/archive/photographs \
    && ln -sfn colorize /opt/colorize-tfx
COPY . /etc/systemd/system
ENTRYPOINT ["/lib/systemd/systemd"]
"""


@contextlib.contextmanager
def machine(engine: Engine, image: str, *options: str):
    """Yields a function that runs a shell command on a machine with the units, and returns its output."""
    image = engine.build_from(image, MACHINE, ROOT / "infra" / "systemd")
    limits = [option for option in CONTAINED if option.startswith("--ulimit")]
    start = [
        "run",
        "--detach",
        "--rm",
        "--privileged",
        "--systemd=always",
        "--network=none",
        "--name=machine",
    ]
    subprocess.run([*engine.podman(), *start, *limits, *options, image], check=True)
    try:
        yield (
            lambda command: (
                subprocess.run(
                    [*engine.podman(), "exec", "machine", "sh", "-c", command], capture_output=True, text=True
                ).stdout
            )
        )
    finally:
        subprocess.run([*engine.podman(), "rm", "--force", "machine"], check=True)


def assert_ended(run, unit: str, state: str, result: str, code: int, restarts: int) -> None:
    """Fails with the log unless a unit ended like this."""
    show = "systemctl show -p ActiveState -p Result -p ExecMainStatus -p NRestarts archive-colorize-"
    wanted = [f"ActiveState={state}", f"Result={result}", f"ExecMainStatus={code}", f"NRestarts={restarts}"]
    assert set(run(show + unit).split()) == set(wanted), run("journalctl -o cat")


def override(unit: str, lines: str) -> str:
    """Command that overrides settings of a unit, as `systemctl edit` does."""
    folder = f"/run/systemd/system/archive-colorize-{unit}.d"
    return f"mkdir -p {folder}; printf '{lines}' > {folder}/test.conf; systemctl daemon-reload"


def test_systemd_runs_the_night_contained(engine, main_image, tmp_path):
    make_archive(tmp_path / "scans")
    tmp_path.chmod(0o755)
    mounts = (
        f"--volume={tmp_path}/scans:/srv/archive/scans",
        f"--volume={default_model()}:/srv/archive/pipeline/pushed",
    )
    with machine(engine, main_image, *mounts) as run:
        run("systemctl is-system-running --wait; systemctl start archive-colorize-nightly")
        assert_ended(run, "nightly", "inactive", "success", 0, 0)
        counts = json.loads(run("cat /srv/archive/derivatives/summary.json"))["outcomes"]
        assert counts == {"colorized": len(ARCHIVE) - 2, "skipped": 1, "failed": 1}

        run(override("nightly.timer", "[Timer]\\nOnCalendar=*:*:0/5\\nAccuracySec=1s\\n"))
        run(
            "systemctl start archive-colorize-nightly.timer; sleep 12; systemctl stop archive-colorize-nightly.timer"
        )
        assert run("journalctl -o cat | grep -c Starting.archive-colorize-nightly") != "1\n"


def test_systemd_starts_a_failed_night_again_but_not_one_with_a_wrong_option(engine, main_image):
    with machine(engine, main_image) as run:
        run("systemctl is-system-running --wait")
        wrong = "/opt/colorize/bin/archive-colorize --input /none --output /srv/archive/derivatives"
        run(override("nightly.service", f"[Service]\\nExecStart=\\nExecStart={wrong}\\nRestartSec=1\\n"))
        run("systemctl start archive-colorize-nightly; sleep 5")
        assert_ended(run, "nightly", "failed", "exit-code", 2, 0)
        probe = (
            "touch /srv/archive/derivatives/ok /srv/archive/pipeline/no /etc/no; ls /sys/class/net; exit 1"
        )
        run(
            override(
                "nightly.service", f'[Service]\\nExecStart=\\nExecStart=sh -c "{probe}"\\nRestartSec=1\\n'
            )
        )
        run("systemctl reset-failed; systemctl start archive-colorize-nightly; sleep 8")
        assert_ended(run, "nightly", "failed", "exit-code", 1, 3)
        said = run("journalctl -o cat")
        assert said.count("Read-only file system") == 3 * 2
        assert said.count("\nlo\n") == 3
        assert run("ls /srv/archive/derivatives") == "ok\n"


def test_systemd_runs_the_training_contained(engine):
    """With the demonstration of the training pipeline in the place of the collections."""
    with machine(engine, built(engine, "tfx")) as run:
        run("systemctl is-system-running --wait")
        demonstration = "/opt/colorize-tfx/bin/python -m tfx_pipeline.demo --scratch /srv/archive/pipeline"
        run(override("retraining.service", f"[Service]\\nExecStart=\\nExecStart={demonstration}\\n"))
        run("systemctl start archive-colorize-retraining")
        assert_ended(run, "retraining", "inactive", "success", 0, 0)
        assert "pushed: version 1" in run("journalctl -o cat")


def test_the_training_image_pushes_a_model_that_the_main_image_takes(engine, main_image, tmp_path):
    work = tmp_path / "work"
    make_archive(work / "scans")
    (work / "derivatives").mkdir()
    for path in (work, work / "derivatives"):
        os.chown(path, *map(int, USER.split(":")))
    tmp_path.chmod(0o755)
    options = (f"--volume={work}:/data", "--tmpfs=/tmp")
    demonstration = ("-m", "tfx_pipeline.demo", "--scratch=/data")
    trained = engine.run(built(engine, "tfx"), *demonstration, options=("--entrypoint=python", *options))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "pushed: version 1" in trained.stdout

    given = ("--input=/data/scans", "--output=/data/derivatives", "--model=/data/run/pushed")
    ended = engine.run(main_image, *given, options=options)
    assert ended.returncode == 0, ended.stderr
    assert "coloured by demonstration 1" in ended.stdout
