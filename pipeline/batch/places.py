"""The places that a job reads and writes: checked before any work."""

import argparse
from dataclasses import dataclass

from pipeline import storage
from pipeline.batch import bagging, chosen_model, labels, runners
from pipeline.batch.runners import Engine
from pipeline.inputs import bags, collection, hint_files


@dataclass(frozen=True, slots=True)
class Places:
    """Paths and URIs of a job, normalized.

    Attributes:
      input: what `--input` names.
      output: of derivatives and records. It is the payload of a bag if the job writes one.
      bag: the folder of this bag; otherwise None.
      hints: folder of hints files, or None.
    """

    input: str
    output: str
    bag: str | None
    hints: str | None


def checked(chosen: argparse.Namespace, engine: Engine) -> Places:
    """The places of a job.

    Raises:
      JobError: one of them does not exist, cannot be reached from here or from the workers, or contains another one.
    """
    model = chosen_model.place(chosen_model.named(chosen.model))
    signs = labels.signs(chosen)
    for place in filter(None, (chosen.output, chosen.hints, model, *signs.values())):
        collection.check_reachable(place)
    output = storage.normalize(chosen.output)
    source = collection.resolved(chosen.input)
    collection.check_input(source)
    collection.check_output(source, output)
    hints = storage.normalize(chosen.hints) if chosen.hints else None
    if hints:
        hint_files.check(hints, source, output)
    runners.check_places(
        engine,
        (
            ("--input", source),
            ("--output", output),
            ("--hints", hints),
            ("--model", model),
            *((f"--{name}", place) for name, place in signs.items()),
        ),
    )
    bagging.check(output, chosen.bag, chosen.premis, engine.waits)
    if chosen.bag:
        return Places(source, storage.join(output, bags.DATA), output, hints)
    return Places(source, output, None, hints)
