"""Trains the networks of the field for the same time on the same photographs, and compares them with the ways before.

`python -m model.compare --photos photographs --output comparison --budget 10`

A row that is finished is not done again, and one that was killed goes on: the same command takes as many sittings as
it needs. `comparison.md` and `comparison.jpg` are written anew after each row.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from model.options import Options, OptionsError, own, write_json

EPOCHS = 10  # points of a learning curve, as far as the first guess of a row's pace is right
WARM, TIMED = 3, 8  # steps before the clock is trusted, and steps that it then measures
SECONDS, SIZE = "seconds.json", 128  # pixels that networks are trained and compared at
FEW = 200  # photographs of a collection that are enough for a figure


@dataclass(frozen=True)
class Entry:
    """A row: a network with its options. `extractor` names the ImageNet weights that it cannot do without."""

    name: str
    network: str
    options: dict = field(default_factory=dict)
    extractor: str = ""


ENTRIES = (
    Entry("alpha", "alpha"),
    Entry("beta", "beta"),
    Entry("beta, YUV", "beta", {"space": "yuv"}),
    Entry("beta, HSV", "beta", {"space": "hsv"}),
    Entry("beta, RGB", "beta", {"space": "rgb"}),
    Entry("fusion, joint branch", "fusion", {"layers": {"extractor": "joint"}}),
    Entry("fusion, Inception-ResNet-v2", "fusion", extractor="inception_resnet_v2"),
    Entry("fusion, ResNet50", "fusion", extractor="resnet50"),
    Entry("fusion, MobileNetV2", "fusion", extractor="mobilenet_v2"),
    Entry("fusion, MobileNetV3", "fusion", extractor="mobilenet_v3"),
    Entry("fusion, EfficientNet-Lite0", "fusion", extractor="efficientnet_lite0"),
    Entry("fusion-small", "fusion_small"),
    Entry("fusion-small on EfficientNet-Lite0", "fusion_small", extractor="efficientnet_lite0"),
    Entry("classification", "classification"),
    Entry("U-Net", "unet"),
    Entry("pix2pix", "gan", {"batch": 4}),
    Entry("GAN, multi-scale", "gan", {"batch": 4, "layers": {"variant": "multiscale"}}),
    Entry("GAN, beta as generator", "gan", {"batch": 4, "layers": {"generator": "beta"}}),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = ", ".join(entry.name for entry in ENTRIES)
    result = argparse.ArgumentParser(
        prog="python -m model.compare",
        description="Train each network for the same time on the same photographs, and compare them.",
        epilog=f"Rows: {names}. The same command goes on where it was stopped.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--photos", required=True, metavar="DIR", help="photographs; sub-folders are collections")
    add("--output", required=True, metavar="DIR", help="of the runs, comparison.md and comparison.jpg")
    add("--budget", required=True, type=float, metavar="MINUTES", help="of training, for each network")
    add("--only", nargs="+", metavar="ROW", help="rows to train now (default: all)")
    add("--sheet", metavar="DIR", help="photographs for the picture (default: twelve of the test part)")
    add("--weights", metavar="DIR", help="holds NAME.weights.h5 of extractors (default: by their names)")
    add("--batch", type=int, default=16, help="pictures a batch, but for GANs, which take 4 (default: 16)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 after one line about a user's mistake."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model.adversarial import StateError
    from model.photos import PhotosError
    from model.training import RunError

    try:
        _compare(arguments)
    except (PhotosError, OptionsError, RunError, StateError) as error:
        print(f"model.compare: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(arguments: argparse.Namespace) -> None:
    from model import comparison, default_model
    from model.photos import HELD_OUT, PARTS, PhotosError, read_photos

    if not 0 < arguments.budget < math.inf:
        raise OptionsError(f"--budget must be a positive number of minutes, got {arguments.budget}")
    known = {entry.name for entry in ENTRIES}
    unknown = set(arguments.only or ()) - known
    if unknown:
        raise OptionsError(
            f"--only: no row {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    output = Path(arguments.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"--output {output} can be no folder: {error.strerror}") from None
    # What the shipped model held out, so that it may stand beside the others.
    held_out = json.loads(Path(default_model(), HELD_OUT).read_text(encoding="utf-8"))
    photos = read_photos(arguments.photos, held_out=held_out)
    if not photos.test or not photos.validation:  # none of its photographs
        photos = read_photos(arguments.photos)
    if not photos.test or not photos.validation:
        raise PhotosError(f"too few photographs in {arguments.photos}: none is left to measure on")
    photos = dataclasses.replace(photos, **{part: _few(getattr(photos, part)) for part in PARTS[1:]})
    sheet = comparison.pictures_of(photos.test, arguments.sheet)
    comparison.require_same(output, photos, sheet, {"budget": arguments.budget, "batch": arguments.batch})
    comparison.write_controls(output, photos, sheet, SIZE)
    comparison.write(output, [entry.name for entry in ENTRIES], arguments.budget)
    for entry in ENTRIES:
        if arguments.only and entry.name not in arguments.only:
            continue
        folder = comparison.folder_of(output, entry.name)
        if comparison.is_done(folder):
            print(f"{entry.name}: done before")
            continue
        missing = _missing(entry, arguments.weights)
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            print(f"{entry.name}: not run: {missing}")
            write_json(folder / comparison.FIGURES, {"row": entry.name, "not_run": missing})
        else:
            options = _options(entry, arguments, photos, folder)
            print(
                f"{entry.name}: {options.epochs * options.steps} steps of {options.batch} pictures",
                flush=True,
            )
            options, seconds = _trained(photos, options, folder, 60 * arguments.budget)
            network = comparison.measured(folder, entry.name, options, photos, sheet, SIZE)
            write_json(
                folder / comparison.FIGURES,
                network | {"seconds": round(seconds), "steps": options.epochs * options.steps},
            )
        comparison.write(output, [one.name for one in ENTRIES], arguments.budget)
    print(f"compared: {output / comparison.TABLE}, {output / comparison.SHEET}")


def _few(photos: list) -> list:
    """At most `FEW` of each collection: those with the smallest digests, as good as drawn by lot."""
    kept, counts = [], {}
    for photo in sorted(photos, key=lambda photo: photo.digest):
        counts[photo.collection] = counts.get(photo.collection, 0) + 1
        if counts[photo.collection] <= FEW:
            kept.append(photo)
    return kept


def _missing(entry: Entry, weights: str | None) -> str:
    """Why a row cannot be run: its ImageNet weights are not to be had; empty where it can."""
    if not entry.extractor:
        return ""
    from model import extractors

    try:
        extractors.build(entry.extractor, _file(entry, weights), "logits")
    except extractors.ExtractorError as error:
        return str(error)
    return ""


def _file(entry: Entry, weights: str | None) -> str:
    """The extractor's file, or where there is none its name, by which its weights are fetched."""
    file = Path(weights or "", f"{entry.extractor}.weights.h5")
    return str(file) if weights and file.is_file() else "imagenet"


