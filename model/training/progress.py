"""Progress of a run: on a terminal a bar with rate and time left, elsewhere a line after each epoch."""

import json
import time
from pathlib import Path

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.training.options import Options, write_json


class RunProgress(keras.callbacks.Callback):
    """Shows the progress of all epochs, including those before the run was continued."""

    def __init__(self, options: Options, console: Console | None = None):
        super().__init__()
        self.options, self.console = options, console or Console()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} pictures/s"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=options.epochs * options.steps, rate="-")
        self.done, self.started = 0, 0.0

    def on_train_begin(self, logs=None):
        self.bar.start()
        self.started = self.started or time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        self.bar.update(self.task, advance=1, rate=f"{self._rate():.0f}")

    def on_epoch_end(self, epoch, logs=None):
        figures = "  ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        rate = self._rate()
        left = (self.options.epochs - epoch - 1) * self.options.steps * self.options.batch / rate / 60
        where = f"epoch {epoch + 1}/{self.options.epochs}"
        line = f"{where}  {figures}  {rate:.0f} pictures/s  {left:.0f} min left"
        self.console.print(line, soft_wrap=True)

    def on_train_end(self, logs=None):
        self.bar.stop()

    def _rate(self) -> float:
        return self.done * self.options.batch / (time.monotonic() - self.started)


class Pace(keras.callbacks.Callback):
    """Stops a run if its planned number of epochs does not fit its time budget, so that it can be planned again.

    Attributes:
        epochs: number of epochs that fit at the current pace; updated after each of `REVIEWED`.
        seconds: time of the whole run so far. It is kept in a file after each epoch.
    """

    REVIEWED = (2, 4, 6, 8)

    def __init__(self, file: Path, budget: float, epochs: int):
        super().__init__()
        self.file, self.budget, self.planned, self.epochs = file, budget, epochs, epochs
        self.before = json.loads(file.read_text()) if file.is_file() else 0.0
        self.seconds, self.began = self.before, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = self.before + time.monotonic() - self.began
        write_json(self.file, self.seconds)
        done = epoch + 1
        if done in self.REVIEWED:
            self.epochs = max(done, round(done * self.budget / self.seconds))
            self.model.stop_training = self.epochs != self.planned
