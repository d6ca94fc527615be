"""The codec in a process of its own, for the worker."""

import numpy as np

from pipeline.codec.codec import View
from pipeline.codec.masters import Several
from pipeline.codec.process import GuardedProcess
from pipeline.codec.settings import Settings
from pipeline.inputs.item import Item
from pipeline.records.record import Reason, Record, Refusal

_ENDED = (Reason.CODEC_CRASHED, Reason.CODEC_TIMEOUT, Reason.CODEC_ERROR)


class Guard(GuardedProcess):
    """A `Codec` in a guarded process. A crash or a hang costs one scan, not the job."""

    def __init__(self, settings: Settings):
        super().__init__("pipeline.codec.codec:Codec", settings)

    def open(self, item: Item) -> View | Record | Several:
        """Calls `Codec.open`. A neighbour that crashes the process is left out."""
        answer = self.ask(item, "open", item)
        if not (item.neighbors and isinstance(answer, Record) and answer.reason in _ENDED):
            return answer
        looks = {neighbor.key: self.ask(item, "look", neighbor.item) for neighbor in item.neighbors}
        left_out = {key: look.detail for key, look in looks.items() if isinstance(look, Record)}
        return self.ask(item, "open", item, left_out) if left_out else answer

    def paint(
        self,
        item: Item,
        tiles: np.ndarray,
        confidence: float,
        seconds: float,
        pixels: int = 0,
        show: bool = False,
        faded: float = 0.0,
    ) -> Record:
        """Calls `Codec.paint`. If the process that held the scan has died, the scan is opened again."""
        arguments = item, tiles, confidence, seconds, show, faded
        record = self.ask(item, "paint", *arguments, pixels=pixels)
        if record is None:
            view = self.open(item)
            if not isinstance(view, View):
                return view if isinstance(view, Record) else self._changed(item)
            record = self.ask(item, "paint", *arguments, pixels=pixels)
        return record

    def _changed(self, item: Item) -> Record:
        words = "the file has changed during the run: it has several pictures now"
        return self.settings.record(item).refuse(Refusal(Reason.READ_ERROR, words))

    def adopt(self, item: Item) -> Record | None:
        answer = self.ask(item, "adopt", item)
        return answer if isinstance(answer, Record) and not answer.reason else None

    def sha256(self, item: Item) -> str:
        answer = self.ask(item, "sha256", item)
        return answer if isinstance(answer, str) else ""

    def drop(self, item: Item) -> None:
        self.ask(item, "drop", item)

    def thumbnail(self, uri: str, page: int = 0) -> bytes | None:
        answer = self.ask(Item(uri, uri), "thumbnail", uri, page)
        return answer if isinstance(answer, bytes) else None