def _options(entry: Entry, arguments: argparse.Namespace, photos, folder: Path) -> Options:
    """The row's options: those it was begun with, or as many steps as fit into the budget here and now."""
    from model import training

    if (folder / training.OPTIONS).is_file():
        return training.options_of(folder)
    # Bins are decoded to the mean of what pixels are, as the networks that regress are taught.
    same = {
        "batch": arguments.batch,
        "sizes": (SIZE,),
        "size": SIZE,
        "gain": 1.0,
        "temperature": 1.0,
        "debias": 1.0,
    }
    options = dataclasses.replace(own(entry.network), **same, **entry.options)
    if entry.extractor:
        layers = {"extractor": entry.extractor, "weights": _file(entry, arguments.weights)}
        options = dataclasses.replace(options, layers=layers)
    steps = int(60 * arguments.budget / _seconds_a_step(photos, options))
    return dataclasses.replace(options, epochs=EPOCHS, steps=max(1, steps // EPOCHS))


def _seconds_a_step(photos, options: Options) -> float:
    from model import training

    stamps: list[float] = []
    short = dataclasses.replace(options, epochs=1, steps=WARM + TIMED)
    some = dataclasses.replace(photos, train=photos.train[:FEW], validation=[], test=[])
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        training.train(some, short, folder, (_each_batch(lambda: stamps.append(time.monotonic())),))
    return (stamps[-1] - stamps[-1 - TIMED]) / TIMED


def _trained(photos, options: Options, folder: Path, budget: float) -> tuple[Options, float]:
    """Trains the row for about `budget` seconds, those of earlier sittings included.

    Returns its options, with the epochs that fitted, and the seconds that it took.
    """
    from model import training
    from model.progress import Pace, RunProgress

    some = dataclasses.replace(photos, validation=photos.validation[: FEW // 2])
    while True:
        pace = Pace(folder / SECONDS, budget, options.epochs)
        training.train(some, options, str(folder), (RunProgress(options), pace))
        if pace.epochs == options.epochs:
            return options, pace.seconds
        options = dataclasses.replace(options, epochs=pace.epochs)


def _each_batch(act: Callable[[], None]):
    import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: act())


if __name__ == "__main__":
    sys.exit(main())
