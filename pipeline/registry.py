"""The folder of pushed models: numbered versions, `latest` that names the one in use, and the way back.

    PUSHED_ROOT/1/, PUSHED_ROOT/2/ ...   exported models, each with its card
    PUSHED_ROOT/latest                   the version in use

Local or gs://. A version is there once its card is; it is never changed afterwards.
"""

import dataclasses
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from model.card import CARD, ModelCard, is_blessed, parse_card, read_card
from pipeline import storage

LATEST = "latest"


class RegistryError(ValueError):
    """What is wrong with a folder of pushed models, in one line for a person."""


@dataclass(frozen=True, slots=True)
class Version:
    """A pushed model."""

    version: str
    uri: str
    card: ModelCard
    is_latest: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a model lies, and whether it was not there before."""

    version: str
    uri: str
    new: bool


def push(folder: str, root: str, *, gates: list[dict], **entries) -> Pushed:
    """Makes a model the next version, and the one in use.

    A model that is a version already is left alone, and so is `latest`: one that was rolled back must not
    come back by itself.

    Args:
      folder: of an exported model on this machine; everything in it is pushed.
      gates: for the card: the verdicts that it has earned.
      entries: further entries of the card.

    Raises:
      CardError: the folder holds no model.
      OSError: it could not be written; no version has come to be.
    """
    card, root = read_card(folder), storage.normalize(root)
    there = versions(root)
    for version in there:
        if version.card.weights_sha256 == card.weights_sha256:
            return Pushed(version.version, version.uri, False)
    number = 1 + max((int(version.version) for version in there), default=0)
    pushed = datetime.now(UTC).isoformat(timespec="seconds")
    while True:
        card = dataclasses.replace(card, version=str(number), gates=gates, pushed=pushed, **entries)
        try:
            _publish(folder, storage.join(root, str(number)), card)
            break
        except FileExistsError:  # another pusher was quicker
            number += 1
    _point(root, str(number))
    return Pushed(str(number), storage.join(root, str(number)), True)


def versions(root: str) -> list[Version]:
    """All versions, oldest first; none where nothing was pushed."""
    root = storage.normalize(root)
    newest = _pointer(root)
    found = []
    for info in storage.list_files(root):
        number, _, rest = info.uri[len(root) :].lstrip("/").partition("/")
        if rest == CARD and _is_version(number):
            card = parse_card(storage.read(info.uri), info.uri)
            found.append(Version(number, storage.join(root, number), card, number == newest))
    return sorted(found, key=lambda version: int(version.version))


def latest(root: str) -> Version:
    """The version in use.

    Raises:
      RegistryError: nothing was pushed, or `latest` names no version.
    """
    found = next((version for version in versions(root) if version.is_latest), None)
    if found is None:
        name = _pointer(storage.normalize(root))
        if name is None:
            raise RegistryError(f"no models were pushed to {root}")
        raise RegistryError(
            f"{root}/{LATEST} names version {name!r}, which is not there "
            f"(archive-colorize rollback {root} VERSION mends it)"
        )
    return found


def rollback(root: str, version: str | None = None, *, allow_unblessed: bool = False) -> Version:
    """Makes an earlier version, or any that is named, the one in use.

    Args:
      version: without one, the newest blessed version before the one in use.

    Raises:
      RegistryError: there is no such version, or it is not blessed.
    """
    there = versions(root)
    if not there:
        raise RegistryError(f"no models were pushed to {root}")
    if version is None:
        newest = int(latest(root).version)
        earlier = [v for v in there if int(v.version) < newest and _blessed(v.card)]
        if not earlier:
            raise RegistryError(f"there is no blessed version before {newest} in {root}")
        chosen = earlier[-1]
    else:
        chosen = next((v for v in there if v.version == version), None)
        if chosen is None:
            names = ", ".join(v.version for v in there)
            raise RegistryError(f"there is no version {version} in {root}; there are {names}")
        if not _blessed(chosen.card) and not allow_unblessed:
            raise RegistryError(f"version {version} in {root} is not blessed (--allow_unblessed overrides)")
    _point(storage.normalize(root), chosen.version)
    return dataclasses.replace(chosen, is_latest=True)


def is_registry(root: str) -> bool:
    """Whether a folder is one of pushed models rather than a model."""
    return _pointer(storage.normalize(root)) is not None


def resolve(model: str) -> str:
    """The model's own folder: of the version in use where `model` is a folder of pushed models.

    Raises:
      RegistryError: `latest` names a version that is not there.
    """
    return latest(model).uri if is_registry(model) else model


def why_unblessed(folder: str, card: ModelCard) -> str | None:
    """Why a model must not be used without being told to, in words, or None.

    A version of a folder of pushed models has to have passed gates; a model that lies elsewhere must not
    have failed one.
    """
    parent = folder.rstrip("/").rpartition("/")[0]
    if not card.gates and not is_registry(parent):
        return None  # it went through no pipeline, and whoever names its folder has decided
    if _blessed(card):
        return None
    open_gates = [f"{gate.get('gate')} ({gate.get('verdict')})" for gate in card.gates if not _passed(gate)]
    return ", ".join(open_gates) or "it went through no gates"


def _blessed(card: ModelCard) -> bool:
    return bool(card.gates) and is_blessed(card)


def _passed(gate: dict) -> bool:
    return gate.get("verdict") == "passed"


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _pointer(root: str) -> str | None:
    try:
        return storage.read(storage.join(root, LATEST)).decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _point(root: str, version: str) -> None:
    storage.write(storage.join(root, LATEST), f"{version}\n".encode())


def _publish(folder: str, target: str, card: ModelCard) -> None:
    """Copies a model, its card last. Raises FileExistsError where there is such a version."""
    files = {info.uri[len(folder) :].strip("/"): info.uri for info in storage.list_files(folder)}
    files.pop(CARD)
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False).encode() + b"\n"
    if storage.is_gcs(target):
        if storage.is_folder(target):
            raise FileExistsError(target)
        for name, file in files.items():
            storage.write(storage.join(target, name), storage.read(file), keep_existing=True)
        storage.write(storage.join(target, CARD), text, keep_existing=True)
        return
    partial = os.path.join(os.path.dirname(target), f".push-{secrets.token_hex(8)}")
    try:
        for name, file in files.items():
            storage.write(os.path.join(partial, name), storage.read(file))
        storage.write(os.path.join(partial, CARD), text)
        try:
            os.rename(partial, target)  # onto a folder with something in it, it fails
        except OSError as error:
            if os.path.isdir(target):
                raise FileExistsError(target) from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
