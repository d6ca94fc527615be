"""Options of the job. They are read, checked and explained here, without loading Beam."""

import argparse
import os
import re
from datetime import date

from model import MODELS
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.imaging.mark import PLACES
from pipeline.inputs.item import EXTENSIONS, SAME
from pipeline.inputs.neighbors import FOLDER, STEM
from pipeline.records.record import DIGESTS, EMBEDDED, SIDECAR

LONGEST_TEXT = 2_000  # characters

DESCRIPTION = """\
Colourises a collection of grey scans. Masters are read, never written. Every scan gets one record in OUTPUT/manifest.
The same command continues a run that was stopped."""

EPILOG = """\
the collection
  FOLDER            all files below it, except those whose names begin with a dot
  'GLOB'            such as 'scans/**/*.tif' (in quotes, so that the shell does not expand it)
  BAG               a folder with bagit.txt (BagIt); each scan is compared with the manifests of the bag
  gs://BUCKET/PATH  all objects below it, in Cloud Storage or (s3://BUCKET/PATH) in S3; this can be a glob, too
  FILE.jsonl        a manifest: one JSON object per line with "source" and optionally "key" and "group"; relative
                    sources are relative to the folder of the manifest; OUTPUT/dead_letters.jsonl is one, too; a glob
                    such as 'gs://BUCKET/lists/*.jsonl' names several

hints, for example for the scan box/a.tif
  DIR/box/a.tif.txt  lines `x y colour`: pixels from the upper left corner of the upright scan, and #rrggbb or a
                     CSS name; lines that begin with # are comments
  DIR/box/a.tif.png  a picture with the size of the scan: a grey copy with marks painted in colour, or a transparent
                     picture with marks

output
  OUTPUT/KEY_color.jpg   the derivative of the scan KEY (its path in the collection, with the extension)
  OUTPUT/manifest/       a record for each scan: outcome, reason, checksums, model, confidence
  OUTPUT/gallery/        pictures before and after, for people
  OUTPUT/summary.json, OUTPUT/dead_letters.jsonl
  Only one job at a time can write to an OUTPUT; a second one stops before any work.

where it runs
  On this machine, on all its cores, unless you give a --runner. All options of Apache Beam and of the runner work:
  --runner=DataflowRunner --project=... --region=... --temp_location=gs://..., --runner=FlinkRunner
  --flink_master=..., --direct_num_workers=1.

other commands
  archive-colorize plan --input SRC ...      forecasts time, workers and cost (see archive-colorize plan --help)
  archive-colorize status OUTPUT             counts the records in the manifest
  archive-colorize verify OUTPUT [--masters] reads the derivatives again, and compares them with the manifest
  archive-colorize recover DERIVATIVE FILE   gives the grey JPEG master of a JPEG derivative back
  archive-colorize report OUTPUT             writes OUTPUT/report.html: what was done, by which model, what was refused
  archive-colorize stop OUTPUT               lets the job that writes to OUTPUT finish work in progress, and ends it
  archive-colorize models ROOT               lists the pushed models and marks the current one
  archive-colorize rollback ROOT [VERSION]   makes the previous model, or any other, the current one

exit codes
  0  every scan has its record; single scans may have failed, see the summary
  1  the job could not continue, or more scans failed than --max_failures allows; verify found something
  2  nothing was done, because an option or the input is wrong
  130, 143  stopped by SIGINT, or by SIGTERM or archive-colorize stop; work in progress was finished

The default model was trained on photographs whose terms allow research use only. Read the licence note beside its
weights before you publish its pictures, take --model open, which is free for any use and knows less, or train your
own model (python -m model.train).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the job to a parser."""
    work = parser.add_argument_group("what to do")
    work.add_argument(
        "--input", metavar="SRC", help="the collection: a folder, a glob, gs://..., s3://... or a manifest"
    )
    work.add_argument(
        "--output", metavar="DST", help="folder, gs://... or s3://... of the derivatives, not in SRC"
    )
    work.add_argument(
        "--model",
        metavar="M",
        help="folder of an exported model, or of pushed models, whose current one is taken, local, gs:// or s3://; or "
        f"a model that ships: {', '.join(MODELS)} (default: {MODELS[0]})",
    )
    work.add_argument(
        "--allow_unblessed",
        action="store_true",
        help="accept a model that did not pass all gates of its training pipeline",
    )
    work.add_argument("--dry_run", action="store_true", help="list what would be done, and why; do nothing")
    work.add_argument(
        "--on_existing",
        choices=("skip", "stale", "replace"),
        default="stale",
        help="scans that have a result: skip all (skip), repeat those whose source, model, options or hints have "
        "changed (stale, the default), or repeat all (replace); failed scans are always tried again",
    )

    look = parser.add_argument_group("how derivatives look")
    look.add_argument(
        "--strength",
        type=_number(0, 3),
        metavar="X",
        help="factor on the chroma of the network, 0 to 3 (default: from the model card)",
    )
    look.add_argument(
        "--calm",
        type=_number(0, 1),
        metavar="X",
        help="fade chroma where the model is less certain than this, 0 (never) to 1 (default: from the model card); "
        "the record has the share of chroma that was faded",
    )
    look.add_argument(
        "--hints",
        metavar="DIR",
        help="folder, local, gs:// or s3://, with colours for single scans: KEY.txt or KEY.png for the scan "
        "KEY (see below); scans with new, changed or deleted hints are repeated",
    )
    look.add_argument(
        "--group_by",
        choices=(FOLDER, STEM),
        help="film frames that belong together get steady colours: those in one folder, or those whose names in a "
        'folder differ in a number, or in a suffix for recto and verso, at their end; a "group" in a manifest '
        "counts first (default: only such a group)",
    )
    look.add_argument(
        "--format",
        choices=(*EXTENSIONS, SAME),
        default="jpeg",
        help="format of the derivatives; ptif is a pyramid of tiles, same is that of the master (default: jpeg, which "
        "keeps the coded luminance of grey JPEG masters byte for byte)",
    )
    look.add_argument(
        "--quality",
        type=_whole(1, 100),
        default=90,
        metavar="Q",
        help="quality of JPEG, WebP and JPEG 2000, 1 to 100; 100 is without loss for the last two (default: 90)",
    )
    look.add_argument(
        "--compression",
        choices=("lzw", "deflate", "none"),
        help="compression of TIFFs (default: lzw; JPEG for ptif, which has 8 bits then)",
    )

    which = parser.add_argument_group("which scans are colourised")
    which.add_argument(
        "--min_confidence",
        type=_number(0, 1),
        default=0.0,
        metavar="C",
        help="write no derivative below this confidence, 0 to 1 (default: 0)",
    )
    which.add_argument(
        "--color_scans",
        choices=("skip", "colorize"),
        default="skip",
        help="what to do with pictures that have colour; a tint or sepia tone does not count (default: skip)",
    )
    which.add_argument(
        "--layout",
        choices=("recognize", "alto", "whole"),
        default="recognize",
        help="find pictures inside of borders and among text, and skip pages that have none; or first ask the ALTO "
        "file NAME.xml beside a scan, if there is one; or take each scan whole as a picture (default: recognize)",
    )
    which.add_argument(
        "--negatives",
        choices=("ignore", "skip", "invert", "all"),
        default="ignore",
        help="look for negatives, and skip them or invert them to positives; all: every scan is a negative and is "
        "inverted (default: ignore)",
    )
    which.add_argument(
        "--max_pixels",
        type=_whole(1, 2_000_000_000),
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse larger scans (default: {MAX_PIXELS})",
    )

    work.add_argument(
        "--bag",
        action="store_true",
        help="write OUTPUT as a bag (BagIt, RFC 8493), with everything in OUTPUT/data",
    )
    work.add_argument(
        "--premis",
        action="store_true",
        help="write the records as PREMIS 3, too: OUTPUT/premis/*.xml",
    )

    says = parser.add_argument_group("what derivatives and records say")
    says.add_argument(
        "--date",
        type=_date,
        metavar="YYYY-MM-DD",
        help="date in the derivatives (default: the day, in UTC, on which the job starts); with the same date, the "
        "same work gives the same bytes",
    )
    says.add_argument(
        "--description",
        type=text_line,
        metavar="TEXT",
        help="added to the description of the master (dc:description)",
    )
    says.add_argument(
        "--credit",
        type=text_line,
        metavar="TEXT",
        help="credit line in place of that of the master (photoshop:Credit)",
    )
    says.add_argument(
        "--digests",
        type=_digests,
        default=(),
        metavar="LIST",
        help="digests of both files in the records, besides SHA-256: md5, sha512, or both with a comma",
    )

    says.add_argument(
        "--mark",
        type=text_line,
        metavar="TEXT",
        help="draw a visible mark on each derivative, such as 'Colourised by a model', in any script of DejaVu Sans; "
        "the coded luminance of grey JPEGs is then not kept",
    )
    says.add_argument(
        "--mark_place",
        choices=PLACES,
        help="corner of the mark, or a band below the picture (default: bottom-right)",
    )
    says.add_argument(
        "--c2pa_key",
        metavar="FILE",
        help="sign derivatives (Content Credentials, C2PA) with this private key: PEM without a password, local, gs:// "
        "or s3://",
    )
    says.add_argument(
        "--c2pa_certificate",
        metavar="FILE",
        help="the certificate of the key, and those of the authorities above it, PEM",
    )
    says.add_argument(
        "--c2pa",
        choices=(EMBEDDED, SIDECAR),
        help="where the signed manifest goes: into the derivative (embedded, the default), or into KEY_color.c2pa "
        "beside it (sidecar), which leaves the bytes of the derivative alone",
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
        metavar="N",
        help="views in a batch of the network (default: 8, or what suits the --gpu)",
    )
    running.add_argument(
        "--max_batch_pixels",
        type=_whole(1, 10**12),
        default=400_000_000,
        metavar="N",
        help="pixels of the scans that a worker holds in batches (default: 400000000, up to 4 bytes each; beside "
        "these a worker needs about 1 GB for TensorFlow and 0.1 GB for each codec)",
    )
    running.add_argument(
        "--codec_timeout",
        type=_number(1, 86_400),
        default=120.0,
        metavar="S",
        help="time limit in seconds for decoding or encoding a scan, plus one per megapixel (default: 120)",
    )
    running.add_argument(
        "--gpu",
        choices=("none", "t4", "l4", "a100", "h100"),
        help="GPU of the workers; on Dataflow it sets machine type, driver and codecs, everywhere the batch size; a "
        "worker that sees no GPU ends the job with one line",
    )
    running.add_argument(
        "--gpu_memory",
        type=_whole(1, 10**7),
        metavar="MB",
        help="memory of a GPU for each process that shares it (default: on this machine an equal part for each worker; "
        "elsewhere no limit)",
    )
    running.add_argument(
        "--threads",
        type=_whole(0, 1024),
        metavar="N",
        help="threads of the network in a worker, 0 for one on each core (default: on this machine, its cores divided "
        "by its workers; elsewhere 1)",
    )
    running.add_argument(
        "--workers_share_files",
        action="store_true",
        help="with a --runner whose workers are on other machines: they have the local paths mounted, too",
    )
    running.add_argument(
        "--gallery_size",
        type=_whole(0, 100_000),
        default=240,
        metavar="N",
        help="scans in the gallery, those with the lowest confidence first; 0 for no gallery (default: 240)",
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


def text_line(text: str) -> str:
    """Checks a text of one line, which goes into XML. Raises ArgumentTypeError."""
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_TEXT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a line of 1 to {LONGEST_TEXT} printable characters"
        )
    return text.strip()


def _date(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-12-02")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: {error}") from error


def _digests(text: str) -> tuple[str, ...]:
    names = {name.strip().lower().replace("-", "") for name in text.split(",")}
    if not names <= {*DIGESTS, "sha256"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(DIGESTS)}")
    return tuple(sorted(names - {"sha256"}))


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
