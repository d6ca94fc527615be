"""Warnings about collections that differ from the test pictures of the model."""

import dataclasses
import shutil

import pytest

from model.card import read_card, write_card
from pipeline.records import drift
from pipeline.records.record import Record
from pipeline.records.summary import COLLECTIONS, OTHERS, Summary
from tests.pipeline.conftest import make_archive

RANGES = {"confidence": [0.2, 0.5, 0.9], "colorfulness": [5, 20, 40]}


def record(key: str, confidence: float = 0.5, colorfulness: float = 20.0) -> Record:
    return Record(
        f"/a/{key}", key, outcome="colorized", run="now", confidence=confidence, colorfulness=colorfulness
    )


def test_only_the_collection_that_differs_is_named():
    summary = Summary()
    for number in range(drift.ENOUGH):
        summary.add(record(f"good/{number}"), "now")
        summary.add(record(f"pale/deep/{number}", colorfulness=2.0), "now")
        summary.add(record(f"{number}", confidence=0.1), "now")
    found = drift.drift(summary.to_dict()["collections"], RANGES, RANGES)
    assert [(entry["collection"], entry["figure"]) for entry in found] == [
        ("", "confidence"),
        ("pale", "colorfulness"),
    ]
    assert found[1]["median"] == pytest.approx(2, rel=0.03)
    words = drift.describe(found)
    assert "(no folder): median confidence 0.101, not 0.2 to 0.9 (30 scans)" in words
    assert "pale: median colourfulness 2, not 5 to 40 (30 scans)" in words


def test_few_scans_or_a_card_without_ranges_give_no_warning():
    summary = Summary()
    for number in range(drift.ENOUGH - 1):
        summary.add(record(f"a/{number}", confidence=0.0), "now")
    collections = summary.to_dict()["collections"]
    assert drift.drift(collections, RANGES, RANGES) == []
    summary.add(record("a/last", confidence=0.0), "now")
    collections = summary.to_dict()["collections"]
    assert len(drift.drift(collections, RANGES, RANGES)) == 1
    assert drift.drift(collections, {}, RANGES) == []
    assert drift.drift(collections, RANGES, ["colorfulness"]) == []


def test_any_number_of_collections_takes_bounded_memory():
    parts = [Summary(), Summary()]
    for number in range(3 * COLLECTIONS):
        parts[number % 2].add(record(f"{number}/a"), "now")
    merged = Summary().merge(parts)
    assert len(merged.collections) == COLLECTIONS + 1
    assert sum(figures["confidence"].counts.total() for figures in merged.collections.values()) == 600
    assert merged.collections[OTHERS]["confidence"].counts.total() == 2 * COLLECTIONS


def test_a_job_warns_of_drift(colorize, model, tmp_path):
    other = tmp_path / "model"
    shutil.copytree(model, other)
    write_card(other, dataclasses.replace(read_card(other), ranges={"confidence": [0.99, 0.995, 1.0]}))
    archive = make_archive(tmp_path / "in" / "prints", drift.ENOUGH)
    run = colorize(archive.parent, tmp_path / "out", "--model", str(other))
    assert run.code == 0
    assert "look at these collections" in run.out
    (entry,) = run.summary["drift"]
    assert (entry["collection"], entry["figure"], entry["scans"]) == ("prints", "confidence", drift.ENOUGH)
    again = colorize(archive.parent, tmp_path / "out", "--model", str(other))
    assert again.summary["drift"] == []  # nothing was coloured in this run
