"""Groups of scans, and their neighbours, from the listing alone."""

import dataclasses
import random

import pytest

from pipeline.inputs import neighbors
from pipeline.inputs.item import Item, page_of
from pipeline.inputs.neighbors import FOLDER, STEM


def items(*keys: str, **fields) -> list[Item]:
    return [Item(key, f"/in/{key}", 100, "1", **fields) for key in keys]


def known(given, group_by: str = FOLDER) -> dict[str, list[tuple[int, str]]]:
    """The neighbours of each scan: how far away they are, and their keys."""
    found = neighbors.found(given, group_by)
    return {item.key: [(other.away, other.key) for other in item.neighbors] for item in found}


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("reel/shot_0012.png", "reel/shot"),
        ("reel/0012.png", "reel/"),
        ("0012.png", "."),
        ("box/ms5_f012r.tif", "box/ms5_f012"),
        ("box/ms5_f012v.tif", "box/ms5_f012"),
        ("box/card-7_R.jpg", "box/card-7"),
        ("box/card 7-verso.jpg", "box/card 7"),
        ("box/card 7 recto.jpg", "box/card 7"),
        ("box/12recto.jpg", "box/12"),
        ("box/sheet 3a.tif", "box/sheet 3"),
        ("box/sheet 3b.tif", "box/sheet 3"),
        ("box/universo.jpg", "box/universo"),
        ("box/bar.jpg", "box/bar"),
        ("box/issue.tif#page=4", "box/issue.tif"),
    ],
)
def test_a_stem_is_a_name_without_its_number_or_its_side(key, group):
    assert neighbors.named(Item(key, key), STEM).group == group


def test_a_folder_is_a_group():
    groups = [neighbors.named(Item(key, key), FOLDER).group for key in ("a/b/1.png", "a/b/x.tif", "1.png")]
    assert groups == ["a/b", "a/b", "."]


def test_a_scan_knows_two_neighbours_before_and_after_it():
    film = known(items(*(f"f/{number}.png" for number in range(5))))
    assert film["f/2.png"] == [(-2, "f/0.png"), (-1, "f/1.png"), (1, "f/3.png"), (2, "f/4.png")]
    assert film["f/0.png"] == [(1, "f/1.png"), (2, "f/2.png")]
    assert film["f/4.png"] == [(-2, "f/2.png"), (-1, "f/3.png")]
    assert known(items("f/0.png", "f/1.png")) == {"f/0.png": [(1, "f/1.png")], "f/1.png": [(-1, "f/0.png")]}


def test_numbers_are_ordered_by_their_value():
    film = known(items("f/10.png", "f/9.png", "f/8.png"))
    assert film["f/9.png"] == [(-1, "f/8.png"), (1, "f/10.png")]


def test_the_order_of_the_listing_does_not_matter_nor_how_many_are_in_memory(monkeypatch):
    given = items(*(f"reel{number % 3}/frame{number}.png" for number in range(50)))
    expected = list(neighbors.found(given, FOLDER))
    assert len(expected) == 50 and all(len(item.neighbors) >= 2 for item in expected)
    random.Random(1).shuffle(given)
    monkeypatch.setattr(neighbors, "_FEW", 7)  # the rest goes to a temporary database
    assert list(neighbors.found(given, FOLDER)) == expected


def test_neighbours_are_in_the_same_group_and_are_pictures():
    film = known(items("a/1.png", "a/2.txt", "a/3.png", "b/4.png", "a/none"))
    assert film["a/1.png"] == [(1, "a/3.png"), (2, "a/none")]
    assert film["a/2.txt"] == film["b/4.png"] == []


def test_the_group_of_a_manifest_counts_first():
    given = items("x/1.png", "y/2.png", group="reel") + items("x/3.png", "x/4.png")
    film = known(given)
    assert film["x/1.png"] == [(1, "y/2.png")]
    assert film["x/3.png"] == [(1, "x/4.png")]
    alone = known(given, "")
    assert alone["y/2.png"] == [(-1, "x/1.png")]
    assert alone["x/3.png"] == []


def digest(given, key: str = "f/2.png", group_by: str = FOLDER) -> str:
    (found,) = [item for item in neighbors.found(given, group_by) if item.key == key]
    return found.neighbors_sha256


def test_the_digest_says_which_neighbours_there_are():
    film = items(*(f"f/{number}.png" for number in range(7)))
    before = digest(film)
    assert before and digest([*reversed(film)]) == before
    assert digest(film[:6]) == before, "the last is too far away"
    assert digest(film, group_by=STEM) == before, "the name of the group does not count"
    others = {
        "removed": film[:1] + film[2:],
        "added": [*film, *items("f/2b.png")],
        "changed": [film[0], dataclasses.replace(film[1], version="2"), *film[2:]],
        "longer": [film[0], dataclasses.replace(film[1], size=101), *film[2:]],
    }
    digests = {digest(given) for given in others.values()}
    assert len(digests) == 4 and before not in digests
    assert digest([dataclasses.replace(item, source=f"gs://b/{item.key}") for item in film]) == before
    assert digest(film[2:3]) == "", "a scan alone is the same with and without groups"


def test_a_page_of_a_file_has_no_neighbours():
    film = list(neighbors.found(items("f/1.tif", "f/2.tif"), FOLDER))
    page = page_of(film[0], 1, 3)
    assert (page.group, page.neighbors, page.neighbors_sha256) == ("f", (), "")
