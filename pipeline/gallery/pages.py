"""Pictures for people: a folder of static pages beside the derivatives, each scan before and after.

The pages open from the file system, without a server, a network or a library; without scripts they still show
every picture. Every file is OUTPUT/gallery/NAME with a NAME of `_OURS`, and a run leaves only its own.
"""

import contextlib
import hashlib
import heapq
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from string import Template
from urllib.parse import quote

from PIL import Image

from pipeline import storage
from pipeline.record import SKIPS, Outcome, Reason, Record
from pipeline.thumbnail import SIDE

FOLDER = "gallery"
PAGE = 48  # scans
WRITERS = 8  # files under way at a time: Cloud Storage takes its time over each

_OURS = re.compile(
    r"(index|page-\d+|(colorized|skipped|failed)(-\d+)?)\.html|gallery\.(css|js)|"
    r"pictures/[0-9a-f]{24}-(before|after)(-large)?\.jpg"  # earlier versions had large ones, too
)
_ORDER = list(Outcome)
_OUTCOME_WORDS = {Outcome.COLORIZED: "Colourised", Outcome.SKIPPED: "Skipped", Outcome.FAILED: "Failed"}
_REASON_WORDS = {Reason.ALREADY_COLOR: "already in colour", Reason.NOT_AN_IMAGE: "no image"}
# Would break HTML, or let a file's name rearrange the line it stands in.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")

# A second attempt at these would cost as much time, or another process.
_NOT_AGAIN = {Reason.CODEC_CRASHED, Reason.CODEC_TIMEOUT}

Thumbnail = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A thumbnail as stored."""

    name: str  # relative to the gallery
    width: int  # pixels, as a person sees it
    height: int


@dataclass(frozen=True, slots=True)
class _Card:
    record: Record
    before: _Picture | None
    after: _Picture | None


@dataclass(frozen=True, slots=True)
class _View:
    """The pages of one outcome, or of all (None)."""

    outcome: Outcome | None
    cards: list[_Card]
    total: int  # scans of the whole job, shown or not

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


def pictures(output: str, record: Record) -> tuple[str, str]:
    """URIs of a scan's two pictures in the gallery, before and after: other contents have other names."""
    folder = storage.join(output, FOLDER)
    before, after = _names(record)
    return storage.join(folder, before), storage.join(folder, after)


class Shown:
    """The scans whose pictures one process has put into the gallery while it had them: its least sure so far.

    The report chooses among those of all processes, makes what is missing and removes what is too many.
    """

    def __init__(self, output: str, size: int):
        self._output, self._size = output, size
        self._heap: list[tuple[float, tuple[str, str]]] = []  # the surest in front

    def wants(self, confidence: float) -> bool:
        """Whether a scan of this confidence is among the `size` least sure."""
        return len(self._heap) < self._size or (self._size > 0 and -confidence > self._heap[0][0])

    def add(self, record: Record) -> None:
        """Counts a scan that was wanted and is shown now; removes the pictures of one that no longer is."""
        if record.outcome != Outcome.COLORIZED or not self.wants(record.confidence):
            return
        entry = -record.confidence, pictures(self._output, record)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
            return
        for uri in heapq.heappushpop(self._heap, entry)[1]:
            with contextlib.suppress(OSError):  # the report removes it, or says what is wrong
                storage.delete(uri)


