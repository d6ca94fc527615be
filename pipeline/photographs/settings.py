"""Settings of an ingestion. They need neither Beam nor TensorFlow."""

from dataclasses import dataclass

from pipeline.decoding.limits import MAX_PIXELS
from pipeline.photographs.splits import SHARES


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Settings of an ingestion.

    Attributes:
      side: shorter side of the pictures as stored, pixels.
      min_side: smallest shorter side that is accepted, pixels.
      max_pixels: largest number of pixels that is accepted.
      shares: shares of the parts train, eval and test; their sum is 1.
      codec_timeout: seconds for one picture, plus one second per megapixel.
    """

    side: int = 256
    min_side: int = 128
    max_pixels: int = MAX_PIXELS
    shares: tuple[float, float, float] = SHARES
    codec_timeout: float = 120.0
