"""The model of a job: found from `--model`, checked, and tried out before any work."""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass

from model import MODELS, folder_of
from model.card import CARD, CardError, ModelCard, read_card
from pipeline import storage
from pipeline.batch import registry
from pipeline.batch.inference import SHIPPED, ModelError, load, local_copy
from pipeline.errors import JobError


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model that a job takes. A push during the job does not change it.

    Attributes:
      name: as the user named it: one of the models that ship, or a folder.
      folder: of the exported model.
      card: its card.
      why: why it was taken, in words.
    """

    name: str
    folder: str
    card: ModelCard
    why: str

    def uri(self, local: bool) -> str:
        """Where workers find it. Those on other machines have the models that ship in their own installation."""
        return self.folder if local or self.name not in MODELS else f"{SHIPPED}{self.name}"


def named(model: str | None) -> str:
    """The model that `--model` names; the default one if it is left out."""
    return model or MODELS[0]


def place(name: str) -> str | None:
    """Path or URI of a model, or None for those that ship."""
    return None if name in MODELS else name


def choose(name: str, allow_unblessed: bool) -> ChosenModel:
    """Finds a model and checks that it is blessed.

    Args:
      name: one of the models that ship, the folder of an exported model, or a folder of pushed models.
      allow_unblessed: accept a model that did not pass all gates.

    Raises:
      JobError: there is no such model, it cannot be read, or it is not blessed.
    """
    ships = name in MODELS
    try:
        folder = folder_of(name) if ships else registry.resolve(storage.normalize(name))
        if storage.is_cloud(folder) and not storage.is_folder(folder):
            raise JobError(f"no such model: {folder}")
        card = read_card(local_copy(folder))
        unblessed = registry.why_unblessed(folder, card)
        why = registry.why(place(name), folder, card, unblessed)
    except CardError as error:
        raise JobError(f"{error} (--model needs the folder of an exported model with its {CARD})") from error
    except registry.RegistryError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"cannot read the model {name}: {error.strerror or error}") from error
    if unblessed and not allow_unblessed:
        raise JobError(f"the model in {folder} is not blessed: {unblessed} (--allow_unblessed overrides)")
    return ChosenModel(name, folder, card, why)


def try_out(model: ChosenModel, batch_size: int, workers: int, threads: int, gpu: bool) -> None:
    """Loads a model: in this process if it will do the work, otherwise in a process of its own.

    Raises:
      JobError: the job cannot use it.
    """
    folder, card = model.folder, model.card
    if workers == 1:
        try:
            load(folder, card.weights_sha256, card.size, batch_size, threads, gpu)
        except ModelError as error:
            raise JobError(str(error)) from error
        return
    trial = subprocess.run(
        [sys.executable, "-m", "pipeline.batch.trial", folder, card.weights_sha256, str(card.size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="backslashreplace",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if trial.returncode:
        raise JobError(trial.stdout.strip() or f"the model in {folder} cannot be loaded")


def newer(model: ChosenModel) -> str:
    """Folder of the model that the same name means now, if that is another one; otherwise an empty text."""
    if model.name in MODELS:
        return ""
    with contextlib.suppress(registry.RegistryError, CardError, OSError):
        current = registry.resolve(storage.normalize(model.name))
        return current if current != model.folder else ""
    return ""
