"""The gallery: a folder of static pages beside the derivatives that show each scan before and after.

The pages open from the file system. They need no server, no network and no library, and without scripts they still
show every picture. All files are named OUTPUT/gallery/NAME, where NAME matches `_OURS`; a run removes those of
earlier runs.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from urllib.parse import quote

import jinja2
from PIL import Image

from pipeline import storage
from pipeline.gallery.pictures import FOLDER, names
from pipeline.imaging.thumbnail import SIDE
from pipeline.records import keys
from pipeline.records.record import SKIPS, Outcome, Reason, Record

PAGE = 48  # scans
WRITERS = 8  # files that are written at the same time, because object stores are slow for each one

_OURS = re.compile(
    r"(index|page-\d+|(colorized|skipped|failed)(-\d+)?)\.html|gallery\.(css|js)|"
    r"pictures/[0-9a-f]{24}-(before|after)(-large)?\.jpg"  # earlier versions wrote large ones, too
)
_OUTCOME_WORDS = {"colorized": "Colourised", "skipped": "Skipped", "failed": "Failed"}
_REASON_WORDS = {"already_color": "already in colour", "not_an_image": "not an image"}
# Characters that break HTML, or that let the name of a file rearrange the line around it.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")

# A second attempt would take as long as the first, or kill another process.
_NOT_AGAIN = {Reason.CODEC_CRASHED, Reason.CODEC_TIMEOUT}

Thumbnail = Callable[[str, int], bytes | None]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A stored thumbnail."""

    name: str  # relative to the gallery
    width: int  # pixels, upright
    height: int


@dataclass(frozen=True, slots=True)
class _Card:
    """One scan on a page."""

    record: Record
    before: _Picture | None
    after: _Picture | None
    derivative: str  # link to the file, relative to the gallery; empty if there is none

    @property
    def picture(self) -> _Picture | None:
        return self.after or self.before

    @property
    def style(self) -> str:
        assert self.picture is not None
        return f"--ratio: {self.picture.width / self.picture.height:.5f}; --width: {self.picture.width}"

    @property
    def folder(self) -> str:
        return self.record.key.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.record.key.rpartition("/")[2]

    @property
    def refusal(self) -> str:
        """Why there is no derivative; empty if there is one."""
        record = self.record
        if record.outcome == Outcome.COLORIZED:
            return ""
        words = _OUTCOME_WORDS.get(record.outcome, record.outcome)
        return f"{words}: {_reason(record.reason)}" if record.reason else words

    @property
    def facts(self) -> str:
        record, facts = self.record, []
        if record.confidence is not None:
            facts.append(f"Confidence {record.confidence:.2f}")
        if record.width and record.height:
            facts.append(f"{_number(record.width)} × {_number(record.height)}")
        if record.outcome == Outcome.COLORIZED and record.model:
            facts.append(f"{record.model} {record.model_version}".strip())
        return " · ".join(facts)


@dataclass(frozen=True, slots=True)
class _View:
    """The pages of one outcome, or of all outcomes (None)."""

    outcome: Outcome | None
    cards: list[_Card]
    total: int  # scans in the whole job, shown or not

    @property
    def words(self) -> str:
        return _OUTCOME_WORDS[self.outcome] if self.outcome else "All"

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.cards) // PAGE))

    @property
    def shown(self) -> bool:
        return self.outcome is None or self.total > 0

    def page_name(self, page: int) -> str:
        if self.outcome is None:
            return "index.html" if page == 1 else f"page-{page}.html"
        return f"{self.outcome}.html" if page == 1 else f"{self.outcome}-{page}.html"


def write_gallery(output: str, sample: Sequence[Record], summary: Mapping, thumbnail: Thumbnail) -> str:
    """Writes OUTPUT/gallery/ and removes the files of earlier runs from it.

    Args:
      output: folder, gs:// or s3:// prefix of the derivatives.
      sample: the scans to show; the caller limits their number. Pictures that exist already are kept.
      summary: of the whole job: `outcomes` and `reasons` map names to counts; `records`, `run`, `model` and
        `model_version`. Missing counts are taken from the sample; other missing entries are left out.
      thumbnail: takes a URI and the number of a page, or 0, and returns a small upright JPEG, or None if the file
        cannot be read.

    Returns:
      The URI of the first page.

    Raises:
      OSError: a file could not be written.
    """
    folder = storage.join(output, FOLDER)
    present = {info.uri[len(folder) + 1 :] for info in storage.list_files(folder)}
    written = set()
    with ThreadPoolExecutor(WRITERS) as pool:
        pending = []

        def write(name: str, data: bytes) -> None:
            written.add(name)
            pending.append(pool.submit(storage.write, storage.join(folder, name), data))

        for name in ("gallery.css", "gallery.js"):
            write(name, resources.files("pipeline.gallery").joinpath("templates", name).read_bytes())
        cards = [_card(output, record, present, thumbnail, write) for record in _arranged(sample)]
        views = _views(cards, summary)
        pages = [(view, page) for view in views if view.shown for page in range(1, view.pages + 1)]
        for view, page in pages[1:]:
            write(view.page_name(page), _page(view, page, views, summary))
        for one in pending:
            one.result()
    # The first page is written last, so that it never links to a missing file.
    index = storage.join(folder, "index.html")
    storage.write(index, _page(views[0], 1, views, summary))
    shown = {picture.name for card in cards for picture in (card.before, card.after) if picture}
    for name in present - written - shown - {"index.html"}:
        if _OURS.fullmatch(name):
            storage.delete(storage.join(folder, name))
    return index


