"""The model card, `model_card.json` beside a SavedModel. Needs only the standard library."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

CARD = "model_card.json"
SIGNATURE = "serving_default"
GRAPH, VARIABLES = "saved_model.pb", "variables"


class CardError(ValueError):
    """A model's folder or card is wrong; the message is one line for a person."""


@dataclass(frozen=True)
class ModelCard:
    """What a user of a model, or somebody who finds its derivatives later, needs to know.

    Attributes:
        name, version: identify the model in records and derivatives.
        size: S in pixels. The signature takes `lightness` [N, S, S, 1] and returns `chroma` [N, S, S, 2],
            `confidence` [N] and, if the network predicts chroma bins, `certainty` [N, S, S].
        weights_sha256: digest of graph and weights; see the function of the same name.
        default_strength: default factor on chroma in the batch job; `strength_reason` says why.
        operating_strength: factor at which the validation pictures have 60 % of the true colourfulness. The
            `metrics` are measured at this strength.
        temperature: of the annealed mean over the chroma bins.
        debias: how much of the class rebalancing was undone, from 0 (nothing) to 1 (all).
        gain: factor on chroma inside the model.
        default_calm: certainty of a place below which its chroma fades by default in the batch job; 0 for never, None
            for a model without certainty.
        training: number of pictures by split and collection; and `name`, `version`, `weights_sha256` and `command` of
            the teacher, if there was one.
        metrics: results of the model on the test split, by collection.
        controls: the same results for grey, mean chroma and the lightness table.
        gates: results of the gates of a training pipeline, each with `gate` and `verdict` ("passed", "failed" or
            "pending"); empty for a model that was trained without a pipeline.
        data: counts of the ingested pictures, and the digests of the manifests.
        pushed: time of the push, UTC.
        git_revision: revision of the source code.
        command: the training command.
        terms: terms of use of the training data.
        confidence: what the confidence means.
        ranges: quantiles at 5, 50 and 95 % of `confidence` and `colorfulness` of the test pictures, coloured at the
            default strength. The batch job warns when the median of a collection is outside.
        limits: what the model does badly.
    """

    name: str
    version: str
    size: int
    weights_sha256: str
    default_strength: float
    strength_reason: str
    operating_strength: float
    temperature: float
    debias: float
    gain: float
    training: dict
    metrics: dict
    controls: dict
    git_revision: str
    command: str
    terms: str
    confidence: str
    limits: list[str]
    ranges: dict = field(default_factory=dict)
    default_calm: float | None = None
    gates: list = field(default_factory=list)
    data: dict = field(default_factory=dict)
    pushed: str = ""


def weights_sha256(folder: str | Path) -> str:
    """Returns the SHA-256, hexadecimal, of `saved_model.pb` and the files in `variables/`, ordered by name.

    This covers graph and weights, which determine the colours. It equals `cat saved_model.pb variables/* | sha256sum`.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for file in [folder / GRAPH, *sorted((folder / VARIABLES).glob("*"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_card(folder: str | Path, card: ModelCard) -> None:
    """Writes the card into the folder of a SavedModel."""
    (Path(folder) / CARD).write_bytes(to_bytes(card))


def to_bytes(card: ModelCard) -> bytes:
    """Encodes the card as JSON in UTF-8."""
    return json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False).encode() + b"\n"


def read_card(folder: str | Path) -> ModelCard:
    """Reads and checks the card of a SavedModel. Unknown entries are ignored.

    Raises:
        CardError: the card is missing, incomplete, has values of wrong types, or belongs to other weights.
    """
    path = Path(folder) / CARD
    if not Path(folder).is_dir():
        raise CardError(f"no such model: {folder}")
    if not (Path(folder) / GRAPH).is_file():
        raise CardError(f"not a SavedModel ({GRAPH} is missing): {folder}")
    try:
        card = parse_card(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise CardError(f"the model has no {CARD}: {folder}") from None
    except OSError as error:
        raise CardError(f"unreadable model card {path}: {error}") from None
    if card.weights_sha256 != weights_sha256(folder):
        raise CardError(f"the model card belongs to other weights (weights_sha256 differs): {path}")
    return card


def parse_card(text: bytes, path: str) -> ModelCard:
    """Parses and checks the text of a card, but not its weights. Raises CardError, whose message names `path`."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CardError(f"unreadable model card {path}: {error}") from None
    return _checked(entries, path)


def is_blessed(card: ModelCard) -> bool:
    """Whether the model passed every gate in its card."""
    return not open_gates(card)


def open_gates(card: ModelCard) -> list[dict]:
    """Returns the gates that the model did not pass."""
    return [gate for gate in card.gates if gate["verdict"] != "passed"]


def _checked(entries, path: str) -> ModelCard:
    if not isinstance(entries, dict):
        raise CardError(f"the model card is not a JSON object: {path}")
    fields = dataclasses.fields(ModelCard)
    missing_type = dataclasses.MISSING
    required = [f.name for f in fields if f.default is missing_type and f.default_factory is missing_type]
    missing = [name for name in required if name not in entries]
    if missing:
        raise CardError(f"the model card lacks {', '.join(missing)}: {path}")
    card = ModelCard(**{f.name: entries[f.name] for f in fields if f.name in entries})
    texts = {"name": card.name, "version": card.version}
    wrong = [
        name for name, text in texts.items() if not (isinstance(text, str) and text and text.isprintable())
    ]
    wrong += [] if type(card.size) is int and card.size > 0 else ["size"]
    wrong += [] if re.fullmatch("[0-9a-f]{64}", str(card.weights_sha256)) else ["weights_sha256"]
    wrong += [] if _is_positive(card.default_strength) else ["default_strength"]
    wrong += [] if isinstance(card.gates, list) and all(map(_is_verdict, card.gates)) else ["gates"]
    wrong += [name for name in ("metrics", "data") if not isinstance(getattr(card, name), dict)]
    wrong += [] if isinstance(card.ranges, dict) and all(map(_is_range, card.ranges.values())) else ["ranges"]
    wrong += [] if isinstance(card.pushed, str) else ["pushed"]
    if wrong:
        raise CardError(f"the model card has invalid values of {', '.join(wrong)}: {path}")
    return card


def _is_verdict(gate) -> bool:
    return isinstance(gate, dict) and all(isinstance(gate.get(name), str) for name in ("gate", "verdict"))


def _is_range(values) -> bool:
    """Whether these are three numbers in ascending order."""
    numbers = isinstance(values, list) and len(values) == 3 and all(type(v) in (int, float) for v in values)
    return numbers and values[0] <= values[1] <= values[2]


def _is_positive(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
