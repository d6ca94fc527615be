"""Examines photographs as training data, in a guarded process."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from pipeline.codec.process import GuardedProcess
from pipeline.codec.settings import Settings
from pipeline.imaging.chroma import colorfulness
from pipeline.inputs.item import Item, read
from pipeline.photographs.duplicates import signature
from pipeline.photographs.judge import judge
from pipeline.photographs.reading import read_color
from pipeline.records.record import Record, Refusal

_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 2]  # quick: it is read once, soon


@dataclass(frozen=True, slots=True)
class Examined:
    """A photograph that can be used for training."""

    sha256: str  # of the file
    file_bytes: int
    width: int  # of the upright original, pixels
    height: int
    mode: str
    colorfulness: float
    signature: bytes  # see `pipeline.photographs.duplicates`
    image: bytes  # PNG, RGB, upright sRGB, reduced; empty unless asked for


class Examiner:
    """Examines photographs; see `GuardedExaminer`."""

    def __init__(self, settings: Settings, announce: Callable[[int], None] = lambda pixels: None):
        self.settings = settings
        self._announce = announce  # called with the number of pixels before a picture is decoded

    def examine(self, item: Item, min_side: int, side: int, keep: bool) -> Examined | Record:
        """Examines a photograph.

        Args:
          item: the file.
          min_side, side: as for `reading.read_color`.
          keep: return its pixels, too.
        """
        started = time.perf_counter()
        record = item.record()
        try:
            data = read(item)
            record = record.replace(source_bytes=len(data), source_sha256=hashlib.sha256(data).hexdigest())
            found = read_color(
                data,
                max_pixels=self.settings.max_pixels,
                min_side=min_side,
                side=side,
                announce=self._announce,
            )
            width, height = found.size
            record = record.replace(width=width, height=height)
            judge(found.rgb)
        except Refusal as refusal:
            return record.refuse(refusal, milliseconds=round(1000 * (time.perf_counter() - started)))
        image = b""
        if keep:
            encoded = cv2.imencode(".png", cv2.cvtColor(found.rgb, cv2.COLOR_RGB2BGR), _PNG)[1]
            image = encoded.tobytes()
        signed = signature(found.rgb)
        return Examined(
            record.source_sha256, len(data), width, height, found.mode, colorfulness(found.rgb), signed, image
        )


class GuardedExaminer(GuardedProcess):
    """An `Examiner` in a guarded process. A crash or a hang costs one picture, not the job."""

    def __init__(self, settings: Settings):
        super().__init__("pipeline.photographs.examiner:Examiner", settings)

    def examine(self, item: Item, min_side: int, side: int, keep: bool) -> Examined | Record:
        return self.ask(item, "examine", item, min_side, side, keep)
