"""What the options say about labels and signatures, as settings."""

import argparse
from datetime import datetime
from typing import Any

from model.card import ModelCard
from pipeline import storage
from pipeline.errors import JobError
from pipeline.imaging import mark
from pipeline.imaging.mark import PLACES
from pipeline.inputs.item import SAME
from pipeline.metadata import signing
from pipeline.records.record import EMBEDDED


def signs(chosen: argparse.Namespace) -> dict[str, str]:
    """The URIs of key and certificate, by option; none if nothing is to be signed.

    Raises:
      JobError: one of the two is missing.
    """
    given = {name: place for name in ("c2pa_key", "c2pa_certificate") if (place := getattr(chosen, name))}
    if len(given) == 1:
        raise JobError("--c2pa_key and --c2pa_certificate are needed together")
    return {name: storage.normalize(place) for name, place in given.items()}


def settings(chosen: argparse.Namespace, card: ModelCard, started: datetime) -> dict[str, Any]:
    """The settings that follow from options and model card. Key and certificate are tried out.

    Raises:
      JobError: nothing can be signed with them, the mark cannot be drawn, or an option has nothing to act on.
    """
    places = signs(chosen)
    if chosen.c2pa and not places:
        raise JobError(f"--c2pa {chosen.c2pa} needs --c2pa_key and --c2pa_certificate, or nothing is signed")
    if chosen.mark_place and not chosen.mark:
        raise JobError(f"--mark_place {chosen.mark_place} needs --mark, or nothing is marked")
    if places and chosen.format not in signing.FORMATS | {SAME}:
        raise JobError("JPEG 2000 files cannot be signed; leave --c2pa_key out, or choose another --format")
    if places:
        signing.load(**{name.removeprefix("c2pa_"): place for name, place in places.items()})
    if chosen.mark:
        mark.check(chosen.mark)
    return {
        **places,
        "mark": chosen.mark or "",
        "mark_place": (chosen.mark_place or PLACES[0]) if chosen.mark else "",
        "c2pa": (chosen.c2pa or EMBEDDED) if places else "",
        "digests": chosen.digests,
        "date": chosen.date or f"{started:%Y-%m-%d}",
        "description": chosen.description or "",
        "credit": chosen.credit or "",
        "model_terms": card.terms.strip().partition("\n")[0].strip(),
    }
