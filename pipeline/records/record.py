"""The record of a scan: one JSON line that says what was done to which picture, by which model."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

SCHEMA = 1


class Outcome(StrEnum):
    COLORIZED = "colorized"
    SKIPPED = "skipped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a scan has no derivative. Empty when it was colourised."""

    NONE = ""
    # skipped: nothing went wrong
    ALREADY_COLOR = "already_color"
    LOW_CONFIDENCE = "low_confidence"
    NOT_AN_IMAGE = "not_an_image"
    # skipped: nothing to train on
    GREY = "grey"
    CLIP_ART = "clip_art"
    TEXT_PAGE = "text_page"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    # failed: the file
    MISSING = "missing"
    READ_ERROR = "read_error"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    UNSUPPORTED_MODE = "unsupported_mode"
    MULTIPAGE = "multipage"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    BAD_KEY = "bad_key"
    DUPLICATE_KEY = "duplicate_key"
    BAD_LINE = "bad_line"  # of a manifest: it names no scan
    UNSUPPORTED_SOURCE = "unsupported_source"
    BAD_HINTS = "bad_hints"
    # failed: the work
    CODEC_CRASHED = "codec_crashed"
    CODEC_TIMEOUT = "codec_timeout"
    CODEC_ERROR = "codec_error"
    MODEL_ERROR = "model_error"
    WRITE_ERROR = "write_error"


SKIPS = frozenset(
    {
        Reason.ALREADY_COLOR,
        Reason.LOW_CONFIDENCE,
        Reason.NOT_AN_IMAGE,
        Reason.GREY,
        Reason.CLIP_ART,
        Reason.TEXT_PAGE,
        Reason.DUPLICATE,
        Reason.NEAR_DUPLICATE,
    }
)


class Refusal(Exception):
    """A scan that gets no derivative: an outcome on its way to becoming a record, never a job's error."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def outcome(self) -> Outcome:
        return Outcome.SKIPPED if self.reason in SKIPS else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to one scan. The manifest, the dead letters and a manifest given as input share it."""

    source: str  # URI of the master
    key: str  # its path relative to the collection
    source_bytes: int = -1
    source_version: str = ""  # modification time in ns, or the object's generation: cheap to compare
    source_sha256: str = ""
    outcome: str = ""
    reason: str = ""
    detail: str = ""  # words for a person
    derivative: str = ""  # URI
    derivative_bytes: int = 0
    derivative_sha256: str = ""
    width: int = 0  # as a person sees it: after orientation
    height: int = 0
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""
    options_sha256: str = ""  # of the options that change a derivative
    hints_sha256: str = ""  # of the colours given for it; empty where there are none
    confidence: float | None = None  # 0...1; None where the network was not asked
    colorfulness: float | None = None  # Hasler-Suesstrunk M3, 8-bit sRGB
    milliseconds: int = 0  # host and network time, the batch's shared out
    run: str = ""
    finished: str = ""  # UTC, ISO 8601
    schema: int = SCHEMA

    def replace(self, **fields) -> "Record":
        return dataclasses.replace(self, **fields)

    def finish(self, **fields) -> "Record":
        """With these fields, as of now."""
        return self.replace(finished=datetime.now(UTC).isoformat(timespec="milliseconds"), **fields)

    def to_json(self) -> str:
        """One line, ASCII (a file name that is not valid UTF-8 survives as an escaped surrogate)."""
        return json.dumps({name: getattr(self, name) for name in _TYPES}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> "Record":
        """Reads a line. Raises ValueError as `fields` and `from_fields` do."""
        return cls.from_fields(fields(line))

    @classmethod
    def from_fields(cls, said: dict) -> "Record":
        """Of a line's fields. Those that are unknown or of another type than ours are ignored, so that an
        inventory's own columns do no harm.

        Raises:
          ValueError: there is no text `source`, or `key` is no text.
        """
        if not isinstance(said.get("source"), str) or not said["source"]:
            raise ValueError('a manifest line must be a JSON object with a text "source"')
        if not isinstance(said.get("key", ""), str):
            raise ValueError('"key" must be text')
        ours = {name: value for name, value in said.items() if type(value) in _TYPES.get(name, ())}
        return cls(**{"key": ""} | ours)


def fields(line: str | bytes) -> dict:
    """What a line of a manifest says. Raises ValueError where it is no JSON object, with words for a person."""
    try:
        said = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg} at character {error.pos + 1})") from error
    if not isinstance(said, dict):
        raise ValueError('a manifest line must be a JSON object with a text "source"')
    return said


_NUMBER = (int, float, type(None))  # and no bool
_TYPES = {
    field.name: {str: (str,), int: (int,)}.get(field.type, _NUMBER) for field in dataclasses.fields(Record)
}
