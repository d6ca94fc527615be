"""Gallery pages, checked with an HTML parser that does not depend on the templates."""

import io
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from pipeline.codec.codec import Codec
from pipeline.codec.settings import Settings
from pipeline.gallery.pages import PAGE, write_gallery
from pipeline.gallery.pictures import Shown, uris
from pipeline.imaging.thumbnail import SIDE
from pipeline.records.record import Reason, Record

VOID = {"meta", "link", "img", "input"}
NASTY = 'box 1/50% off #3 & "b" \'<i>a?.tif'


class Page(HTMLParser):
    """Elements of a page as [tag, attributes, text], in order. Fails if tags do not match."""

    def __init__(self, path):
        super().__init__()
        self.path, self.elements, self._open = path, [], []
        self.feed(path.read_bytes().decode("utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element[0] == tag and attributes.items() <= element[1].items()
        ]

    def texts(self, tag, **attributes):
        return [element[2].strip() for element in self.all(tag, **attributes)]

    def targets(self):
        """Paths of all links, pictures, style sheets and scripts on the page."""
        for _, attributes, _ in self.elements:
            for name in ("href", "src"):
                target = attributes.get(name, "data:,")
                if not target.startswith(("data:,", "#")):
                    yield self.path.parent / os.fsdecode(unquote_to_bytes(target))


@pytest.fixture
def folder(tmp_path):
    """An archive and an output, with methods that add scans and derivatives."""
    return Folder(tmp_path)


class Folder:
    def __init__(self, base):
        self.archive, self.output = base / "archive", base / "colorized"
        self.thumbnail = Codec(Settings(output=str(self.output), run="r")).thumbnail

    def picture(self, path, color, size=(60, 40), **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB" if isinstance(color, tuple) else "L", size, color)
        image.save(path, "JPEG", **options)
        return str(path)

    def colorized(self, key, confidence=0.5, size=(60, 40), **options):
        return Record(
            source=self.picture(self.archive / key, 90, size, **options),
            key=key,
            outcome="colorized",
            derivative=self.picture(self.output / f"{key}_color.jpg", (160, 60, 40), size, **options),
            width=size[0],
            height=size[1],
            model="fusion",
            model_version="3",
            confidence=confidence,
        )

    def refused(self, key, outcome, reason, detail, *, picture=True):
        source = self.picture(self.archive / key, (20, 90, 200)) if picture else str(self.archive / key)
        return Record(source=source, key=key, outcome=outcome, reason=reason, detail=detail)

    def write(self, sample, **summary):
        index = write_gallery(str(self.output), sample, summary, self.thumbnail)
        assert index == f"{self.output}/gallery/index.html"
        return Page(Path(index))

    def page(self, name):
        return Page(self.output / "gallery" / name)

    def pages(self):
        return [Page(path) for path in sorted((self.output / "gallery").glob("*.html"))]


def test_every_link_and_picture_leads_to_a_file(folder):
    sample = [
        folder.colorized(NASTY),
        folder.colorized("b.jpg", size=(900, 700)),
        folder.refused("c.jpg", "skipped", "already_color", ""),
        folder.refused("d.jpg", "failed", "unreadable", "", picture=False),
    ]
    folder.write(sample)
    targets = [target for page in folder.pages() for target in page.targets()]
    assert all(target.is_file() for target in targets)
    for record in sample[:2]:
        assert any(os.path.samefile(target, record.derivative) for target in targets)


def test_nothing_is_fetched_from_elsewhere(folder):
    folder.write([folder.colorized("a.jpg")], run="r", model="m")
    for path in (folder.output / "gallery").rglob("*.*"):
        if path.suffix != ".jpg":
            text = path.read_text()
            assert not [sign for sign in ("http", '"//', "url(/", "@import", "fetch(") if sign in text]


def test_a_colorized_scan_has_a_labelled_slider_between_scan_and_derivative(folder):
    record = folder.colorized("box/a.jpg", confidence=0.617)
    page = folder.write([record])
    before, after = page.all("img", **{"class": "before"}), page.all("img", **{"class": "after"})
    assert len(before) == len(after) == 1
    assert before[0][1]["alt"] == "box/a.jpg, the scan"
    assert after[0][1]["alt"] == "box/a.jpg, colourised"
    assert np.asarray(Image.open(page.path.parent / before[0][1]["src"])).ndim == 2
    red, _, blue = Image.open(page.path.parent / after[0][1]["src"]).getpixel((5, 5))
    assert red > blue + 60
    [slider] = page.all("input", type="range")
    assert "box/a.jpg" in slider[1]["aria-label"]
    assert page.texts("p", **{"class": "facts"})[:1] == ["Confidence 0.62 · 60 × 40 · fusion 3"]


def test_big_pictures_are_reduced_and_fetched_when_they_come_into_view(folder):
    page = folder.write([folder.colorized("a.jpg", size=(1800, 1200))])
    for _, attributes, _ in page.all("img"):
        assert max(Image.open(page.path.parent / attributes["src"]).size) == SIDE
        assert attributes["loading"] == "lazy"


def test_existing_pictures_are_not_made_again(folder):
    record = folder.colorized("a.jpg", size=(900, 600))
    record = record.replace(source_sha256="5", derivative_sha256="6")
    page = folder.write([record])
    folder.thumbnail = None
    assert folder.write([record]).elements == page.elements
    with pytest.raises(TypeError):  # a new derivative needs a new picture
        folder.write([record.replace(derivative_sha256="7")])


def test_scans_that_crashed_or_hung_a_codec_are_not_tried_again(folder):
    asked = []
    folder.thumbnail = lambda uri, page: asked.append(uri)
    for reason in ("codec_timeout", "codec_crashed", "unsupported_mode"):
        folder.write([folder.refused(f"{reason}.jpg", "failed", reason, "")])
    assert [os.path.basename(uri) for uri in asked] == ["unsupported_mode.jpg"]


def test_a_process_keeps_the_pictures_of_its_least_sure(folder):
    shown, records = Shown(str(folder.output), 2), []
    for number, confidence in enumerate((0.6, 0.5, 0.9, 0.4, 0.45)):
        record = Record(
            source=f"{number}", key=f"{number}", outcome="colorized", derivative="x", confidence=confidence
        )
        records.append(record)
        if shown.wants(confidence):
            for uri in uris(str(folder.output), record):
                folder.picture(Path(uri), 5)
        shown.add(record)
    left = {str(path) for path in (folder.output / "gallery/pictures").iterdir()}
    assert left == {uri for record in records[3:] for uri in uris(str(folder.output), record)}
    assert not Shown(str(folder.output), 0).wants(0.1)


def test_pictures_stand_upright_before_and_after(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    page = folder.write([folder.colorized("a.jpg", size=(60, 40), exif=exif)])
    pictures = [Image.open(page.path.parent / image[1]["src"]) for image in page.all("img")]
    assert [picture.size for picture in pictures] == [(40, 60), (40, 60)]


def test_skipped_and_failed_scans_say_why(folder):
    page = folder.write(
        [
            folder.refused("a.jpg", "skipped", "already_color", "it has colour already"),
            folder.refused("b.jpg", "failed", "codec_crashed", "the decoder died <SIGSEGV>", picture=False),
        ]
    )
    assert page.texts("p", **{"class": "outcome"}) == ["Skipped: already in colour", "Failed: codec crashed"]
    assert page.texts("p", **{"class": "detail"}) == ["it has colour already", "the decoder died <SIGSEGV>"]
    assert len(page.all("img")) == len(page.texts("p", **{"class": "none"})) == 1
    assert not page.all("input")


def test_every_reason_has_words(folder):
    reasons = [reason for reason in Reason if reason]
    sample = [folder.refused(f"{reason}.jpg", "failed", reason, "", picture=False) for reason in reasons]
    page = folder.write(sample)
    assert not any("_" in words for words in page.texts("p", **{"class": "outcome"}))


def test_the_least_sure_come_first(folder):
    sample = [
        folder.refused("f.jpg", "failed", "truncated", ""),
        folder.colorized("sure.jpg", 0.9),
        folder.refused("s.jpg", "skipped", "low_confidence", ""),
        folder.colorized("unsure.jpg", 0.1),
    ]
    page = folder.write(sample)
    assert page.texts("h2")[:4] == ["unsure.jpg", "sure.jpg", "s.jpg", "f.jpg"]


def test_a_sample_states_the_total_number_of_scans(folder):
    failure = folder.refused("c.jpg", "failed", "missing", "")
    page = folder.write(
        [folder.colorized("a.jpg"), folder.colorized("b.jpg"), failure],
        records=81233,
        outcomes={"colorized": 80990, "skipped": 200, "failed": 43},
        reasons={"": 80990, "already_color": 200, "missing": 3, "truncated": 40},
        model="fusion",
        run="today",
    )
    extent = page.texts("p", **{"class": "extent"})[0]
    assert extent.startswith("A sample: 3 of 81\u202f233 scans, the least sure first")
    assert "80\u202f990 colourised, 200 skipped, 43 failed" in page.texts("p", **{"class": "lead"})[0]
    failed = folder.page("failed.html")
    assert failed.texts("p", **{"class": "extent"})[0].startswith("A sample: 1 of 43 failed scans")
    assert failed.texts("ul", **{"class": "reasons"}) == ["40 truncated3 missing"]
    skipped = folder.page("skipped.html")
    assert skipped.texts("p", **{"class": "extent"})[0].startswith("None of the 200 skipped scans")
    assert "Coloured by fusion · Run today" in page.texts("footer")


def test_a_whole_collection_says_that_it_is_all(folder):
    page = folder.write([folder.colorized("a.jpg"), folder.colorized("b.jpg")])
    assert page.texts("p", **{"class": "extent"}) == ["All 2 scans, the least sure first."]


def test_no_scans_give_a_page_that_says_so(folder):
    page = folder.write([])
    assert page.texts("p", **{"class": "extent"}) == ["There are no scans to show."]


def test_every_scan_is_on_one_page_and_every_page_is_linked(folder):
    keys = [f"{number:03}.jpg" for number in range(2 * PAGE + 1)]
    folder.write([folder.refused(key, "failed", "missing", "", picture=False) for key in keys])
    for first in ("index.html", "failed.html"):
        pages, name = [], first
        while name:
            pages.append(folder.page(name))
            name = next((link[1]["href"] for link in pages[-1].all("a", rel="next")), None)
        assert [len(page.all("li", **{"class": "failed"})) for page in pages] == [PAGE, PAGE, 1]
        assert [text for page in pages for text in page.texts("h2") if text] == keys


def test_a_shorter_run_leaves_no_page_or_picture_of_the_longer_one(folder):
    sample = [folder.colorized(f"{number}.jpg") for number in range(PAGE + 2)]
    folder.write(sample)
    assert (folder.output / "gallery/page-2.html").exists()
    foreign = [
        folder.picture(folder.output / "gallery/own_scan.jpg_color.jpg", 5),
        folder.picture(folder.output / "gallery/pictures/own.jpg_color.jpg", 5),
    ]
    folder.write(sample[:1])
    left = {
        path.relative_to(folder.output / "gallery").as_posix()
        for path in (folder.output / "gallery").rglob("*")
        if path.is_file() and str(path) not in foreign
    }
    page = folder.page("index.html")
    assert left == {"index.html", "colorized.html", "gallery.css", "gallery.js"} | {
        image[1]["src"] for image in page.all("img")
    }
    assert all(os.path.exists(path) for path in foreign)  # derivatives of scans in a folder named "gallery"


def test_the_same_run_writes_the_same_bytes(folder):
    def written():
        return {path: path.read_bytes() for path in (folder.output / "gallery").rglob("*") if path.is_file()}

    sample = [folder.colorized("a.jpg", size=(700, 500)), folder.refused("b.jpg", "failed", "missing", "")]
    folder.write(sample)
    first = written()
    folder.write(sample)
    assert written() == first


@pytest.mark.parametrize("key", ["<script>alert(1)</script>", '" onerror="f(1)', "a&lt;b'.jpg", "${cards}"])
def test_a_name_stays_text(folder, key):
    record = Record(source="/archive/x", key=key, outcome="failed", reason=Reason.MISSING, detail=key)
    plain = folder.write([record.replace(key="x", detail="x")])
    page = folder.write([record])
    assert [element[0] for element in page.elements if element[0] != "bdi"] == [
        element[0] for element in plain.elements if element[0] != "bdi"
    ]
    assert page.texts("h2")[0] == key
    assert page.texts("p", **{"class": "detail"}) == [key]
    assert {name for element in page.elements for name in element[1]} == {
        name for element in plain.elements for name in element[1]
    }


def test_a_name_of_undecodable_bytes_is_shown_and_linked(folder):
    key = os.fsdecode(b"caf\xe9/\xff.jpg")
    record = folder.colorized(key).replace(detail="bad \udce9")
    page = folder.write([record])  # `Page` decodes it as strict UTF-8
    assert page.texts("h2")[0] == r"caf\udce9/\udcff.jpg"
    assert any(os.path.samefile(target, record.derivative) for target in page.targets() if target.is_file())


def test_a_name_that_no_file_can_have_is_shown_all_the_same(folder):
    record = Record(
        source="gs://bucket/\ud800",
        key="\ud800\0\u202egpj.exe",
        outcome="colorized",
        derivative=f"{folder.output}/\ud800_color.jpg",
    )
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "JPEG")
    folder.thumbnail = lambda uri, page: image.getvalue()
    page = folder.write([record])
    assert page.texts("h2")[0] == r"\ud800" + "\ufffd\ufffdgpj.exe"


def test_failures_of_one_key_keep_their_own_pictures(folder):
    first = folder.refused("one.jpg", "failed", "duplicate_key", "").replace(key="k")
    second = folder.refused("two.jpg", "failed", "duplicate_key", "").replace(key="k")
    page = folder.write([first, second])
    assert len({image[1]["src"] for image in page.all("img")}) == 2


def test_a_picture_that_cannot_be_read_leaves_the_words(folder):
    record = folder.colorized("a.jpg")
    os.truncate(record.source, 100)
    page = folder.write([record])
    assert [image[1]["alt"] for image in page.all("img")] == ["a.jpg, colourised"]
    assert not page.all("input")
