"""Settings of a job for every scan: options, and the identity of the model."""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass

from pipeline.decoding.opening import MAX_PIXELS
from pipeline.inputs.collection import Item
from pipeline.records.record import Record

# Increased when the same options give other pixels than before, so that earlier results become stale.
PROCESS = 3


@dataclass(frozen=True, slots=True)
class Settings:
    output: str  # folder, gs:// or s3:// prefix of the derivatives
    run: str  # identity of the run, in records
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""
    model_uri: str = ""  # folder of the model
    side: int = 0  # S: the network sees S x S pixels
    format: str = "jpeg"  # of derivatives: jpeg, png or tiff
    quality: int = 90  # JPEG, 1...100
    strength: float = 1.0  # factor on the network's chroma
    min_confidence: float = 0.0  # below it no derivative is written
    color_scans: str = "skip"  # or colorize
    max_pixels: int = MAX_PIXELS
    codec_timeout: float = 120.0  # seconds for decoding or encoding a scan, plus one per megapixel
    stop_file: str = ""  # if it exists, no new scan is started; local, gs:// or s3://
    gpu: bool = False  # whether every worker must see a GPU
    gpu_memory: int = 0  # MB of it for each process; 0 for no limit
    local: bool = True  # whether the launcher plans the run and starts the workers

    @property
    def options_sha256(self) -> str:
        """Digest of the options that change a derivative."""
        return _options_sha256(self)

    def record(self, item: Item) -> Record:
        """The initial record of a scan."""
        return item.record(
            model=self.model,
            model_version=self.model_version,
            run=self.run,
            model_sha256=self.model_sha256,
            options_sha256=self.options_sha256,
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        return cls(**json.loads(text))


@functools.lru_cache(maxsize=4)  # called for each scan
def _options_sha256(settings: Settings) -> str:
    names = ("format", "quality", "strength", "min_confidence", "color_scans")
    chosen = {name: getattr(settings, name) for name in names}
    if settings.format != "jpeg":
        del chosen["quality"]
    return hashlib.sha256(json.dumps([PROCESS, chosen], sort_keys=True).encode()).hexdigest()
