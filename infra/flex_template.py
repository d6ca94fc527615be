"""The metadata of the Flex Template: which options of the job a launch can set.

`python -m infra.flex_template` writes them to `infra/terraform/metadata.json`, from where Terraform takes them. With
`--check` it only says whether that file is up to date.
"""

import argparse
import json
import sys
from pathlib import Path

from pipeline.batch import options

FILE = Path(__file__).parent / "terraform" / "metadata.json"
REQUIRED = {"input", "output"}
PLACES = {
    "input",
    "output",
    "model",
    "hints",
    "c2pa_key",
    "c2pa_certificate",
}  # local paths would be those of the launcher's container

# A launch passes NAME=VALUE, so flags cannot be set. These would not be wanted anyway:
LEFT_OUT = {
    "bag": "the launcher does not wait for the end of the job, so it cannot complete a bag",
    "premis": "nor can it write PREMIS at the end",
    "allow_unblessed": "nobody looks at a nightly run: it takes models that passed their gates",
    "dry_run": "a launch that describes no job fails",
    "workers_share_files": "the workers of Dataflow share no files with the launcher",
}


# By the function that parses the option.
_PATTERNS = {
    "number": r"^\d*\.?\d+$",
    "whole": r"^\d+$",
    "text_line": "^.+$",
    "_date": r"^\d{4}-\d\d-\d\d$",
    "_digests": "^(md5|sha512|sha256)(,(md5|sha512|sha256))*$",
}


def metadata() -> dict:
    """The metadata, in the form that `gcloud dataflow flex-template build --metadata-file` reads."""
    return {
        "name": "archive-colorize",
        "description": options.DESCRIPTION.split(". ")[0] + ".",
        "parameters": [_parameter(action) for action in actions() if action.dest not in LEFT_OUT],
    }


def actions() -> list[argparse.Action]:
    """The options of the job, without `--help`."""
    return [action for action in options.parser()._actions if action.dest != "help"]


def _parameter(action: argparse.Action) -> dict:
    name, words = action.dest, " ".join((action.help or "").replace("%%", "%").split())
    parameter: dict = {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "helpText": words[0].upper() + words[1:] + ".",
        "isOptional": name not in REQUIRED,
    }
    if pattern := _pattern(action):
        parameter["regexes"] = [pattern]
    return parameter


def _pattern(action: argparse.Action) -> str:
    """Expression for the whole value. Bounds of numbers are checked by the job, in one line."""
    if action.dest in PLACES:
        return "^(gs|s3)://[^/]+(/.*)?$"
    if action.choices:
        return f"^({'|'.join(action.choices)})$"
    return _PATTERNS.get(getattr(action.type, "__name__", ""), "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.flex_template", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the file is out of date"
    )
    chosen = parser.parse_args(argv)
    text = json.dumps(metadata(), indent=2, ensure_ascii=False) + "\n"
    if not chosen.check:
        FILE.write_text(text, encoding="utf-8")
    elif not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
        print(f"{FILE.name} is out of date: run python -m infra.flex_template", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
