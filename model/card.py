"""The model card: what a SavedModel is, beside it as `model_card.json`. Needs the standard library only."""

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
    """What is wrong with a model's folder or card, in one line for a person."""


@dataclass(frozen=True)
class ModelCard:
    """What whoever uses a model, or finds its derivatives later, has to know.

    Attributes:
        name, version: identify the model in records and derivatives.
        size: S in pixels; the signature takes `lightness` [N, S, S, 1] and gives `chroma` [N, S, S, 2] and
            `confidence` [N].
        weights_sha256: see the function of that name.
        default_strength: factor on chroma that the batch job uses unless told; `strength_reason` says why.
        operating_strength: factor at which the validation pictures have 60 % of the truth's colourfulness,
            where `metrics` are taken.
        temperature, debias, gain: how bins were decoded: of the annealed mean; how much of the rebalancing was
            taken back (0 none, 1 all); factor on chroma within the model.
        training: collections and the number of pictures of each part; name, version, `weights_sha256` and `command`
            of a teacher, if there was one.
        metrics: figures on the test part by collection, of the model; `controls`: the same of grey, mean chroma
            and the luminance table.
        gates: verdicts of a training pipeline's gates, each with its `gate` and its `verdict` ("passed", "failed"
            or "pending"); empty for a model that passed through none.
        data: what the pipeline ingested, counted, with the digests of its manifests.
        pushed: when it became a version, UTC.
        git_revision: of the sources that trained it. command: the command that did. terms: of the data.
        confidence: what the number means.
        limits: what it does badly.
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
    gates: list = field(default_factory=list)
    data: dict = field(default_factory=dict)
    pushed: str = ""


def weights_sha256(folder: str | Path) -> str:
    """SHA-256, hexadecimal, of `saved_model.pb` followed by the files of `variables/` in the order of their names.

    The same as `cat saved_model.pb variables/* | sha256sum`: graph and weights, whatever decides the colours.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for file in [folder / GRAPH, *sorted((folder / VARIABLES).glob("*"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_card(folder: str | Path, card: ModelCard) -> None:
    """Writes the card into the SavedModel's folder."""
    (Path(folder) / CARD).write_bytes(to_bytes(card))


def to_bytes(card: ModelCard) -> bytes:
    """The card as its file has it: JSON in UTF-8."""
    return json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False).encode() + b"\n"


def read_card(folder: str | Path) -> ModelCard:
    """The card of a SavedModel's folder, checked: complete, of the right kinds, and of these very weights.

    Unknown entries are ignored. Raises CardError otherwise.
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
        raise CardError(f"the model card is of other weights (weights_sha256 differs): {path}")
    return card


def parse_card(text: bytes, path: str) -> ModelCard:
    """The card in a file's text, checked but for whose weights it is of. Raises CardError, which names `path`."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CardError(f"unreadable model card {path}: {error}") from None
    return _checked(entries, path)


def is_blessed(card: ModelCard) -> bool:
    """Whether every gate that the card names was passed."""
    return not open_gates(card)


def open_gates(card: ModelCard) -> list[dict]:
    """Of the card's gates, those that were not passed."""
    return [gate for gate in card.gates if gate["verdict"] != "passed"]


def _checked(entries, path: str) -> ModelCard:
    if not isinstance(entries, dict):
        raise CardError(f"the model card is no JSON object: {path}")
    fields = dataclasses.fields(ModelCard)
    no = dataclasses.MISSING
    required = [f.name for f in fields if f.default is no and f.default_factory is no]
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
    wrong += [] if isinstance(card.pushed, str) else ["pushed"]
    if wrong:
        raise CardError(f"the model card has no usable {', '.join(wrong)}: {path}")
    return card


def _is_verdict(gate) -> bool:
    return isinstance(gate, dict) and all(isinstance(gate.get(name), str) for name in ("gate", "verdict"))


def _is_positive(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
