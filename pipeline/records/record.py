"""The record of a scan: a line of JSON that says what was done to which picture, by which model."""

import dataclasses
import functools
import hashlib
import json
import mmap
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipeline import clock

SCHEMA = 1
EMBEDDED, SIDECAR = "embedded", "sidecar"
DIGESTS = ("md5", "sha512")  # of both files, besides SHA-256, by option


class Outcome(StrEnum):
    COLORIZED = "colorized"
    SKIPPED = "skipped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a scan has no derivative; empty if it was colourised."""

    NONE = ""
    # skipped, without an error
    ALREADY_COLOR = "already_color"
    LOW_CONFIDENCE = "low_confidence"
    NOT_AN_IMAGE = "not_an_image"
    LINE_DRAWING = "line_drawing"
    NEGATIVE = "negative"
    # skipped in the ingestion of photographs
    BLANK_PAGE = "blank_page"
    GREY = "grey"
    CLIP_ART = "clip_art"
    TEXT_PAGE = "text_page"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    # failed because of the file
    MISSING = "missing"
    READ_ERROR = "read_error"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    UNSUPPORTED_MODE = "unsupported_mode"
    MULTIPAGE = "multipage"
    ANIMATION = "animation"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    BAD_KEY = "bad_key"
    DUPLICATE_KEY = "duplicate_key"
    BAD_LINE = "bad_line"  # a line of a manifest that names no scan
    UNSUPPORTED_SOURCE = "unsupported_source"
    BAD_HINTS = "bad_hints"
    FIXITY = "fixity"  # a file that is not as its bag says
    # failed in the work
    CODEC_CRASHED = "codec_crashed"
    CODEC_TIMEOUT = "codec_timeout"
    CODEC_ERROR = "codec_error"
    MODEL_ERROR = "model_error"
    SIGN_ERROR = "sign_error"
    WRITE_ERROR = "write_error"


SKIPS = frozenset(
    {
        Reason.ALREADY_COLOR,
        Reason.LOW_CONFIDENCE,
        Reason.NOT_AN_IMAGE,
        Reason.LINE_DRAWING,
        Reason.NEGATIVE,
        Reason.BLANK_PAGE,
        Reason.GREY,
        Reason.CLIP_ART,
        Reason.TEXT_PAGE,
        Reason.DUPLICATE,
        Reason.NEAR_DUPLICATE,
    }
)


