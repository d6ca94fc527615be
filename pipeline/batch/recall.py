"""Remembers what a network said about the last views, because those of neighbours are asked for several times."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

MOST = 64  # views; 100 KB each for a network of 160 pixels

Answers = tuple[np.ndarray, ...]


class Recall:
    """The last answers of one network. The threads of a worker share them."""

    def __init__(self, most: int = MOST):
        self._most = most
        self._answers: OrderedDict[bytes, Answers] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, predict: Callable[[np.ndarray], Answers], tiles: np.ndarray) -> Answers:
        """Predicts what is not remembered.

        Args:
          predict: from views uint8 [K, S, S] to arrays with K entries. An answer depends on its view alone.
          tiles: uint8 [K, S, S]. Views may occur several times.
        """
        names = [tile.tobytes() for tile in tiles]
        with self._lock:
            known = {name: self._answers[name] for name in names if name in self._answers}
        new = {name: at for at, name in enumerate(names) if name not in known}
        if new:
            answers = zip(*predict(tiles[[*new.values()]]), strict=True)
            known |= zip(new, answers, strict=True)
        with self._lock:
            for name in names:
                self._answers[name] = known[name]
                self._answers.move_to_end(name)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return tuple(np.stack(of_all) for of_all in zip(*(known[name] for name in names), strict=True))
