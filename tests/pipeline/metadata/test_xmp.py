"""XMP packets: reading is bounded, and equal statements are written as equal bytes."""

import hashlib
import tracemalloc
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metadata import xmp
from pipeline.metadata.provenance import packet, read_packet
from pipeline.records.record import Record

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TEXT = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:museum="http://museum.example/1/" museum:shelf="IV/3">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Market – café</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
SAME = xmp.serialise(xmp.parse(TEXT.encode()))


def of(statements, attributes=""):
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" {attributes}>'
        f"{statements}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def test_statements_and_prefixes_are_kept():
    assert "Market – café" in SAME.decode() and 'museum:shelf="IV/3"' in SAME.decode()
    assert xmp.serialise(xmp.parse(SAME)) == SAME


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_packet_in_any_encoding_of_unicode_is_understood(encoding, bom):
    assert xmp.serialise(xmp.parse((bom + TEXT).encode(encoding))) == SAME


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 2000, b"\xff\xfe", b"<", b"&", b"garbage</x>"])
def test_bytes_after_the_end_are_ignored(tail):
    assert xmp.serialise(xmp.parse(TEXT.encode() + tail)) == SAME
    body = TEXT[: TEXT.index("<?xpacket end")].encode()
    assert xmp.serialise(xmp.parse(body + tail + b"<?xpacket end='w'?>")) == SAME


def test_rdf_needs_no_wrapper():
    bare = TEXT[TEXT.index("<rdf:RDF") : TEXT.index("</x:xmpmeta>")]
    assert xmp.serialise(xmp.parse(bare.encode())) == SAME


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"", "is truncated"),
        (b"<x", "is truncated"),
        (TEXT.encode()[:-60], "is truncated"),
        (b"\x00\xff<<", "not well-formed"),
        (b"<html/>", "no RDF"),
        (b"<x:xmpmeta></x:xmpmeta>", "unbound prefix"),
    ],
)
def test_invalid_packets_are_refused_with_a_reason(broken, words):
    with pytest.raises(xmp.Unusable, match=words):
        xmp.parse(broken)


def test_entities_are_not_expanded():
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY a0 "lol">{levels}]>'.encode() + of("<dc:title>&a11;</dc:title>")
    with pytest.raises(xmp.Unusable, match="document type"):
        xmp.parse(bomb)


@pytest.mark.parametrize("depth", [200, 8_000, 300_000])
def test_depth_is_bounded(depth):
    with pytest.raises(xmp.Unusable, match="deep"):
        xmp.parse(of("<dc:a>" * depth + "</dc:a>" * depth))


@pytest.mark.parametrize(
    "packet", [of("<dc:a/>" * 500_000), of("", " ".join(f'dc:a{n}="1"' for n in range(200_000)))]
)
def test_the_number_of_nodes_is_bounded_and_so_is_memory(packet):
    tracemalloc.start()
    with pytest.raises(xmp.Unusable, match="elements and attributes"):
        xmp.parse(packet)
    assert tracemalloc.get_traced_memory()[1] < 150_000_000
    tracemalloc.stop()


def test_the_length_of_a_namespace_is_bounded():
    with pytest.raises(xmp.Unusable, match="namespace"):
        xmp.parse(of(f'<n:a xmlns:n="urn:{"n" * 5_000}"/>'))


def test_the_size_is_bounded():
    with pytest.raises(xmp.Unusable, match="more than 4 MB"):
        xmp.parse(of("<dc:a/>" * 2_000_000))


@given(
    st.binary(max_size=200)
    | st.binary(max_size=80).map(lambda inside: of("").replace(b"</rdf:D", inside + b"</rdf:D"))
)
def test_parsing_arbitrary_bytes_raises_only_unusable(packet):
    try:
        xmp.serialise(xmp.parse(packet))
    except xmp.Unusable as reason:
        assert str(reason)


def test_a_conflicting_prefix_of_the_master_is_renamed():
    other = of("", 'xmlns:colorize="http://paint.example/" colorize:shade="ochre"')
    text = packet(Record("a", "a"), xmp.parse(other)).decode()
    assert 'ns1:shade="ochre"' in text and 'xmlns:ns1="http://paint.example/"' in text
    assert read_packet(text) is not None


