"""Provenance: the record in a derivative, and the statements that it keeps from its master."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metadata import xmp
from pipeline.metadata.provenance import SOURCE_TYPE, Labels, packet, read_packet
from pipeline.metadata.xmp import parse
from pipeline.records.record import Outcome, Record

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
    detail="transparent parts were made white",
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
    text = packet(RECORD, parse(MASTER)).decode()
    assert "Market, 1931 – café" in text
    assert 'museum:shelf="IV/3"' in text


def test_the_creator_tool_of_the_master_is_replaced():
    tools = [
        value
        for node in tree(packet(RECORD, parse(MASTER))).iter()
        for name, value in node.attrib.items()
        if name.endswith("CreatorTool")
    ]
    assert tools == ["archive-colorize: fusion 1.0"]


def test_a_derivative_that_is_colourised_again_has_one_record():
    again = packet(RECORD.replace(model_version="2.0"), parse(packet(RECORD, parse(MASTER))))
    assert again.count(b"colorize:record=") == 1
    assert read_packet(again).model_version == "2.0"


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_a_packet_that_is_not_ours_has_no_record(xmp):
    assert read_packet(xmp) is None


def test_a_record_that_was_tampered_with_is_none():
    assert read_packet(packet(RECORD).replace(b"&quot;source&quot;", b"&quot;sauce&quot;")) is None


def test_a_packet_does_not_depend_on_the_pictures_before_it():
    before = packet(RECORD, parse(MASTER))
    packet(RECORD, parse(MASTER.replace(b"museum:", b"colorize:").replace(b":museum=", b":colorize=")))
    packet(RECORD, parse(MASTER.replace(b"museum:", b"m:").replace(b":museum=", b":m=")))
    assert packet(RECORD, parse(MASTER)) == before


def test_the_masters_tree_stays_as_it_is():
    tree = parse(MASTER)
    packet(RECORD, tree)
    assert xmp.serialise(tree) == xmp.serialise(parse(MASTER))


IDENTIFIED = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:7" xmlns:mm="http://ns.adobe.com/xap/1.0/mm/" mm:DocumentID="xmp.did:1"
 xmlns:e="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<mm:InstanceID>xmp.iid:2</mm:InstanceID><mm:OriginalDocumentID>xmp.did:0</mm:OriginalDocumentID>
<mm:DerivedFrom mm:DocumentID="xmp.did:negative"/>
<mm:History><rdf:Seq><rdf:li e:action="created" e:softwareAgent="Scanner 3"/></rdf:Seq></mm:History>
<i:DigitalSourceType rdf:resource="http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm"/>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def only(root, name):
    (value,) = xmp.take(root, name)
    return value


def test_a_derivative_has_identifiers_of_its_own_and_names_those_of_its_master():
    root = parse(packet(RECORD, parse(IDENTIFIED)))
    assert only(root, "xmpMM:DocumentID").startswith("xmp.did:") and b"xmp.did:negative" not in packet(RECORD)
    assert only(root, "xmpMM:InstanceID").startswith("xmp.iid:")
    source = only(root, "xmpMM:DerivedFrom")
    assert source.get(xmp.qualified("stRef:documentID")) == "xmp.did:1"
    assert source.get(xmp.qualified("stRef:instanceID")) == "xmp.iid:2"
    assert source.get(xmp.qualified("colorize:sha256")) == RECORD.source_sha256
    assert xmp.words(only(root, "xmpMM:OriginalDocumentID")) == "xmp.did:0"
    assert {node.get(xmp.qualified("rdf:about")) for node in xmp.descriptions(root)} == {"uuid:7"}


@pytest.mark.parametrize("field", ["source_sha256", "model_sha256", "options_sha256", "hints_sha256"])
def test_the_identifiers_depend_on_scan_model_options_and_hints(field):
    names = ("xmpMM:DocumentID", "xmpMM:InstanceID")
    one, same, other = (
        [only(parse(packet(record)), name) for name in names]
        for record in (RECORD, RECORD.replace(run="b"), RECORD.replace(**{field: "12" * 32}))
    )
    assert one == same
    assert not set(one) & set(other)


def test_the_masters_history_goes_on():
    events = only(parse(packet(RECORD, parse(IDENTIFIED))), "xmpMM:History")[0]
    actions = [event.get(xmp.qualified("stEvt:action")) for event in events]
    assert actions == ["created", "derived"]
    assert events[1].get(xmp.qualified("stEvt:softwareAgent")) == "archive-colorize: fusion 1.0"


def test_the_masters_kind_of_source_is_kept_beside_the_derivatives():
    root = parse(packet(RECORD, parse(IDENTIFIED)))
    assert only(root, "Iptc4xmpExt:DigitalSourceType") == SOURCE_TYPE
    assert only(root, "colorize:masterDigitalSourceType").endswith("/negativeFilm")


def test_the_packet_names_the_master_by_its_uri():
    name = xmp.qualified("stRef:filePath")
    for uri, wanted in {
        "/archive/box 1/caf\udce9.tif": "file:///archive/box%201/caf%E9.tif",
        "gs://archive/box 1/é.tif": "gs://archive/box%201/%C3%A9.tif",
        "s3://archive/a\x01.tif": "s3://archive/a%01.tif",
    }.items():
        source = only(parse(packet(RECORD.replace(source=uri))), "xmpMM:DerivedFrom")
        assert source.get(name) == wanted


def test_the_packet_names_the_model_its_terms_and_the_date():
    root = parse(packet(RECORD, parse(IDENTIFIED), Labels(date="2026-12-02", terms="research use only")))
    stated = {
        "Iptc4xmpExt:AISystemUsed": "fusion",
        "Iptc4xmpExt:AISystemVersionUsed": "1.0",
        "colorize:modelSha256": "cd" * 32,
        "colorize:modelTerms": "research use only",
    }
    assert {name: only(root, name) for name in stated} == stated
    *_, event = only(root, "xmpMM:History")[0]
    assert event.get(xmp.qualified("stEvt:when")) == "2026-12-02"


CREDITED = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Credit="City Archive">
<dc:description>{}</dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize(
    ("theirs", "texts"),
    [
        (
            '<rdf:Alt><rdf:li xml:lang="x-default">Market</rdf:li><rdf:li xml:lang="de">Markt</rdf:li></rdf:Alt>',
            {"x-default": "Market\nColoured", "de": "Markt"},
        ),
        ("Market", {"x-default": "Market\nColoured"}),
        ("", {"x-default": "Coloured"}),
    ],
)
def test_a_description_is_added_to_the_masters(theirs, texts):
    root = parse(packet(RECORD, parse(CREDITED.format(theirs).encode()), Labels(description="Coloured")))
    assert {text.get(xmp.LANGUAGE): text.text for text in only(root, "dc:description")[0]} == texts


def test_a_credit_line_replaces_the_masters_which_is_kept():
    root = parse(
        packet(RECORD, parse(CREDITED.format("").encode()), Labels(credit="City Archive, by a model"))
    )
    assert only(root, "photoshop:Credit") == "City Archive, by a model"
    assert only(root, "colorize:masterCredit") == "City Archive"
    assert (
        only(parse(packet(RECORD, parse(CREDITED.format("").encode()))), "photoshop:Credit") == "City Archive"
    )


def test_labels_are_stated_once_on_a_derivative_of_a_derivative():
    labels = Labels("2026-12-02", "Coloured", "By a model", "research")
    text = packet(RECORD, parse(packet(RECORD, parse(IDENTIFIED), labels)), labels).decode()
    for name in ("AISystemUsed", "modelSha256", "modelTerms", "masterDigitalSourceType", "photoshop:Credit"):
        assert text.count(f"{name}=") == 1, name


def test_a_packet_of_an_earlier_version_is_read():
    line = RECORD.to_json().replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    earlier = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/" '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:colorize="urn:archive-colorize:record:1#">'
        f'<rdf:RDF><rdf:Description rdf:about="" colorize:record="{line}" /></rdf:RDF></x:xmpmeta>'
    )
    assert read_packet(earlier) == RECORD
