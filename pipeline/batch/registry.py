"""The folder of pushed models: numbered versions, and `latest`, which names the current one.

    PUSHED_ROOT/1/, PUSHED_ROOT/2/ ...   exported models, each with its card
    PUSHED_ROOT/latest                   number of the current version

The folder is local or in an object store. A version exists when its card exists, and is never changed. A killed push
leaves at most an unused number (in an object store) or a folder whose name begins with `.push-`; both are ignored.
"""

import dataclasses
import os
import secrets
import shutil
from dataclasses import dataclass

from model.card import CARD, ModelCard, is_blessed, open_gates, parse_card, read_card, to_bytes
from pipeline import clock, storage

LATEST = "latest"


class RegistryError(ValueError):
    """A folder of pushed models is wrong; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Version:
    """A pushed model."""

    version: str
    uri: str
    card: ModelCard
    is_latest: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """Result of a push."""

    version: str
    uri: str
    new: bool  # it was not there before


def push(folder: str, root: str, *, gates: list[dict], **entries) -> Pushed:
    """Makes a model the next version and the current one.

    A model that is a version already is not pushed again, and `latest` does not change, because a model that was
    rolled back must not return by itself.

    Args:
      folder: of an exported model on this machine. Files whose names begin with a dot are not pushed.
      root: folder of the pushed models.
      gates: verdicts for the card.
      entries: other entries of the card.

    Raises:
      CardError: the folder has no model, or the card is not valid with these entries.
      OSError: it could not be written. There is no new version, unless only `latest` could not be written.
    """
    card, root = read_card(folder), storage.normalize(root)
    there = versions(root)
    for version in there:
        if version.card.weights_sha256 == card.weights_sha256:
            if pointer(root) is None:  # the first push was killed before it wrote `latest`
                _point(root, version.version)
            return Pushed(version.version, version.uri, False)
    number = 1 + max((int(version.version) for version in there), default=0)
    pushed = clock.now().isoformat(timespec="seconds")
    while True:
        card = dataclasses.replace(card, version=str(number), gates=gates, pushed=pushed, **entries)
        try:
            _publish(folder, storage.join(root, str(number)), card)
            break
        except FileExistsError:  # another push was faster
            number += 1
    _point_to_newest(root)
    return Pushed(str(number), storage.join(root, str(number)), True)


def versions(root: str) -> list[Version]:
    """All versions, oldest first; empty if nothing was pushed.

    Raises:
      CardError: the card of a version is broken.
      OSError: the folder could not be read.
    """
    root = storage.normalize(root)
    in_use = pointer(root)
    return [_version(root, number, in_use) for number in _numbers(root)]


def latest(root: str) -> Version:
    """The current version. The cards of other versions are not read.

    Raises:
      RegistryError: nothing was pushed, or `latest` names no version.
      CardError: its card is broken.
    """
    root = storage.normalize(root)
    name = _in_use(root, _numbers(root))
    return _version(root, name, name)


def pointer(root: str) -> str | None:
    """Content of `latest`, even if there is no such version; None if the file does not exist.

    Only folders of pushed models have this file.
    """
    try:
        text = storage.read(storage.join(storage.normalize(root), LATEST))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return text.decode("utf-8", "replace").strip()


def rollback(root: str, version: str | None = None, *, allow_unblessed: bool = False) -> Version:
    """Makes an earlier version, or the given one, the current version.

    Args:
      root: folder of the pushed models.
      version: by default the newest blessed version before the current one.
      allow_unblessed: accept a version that is not blessed.

    Raises:
      RegistryError: there is no such version, or it is not blessed.
      CardError: the card of a version is broken.
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
        raise RegistryError(f"there is no version {version} in {root}; choose from: {names}")
    _point(root, chosen.version)
    return dataclasses.replace(chosen, is_latest=True)


def resolve(model: str) -> str:
    """Folder of a model: that of the current version if `model` is a folder of pushed models, otherwise `model`.

    Raises:
      RegistryError: `latest` names a version that does not exist.
      CardError: the card of this version is broken.
      OSError: `latest` could not be read.
    """
    return model if pointer(model) is None else latest(model).uri


def why_unblessed(folder: str, card: ModelCard) -> str | None:
    """Why a model needs --allow_unblessed, in words, or None.

    A version in a folder of pushed models must have passed its gates. A model elsewhere must not have failed a gate.
    """
    if not card.gates and pointer(os.path.dirname(folder.rstrip("/"))) is None:
        return None  # it was trained without a pipeline
    if _blessed(card):
        return None
    gates = [f"{gate['gate']} ({gate['verdict']})" for gate in open_gates(card)]
    return ", ".join(gates) or "it has no gates"


def why(model: str | None, folder: str, card: ModelCard, unblessed: str | None) -> str:
    """Why a job takes a model, in words for its summary.

    Args:
      model: as the user named it: None, an exported model, or a folder of pushed models.
      folder: of the model that was taken.
      card: its card.
      unblessed: the result of `why_unblessed`.
    """
    root = None if model is None else storage.normalize(model)
    if root is None:
        words = "the shipped model"
    elif folder == root:
        words = "named by --model"
    else:
        words, newest = f"the current version in {root}", _numbers(root)[-1]
        if newest != os.path.basename(folder):
            words += f", after a rollback from version {newest}"
    if unblessed:
        return f"{words}; not blessed: {unblessed}"
    return words + (f"; passed: {', '.join(gate['gate'] for gate in card.gates)}" if card.gates else "")


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
    state = "does not exist" if name is None else f"names version {name!r}, which does not exist"
    raise RegistryError(f"{root}/{LATEST} {state} (repair it with: archive-colorize rollback {root} VERSION)")


def _numbers(root: str) -> list[str]:
    """Numbers of all versions, oldest first."""
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
    """Checks again after writing, because several pushes may finish at the same time."""
    pointed = None
    while (newest := _numbers(root)[-1]) != pointed:
        _point(root, newest)
        pointed = newest


def _publish(folder: str, target: str, card: ModelCard) -> None:
    """Copies a model, its card last. Raises FileExistsError if the version exists."""
    text = to_bytes(card)
    parse_card(text, storage.join(target, CARD))
    start = len(folder.rstrip("/")) + 1
    files = {info.uri[start:]: info.uri for info in storage.list_files(folder.rstrip("/"))}
    del files[CARD]
    if storage.is_cloud(target):
        _claim(target)
        _copy(files, target, text)
        return
    partial = os.path.join(os.path.dirname(target), f".push-{secrets.token_hex(8)}")
    try:
        _copy(files, partial, text)
        try:
            os.rename(partial, target)  # fails if the folder exists and is not empty
        except OSError as error:
            if os.path.isdir(target):
                raise FileExistsError(target) from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _claim(target: str) -> None:
    """Claims a number in an object store, where folders cannot be renamed. Raises FileExistsError if it is taken."""
    claim, token = storage.join(target, ".claim"), secrets.token_bytes(16)
    storage.write(claim, token, keep_existing=True)
    if storage.read(claim) != token:
        raise FileExistsError(target)


def _copy(files: dict[str, str], target: str, card: bytes) -> None:
    for name, file in files.items():
        storage.write(storage.join(target, name), storage.read(file))
    storage.write(storage.join(target, CARD), card)