def write_gallery(output: str, sample: Sequence[Record], summary: Mapping, thumbnail: Thumbnail) -> str:
    """Writes OUTPUT/gallery/, and removes what an earlier run left there.

    Args:
      output: the derivatives' folder or gs:// prefix.
      sample: the scans to show, bounded by the caller. Pictures that are there already are not made again.
      summary: of the whole job: `outcomes` and `reasons` map names to counts; `records`, `run`, `model` and
        `model_version`. What is missing is counted from the sample or left out.
      thumbnail: URI -> a small upright JPEG, or None.

    Returns:
      The URI of its first page.

    Raises:
      OSError: a file could not be written.
    """
    folder = storage.join(output, FOLDER)
    present = {info.uri[len(folder) + 1 :] for info in storage.list_files(folder)}
    written = set()
    with ThreadPoolExecutor(WRITERS) as pool:
        under_way = []

        def write(name: str, data: bytes) -> None:
            written.add(name)
            under_way.append(pool.submit(storage.write, storage.join(folder, name), data))

        for name in ("gallery.css", "gallery.js"):
            write(name, _template(name).encode())
        cards = [_card(record, present, thumbnail, write) for record in _arranged(sample)]
        views = _views(cards, summary)
        pages = [(view, page) for view in views if view.shown for page in range(1, view.pages + 1)]
        for view, page in pages[1:]:
            write(view.page_name(page), _page(output, view, page, views, summary))
        for writing in under_way:
            writing.result()
    # The first page comes last: it never leads to what is not there yet.
    index = storage.join(folder, "index.html")
    storage.write(index, _page(output, views[0], 1, views, summary))
    shown = {picture.name for card in cards for picture in (card.before, card.after) if picture}
    for name in present - written - shown - {"index.html"}:
        if _OURS.fullmatch(name):
            storage.delete(storage.join(folder, name))
    return index


def _arranged(sample: Sequence[Record]) -> list[Record]:
    """Colourised scans first, the least sure of them in front."""

    def place(record: Record) -> tuple:
        outcome = _ORDER.index(record.outcome) if record.outcome in _ORDER else len(_ORDER)
        confidence = record.confidence if outcome == 0 and record.confidence is not None else 2.0
        return outcome, confidence

    return sorted(sample, key=place)


def _views(cards: list[_Card], summary: Mapping) -> list[_View]:
    counts = summary.get("outcomes") or {}
    views = []
    for outcome in _ORDER:
        own = [card for card in cards if card.record.outcome == outcome]
        views.append(_View(outcome, own, max(len(own), counts.get(outcome, 0))))
    total = max(len(cards), summary.get("records") or 0, sum(view.total for view in views))
    return [_View(None, cards, total), *views]


def _names(record: Record) -> tuple[str, str]:
    def digest(*words: str) -> str:
        return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    scan = record.key, record.source, record.source_sha256  # of two masters with one key, one has failed
    return (
        f"pictures/{digest(*scan)}-before.jpg",
        f"pictures/{digest(*scan, record.derivative_sha256)}-after.jpg",
    )


def _card(
    record: Record, present: set[str], thumbnail: Thumbnail, write: Callable[[str, bytes], None]
) -> _Card:
    def picture(uri: str, sha256: str, name: str) -> _Picture | None:
        if sha256 and record.width and name in present:
            scale = min(1.0, SIDE / max(record.width, record.height))
            size = (max(1, round(scale * side)) for side in (record.width, record.height))
            return _Picture(name, *size)
        data = thumbnail(uri)
        if data is None:
            return None
        write(name, data)
        with Image.open(io.BytesIO(data)) as image:
            return _Picture(name, *image.size)

    before, after = _names(record)
    if record.outcome == Outcome.COLORIZED:
        return _Card(
            record,
            picture(record.source, record.source_sha256, before),
            picture(record.derivative, record.derivative_sha256, after),
        )
    known = record.source and record.reason not in _NOT_AGAIN
    return _Card(record, picture(record.source, record.source_sha256, before) if known else None, None)


def _page(output: str, view: _View, page: int, views: list[_View], summary: Mapping) -> bytes:
    first = (page - 1) * PAGE
    title = "Before and after" if view.outcome is None else f"{_OUTCOME_WORDS[view.outcome]} scans"
    fields = {
        "title": title if view.pages == 1 else f"{title}, page {page}",
        "lead": _lead(views),
        "note": "The light and shade of each picture are its scan’s own. The colours are a model’s estimate: "
        "plausible, and no record of what was there.",
        "views": "\n".join(_tab(other, view) for other in views),
        "extent": _extent(view),
        "reasons": _reasons(view, summary),
        "start": first + 1,
        "cards": "\n".join(_card_html(card, output) for card in view.cards[first : first + PAGE]),
        "pages": _page_links(view, page),
        "footer": _footer(summary),
    }
    return Template(_template("page.html")).substitute(fields).encode()


