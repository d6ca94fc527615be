"""Compares all networks and the traditional methods.

    python -m model.compare --photos photographs --output comparison --budget 10

Every network is trained for the same time on the same photographs. The same command continues a comparison that was
interrupted. `comparison.md` and `comparison.jpg` are updated after each row.
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

from model.training.options import Options, OptionsError, defaults, write_json

EPOCHS = 10  # points of a learning curve, if the first estimate of the pace is right
WARM, TIMED = 3, 8  # steps before the measurement of the pace, and steps in it
SECONDS, SIZE = "seconds.json", 128  # SIZE: pixels, for training and for the comparison
FEW = 200  # largest number of photographs from one collection


@dataclass(frozen=True)
class Entry:
    """A row of the comparison: a network with its options.

    `extractor` names a classifier whose ImageNet weights it needs.
    """

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
    add(
        "--output", required=True, metavar="DIR", help="folder for the runs, comparison.md and comparison.jpg"
    )
    add("--budget", required=True, type=float, metavar="MINUTES", help="training time of each network")
    add("--only", nargs="+", metavar="ROW", help="rows to train now (default: all)")
    add("--sheet", metavar="DIR", help="photographs for comparison.jpg (default: twelve test photographs)")
    add("--weights", metavar="DIR", help="folder with NAME.weights.h5 of extractors (default: downloads)")
    add("--batch", type=int, default=16, help="pictures per batch; GANs always take 4 (default: 16)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model.data.photos import PhotosError
    from model.training.adversarial import StateError
    from model.training.run_folder import RunError

    try:
        _compare(arguments)
    except (PhotosError, OptionsError, RunError, StateError) as error:
        print(f"model.compare: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(arguments: argparse.Namespace) -> None:
    from model import default_model
    from model.data.photos import HELD_OUT, PhotosError, read_photos
    from model.measuring import comparison

    if not 0 < arguments.budget < math.inf:
        raise OptionsError(f"--budget must be a positive number of minutes, got {arguments.budget}")
    known = {entry.name for entry in ENTRIES}
    unknown = set(arguments.only or ()) - known
    if unknown:
        raise OptionsError(
            f"--only: unknown row {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}"
        )
    output = Path(arguments.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"--output {output} cannot be used as a folder: {error.strerror}") from None
    # The held-out photographs of the shipped model, so that it can be compared with the others.
    held_out = json.loads(Path(default_model(), HELD_OUT).read_text(encoding="utf-8"))
    photos = read_photos(arguments.photos, held_out=held_out)
    if not photos.test or not photos.validation:  # they are other photographs
        photos = read_photos(arguments.photos)
    if not photos.test or not photos.validation:
        raise PhotosError(f"too few photographs in {arguments.photos}: none is left for the test")
    photos = dataclasses.replace(photos, validation=_few(photos.validation), test=_few(photos.test))
    sheet = comparison.pictures_of(photos.test, arguments.sheet)
    comparison.require_same(output, photos, sheet, {"budget": arguments.budget, "batch": arguments.batch})
    comparison.write_controls(output, photos, sheet, SIZE)
    comparison.write(output, [entry.name for entry in ENTRIES], arguments.budget)
    for entry in ENTRIES:
        if arguments.only and entry.name not in arguments.only:
            continue
        folder = comparison.folder_of(output, entry.name)
        if comparison.is_done(folder):
            print(f"{entry.name}: finished already")
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
    """At most `FEW` photographs of each collection: those with the smallest digests, which is a random sample."""
    kept: list = []
    counts: dict[str, int] = {}
    for photo in sorted(photos, key=lambda photo: photo.digest):
        counts[photo.collection] = counts.get(photo.collection, 0) + 1
        if counts[photo.collection] <= FEW:
            kept.append(photo)
    return kept


def _missing(entry: Entry, weights: str | None) -> str:
    """Why a row cannot be run (its ImageNet weights are missing); empty if it can."""
    if not entry.extractor:
        return ""
    from model.networks import extractors

    try:
        extractors.build(entry.extractor, _file(entry, weights), "logits")
    except extractors.ExtractorError as error:
        return str(error)
    return ""


def _file(entry: Entry, weights: str | None) -> str:
    """The file of the extractor's weights, or `imagenet` to download them."""
    file = Path(weights or "", f"{entry.extractor}.weights.h5")
    return str(file) if weights and file.is_file() else "imagenet"


def _options(entry: Entry, arguments: argparse.Namespace, photos, folder: Path) -> Options:
    """Options of a row: those of its run, or for a new run as many steps as fit into the budget."""
    from model.training import run_folder

    if (folder / run_folder.OPTIONS).is_file():
        return run_folder.options_of(folder)
    # Bins are decoded to the mean, which is what regression networks learn.
    same = {
        "batch": arguments.batch,
        "sizes": (SIZE,),
        "size": SIZE,
        "gain": 1.0,
        "temperature": 1.0,
        "debias": 1.0,
    }
    options = dataclasses.replace(defaults(entry.network), **(same | entry.options))
    if entry.extractor:
        layers = {"extractor": entry.extractor, "weights": _file(entry, arguments.weights)}
        options = dataclasses.replace(options, layers=layers)
    steps = int(60 * arguments.budget / _seconds_a_step(photos, options))
    return dataclasses.replace(options, epochs=EPOCHS, steps=max(1, steps // EPOCHS))


def _seconds_a_step(photos, options: Options) -> float:
    from model.training import fit

    stamps: list[float] = []
    short = dataclasses.replace(options, epochs=1, steps=WARM + TIMED)
    some = dataclasses.replace(photos, train=photos.train[:FEW], validation=[], test=[])
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        fit.train(some, short, folder, (_each_batch(lambda: stamps.append(time.monotonic())),))
    return (stamps[-1] - stamps[-1 - TIMED]) / TIMED


def _trained(photos, options: Options, folder: Path, budget: float) -> tuple[Options, float]:
    """Trains a row for about `budget` seconds in all, including earlier parts of its run.

    Returns its options, with the number of epochs that fitted, and the seconds that it took.
    """
    from model.training import fit
    from model.training.progress import Pace, RunProgress

    some = dataclasses.replace(photos, validation=photos.validation[: FEW // 2])
    while True:
        pace = Pace(folder / SECONDS, budget, options.epochs)
        fit.train(some, options, str(folder), (RunProgress(options), pace))
        if pace.epochs == options.epochs:
            return options, pace.seconds
        options = dataclasses.replace(options, epochs=pace.epochs)


def _each_batch(act: Callable[[], None]):
    import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: act())


if __name__ == "__main__":
    sys.exit(main())
