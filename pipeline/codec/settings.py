"""What one job does to every scan: the settled options and the model's identity."""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass

# Raised when the same options give other pixels than before, so that results made earlier count as stale.
PROCESS = 2
MAX_PIXELS = 250_000_000  # of a scan, unless the user says otherwise


@dataclass(frozen=True, slots=True)
class Settings:
    output: str  # folder or gs:// prefix of the derivatives
    run: str  # the run's identity, in records
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
    codec_timeout: float = 120.0  # seconds for a scan's decoding, or encoding, plus a second per megapixel
    stop_file: str = ""  # once it is there, nothing new is begun

    @property
    def options_sha256(self) -> str:
        """Identity of the options that change a derivative."""
        return _options_sha256(self)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        return cls(**json.loads(text))


@functools.lru_cache(maxsize=4)  # asked for each scan
def _options_sha256(settings: Settings) -> str:
    names = ("format", "quality", "strength", "min_confidence", "color_scans")
    chosen = {name: getattr(settings, name) for name in names}
    if settings.format != "jpeg":
        del chosen["quality"]
    return hashlib.sha256(json.dumps([PROCESS, chosen], sort_keys=True).encode()).hexdigest()