def _arranged(sample: Sequence[Record]) -> list[Record]:
    """Puts colourised scans first, those with the lowest confidence in front."""
    order = [str(outcome) for outcome in Outcome]

    def place(record: Record) -> tuple:
        outcome = order.index(record.outcome) if record.outcome in order else len(order)
        confidence = record.confidence if outcome == 0 and record.confidence is not None else 2.0
        return outcome, confidence

    return sorted(sample, key=place)


def _views(cards: list[_Card], summary: Mapping) -> list[_View]:
    counts = summary.get("outcomes") or {}
    views = []
    for outcome in Outcome:
        own = [card for card in cards if card.record.outcome == outcome]
        views.append(_View(outcome, own, max(len(own), counts.get(outcome, 0))))
    total = max(len(cards), summary.get("records") or 0, sum(view.total for view in views))
    return [_View(None, cards, total), *views]


def _card(
    output: str, record: Record, present: set[str], thumbnail: Thumbnail, write: Callable[[str, bytes], None]
) -> _Card:
    def picture(uri: str, page: int, sha256: str, name: str) -> _Picture | None:
        if sha256 and record.width and name in present:
            scale = min(1.0, SIDE / max(record.width, record.height))
            width, height = (max(1, round(scale * side)) for side in (record.width, record.height))
            return _Picture(name, width, height)
        data = thumbnail(uri, page)
        if data is None:
            return None
        write(name, data)
        with Image.open(io.BytesIO(data)) as image:
            return _Picture(name, *image.size)

    before_name, after_name = names(record)
    before = after = None
    if record.source and record.reason not in _NOT_AGAIN:
        before = picture(record.source, keys.split(record.key)[1], record.source_sha256, before_name)
    if record.outcome == Outcome.COLORIZED and record.derivative:
        after = picture(record.derivative, 0, record.derivative_sha256, after_name)
    base = output.rstrip("/") + "/"
    linked = after is not None and record.derivative.startswith(base)
    return _Card(
        record, before, after, "../" + _percent_encoded(record.derivative[len(base) :]) if linked else ""
    )


def _page(view: _View, page: int, views: list[_View], summary: Mapping) -> bytes:
    title = "Before and after" if view.outcome is None else f"{view.words} scans"
    first = (page - 1) * PAGE
    html = template("page.html").render(
        title=title if view.pages == 1 else f"{title}, page {page}",
        lead=_lead(views),
        views=views,
        view=view,
        extent=_extent(view),
        reasons=_reasons(view, summary),
        start=first + 1,
        cards=view.cards[first : first + PAGE],
        page=page,
        numbers=_numbers(page, view.pages),
        footer=_footer(summary),
    )
    return html.encode()


@functools.cache
def template(name: str) -> jinja2.Template:
    """A template of this folder. All texts are escaped and printable; `number` and `reason` are filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.gallery"),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else _printable(value),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "reason": _reason}
    return environment.get_template(name)


def _lead(views: list[_View]) -> str:
    every, *outcomes = views
    words = ", ".join(f"{_number(view.total)} {view.words.lower()}" for view in outcomes if view.total)
    return f"{_scans(every.total)}: {words}." if words else f"{_scans(every.total)}."


def _extent(view: _View) -> str:
    kind = "scans" if view.outcome is None else f"{view.words.lower()} scans"
    shown, total = len(view.cards), view.total
    order = ", the least sure first" if view.outcome in (None, Outcome.COLORIZED) and shown > 1 else ""
    if total == 0:
        return "There are no scans to show."
    if shown == 0:
        return f"None of the {_number(total)} {kind} is in this sample; the manifest has them all."
    if shown < total:
        return f"A sample: {_number(shown)} of {_number(total)} {kind}{order}. The manifest has them all."
    return f"All {_number(total)} {kind}{order}." if total > 1 else "One scan."


def _reasons(view: _View, summary: Mapping) -> list[tuple[int, str]]:
    """How often each reason occurred in the whole job, for the page of its outcome."""
    if view.outcome not in (Outcome.SKIPPED, Outcome.FAILED):
        return []
    skipped = view.outcome == Outcome.SKIPPED
    counts = [
        (count, _reason(reason))
        for reason, count in (summary.get("reasons") or {}).items()
        if reason and count and (reason in SKIPS) == skipped
    ]
    return sorted(counts, key=lambda pair: (-pair[0], pair[1]))


def _numbers(page: int, pages: int) -> list[int]:
    """The pages that are linked; 0 stands for a gap."""
    numbers: list[int] = []
    for number in range(1, pages + 1):
        if number in (1, pages) or abs(number - page) <= 3:
            numbers += [0, number] if numbers and number > numbers[-1] + 1 else [number]
    return numbers


def _footer(summary: Mapping) -> str:
    model = " ".join(str(summary[name]) for name in ("model", "model_version") if summary.get(name))
    words = [f"Coloured by {model}"] if model else []
    words += [f"Run {summary['run']}"] if summary.get("run") else []
    return " · ".join(words)


def _reason(reason: str) -> str:
    return _REASON_WORDS.get(reason) or str(reason).replace("_", " ")


def _number(count: int) -> str:
    """Formats 81233 as 81 233, with narrow spaces that do not break."""
    return f"{count:,}".replace(",", "\u202f") if count >= 10_000 else str(count)


def _scans(count: int) -> str:
    return "One scan" if count == 1 else f"{_number(count)} scans"


def _printable(text: object) -> str:
    """Makes valid Unicode of any text, also of the name of a file whose bytes are not valid UTF-8."""
    valid = str(text).encode("utf-8", "backslashreplace").decode()
    return _UNPRINTABLE.sub("\ufffd", valid)


def _percent_encoded(path: str) -> str:
    """Encodes a relative path for a link. A name that is not valid UTF-8 keeps its bytes."""
    try:
        return quote(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # no file can have such a name
        return quote(path.encode("utf-8", "replace"))
