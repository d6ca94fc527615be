"""The folder of pushed models: numbered versions, `latest` that names the one in use, and the way back.

    PUSHED_ROOT/1/, PUSHED_ROOT/2/ ...   exported models, each with its card
    PUSHED_ROOT/latest                   the version in use

Local or gs://. A version is there once its card is; it is never changed afterwards. A push that was killed leaves at
most a number that no version gets (gs://) or a folder whose name begins with `.push-`: nothing looks at them.
"""

import dataclasses
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from model.card import CARD, ModelCard, is_blessed, open_gates, parse_card, read_card, to_bytes
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
      folder: of an exported model on this machine; everything in it is pushed, names that begin with a dot excepted.
      gates: for the card: the verdicts that it has earned.
      entries: further entries of the card.

    Raises:
      CardError: the folder holds no model, or its card would be no card with these entries.
      OSError: it could not be written; no version has come to be, unless only `latest` could not be written.
    """
    card, root = read_card(folder), storage.normalize(root)
    there = versions(root)
    for version in there:
        if version.card.weights_sha256 == card.weights_sha256:
            if pointer(root) is None:  # the first push was killed just before its end
                _point(root, version.version)
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
    _point_to_newest(root)
    return Pushed(str(number), storage.join(root, str(number)), True)


def versions(root: str) -> list[Version]:
    """All versions, oldest first; none where nothing was pushed.

    Raises:
      CardError: a version's card is broken.
      OSError: the folder could not be read.
    """
    root = storage.normalize(root)
    in_use = pointer(root)
    return [_version(root, number, in_use) for number in _numbers(root)]


def latest(root: str) -> Version:
    """The version in use. The cards of others are not looked at.

    Raises:
      RegistryError: nothing was pushed, or `latest` names no version.
      CardError: its card is broken.
    """
    root = storage.normalize(root)
    name = _in_use(root, _numbers(root))
    return _version(root, name, name)


def pointer(root: str) -> str | None:
    """What `latest` says, whether or not there is such a version; None where it is not there.

    Only a folder of pushed models has one.
    """
    try:
        text = storage.read(storage.join(storage.normalize(root), LATEST))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return text.decode("utf-8", "replace").strip()


def rollback(root: str, version: str | None = None, *, allow_unblessed: bool = False) -> Version:
    """Makes an earlier version, or any that is named, the one in use.

    Args:
      version: without one, the newest blessed version before the one in use.

    Raises:
      RegistryError: there is no such version, or it is not blessed.
      CardError: the card of a version that comes into question is broken.
    """
    root = storage.normalize(root)
    numbers = _numbers(root)
    if version is None:
        chosen = _newest_blessed_before(_in_use(root, numbers), root, numbers)
    elif version in numbers:
        chosen = _version(root, version, version)
        if not _blessed(chosen.card) and not allow_unblessed:
            raise RegistryError(f"version {version} in {root} is not blessed (--allow_unblessed overrides)")
    else:
        names = ", ".join(numbers) or "none"
        raise RegistryError(f"there is no version {version} in {root}; there are: {names}")
    _point(root, chosen.version)
    return dataclasses.replace(chosen, is_latest=True)


def resolve(model: str) -> str:
    """The model's own folder: of the version in use where `model` is a folder of pushed models.

    Raises:
      RegistryError: `latest` names a version that is not there.
      CardError: that version's card is broken.
      OSError: `latest` is there but could not be read.
    """
    return model if pointer(model) is None else latest(model).uri


def why_unblessed(folder: str, card: ModelCard) -> str | None:
    """Why a model must not be used without being told to, in words, or None.

    A version of a folder of pushed models has to have passed gates; a model that lies elsewhere must not
    have failed one.
    """
    if not card.gates and pointer(os.path.dirname(folder.rstrip("/"))) is None:
        return None  # it went through no pipeline, and whoever names its folder has decided
    if _blessed(card):
        return None
    gates = [f"{gate['gate']} ({gate['verdict']})" for gate in open_gates(card)]
    return ", ".join(gates) or "it went through no gates"


def _blessed(card: ModelCard) -> bool:
    return bool(card.gates) and is_blessed(card)


def _newest_blessed_before(version: str, root: str, numbers: list[str]) -> Version:
    for number in reversed(numbers[: numbers.index(version)]):
        earlier = _version(root, number, version)
        if _blessed(earlier.card):
            return earlier
    raise RegistryError(f"there is no blessed version before {version} in {root}")


def _in_use(root: str, numbers: list[str]) -> str:
    name = pointer(root)
    if name in numbers:
        return name
    if not numbers:
        raise RegistryError(f"no models were pushed to {root}")
    state = "is not there" if name is None else f"names version {name!r}, which is not there"
    raise RegistryError(f"{root}/{LATEST} {state} (archive-colorize rollback {root} VERSION mends it)")


def _numbers(root: str) -> list[str]:
    """The names of all versions, oldest first."""
    found = []
    for info in storage.list_files(root):
        number, _, rest = info.uri[len(root) :].lstrip("/").partition("/")
        if rest == CARD and number.isascii() and number.isdigit() and not number.startswith("0"):
            found.append(number)
    return sorted(found, key=int)


def _version(root: str, number: str, in_use: str | None) -> Version:
    uri = storage.join(root, number)
    file = storage.join(uri, CARD)
    return Version(number, uri, parse_card(storage.read(file), file), number == in_use)


def _point(root: str, version: str) -> None:
    storage.write(storage.join(root, LATEST), f"{version}\n".encode())


def _point_to_newest(root: str) -> None:
    """Looks again once it has written: of pushers that finish together, any may write last."""
    pointed = None
    while (newest := _numbers(root)[-1]) != pointed:
        _point(root, newest)
        pointed = newest


def _publish(folder: str, target: str, card: ModelCard) -> None:
    """Copies a model, its card last. Raises FileExistsError where there is such a version."""
    text = to_bytes(card)
    parse_card(text, storage.join(target, CARD))
    start = len(folder.rstrip("/")) + 1
    files = {info.uri[start:]: info.uri for info in storage.list_files(folder.rstrip("/"))}
    del files[CARD]
    if storage.is_gcs(target):
        _claim(target)
        _copy(files, target, text)
        return
    partial = os.path.join(os.path.dirname(target), f".push-{secrets.token_hex(8)}")
    try:
        _copy(files, partial, text)
        try:
            os.rename(partial, target)  # onto a folder with something in it, it fails
        except OSError as error:
            if os.path.isdir(target):
                raise FileExistsError(target) from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _claim(target: str) -> None:
    """Makes a number in Cloud Storage this pusher's own, or raises FileExistsError: folders cannot be renamed there."""
    claim, token = storage.join(target, ".claim"), secrets.token_bytes(16)
    storage.write(claim, token, keep_existing=True)
    if storage.read(claim) != token:
        raise FileExistsError(target)


def _copy(files: dict[str, str], target: str, card: bytes) -> None:
    for name, file in files.items():
        storage.write(storage.join(target, name), storage.read(file))
    storage.write(storage.join(target, CARD), card)
