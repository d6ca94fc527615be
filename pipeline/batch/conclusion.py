"""The end of a job: its summary, completed by what only the launcher knows, and what people are told."""

import json

from pipeline import storage
from pipeline.batch import chosen_model
from pipeline.batch.chosen_model import ChosenModel
from pipeline.codec.settings import Settings
from pipeline.console import say
from pipeline.errors import JobError
from pipeline.records import drift
from pipeline.records.summary import FILE, RANGED, describe, describe_unused


def completed(settings: Settings, model: ChosenModel, stages: dict, processes: int) -> dict:
    """Reads the summary that the workers wrote, and completes it.

    Args:
      settings: of the job.
      model: of the job.
      stages: times of its stages; see `metrics.stages`.
      processes: number of workers on this machine; 0 if they were elsewhere.

    Raises:
      JobError: there is no summary, or it belongs to another run.
      OSError: it cannot be read or written.
    """
    file = storage.join(settings.output, FILE)
    try:
        found = json.loads(storage.read(file))
    except FileNotFoundError as error:
        words = "was it deleted?" if settings.local else "do they share this folder? (--workers_share_files)"
        raise JobError(f"the workers wrote no {FILE} to {settings.output}: {words}") from error
    if found["run"] != settings.run:
        raise JobError(f"{FILE} belongs to another run: two jobs write to {settings.output}")
    comparable = RANGED if settings.strength == model.card.default_strength else ("confidence",)
    found |= {
        "model_why": model.why,
        "drift": drift.drift(found["collections"], model.card.ranges, comparable),
    }
    if stages:
        found |= {"stages": stages} | ({"processes": processes} if processes else {})
    storage.write(file, (json.dumps(found, indent=2) + "\n").encode())
    return found


def show(summary: dict, settings: Settings) -> None:
    """Prints the counts of a run, and where its files are."""
    say(describe(summary))
    if summary["kept"]:
        say(f"  {summary['kept']:>9,}  of these were up to date already")
    done = summary["records"] - summary["kept"]
    say(f"{done:,} in this run, {summary['seconds']:,} s, {summary['pictures_per_second']:g} a second\n")
    rows = {
        "derivatives": settings.output,
        "manifest": summary["manifest"],
        "model": f"{summary['model_uri']} ({summary['model_why']})",
        "gallery": summary["gallery"],
        "failed scans": summary["outcomes"]["failed"] and summary["dead_letters"],
    }
    for name, uri in rows.items():
        if uri:
            say(f"{name:<13} {uri}")
    if left_out := summary["dead_letters_left_out"]:
        say(
            f"{left_out:,} more failed scans are only in the manifest; the same command tries them again, too"
        )
    if summary["unused_hints"]:
        say(describe_unused(summary["unused_hints"]))


def advise(summary: dict, model: ChosenModel) -> None:
    """Prints what should be looked at, and what to do next."""
    if summary["drift"]:
        say("\n" + drift.describe(summary["drift"]))
    if newer := chosen_model.newer(model):
        say(f"\na newer model was pushed during the run: {newer}; the same command colours with it")
    if summary["outcomes"]["failed"]:
        say("\nthe same command tries failed scans again; their records say what was wrong")
