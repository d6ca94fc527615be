"""From a finished run to a model one can ship: calibrated on validation, exported, reported on test, with its card."""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from model import evaluation, objectives, serving, training
from model.bins import BINS
from model.card import ModelCard, read_card, weights_sha256, write_card
from model.options import Options, write_json
from model.photos import HELD_OUT, PARTS, Photos, held_out
from model.training import MODEL

REPORT, LICENSE = "report.json", "LICENSE.txt"
CONFIDENCE = "c means that a share c of the validation pictures was less sure, that is, "
SPREAD = (
    "had a larger expected error: the root mean square distance of the chroma bins from their mean, under the "
    "bins' distribution"
)
PALENESS = "got less chroma: a network that regresses shrinks towards grey what it is unsure of"
GUESSES = "Colours are plausible guesses, not findings: no historical claim follows from them."
CLEAN = "Clean modern photographs were seen in training, no damaged, faded or hand-tinted ones."
AGED = (
    "Modern photographs were seen in training, a share of {:.0%} of them made to look faded, grainy and blurred; "
    "no real old print, no damaged or hand-tinted one."
)


def release(
    photos: Photos,
    options: Options,
    output: str,
    *,
    name: str,
    version: str,
    command: str,
    terms: str,
    counts: dict[str, dict[str, int]] | None = None,
    limits: Sequence[str] = (),
) -> dict:
    """Writes the model of the run in `output` to its sub-folder `model`, and `report.json`; returns the report.

    `command` and `terms` go into the card as they are, `terms` also into a licence note beside the weights.
    `counts`, for the card, are the pictures of each part by collection, of which `photos` may be a sample;
    without it `photos` are all. `limits` are what it does badly, besides what is true of every model.
    """
    network, centres = training.trained(output, options)
    classifies = objectives.classifies(options.network)
    spreads = serving.Doubting(network, centres).classifies  # so may a GAN's generator
    folder, partial = Path(output) / MODEL, Path(output) / f".{MODEL}.partial"
    validation = photos.validation or photos.train
    lightness = (lightness for _, _, lightness in evaluation.pictures(validation, options.size))
    knots = serving.fit_knots(serving.doubts(network, centres, lightness))
    shutil.rmtree(partial, ignore_errors=True)
    serving.export(network, centres, knots, options.size, partial)
    predictor = serving.load(partial)
    strength = evaluation.operating_strength(validation, options.size, predictor)
    report = evaluation.report(photos.test or validation, photos.train, options.size, predictor, strength)
    counts = counts or {part: Counter(photo.collection for photo in getattr(photos, part)) for part in PARTS}
    card = ModelCard(
        name=name,
        version=version,
        size=options.size,
        weights_sha256=weights_sha256(partial),
        default_strength=options.strength,
        strength_reason=options.strength_reason,
        operating_strength=round(strength, 3),
        temperature=options.temperature if classifies else 1.0,
        debias=options.debias if classifies else 0.0,
        gain=options.gain,
        training={
            **{part: dict(by_collection) for part, by_collection in counts.items()},
            "left_out_as_grey": photos.grey,
            "left_out_as_unreadable": photos.broken,
            **({"teacher": _teacher(Path(options.teacher))} if options.teacher else {}),
        },
        metrics=report["model"],
        controls=report["controls"],
        git_revision=git_revision(),
        command=command,
        terms=terms,
        confidence=CONFIDENCE + (SPREAD if spreads else PALENESS),
        limits=[GUESSES, *limits, AGED.format(options.aging) if options.aging else CLEAN],
    )
    write_card(partial, card)
    shutil.copy(Path(output) / BINS, partial / BINS)
    (partial / HELD_OUT).write_text(json.dumps(held_out(photos)) + "\n", encoding="utf-8")
    (partial / LICENSE).write_text(terms.rstrip() + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    write_json(Path(output) / REPORT, report)
    return report


def _teacher(run: Path) -> dict[str, str]:
    """Which model the teacher in a run's folder is and how it was made; if never exported, the folder's name."""
    if not (run / MODEL).is_dir():
        return {"name": run.name}
    card = read_card(run / MODEL)
    return {name: getattr(card, name) for name in ("name", "version", "weights_sha256", "command")}


def git_revision() -> str:
    """Revision of the checkout these sources lie in, or empty outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def table(report: dict) -> str:
    """The report's main figures as lines of text."""
    lines = [f"at {report['size']} px, chroma times {report['strength']}, means over pictures:"]
    lines.append(f"{'':24}{'pictures':>9}{'RMSE':>7}{'/ grey':>8}{'dE00':>7}{'/ grey':>8}{'colour':>8}")
    for who, by_collection in {"model": report["model"], **report["controls"]}.items():
        for collection, figures in by_collection.items():
            means = {key: value[0] for key, value in figures.items() if key != "pictures"}
            lines.append(
                f"{who + ' ' + collection:24.24}{figures['pictures']:9}"
                f"{means['rmse']:7.2f}{means['rmse_over_grey']:8.3f}"
                f"{means['ciede2000']:7.2f}{means['ciede2000_over_grey']:8.3f}{means['colorfulness_over_truth']:8.2f}"
            )
    vividness, correlation = (
        report["all"][key][0]
        for key in ("full_strength_colorfulness_over_truth", "confidence_spearman_with_rmse")
    )
    lines.append(f"colourfulness at full strength over the truth's: {vividness}")
    lines.append(f"rank correlation of confidence with RMSE: {correlation}")
    return "\n".join(lines)
