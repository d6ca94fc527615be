"""Checks of the manuals: links have a target, and the map names existing folders."""

import re
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            path
            for part in ("pipeline", "model", "tfx_pipeline", "infra", "infra/*", "tests")
            for path in ROOT.glob(f"{part}/*.md")
        ),
    ]
)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def headings(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    lines = re.findall(r"^#+ (.*)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\(([^)]+)\)", FENCED.sub("", document.read_text()))
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


def test_the_map_for_contributors_names_folders_that_exist():
    table = re.search(r"## Where things are\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[
        1
    ]
    named = re.findall(r"`([a-z_/]+/)`", table)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    files = re.findall(r"`([a-z_/]+\.(?:py|toml))`", table)
    assert [
        name for name in files if not (ROOT / name).is_file() and not (ROOT / "pipeline" / name).is_file()
    ] == []


def test_every_package_of_the_batch_side_is_on_its_map():
    packages = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert packages == {name for name in packages if re.search(rf"\b{name}\b", pipeline.__doc__)}


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