def test_a_default_namespace_is_understood():
    root = xmp.parse(of('<title xmlns="http://purl.org/dc/elements/1.1/">Market</title>'))
    assert b"<dc:title>Market</dc:title>" in xmp.serialise(root)


FORMS = {
    "attribute": of("", 'xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"'),
    "element": of('<t:Orientation xmlns:t="http://ns.adobe.com/tiff/1.0/">6</t:Orientation>'),
    "deep": of(
        "<dc:source><rdf:Description><t:Orientation "
        'xmlns:t="http://ns.adobe.com/tiff/1.0/">6</t:Orientation></rdf:Description></dc:source>'
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_property_is_removed_in_every_form(form):
    root = xmp.parse(FORMS[form])
    assert xmp.remove(root, frozenset([xmp.qualified("tiff:Orientation")]))
    assert b"Orientation" not in xmp.serialise(root)
    assert not xmp.remove(root, frozenset([xmp.qualified("tiff:Orientation")]))


# ExtendedXMP


@pytest.mark.parametrize(
    "statements",
    [
        of(f"<dc:source>{'Scanned; cleaned; ' * 5_000}</dc:source><dc:title>Market</dc:title>"),
        of("<dc:title>Market</dc:title>", f'dc:source="{"Scanned; cleaned; " * 5_000}"'),
        of("<dc:title>Market</dc:title>" + "".join(f"<dc:source>{n}</dc:source>" for n in range(5_000))),
    ],
    ids=["element", "attribute", "many"],
)
def test_a_packet_is_split_and_joined_without_loss(statements):
    whole = packet(Record("a", "a"), xmp.parse(statements))
    main, extended = xmp.split(whole, 65_502)
    assert len(main) <= 65_502
    assert hashlib.md5(extended).hexdigest().upper().encode() in main
    assert read_packet(main) == read_packet(whole)
    joined = xmp.join(xmp.parse(main), xmp.parse(extended))
    assert statements_of(joined) - {xmp.qualified("xmpNote:HasExtendedXMP")} == statements_of(
        xmp.parse(whole)
    )
    assert len(joined[0].findall(".//" + xmp.qualified("dc:source"))) == statements.count(b"<dc:source>")


@pytest.mark.parametrize(
    "master",
    [
        of("<dc:title>Market</dc:title>").replace(b'rdf:about=""', b'rdf:about="' + b"u" * 70_000 + b'"'),
        of("").replace(b"</rdf:RDF>", b"<x:Thing>" + b"t" * 70_000 + b"</x:Thing></rdf:RDF>"),
        of("").replace(b"<x:xmpmeta", b'<x:xmpmeta x:xmptk="' + b"t" * 70_000 + b'"'),
        of("", f'xmlns:mm="{xmp.NAMESPACES["xmpMM"]}" mm:DocumentID="{"d" * 70_000}"'),
        of("", f'xmlns:i="{xmp.NAMESPACES["Iptc4xmpExt"]}" i:DigitalSourceType="{"d" * 70_000}"'),
        of("".join(f'<n:a xmlns:n="urn:{n}:{"n" * 900}"/>' for n in range(100))),
    ],
    ids=["about", "typed node", "toolkit", "identifier", "source type", "namespaces"],
)
def test_a_packet_fits_whichever_part_of_the_master_is_long(master):
    main, _ = xmp.split(packet(Record("a", "a"), xmp.parse(master)), 65_502)
    assert len(main) <= 65_502 and read_packet(main) == Record("a", "a")


def statements_of(root):
    return {
        name for node in xmp.descriptions(root) for name in [*node.attrib, *(child.tag for child in node)]
    }


def test_written_packets_are_well_formed_for_another_parser():
    main, extended = xmp.split(
        packet(Record("a", "a"), xmp.parse(of("<dc:a>" + "x" * 70_000 + "</dc:a>"))), 65_502
    )
    for part in (main.split(b"?>", 1)[1].rsplit(b"<?", 1)[0], extended):
        ET.fromstring(part)
