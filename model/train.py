"""Trains a network on photographs or records and exports it: `python -m model.train --photos photos --output run`.

Two CPU cores process about 60 pictures a second at the default sizes. A killed run continues at its last
checkpoint, which is at most a minute old. A finished run is only exported and reported again.
"""

import argparse
import functools
import json
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

from model.training.options import Options, OptionsError, add_arguments, from_arguments

DEFAULTS = Options()
_KEPT = 0.05  # share of the initial weights in an average that is not worth a warning
SAMPLE = 2000  # records of each split that are held as photographs, for bins, calibration and the report


def parser() -> argparse.ArgumentParser:
    """The command line. Its defaults are those of `Options`."""
    result = argparse.ArgumentParser(
        prog="python -m model.train",
        description="Train a network on photographs, export it, and report it against three controls.",
        epilog="The same command continues a killed run, and exports and reports a finished run again.",
    )
    material = result.add_mutually_exclusive_group(required=True)
    material.add_argument("--photos", metavar="DIR", help="photographs; sub-folders are collections")
    material.add_argument("--records", metavar="DIR", help="Lab TFRecords in Split-train, -validation, -test")
    result.add_argument(
        "--output", required=True, metavar="DIR", help="folder of the run: checkpoints, report, model/"
    )
    base = result.add_mutually_exclusive_group()
    base.add_argument(
        "--warm",
        metavar="DIR",
        help="exported model to start from; the run also takes over its bins and held-out photographs",
    )
    base.add_argument(
        "--like", metavar="DIR", help="exported model whose bins and held-out photographs the run takes over"
    )
    add_arguments(result)
    result.add_argument("--name", help="name of the model (default: that of the network)")
    result.add_argument("--version", default="1", help="version of the model (default: %(default)s)")
    result.add_argument("--limits", nargs="+", metavar="SENTENCE", help="what it does badly, for the card")
    result.add_argument(
        "--terms", metavar="FILE", help="training data and terms of use, for the card and a licence note"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model.card import CardError
    from model.data.photos import PhotosError
    from model.networks.extractors import ExtractorError
    from model.training.adversarial import StateError
    from model.training.run_folder import RunError
    from model.training.warm_start import WarmStartError

    try:
        _train(arguments, from_arguments(arguments))
    except (
        PhotosError,
        OptionsError,
        RunError,
        StateError,
        CardError,
        WarmStartError,
        ExtractorError,
    ) as error:
        print(f"model.train: {error}", file=sys.stderr)
        return 2
    return 0


def _train(arguments: argparse.Namespace, options: Options) -> None:
    import keras

    from model.data.photos import PhotosError
    from model.training import fit, objectives, run_folder
    from model.training.curves import Curves
    from model.training.progress import RunProgress

    objectives.check(options)
    if not run_folder.is_begun(Path(arguments.output)):
        objectives.require_weights(options)
    run_folder.begin(options, Path(arguments.output), arguments.warm or arguments.like)
    callbacks = (RunProgress(options), Curves(Path(arguments.output) / run_folder.HISTORY))
    terms = "Terms of the training data: not stated." if arguments.terms is None else _text(arguments.terms)
    photos, counts, batches = (
        _from_records(arguments, options) if arguments.records else _from_photos(arguments)
    )
    if not photos.train:
        raise PhotosError(
            f"too few photographs in {arguments.photos or arguments.records}: none is left for training"
        )
    unknown = set(options.weights) - set(counts["train"])
    if unknown:
        names = ", ".join(sorted(unknown))
        raise OptionsError(f"--weights: {arguments.photos or arguments.records} has no collection {names}")
    parts = ", ".join(f"{sum(by_collection.values())} for {part}" for part, by_collection in counts.items())
    left_out = f"{sum(photos.grey.values())} grey, {sum(photos.broken.values())} unreadable"
    print(f"photographs: {parts}; left out: {left_out}")
    if options.kept > _KEPT:
        words = f"--average {options.average:g} keeps {options.kept:.0%} of the initial weights in the exported model"
        print(f"{words}; choose a lower one, or train longer")
    fit.train(
        photos,
        options,
        arguments.output,
        callbacks,
        batches=batches,
        warm=arguments.warm,
        like=arguments.like,
    )
    if keras.backend.backend() == "tensorflow":
        _release(photos, counts, arguments, options, terms)
    else:
        print(f"trained: {arguments.output}")
        print("run the same command with KERAS_BACKEND=tensorflow to export and report the model")


def _from_photos(arguments: argparse.Namespace):
    """Returns photographs, their number by split and collection, and None: batches are made from the photographs."""
    from model.data.photos import read_photos, unseen
    from model.training.run_folder import MODEL
    from pipeline.photographs.splits import PARTS

    models = [arguments.warm, arguments.like, arguments.teacher and str(Path(arguments.teacher, MODEL))]
    held_out = functools.reduce(unseen, map(_held_out, filter(None, models))) if any(models) else None
    photos = read_photos(arguments.photos, held_out=held_out)
    return (
        photos,
        {part: Counter(photo.collection for photo in getattr(photos, part)) for part in PARTS},
        None,
    )


def _held_out(model: str) -> dict[str, list[str]]:
    from model.data.photos import HELD_OUT
    from model.training.warm_start import WarmStartError
    from pipeline.photographs.splits import PARTS

    try:
        parts = json.loads(Path(model, HELD_OUT).read_text(encoding="utf-8"))
        return {part: parts[part] for part in PARTS[1:]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WarmStartError(
            f"{Path(model, HELD_OUT)} does not list the photographs that the model has not seen ({error!r}); name the "
            "folder of an exported model or, for --teacher, of an exported run (its own command exports it)"
        ) from None


def _from_records(arguments: argparse.Namespace, options: Options):
    """Returns a sample of the records as photographs, the number of all by split and collection, and a batch maker."""
    from model.data import records
    from model.data.photos import Photos
    from pipeline.photographs.splits import PARTS

    patterns = {part: [str(Path(arguments.records) / f"Split-{part}" / "*")] for part in PARTS}
    samples = {part: records.read_photos(patterns[part], SAMPLE) for part in PARTS}
    counts = {part: records.count(patterns[part]) for part in PARTS}
    batches = functools.partial(records.training_batches, patterns["train"], weights=options.weights)
    return Photos(**samples, grey={}, broken={}), counts, batches


def _release(photos, counts: dict, arguments: argparse.Namespace, options: Options, terms: str) -> None:
    from model import release

    started = time.monotonic()
    report = release.release(
        photos,
        options,
        arguments.output,
        name=arguments.name or options.network.replace("_", "-"),
        version=arguments.version,
        command=_command(arguments),
        terms=terms,
        counts=counts,
        limits=arguments.limits or (),
    )
    model = Path(arguments.output) / release.MODEL
    print(f"exported and reported in {time.monotonic() - started:.0f} s: {model}")
    print(release.table(report))


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"cannot read --terms {file}: {error}") from None


def _command(arguments: argparse.Namespace) -> str:
    """The training command without parent folders: it is published in the card, and the paths of a disk are private."""
    words = ["python", "-m", "model.train"]
    for name, value in vars(arguments).items():
        if value is None or value == getattr(DEFAULTS, name, None):
            continue
        if name in ("photos", "records", "output", "terms", "warm", "like", "teacher"):
            value = Path(value).name
        if name == "layers":
            value = _without_folders(value)
        words.append(f"--{name}")
        if isinstance(value, dict):
            words.append(json.dumps(value))
        elif isinstance(value, list):
            words += [f"{item[0]}={item[1]:g}" if isinstance(item, tuple) else str(item) for item in value]
        else:
            words.append(str(value))
    return shlex.join(words)


def _without_folders(layers: dict) -> dict:
    """The same fields, with files of weights reduced to their names."""
    inner = {name: _without_folders(value) for name, value in layers.items() if isinstance(value, dict)}
    files = {"weights": Path(layers["weights"]).name} if "weights" in layers else {}
    return layers | inner | files


if __name__ == "__main__":
    sys.exit(main())
