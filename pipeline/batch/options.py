"""The options of the job: read, checked and explained in one place, without loading Beam."""

import argparse
import os

from pipeline.collections import EXTENSIONS

DESCRIPTION = """\
Colourises a collection of grey scans. Masters are read, never written; every scan ends as one record in
OUTPUT/manifest, and a run that was stopped goes on where it was when the same command is given again."""

EPILOG = """\
the collection
  FOLDER            every file below it; names that begin with a dot are left out
  'GLOB'            such as 'scans/**/*.tif' (quoted, so that the shell leaves it alone)
  gs://BUCKET/PATH  every object below it; may be a glob as well
  FILE.jsonl        a manifest: one JSON object a line with "source" and, if wanted, "key"; a relative source
                    lies below the manifest's folder; what the job itself writes will do, such as
                    OUTPUT/dead_letters.jsonl

hints, of the scan box/a.tif for example
  DIR/box/a.tif.txt  lines `x y colour`: pixels from the upper left corner of the upright scan, and #rrggbb or a
                     CSS name; a line that begins with # is a remark
  DIR/box/a.tif.png  a picture of the scan's size: a grey copy with marks painted in colour, or transparent but
                     for the marks

what comes out
  OUTPUT/KEY_color.jpg   the derivative of the scan KEY (its path in the collection, extension included)
  OUTPUT/manifest/       a record a scan: outcome, reason, checksums, model, confidence
  OUTPUT/gallery/        before and after, for people
  OUTPUT/summary.json, OUTPUT/dead_letters.jsonl
  One job at a time writes to an OUTPUT; a second one stops before any work.

where it runs
  On this machine, with all its cores, unless a --runner is given. Every option of Apache Beam and of the
  runner is understood: --runner=DataflowRunner --project=... --region=... --temp_location=gs://...,
  --runner=FlinkRunner --flink_master=..., --direct_num_workers=1.

other commands
  archive-colorize status OUTPUT             what the manifest says, counted
  archive-colorize models ROOT               the pushed models, and which is in use
  archive-colorize rollback ROOT [VERSION]   takes the one before, or any, into use

exit codes
  0  every scan has its record (single scans may have failed: see the summary)
  1  the job could not go on, or more scans failed than --max_failures allows
  2  nothing was done: an option or the input is wrong
  130, 143  stopped by SIGINT or SIGTERM, at any moment; what was begun was finished

The model that ships with this program was trained on photographs whose terms allow research use only; see the
licence note beside its weights before you publish what it makes, or train your own (python -m model.train).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the job's options; also what Beam's PipelineOptions shows for them."""
    work = parser.add_argument_group("what to do")
    work.add_argument(
        "--input", metavar="SRC", help="the collection: a folder, a glob, gs://... or a manifest"
    )
    work.add_argument(
        "--output", metavar="DST", help="where derivatives go: a folder or gs://..., not in SRC"
    )
    work.add_argument(
        "--model",
        metavar="M",
        help="folder of an exported model, or of pushed models, of which the one in use is taken; local or gs:// "
        "(default: the one that ships with this program)",
    )
    work.add_argument(
        "--allow_unblessed",
        action="store_true",
        help="take a model that did not pass every gate of its training pipeline",
    )
    work.add_argument(
        "--dry_run", action="store_true", help="list what would be done and why, and do nothing"
    )
    work.add_argument(
        "--on_existing",
        choices=("skip", "stale", "replace"),
        default="stale",
        help="scans with a result: leave all (skip), redo those whose source, model, options or hints have "
        "changed (stale, the default), or redo all (replace). Failed scans are always tried again",
    )

    look = parser.add_argument_group("how derivatives look")
    look.add_argument(
        "--strength",
        type=_number(0, 3),
        metavar="X",
        help="factor on the network's chroma, 0 to 3 (default: what the model's card advises)",
    )
    look.add_argument(
        "--hints",
        metavar="DIR",
        help="colours that you give for single scans: a folder, local or gs://, with KEY.txt or KEY.png for the scan "
        "KEY (see below); scans whose hints are new, changed or gone are done again",
    )
    look.add_argument(
        "--format",
        choices=tuple(EXTENSIONS),
        default="jpeg",
        help="of derivatives (default: jpeg, which keeps the coded luminance of a grey JPEG master "
        "byte for byte)",
    )
    look.add_argument(
        "--quality", type=_whole(1, 100), default=90, metavar="Q", help="of JPEG, 1 to 100 (default: 90)"
    )

    which = parser.add_argument_group("which scans get one")
    which.add_argument(
        "--min_confidence",
        type=_number(0, 1),
        default=0.0,
        metavar="C",
        help="withhold derivatives that the model is less sure of, 0 to 1 (default: 0, none)",
    )
    which.add_argument(
        "--color_scans",
        choices=("skip", "colorize"),
        default="skip",
        help="pictures that have colour already; a tint or sepia tone does not count (default: skip)",
    )
    which.add_argument(
        "--max_pixels",
        type=_whole(1, 2_000_000_000),
        default=250_000_000,
        metavar="N",
        help="refuse larger scans (default: 250000000)",
    )

    running = parser.add_argument_group("how the job runs")
    running.add_argument(
        "--max_failures",
        type=_number(0, 1),
        default=1.0,
        metavar="R",
        help="exit with 1 if a larger share of the scans failed, 0 to 1 (default: 1, never)",
    )
    running.add_argument(
        "--batch_size",
        type=_whole(1, 4096),
        default=8,
        metavar="N",
        help="views that the network gets at a time (default: 8; on a GPU rather 64)",
    )
    running.add_argument(
        "--max_batch_pixels",
        type=_whole(1, 10**12),
        default=400_000_000,
        metavar="N",
        help="pixels of scans held in memory for a batch (default: 400000000)",
    )
    running.add_argument(
        "--codec_timeout",
        type=_number(1, 86_400),
        default=120.0,
        metavar="S",
        help="seconds for one scan's decoding or encoding, plus one a megapixel (default: 120)",
    )
    running.add_argument(
        "--gallery_size",
        type=_whole(0, 100_000),
        default=240,
        metavar="N",
        help="pictures in the gallery, the least sure first; 0 for none (default: 240)",
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archive-colorize",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        usage="archive-colorize --input SRC --output DST [option ...] [Beam option ...]",
        formatter_class=_Formatter,
    )
    add_arguments(parser)
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=min(110, _terminal_width()))


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((110, 24)).columns - 2 if "COLUMNS" in os.environ or os.isatty(1) else 110


def _number(low: float, high: float):
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return number


def _whole(low: int, high: int):
    def whole(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return whole
