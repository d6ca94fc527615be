"""Releases the model of a finished run: calibrates it on validation, exports it, reports on test, writes its card."""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from model import serving
from model.card import ModelCard, read_card, weights_sha256, write_card
from model.data.bins import BINS
from model.data.photos import HELD_OUT, Photos, held_out
from model.measuring import evaluation
from model.training import fit, objectives
from model.training.options import Options, write_json
from model.training.run_folder import MODEL
from pipeline.photographs.splits import PARTS

REPORT, LICENSE = "report.json", "LICENSE.txt"
CONFIDENCE = "c means that a share c of the validation pictures was less certain, that is, "
SPREAD = (
    "had a larger expected error: the root mean square distance of the chroma bins from their mean, under the "
    "bins' distribution"
)
NEGATIVE_CHROMA = "got less chroma: a regression network predicts colours closer to grey where it is unsure"
GUESSES = "Colours are plausible guesses, not findings. They support no historical claim."
CLEAN = "Training used clean modern photographs; no damaged, faded or hand-tinted ones."
AGED = (
    "Training used modern photographs, of which {:.0%} were made to look faded, grainy and blurred; "
    "no real old prints, no damaged or hand-tinted ones."
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
    """Writes the model of a run to its sub-folder `model`, and `report.json`.

    Args:
        photos: all photographs, or a sample of them.
        output: folder of the run.
        command: the training command, for the card.
        terms: terms of use, for the card and for a licence note beside the weights.
        counts: number of pictures by split and collection, for the card; by default those of `photos`.
        limits: what this model does badly, in addition to what holds for every model.

    Returns:
        The report.
    """
    network, centres = fit.trained(output, options)
    classifies = objectives.classifies(options.network)
    spreads = serving.WithUncertainty(network, centres).classifies  # the generator of a GAN may do so, too
    folder, partial = Path(output) / MODEL, Path(output) / f".{MODEL}.partial"
    validation = photos.validation or photos.train
    lightness = (lightness for _, _, lightness in evaluation.pictures(validation, options.size))
    knots = serving.quantiles(serving.uncertainties(network, centres, lightness))
    shutil.rmtree(partial, ignore_errors=True)
    serving.export(network, centres, knots, options.size, partial)
    predictor = serving.load(partial, options.calm if spreads else 0.0)
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
        default_calm=options.calm if spreads else None,
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
        ranges=evaluation.ranges(photos.test or validation, options.size, predictor, options.strength),
        confidence=CONFIDENCE + (SPREAD if spreads else NEGATIVE_CHROMA),
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
    """Identity and command of the teacher in the folder of a run; only the folder's name if it was never exported."""
    if not (run / MODEL).is_dir():
        return {"name": run.name}
    card = read_card(run / MODEL)
    return {name: getattr(card, name) for name in ("name", "version", "weights_sha256", "command")}


def git_revision() -> str:
    """Git revision of this source code; empty outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def table(report: dict) -> str:
    """Formats the main figures of a report as lines of text."""
    lines = [f"at {report['size']} px, chroma × {report['strength']}, means over pictures:"]
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
    lines.append(f"colourfulness at full strength over the true one: {vividness}")
    lines.append(f"rank correlation of confidence with RMSE: {correlation}")
    return "\n".join(lines)
