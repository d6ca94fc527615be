"""ALTO files: where the pictures of a page are, in every unit and version; and broken ones."""

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.imaging import alto
from pipeline.imaging.layout import Box
from pipeline.records.record import Outcome, Reason
from tests.pipeline.imaging.test_layout import grey, printed

SIZE = (2000, 3000)  # of the scan


def file(*blocks, unit="pixel", page='WIDTH="2000" HEIGHT="3000"', version=4):
    """An ALTO file with lines of text, and these blocks."""
    space = {1: "", 2: "ns-v2#", 3: "ns-v3#", 4: "ns-v4#"}[version]
    name = f' xmlns="http://www.loc.gov/standards/alto/{space}"' if space else ""
    measure = f"<MeasurementUnit>{unit}</MeasurementUnit>" if unit else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<alto{name}><Description>{measure}</Description><Layout><Page ID="P1" {page}><PrintSpace>
<TextBlock HPOS="0" VPOS="0" WIDTH="900" HEIGHT="80"><TextLine><String CONTENT="ΕΦΗΜΕΡΙΣ"/></TextLine></TextBlock>
{"".join(blocks)}<GraphicalElement HPOS="0" VPOS="90" WIDTH="2000" HEIGHT="4"/></PrintSpace></Page></Layout></alto>
""".encode()


def block(left, top, width, height, name="Illustration", more=""):
    return f'<{name} HPOS="{left}" VPOS="{top}" WIDTH="{width}" HEIGHT="{height}" {more}/>'


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_pictures_are_found_from_top_to_bottom(version):
    found = alto.pictures(
        file(block(1000, 1500, 500, 750), block(200, 300, 1000, 600), version=version), size=SIZE
    )
    assert found == (Box(0.1, 0.3, 0.1, 0.6), Box(0.5, 0.75, 0.5, 0.75))


@pytest.mark.parametrize(
    ("unit", "page", "dpi"),
    [
        ("pixel", "", None),
        ("", "", None),
        ("mm10", "", (254.0, 254.0)),
        ("inch1200", 'WIDTH="2000" HEIGHT="3000"', None),
        ("inch1200", "", (1200.0, 1200.0)),
    ],
)
def test_units(unit, page, dpi):
    found = alto.pictures(file(block(500, 300, 1000, 600), unit=unit, page=page), size=SIZE, dpi=dpi)
    assert found == (Box(0.1, 0.3, 0.25, 0.75),)


def test_a_scan_may_have_two_resolutions():
    """As those of fax machines, of 204 pixels to the inch across and 98 down."""
    data = file(block(2540, 2540, 2540, 2540), unit="mm10", page="")
    (found,) = alto.pictures(data, size=(40 * 102, 40 * 49), dpi=(204.0, 98.0))
    assert found == Box(0.5, 1, 0.5, 1)


@pytest.mark.parametrize("encoding", ["shift_jis", "gb2312", "euc-kr", "utf-16"])
def test_files_in_any_encoding_are_read(encoding):
    text = re.sub(r"<\?xml.*?\?>", "", file(block(200, 300, 1000, 600)).decode()).strip()
    data = f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'.encode(encoding)
    assert alto.pictures(data, size=SIZE) == (Box(0.1, 0.3, 0.1, 0.6),)
    with pytest.raises(alto.AltoError, match="no XML"):
        alto.pictures(data.replace(encoding.encode(), b"klingon"), size=SIZE) if encoding != "utf-16" else (
            alto.pictures(data[:-9], size=SIZE)
        )


def test_composed_blocks_of_pictures_count_once_with_what_is_in_them():
    outer = '<ComposedBlock TYPE="Photograph" HPOS="0" VPOS="0" WIDTH="1000" HEIGHT="1500">'
    data = file(outer + block(100, 100, 800, 1200) + "</ComposedBlock>", block(0, 0, 9, 9, "ComposedBlock"))
    assert alto.pictures(data, size=SIZE) == (Box(0, 0.5, 0, 0.5),)


def test_pictures_end_at_the_page_and_ornaments_are_none():
    data = file(block(1500, 2700, 5000, 5000), block(5, 5, 20, 20), block(-3, -30, 1003, 630))
    assert alto.pictures(data, size=SIZE) == (Box(0, 0.2, 0, 0.5), Box(0.9, 1, 0.75, 1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no XML"),
        (file(block(1, 1, 1, 1))[:300], "no XML"),
        (b"<mets/>", "its root is mets"),
        (file(unit="furlong", page=""), "its unit is furlong"),
        (file(unit="mm10", page=""), "the scan has no resolution"),
        (file(block("a", 1, 1, 1)), "HPOS of its Illustration is 'a'"),
        (file(block("nan", 1, 1, 1)), "HPOS"),
        (file(block(5000, 9000, 1000, 600)), "outside of its page"),
        (file(page='WIDTH="3000" HEIGHT="2000"'), "other proportions than the upright scan"),
        (file(block(1, "-inf", 1, 1)), "VPOS"),
        (file(block(1, 1, "nan", 1)), "WIDTH"),
        (file(block(1, 1, -5, 1)), "WIDTH"),
    ],
)
def test_broken_files_have_a_reason(data, words):
    with pytest.raises(alto.AltoError, match=words):
        alto.pictures(data, size=SIZE)


def test_entities_that_explode_are_refused():
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 50}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE alto [<!ENTITY e0 "x">{entities}]><alto><Layout>&e11;</Layout></alto>'
    with pytest.raises(alto.AltoError, match="no XML"):
        alto.pictures(bomb.encode(), size=SIZE)


def test_a_page_that_is_not_there():
    with pytest.raises(alto.AltoError, match="it has 1 pages, and not page 2"):
        alto.pictures(file(), size=SIZE, page=2)


def test_a_job_colours_what_the_alto_file_names(colorize, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = cv2.resize(grey("astronaut"), (400, 400))
    page = printed([(picture, (60, 200)), (picture, (540, 200))])
    height, width = page.shape
    size = f'WIDTH="{width}" HEIGHT="{height}"'
    for name, data in {
        "one": file(block(540, 200, 400, 400), page=size),
        "none": file(page=size),
        "broken": b"<alto>",
        "broken text": b"<alto>",
        "absent": None,
    }.items():
        Image.fromarray(printed() if name == "broken text" else page).save(folder / f"{name}.png")
        if data is not None:
            (folder / f"{name}.xml").write_bytes(data)
    Image.fromarray(page).save(folder / "folder.png")
    (folder / "folder.xml").mkdir()
    records = colorize(folder, tmp_path / "out", "--format", "png", "--layout", "alto").records
    assert records["one.png"].detail == "one.xml names 1 picture; nothing else got colour"
    rgb = np.asarray(Image.open(records["one.png"].derivative)).astype(int)
    chroma = np.ptp(rgb, axis=-1)
    rows, columns = np.nonzero(chroma)
    assert rows.min() >= 200 and rows.max() < 600 and columns.min() >= 540 and columns.max() < 940
    assert chroma[200:600, 540:940].mean() > 10
    assert records["none.png"].reason == Reason.TEXT_PAGE and "none.xml" in records["none.png"].detail
    assert "broken.xml was not used" in records["broken.png"].detail
    assert records["folder.png"].detail.startswith("folder.xml was not used: it is a folder, not")
    assert records["broken text.png"].reason == Reason.TEXT_PAGE
    assert "broken text.xml was not used" in records["broken text.png"].detail
    assert "it has rows of strokes" in records["broken text.png"].detail
    assert records["broken.png"].outcome == records["absent.png"].outcome == Outcome.COLORIZED
    assert "only 2 pictures in it" in records["absent.png"].detail
