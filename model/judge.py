"""Judges a model on your own colour originals: the figures of the model card, on your pictures.

    python -m model.judge --photos originals.jsonl /more/originals --output judgement

The originals are read and not kept. A manifest can name the collection, era and labels of each; every value with five
pictures or more gets a line. Pictures with which a model was trained flatter it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from model import MODELS, folder_of
from model.card import CardError, read_card
from model.files import replacing
from pipeline.console import Pace
from pipeline.errors import JobError

REPORT, TABLE, SHEET = "judgement.json", "judgement.txt", "judgement.jpg"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m model.judge",
        description="Measure a model on colour originals, by collection, era, label and skin tone.",
        epilog=f"Below --output: {TABLE} has the main figures, {REPORT} all of them with 95% intervals, {SHEET} twelve "
        "pictures: grey, coloured, original.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add(
        "--photos",
        required=True,
        nargs="+",
        metavar="SRC",
        help="folders, globs, gs://..., s3://... or manifests",
    )
    add("--output", required=True, metavar="DIR", help="folder for the figures and the pictures")
    add("--model", metavar="DIR", help=f"an exported model, or {' or '.join(MODELS)} (default: {MODELS[0]})")
    add(
        "--strength",
        type=float,
        metavar="X",
        help="factor on chroma, 0 to 3 (default: from the model card, as in the batch job)",
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    chosen = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return _judge(chosen)
    except (JobError, CardError, OSError) as error:
        print(f"model.judge: {error}", file=sys.stderr)
        return 2


def _judge(chosen: argparse.Namespace) -> int:
    folder = folder_of(chosen.model or MODELS[0])
    card = read_card(folder)
    strength = card.default_strength if chosen.strength is None else chosen.strength
    if not 0 <= strength <= 3:
        raise JobError(f"--strength must be between 0 and 3, got {strength:g}")
    output = Path(chosen.output)
    output.mkdir(parents=True, exist_ok=True)
    from model import serving
    from model.measuring import judgement
    from model.training.options import write_json

    started = time.monotonic()
    originals, left_out = judgement.read_originals(chosen.photos, done=Pace("originals"))
    if not originals:
        raise JobError(f"no colour photographs in {' '.join(chosen.photos)}")
    words = "".join(
        f", {count:,} left out ({reason.replace('_', ' ')})" for reason, count in left_out.items()
    )
    print(f"{len(originals):,} originals{words}", flush=True)
    predictor = serving.load(folder, card.default_calm or 0.0)
    print("measuring ...", flush=True)
    report = judgement.judge(originals, card.size, predictor, strength)
    report |= {"model": card.name, "version": card.version, "left_out": dict(left_out)}
    text = judgement.table(report)
    write_json(output / REPORT, report)
    with replacing(output / TABLE) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    with replacing(output / SHEET) as partial:
        judgement.sheet(originals, card.size, predictor, strength).save(partial, "JPEG", quality=90)
    print(f"{text}\n\n{time.monotonic() - started:.0f} s; look at the pictures in {output / SHEET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