def _lead(views: list[_View]) -> str:
    every, *outcomes = views
    words = ", ".join(
        f"{_number(view.total)} {_OUTCOME_WORDS[view.outcome].lower()}" for view in outcomes if view.total
    )
    return f"{_scans(every.total)}: {words}." if words else f"{_scans(every.total)}."


def _tab(view: _View, current: _View) -> str:
    words = f"{_OUTCOME_WORDS.get(view.outcome, 'All')} <small>{_number(view.total)}</small>"
    if not view.shown:
        return f"<li><span>{words}</span></li>"
    mark = ' aria-current="page"' if view is current else ""
    return f'<li><a href="{view.page_name(1)}"{mark}>{words}</a></li>'


def _extent(view: _View) -> str:
    kind = "scans" if view.outcome is None else f"{_OUTCOME_WORDS[view.outcome].lower()} scans"
    shown, total = len(view.cards), view.total
    order = ", the least sure first" if view.outcome in (None, Outcome.COLORIZED) and shown > 1 else ""
    if total == 0:
        return "There are no scans to show."
    if shown == 0:
        return f"None of the {_number(total)} {kind} is in this sample; the manifest has them all."
    if shown < total:
        return f"A sample: {_number(shown)} of {_number(total)} {kind}{order}. The manifest has them all."
    return f"All {_number(total)} {kind}{order}." if total > 1 else "One scan."


def _reasons(view: _View, summary: Mapping) -> str:
    """How often each reason occurred in the whole job, on the page of its outcome."""
    if view.outcome not in (Outcome.SKIPPED, Outcome.FAILED):
        return ""
    skipped = view.outcome == Outcome.SKIPPED
    counts = [
        (count, reason)
        for reason, count in (summary.get("reasons") or {}).items()
        if reason and count and (reason in SKIPS) == skipped
    ]
    counts.sort(key=lambda pair: (-pair[0], pair[1]))
    items = "".join(f"<li><b>{_number(count)}</b> {_html(_reason(reason))}</li>" for count, reason in counts)
    return f'<ul class="reasons" aria-label="Reasons">{items}</ul>' if items else ""


def _card_html(card: _Card, output: str) -> str:
    record = card.record
    folder, _, name = record.key.rpartition("/")
    where = f'<bdi class="folder">{_html(folder)}/</bdi>' if folder else ""
    lines = [
        f'<li class="{_html(record.outcome)}">',
        f'<div class="mat">{_pair_html(card)}</div>',
        f"<h2>{where}<bdi>{_html(name or record.source)}</bdi></h2>",
    ]
    if record.outcome != Outcome.COLORIZED:
        reason = f": {_html(_reason(record.reason))}" if record.reason else ""
        words = _OUTCOME_WORDS.get(record.outcome, record.outcome)
        lines.append(f'<p class="outcome"><b>{_html(words)}{reason}</b></p>')
    if facts := _facts(record):
        lines.append(f'<p class="facts">{facts}</p>')
    if record.detail:
        lines.append(f'<p class="detail">{_html(record.detail)}</p>')
    if links := _links(card, output):
        lines.append(f'<p class="links">{links}</p>')
    return "\n".join([*lines, "</li>"])


def _pair_html(card: _Card) -> str:
    key = _html(card.record.key or card.record.source)
    frame = card.after or card.before
    if frame is None:
        return '<p class="none">no picture</p>'
    style = f"--ratio: {frame.width / frame.height:.5f}; --width: {frame.width}"
    if card.before is None or card.after is None:
        alt = f"{key}, {'colourised' if card.after else 'the scan'}"
        return f'<div class="pair" style="{style}">{_image(frame, alt)}</div>'
    after = _image(card.after, f"{key}, colourised", "after")
    before = _image(card.before, f"{key}, the scan", "before")
    return (
        f'<div class="pair compare" style="{style}">{after}{before}<span class="handle"></span>'
        f'<input type="range" min="0" max="100" value="50" autocomplete="off" aria-valuetext="half and half" '
        f'aria-label="How much of the scan is shown before its colours: {key}"></div>'
    )


