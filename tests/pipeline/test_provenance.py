"""What a derivative says about itself, and what of its master's own statements it keeps."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.provenance import SOURCE_TYPE, packet, read_packet
from pipeline.record import Outcome, Record

RECORD = Record(
    '/archive/box/caf\udce9 <&">.tif',
    'box/caf\udce9 <&">.tif',
    source_bytes=12,
    source_sha256="ab" * 32,
    outcome=Outcome.COLORIZED,
    width=640,
    height=480,
    model="fusion",
    model_version="1.0",
    model_sha256="cd" * 32,
    options_sha256="ef" * 32,
    confidence=0.5,
    colorfulness=31.25,
    detail="transparent parts were laid on white",
)
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
MASTER = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:museum="http://museum.example/1/" xmp:CreatorTool="Scanner 3" museum:shelf="IV/3">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Market, 1931 \xe2\x80\x93 caf\xc3\xa9</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def tree(xmp):
    return ET.fromstring(xmp.decode().split("?>", 1)[1].rsplit("<?", 1)[0])


def test_the_record_is_read_back_but_for_the_facts_of_the_run():
    run = RECORD.replace(
        run="20260101", finished="2026-01-01", milliseconds=12, source_version="7", derivative="/out/a"
    )
    assert read_packet(packet(run)) == RECORD.replace(source=RECORD.key)


def test_the_same_work_gives_the_same_packet_whenever_it_is_done():
    assert packet(RECORD.replace(run="a", finished="x", milliseconds=1)) == packet(RECORD.replace(run="b"))


def test_the_packet_says_that_a_model_made_the_colour():
    (description,) = tree(packet(RECORD)).iter(f"{RDF}Description")
    assert description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == SOURCE_TYPE
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "archive-colorize: fusion 1.0"


def test_the_masters_statements_are_kept_with_their_prefixes():
    text = packet(RECORD, MASTER).decode()
    assert "Market, 1931 – café" in text
    assert 'museum:shelf="IV/3"' in text


def test_what_the_master_says_of_its_own_making_gives_way():
    tools = [
        value
        for node in tree(packet(RECORD, MASTER)).iter()
        for name, value in node.attrib.items()
        if name.endswith("CreatorTool")
    ]
    assert tools == ["archive-colorize: fusion 1.0"]


def test_a_derivative_that_is_colourised_again_has_one_record():
    again = packet(RECORD.replace(model_version="2.0"), packet(RECORD, MASTER))
    assert again.count(b"colorize:record=") == 1
    assert read_packet(again).model_version == "2.0"


@pytest.mark.parametrize(
    "broken", [b"", b"<x", b"\x00\xff", MASTER[:-60], b"<x:xmpmeta></x:xmpmeta>", b"<html/>"]
)
def test_a_broken_packet_of_the_master_is_dropped(broken):
    assert read_packet(packet(RECORD, broken)) == RECORD.replace(source=RECORD.key)


def test_a_bare_rdf_packet_is_understood():
    bare = MASTER[MASTER.index(b"<rdf:RDF") : MASTER.index(b"</x:xmpmeta>")]
    result = packet(RECORD, bare)
    assert b"museum:shelf" in result
    assert read_packet(result) is not None


def test_a_packet_in_utf16_is_understood():
    body = MASTER.decode().split("?>", 1)[1].rsplit("<?", 1)[0].strip()
    assert "museum:shelf" in packet(RECORD, body.encode("utf-16")).decode()


def test_entities_do_not_blow_a_packet_up():
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY a0 "lol">{levels}]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a11;</x:xmpmeta>'
    assert len(packet(RECORD, bomb.encode())) < 10_000


@given(st.binary(max_size=200))
def test_no_packet_of_a_master_does_harm(master):
    assert read_packet(packet(RECORD, master)) == RECORD.replace(source=RECORD.key)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_a_packet_that_is_not_ours_has_no_record(xmp):
    assert read_packet(xmp) is None


def test_a_record_that_was_tampered_with_is_none():
    assert read_packet(packet(RECORD).replace(b"&quot;source&quot;", b"&quot;sauce&quot;")) is None


def test_a_packet_does_not_depend_on_the_pictures_before_it():
    before = packet(RECORD)
    packet(RECORD, MASTER.replace(b"museum", b"colorize"))
    assert packet(RECORD) == before
