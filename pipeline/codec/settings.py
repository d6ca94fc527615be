"""Settings of a job for every scan: options, and the identity of the model."""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass

from pipeline.decoding.limits import MAX_PIXELS
from pipeline.imaging.mark import Mark
from pipeline.inputs.item import Item
from pipeline.records.record import Record

# Increased when the same options give other pixels than before, so that earlier results become stale.
PROCESS = 5


@dataclass(frozen=True, slots=True)
class Settings:
    output: str  # folder, gs:// or s3:// prefix of the derivatives
    run: str  # identity of the run, in records
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""
    model_uri: str = ""  # folder of the model
    side: int = 0  # S: the network sees S x S pixels
    format: str = "jpeg"  # of derivatives: a key of `item.EXTENSIONS`, or "same"
    quality: int = 90  # of formats with losses, 1...100
    compression: str = ""  # of TIFF; see `imaging.derivative.encode`
    strength: float = 1.0  # factor on the network's chroma
    calm: float = 0.0  # certainty of a place below which its chroma fades
    min_confidence: float = 0.0  # below it no derivative is written
    color_scans: str = "skip"  # or colorize
    layout: str = "recognize"  # pictures in borders and on pages, "alto": first as its file says; or "whole"
    negatives: str = "ignore"  # "skip" or "invert" those that are recognised, or invert "all" scans
    max_pixels: int = MAX_PIXELS
    codec_timeout: float = 120.0  # seconds for decoding or encoding a scan, plus one per megapixel
    stop_file: str = ""  # if it exists, no new scan is started; local, gs:// or s3://
    gpu: bool = False  # whether every worker must see a GPU
    gpu_memory: int = 0  # MB of it for each process; 0 for no limit
    digests: tuple[str, ...] = ()  # of both files, besides SHA-256: see `records.record.DIGESTS`
    date: str = ""  # ISO 8601, in the derivatives
    description: str = ""  # added to the description of the master
    credit: str = ""  # in place of the credit line of the master
    mark: str = ""  # visible text; empty for none
    mark_place: str = ""  # see `imaging.mark.PLACES`
    c2pa: str = ""  # where signed manifests go: "embedded" or "sidecar"; empty for none
    c2pa_key: str = ""  # URIs; every worker reads them
    c2pa_certificate: str = ""
    model_terms: str = ""  # of use, in one line
    bag: bool = False  # whether the output is the payload of a bag
    local: bool = True  # whether the launcher plans the run and starts the workers

    @property
    def options(self) -> dict[str, str | int | float]:
        """The options that change a derivative."""
        names = ["format", "quality", "strength", "calm", "min_confidence", "color_scans", "layout"]
        if self.format in ("png", "tiff"):
            names.remove("quality")
        if self.negatives != "ignore":
            names.append("negatives")
        # Without these options, results of earlier versions are still up to date.
        by_option = ("compression", "description", "credit", "mark", "mark_place", "c2pa")
        names += [name for name in by_option if getattr(self, name)]
        return {name: getattr(self, name) for name in names}

    @property
    def visible_mark(self) -> Mark | None:
        return Mark(self.mark, self.mark_place) if self.mark else None

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
        values = json.loads(text)
        return cls(**values | {"digests": tuple(values["digests"])})


@functools.lru_cache(maxsize=4)  # called for each scan
def _options_sha256(settings: Settings) -> str:
    return hashlib.sha256(json.dumps([PROCESS, settings.options], sort_keys=True).encode()).hexdigest()
