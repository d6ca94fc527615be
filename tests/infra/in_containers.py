"""Builds images without Docker, and runs them: `make test-images`. It needs root, a network, and these programs of
Debian: buildah, debootstrap, podman, runc.

The base image is a fresh Debian made with debootstrap. buildah follows the Dockerfile, and podman runs the images as
Docker would. Images of others that a registry would have are stand-ins here; see `Engine`.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.demo import ARCHIVE, make_archive

ROOT = Path(__file__).parents[2]
STORAGE = ROOT / "scratch" / "containers"
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
PROGRAMS = ("buildah", "debootstrap", "podman", "runc")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = "1234:1234"  # in no image's list of users
SOURCES = """\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
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

    def megabytes(self, image: str) -> float:
        return json.loads(self._podman("image", "inspect", image).stdout)[0]["Size"] / 1e6

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Runs a container: any user, nothing to write to but mounts and /tmp, no network."""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE))
        limits = (f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=4096:4096")
        contained = ("--read-only", "--network=none", f"--user={USER}", "--cap-drop=all")
        return self._podman("run", "--rm", *limits, *contained, *options, image, *arguments, check=False)

    def _podman(self, *arguments: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        command = ["podman", *self._places, "--cgroup-manager=cgroupfs", "--runtime=runc", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, **more)


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
            # The authorities that this machine trusts, for a network with one of its own.
            shutil.copy(CERTIFICATES, Path(folder, "usr/local/share/ca-certificates/machine.crt"))
            engine.add(engine.names["DEBIAN"], Path(folder))
    return engine


@pytest.fixture(scope="session")
def main_image(engine):
    began = time.monotonic()
    image = engine.build("main")
    own = engine.megabytes(image) - engine.megabytes(engine.names["DEBIAN"])
    print(f"{image}: {own:,.0f} MB over the base image, built in {time.monotonic() - began:.0f} s")
    return image


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


def test_the_image_has_no_compiler_and_nothing_that_installs(engine, main_image):
    found = engine.run(main_image, "-c", "command -v cc gcc pip uv curl", options=("--entrypoint=sh",))
    assert found.stdout == ""
