"""The metadata of the Flex Template agree with the options of the job."""

import argparse
import json
import re

import pytest

from infra import flex_template
from pipeline.batch import options

PARAMETERS = {parameter["name"]: parameter for parameter in flex_template.metadata()["parameters"]}


def test_the_file_for_terraform_is_up_to_date(capsys):
    assert flex_template.main(["--check"]) == 0, capsys.readouterr().err


def test_a_file_that_is_out_of_date_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flex_template, "FILE", tmp_path / "metadata.json")
    assert flex_template.main(["--check"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert flex_template.main([]) == flex_template.main(["--check"]) == 0
    assert json.loads(flex_template.FILE.read_text()) == flex_template.metadata()


def test_every_option_is_a_parameter_or_is_left_out_with_a_reason():
    names = {action.dest for action in flex_template.actions()}
    assert len(names) > 15
    assert PARAMETERS.keys() | flex_template.LEFT_OUT.keys() == names
    assert PARAMETERS.keys() & flex_template.LEFT_OUT.keys() == set()


def test_flags_are_left_out():
    """A launch passes NAME=VALUE, which a flag refuses."""
    flags = {action.dest for action in flex_template.actions() if action.nargs == 0}
    assert flags and flags <= flex_template.LEFT_OUT.keys()


def test_parameters_have_what_dataflow_asks_for():
    required = {name for name, parameter in PARAMETERS.items() if not parameter["isOptional"]}
    assert required == {"input", "output"}
    for parameter in PARAMETERS.values():
        assert parameter["label"] and parameter["helpText"].endswith(".")
        assert set(parameter) <= {"name", "label", "helpText", "isOptional", "regexes"}


EXAMPLES = {
    "place": (
        ["gs://bucket", "gs://bucket/box 1/**/*.tif", "s3://bucket/a.jsonl"],
        ["/scans", "bucket/scans", ""],
    ),
    "number": (["0", "0.5", ".5", "12"], ["-1", "half", "", "1e3"]),
    "whole": (["0", "12"], ["1.5", "-1", "many", ""]),
    "text_line": (["Archiv Zürich", "x"], [""]),
    "_date": (["2026-12-02"], ["today", "2026-12", ""]),
    "_digests": (["md5", "md5,sha512"], ["crc32", ""]),
}


@pytest.mark.parametrize(
    "action", [a for a in flex_template.actions() if a.dest in PARAMETERS], ids=lambda a: a.dest
)
def test_expressions_accept_what_the_job_accepts(action: argparse.Action):
    (pattern,) = PARAMETERS[action.dest]["regexes"]
    if action.choices:
        good, bad = list(action.choices), ["", f"{action.choices[0]}x"]
    else:
        good, bad = EXAMPLES["place" if action.dest in flex_template.PLACES else action.type.__name__]
    assert [text for text in good if not re.fullmatch(pattern, text)] == []
    assert [text for text in bad if re.fullmatch(pattern, text)] == []


def test_a_default_is_accepted_by_its_expression():
    for action in options.parser()._actions:
        if action.dest in PARAMETERS and action.default not in (None, ()):
            assert re.fullmatch(PARAMETERS[action.dest]["regexes"][0], str(action.default)), action.dest