def _image(picture: _Picture, alt: str, role: str = "") -> str:
    kind = f'class="{role}" ' if role else ""
    return (
        f'<img {kind}src="{picture.name}" alt="{alt}" '
        f'width="{picture.width}" height="{picture.height}" loading="lazy" decoding="async">'
    )


def _facts(record: Record) -> str:
    facts = []
    if record.confidence is not None:
        facts.append(f"Confidence {record.confidence:.2f}")
    if record.width and record.height:
        facts.append(f"{_number(record.width)} × {_number(record.height)}")
    if record.outcome == Outcome.COLORIZED and record.model:
        facts.append(_html(f"{record.model} {record.model_version}".strip()))
    return " · ".join(facts)


def _links(card: _Card, output: str) -> str:
    links = []
    name = _html(PurePosixPath(card.record.key).name)
    if picture := card.after or card.before:
        links.append(f'<a class="enlarge" href="{picture.name}" aria-label="Enlarge {name}">Enlarge</a>')
    base = output.rstrip("/") + "/"
    if card.after and card.record.derivative.startswith(base):
        href = "../" + _percent_encoded(card.record.derivative[len(base) :])
        links.append(f'<a href="{href}" aria-label="Derivative of {name}">Derivative</a>')
    return "".join(links)


def _page_links(view: _View, page: int) -> str:
    if view.pages == 1:
        return ""
    items, last = [], 0
    for number in range(1, view.pages + 1):
        if number not in (1, view.pages) and abs(number - page) > 3:
            continue
        if number > last + 1:
            items.append('<li><span class="gap">…</span></li>')
        mark = f'aria-label="Page {number}"' + (' aria-current="page"' if number == page else "")
        items.append(f'<li><a href="{view.page_name(number)}" {mark}>{number}</a></li>')
        last = number
    if page > 1:
        items.insert(0, f'<li><a rel="prev" href="{view.page_name(page - 1)}">Previous</a></li>')
    if page < view.pages:
        items.append(f'<li><a rel="next" href="{view.page_name(page + 1)}">Next</a></li>')
    return f'<nav aria-label="Pages"><ul class="pages">{"".join(items)}</ul></nav>'


def _footer(summary: Mapping) -> str:
    model = " ".join(str(summary[name]) for name in ("model", "model_version") if summary.get(name))
    words = [f"Coloured by {model}"] if model else []
    words += [f"Run {summary['run']}"] if summary.get("run") else []
    return _html(" · ".join(words))


def _reason(reason: str) -> str:
    return _REASON_WORDS.get(reason) or str(reason).replace("_", " ")


def _number(count: int) -> str:
    """81233 -> 81 233, with narrow spaces that do not break."""
    return f"{count:,}".replace(",", "\u202f") if count >= 10_000 else str(count)


def _scans(count: int) -> str:
    return "One scan" if count == 1 else f"{_number(count)} scans"


def _html(text: str) -> str:
    """Any text, as a file name may hold it, for HTML text and quoted attributes, in valid Unicode."""
    valid = str(text).encode("utf-8", "backslashreplace").decode()
    return html.escape(_UNPRINTABLE.sub("\ufffd", valid))


def _percent_encoded(path: str) -> str:
    """A relative path for a link; a name that is not valid UTF-8 gets its own bytes."""
    try:
        return quote(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # such a name can be no file's
        return quote(path.encode("utf-8", "replace"))


def _template(name: str) -> str:
    return resources.files("pipeline").joinpath("templates", name).read_text(encoding="utf-8")
