"""The Dockerfile agrees with the rest of the project. `make test-images` builds what it describes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text()


def test_the_label_has_the_version_of_the_package():
    version = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())[1]
    assert re.search(r'image\.version="([^"]+)"', TEXT)[1] == version


def test_workers_start_with_the_beam_of_the_locks():
    (image,) = re.findall(r"^ARG BEAM=apache/beam_python3.11_sdk:(.+)$", TEXT, re.MULTILINE)
    for lock in ROOT.glob("requirements*.lock"):
        assert f"apache-beam=={image}" in lock.read_text().splitlines(), lock


def test_uv_is_that_of_the_makefile():
    assert re.findall(r"uv==\S+", TEXT) == re.findall(r"uv==\S+", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize(("lock", "extras"), re.findall(r"install\.sh (\S+) (.+)$", TEXT, re.MULTILINE))
def test_a_lock_is_resolved_with_the_extras_of_its_images(lock, extras):
    """Extras within others count: `test` has `gcp`, for example."""
    command = re.search(rf"\$\(COMPILE\) (.*) -o {re.escape(lock)}", (ROOT / "Makefile").read_text())[1]
    locked = set(re.findall(r"--extra (\w+)", command))
    within = {"test": {"gcp", "s3"}}
    locked |= {extra for name in locked for extra in within.get(name, ())}
    assert set(extras.split()) <= locked


def test_the_build_gets_every_file_that_it_copies():
    """`.dockerignore` leaves out all files but those that it names."""
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.search(r"^COPY (setup\.py .*) \./$", TEXT, re.MULTILINE)[1].split()
    packages = re.search(r'for name in \(("pipeline".*?)\) for', (ROOT / "setup.py").read_text())[1]
    assert {*copied, *re.findall(r'"(\w+)"', packages)} == set(kept)


def test_every_image_ends_as_a_user_without_rights():
    images = [stage for stage in TEXT.split("\nFROM ")[1:] if "\nENTRYPOINT " in stage]
    assert len(images) == 6
    for stage in images:
        assert "\nUSER 65532:65532\n" in stage or stage.startswith(
            ("worker AS launcher", "tfx AS tfx-worker")
        )
