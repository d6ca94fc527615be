"""What a derivative says about itself: an XMP packet with its record, joined to the master's own packet."""

import xml.etree.ElementTree as ET
from io import BytesIO

from pipeline.record import Record

TOOL = "archive-colorize"
# IPTC NewsCodes: a picture of the world, altered by a trained model.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_X = "adobe:ns:meta/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "x": _X,
    "rdf": _RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "colorize": "urn:archive-colorize:record:1#",
}
# Facts of the run, not of the picture: left out, so that the same work gives the same bytes.
_NOT_EMBEDDED = {
    "source_version": "",
    "derivative": "",
    "derivative_bytes": 0,
    "derivative_sha256": "",
    "milliseconds": 0,
    "run": "",
    "finished": "",
}


def packet(record: Record, master: bytes = b"") -> bytes:
    """The XMP packet of a derivative.

    Args:
      record: of the scan; what is true of the run alone is left out, and the path of the master is its key.
      master: the master's own packet, whose statements are kept; a broken one is dropped.
    """
    root = _parse(master)
    if root is None:
        root = ET.Element(f"{{{_X}}}xmpmeta")
    if root.tag == f"{{{_RDF}}}RDF":
        rdf = root
    else:
        rdf = root.find(f"{{{_RDF}}}RDF")
        if rdf is None:
            rdf = ET.SubElement(root, f"{{{_RDF}}}RDF")
    ours = ["xmp:CreatorTool", "Iptc4xmpExt:DigitalSourceType", "colorize:record"]
    for description in rdf.iter(f"{{{_RDF}}}Description"):
        for name in map(_qualified, ours):
            description.attrib.pop(name, None)
            for child in description.findall(name):
                description.remove(child)
    embedded = record.replace(source=record.key, **_NOT_EMBEDDED).to_json()
    ET.SubElement(
        rdf,
        f"{{{_RDF}}}Description",
        {
            f"{{{_RDF}}}about": "",
            _qualified("xmp:CreatorTool"): f"{TOOL}: {record.model} {record.model_version}",
            _qualified("Iptc4xmpExt:DigitalSourceType"): SOURCE_TYPE,
            _qualified("colorize:record"): embedded,
        },
    )
    for prefix, uri in _NAMESPACES.items():  # the master may have given our prefixes to others
        ET.register_namespace(prefix, uri)
    body = ET.tostring(root, encoding="unicode")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + '<?xpacket end="w"?>'
    ).encode()


def read_packet(xmp: bytes | str) -> Record | None:
    """The record in a derivative's packet, or None where there is none of ours."""
    root = _parse(xmp.encode() if isinstance(xmp, str) else xmp)
    if root is None:
        return None
    for description in root.iter(f"{{{_RDF}}}Description"):
        line = description.get(_qualified("colorize:record"))
        if line:
            try:
                return Record.from_json(line)
            except (ValueError, TypeError):
                return None
    return None


def _qualified(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


def _parse(xmp: bytes) -> ET.Element | None:
    """The packet's tree, with the prefixes its author chose; None for an empty or broken one."""
    start, stop = xmp.find(b"<x:xmpmeta"), xmp.rfind(b"</x:xmpmeta>")
    body = xmp[start : stop + len(b"</x:xmpmeta>")] if 0 <= start < stop else xmp
    root = None
    try:
        for event, value in ET.iterparse(BytesIO(body), events=("start-ns", "start")):
            if event == "start":
                root = value if root is None else root
            elif value[0] and not value[0].startswith("ns"):
                ET.register_namespace(*value)
    except ET.ParseError:
        return None
    return root
