"""The record of a scan as a line of a manifest."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.record import SKIPS, Outcome, Reason, Record, Refusal

TEXT = st.text(st.characters())  # with lone surrogates, as in the names of files that are not UTF-8
VALUES = {
    str: TEXT,
    int: st.integers(),
    float | None: st.none() | st.floats(allow_nan=False),
    tuple[str, ...]: st.lists(TEXT).map(tuple),
}
RECORDS = st.builds(
    Record,
    **{field.name: VALUES[field.type] for field in dataclasses.fields(Record)}
    | {"source": st.text(st.characters(), min_size=1)},
)


@given(RECORDS)
def test_a_record_survives_its_line(record):
    assert Record.from_json(record.to_json()) == record


@given(RECORDS)
def test_a_record_is_one_line_of_ascii(record):
    assert record.to_json().isascii()
    assert len(record.to_json().splitlines()) == 1


def test_columns_of_somebody_elses_inventory_do_no_harm():
    line = '{"source": "a.tif", "shelf": "IV/3", "width": "640 px", "model": 7, "confidence": true}'
    assert Record.from_json(line) == Record("a.tif", "")


@pytest.mark.parametrize(
    "neighbors", ["[1]", '["a.tif", null]', '[["a.tif"]]', '{"a.tif": 1}', '"a.tif"', "3"]
)
def test_neighbours_are_a_list_of_texts(neighbors):
    assert Record.from_json(f'{{"source": "b.tif", "neighbors": {neighbors}}}').neighbors == ()


@pytest.mark.parametrize("group", ["null", '""'])
def test_a_line_may_have_no_group(group):
    assert not Record.from_json(f'{{"source": "b.tif", "group": {group}}}').group


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '"a.tif"',
        "{}",
        '{"source": ""}',
        '{"source": 3}',
        b"\xff",
        '{"source": "a.tif", "key": 3}',
        '{"source": "a.tif", "group": 6}',
        '{"source": "a.tif", "group": 0}',
        '{"source": "a.tif", "group": false}',
        '{"source": "a.tif", "group": []}',
    ],
)
def test_an_invalid_line_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(line)


def test_the_fields_of_the_contract_are_all_there():
    contract = """source key source_bytes source_sha256 outcome reason detail derivative derivative_bytes
        derivative_sha256 width height model model_version model_sha256 confidence colorfulness milliseconds
        finished options_sha256 hints_sha256 run schema"""
    assert set(contract.split()) <= set(json.loads(Record("a", "a").to_json()))


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason])
def test_refusals_without_a_fault_count_as_skipped(reason):
    skipped = {"already_color", "low_confidence", "not_an_image", "blank_page", "line_drawing", "negative"}
    skipped |= {"grey", "clip_art", "text_page", "duplicate", "near_duplicate"}  # reasons of the ingestion
    expected = Outcome.SKIPPED if reason in skipped else Outcome.FAILED
    assert Refusal(reason, "words").outcome == expected
    assert (reason in SKIPS) == (reason in skipped)