class Refusal(Exception):
    """Raised for a scan that gets no derivative. It becomes a record and never ends the job."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def outcome(self) -> Outcome:
        return Outcome.SKIPPED if self.reason in SKIPS else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to one scan. Manifests, dead letters and manifests as input have this form."""

    source: str  # URI of the master
    key: str  # path relative to the collection; see `records.keys` for those of pages
    source_bytes: int = -1
    source_version: str = ""  # modification time in ns, or generation of the object
    source_sha256: str = ""
    outcome: str = ""
    reason: str = ""
    detail: str = ""  # for people
    derivative: str = ""  # URI
    derivative_bytes: int = 0
    derivative_sha256: str = ""
    width: int = 0  # pixels, upright
    height: int = 0
    pages: int = 0  # of the file, if it has several pictures, and this is one of them
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""
    options_sha256: str = ""  # of the options that change a derivative
    hints_sha256: str = ""  # of the hints file; empty if there is none
    confidence: float | None = None  # 0...1; None if the network was not used
    colorfulness: float | None = None  # Hasler-Suesstrunk M3, 8-bit sRGB
    faded: float | None = None  # share of the network's chroma, 0...1, that --calm took away
    milliseconds: int = 0  # time of codec and network, with a share of the batch
    run: str = ""
    finished: str = ""  # UTC, ISO 8601
    schema: int = SCHEMA
    # By option; left out of a line if they are empty.
    source_md5: str = ""
    source_sha512: str = ""
    derivative_md5: str = ""
    derivative_sha512: str = ""
    c2pa: str = ""  # where the signed manifest of the derivative is: EMBEDDED, or a URI
    sidecar_sha256: str = ""
    group: str = ""  # scans with the same group belong together
    neighbors: tuple[str, ...] = ()  # keys of those that its chroma was steadied with
    neighbors_sha256: str = ""  # of what the listing says of its neighbours; empty if it has none
    neighbors_content_sha256: str = ""  # of their bytes; empty if it was coloured without looking at them

    def __post_init__(self):
        if isinstance(self.neighbors, list):  # from JSON
            object.__setattr__(self, "neighbors", tuple(self.neighbors))

    def replace(self, **fields) -> "Record":
        return dataclasses.replace(self, **fields)

    def finish(self, **fields) -> "Record":
        """A copy with these fields, finished now."""
        return self.replace(finished=clock.now().isoformat(timespec="milliseconds"), **fields)

    def refuse(self, refusal: Refusal, **fields) -> "Record":
        """A copy for a scan that gets no derivative, with these fields, finished now."""
        detail = joined(self.detail, refusal.detail)
        return self.finish(outcome=refusal.outcome, reason=refusal.reason, detail=detail, **fields)

    def to_json(self) -> str:
        """One line of ASCII. Names of files that are not valid UTF-8 have escaped surrogates."""
        values = {name: value for name in _TYPES if (value := getattr(self, name)) or name not in _SPARSE}
        return json.dumps(values, separators=(",", ":"))

    def fixity(self, file: str) -> dict[str, str]:
        """The digests of the "source" or of the "derivative" that the record has: hexadecimal, by algorithm."""
        found = {name: getattr(self, f"{file}_{name}") for name in ("sha256", *DIGESTS)}
        return {name: digest for name, digest in found.items() if digest}

    def values(self) -> tuple:
        """The values of all fields, in their order."""
        return _values(self)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Record":
        """Reads a line. Raises ValueError like `fields` and `from_fields`."""
        return cls.from_fields(fields(line))

    @classmethod
    def from_fields(cls, values: dict) -> "Record":
        """Makes a record from the fields of a line. Unknown fields and fields of other types are ignored.

        An inventory may therefore have columns of its own.

        Raises:
          ValueError: there is no text `source`, or `key` or `group` is not a text. A `group` may be null.
        """
        if not isinstance(values.get("source"), str) or not values["source"]:
            raise ValueError('a manifest line must be a JSON object with a text "source"')
        if not isinstance(values.get("key", ""), str):
            raise ValueError('"key" must be text')
        if not isinstance(values.get("group"), str | None):
            raise ValueError('"group" must be text')
        neighbors = values.get("neighbors")
        if isinstance(neighbors, list) and not all(isinstance(key, str) for key in neighbors):
            values = values | {"neighbors": None}  # which is ignored
        names = _known(tuple(values), tuple(map(type, values.values())))
        known = values if len(names) == len(values) else {name: values[name] for name in names}
        return cls(**known) if "key" in known else cls(key="", **known)


def joined(*words: str) -> str:
    """Joins remarks for `detail`; empty ones are left out."""
    return "; ".join(filter(None, words))


def fields(line: str | bytes) -> dict:
    """Parses a line of a manifest. Raises ValueError with words for people if it is not a JSON object."""
    try:
        values = json.loads(line if isinstance(line, str) else line.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} at character {error.pos + 1})") from error
    if not isinstance(values, dict):
        raise ValueError('a manifest line must be a JSON object with a text "source"')
    return values


@functools.lru_cache(maxsize=64)  # most lines of a manifest have the same fields
def _known(names: tuple[str, ...], types: tuple[type, ...]) -> tuple[str, ...]:
    """The names of fields of a record with values of the right types."""
    return tuple(name for name, kind in zip(names, types, strict=True) if kind in _TYPES.get(name, ()))


def digests(data: bytes | mmap.mmap, names: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 and the digests in `names` of some bytes, hexadecimal, by their names."""
    return {name: hashlib.new(name, data, usedforsecurity=False).hexdigest() for name in ("sha256", *names)}


def named_digests(file: str, found: Mapping[str, str]) -> dict[str, str]:
    """Fields of a record with the digests of the "source" or of the "derivative"."""
    return {f"{file}_{name}": value for name, value in found.items()}


# Fields that are left out of a line if they are empty.
BY_OPTION = {f"{file}_{name}" for file in ("source", "derivative") for name in DIGESTS}
BY_OPTION |= {"c2pa", "sidecar_sha256"}
_SPARSE = BY_OPTION | {"group", "neighbors", "neighbors_sha256", "neighbors_content_sha256"}
_values = operator.attrgetter(*Record.__slots__)
_NUMBER = (int, float, type(None))  # but not bool
_EXACT: dict[object, tuple[type, ...]] = {str: (str,), int: (int,), tuple[str, ...]: (list,)}
_TYPES = {field.name: _EXACT.get(field.type, _NUMBER) for field in dataclasses.fields(Record)}
