"""The XMP packet of a derivative: its record, joined with the statements of the master."""

import copy
import uuid
import xml.etree.ElementTree as ET

from pipeline.metadata import xmp
from pipeline.metadata.xmp import qualified
from pipeline.records import keys
from pipeline.records.record import Record

TOOL = "archive-colorize"
# IPTC NewsCodes: a photograph that was changed by a trained model.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

# Facts about the run, which are left out so that the same work gives the same bytes.
_NOT_EMBEDDED = {
    "source_version": "",
    "derivative": "",
    "derivative_bytes": 0,
    "derivative_sha256": "",
    "milliseconds": 0,
    "run": "",
    "finished": "",
}
_IDENTITY = (
    "source_sha256",
    "model_sha256",
    "options_sha256",
    "hints_sha256",
)  # two derivatives with equal values are equal


def packet(record: Record, master: ET.Element | None = None) -> bytes:
    """Makes the XMP packet of a derivative.

    Its identifiers follow from the bytes of the master, the model, the options and the hints. The identifiers of
    the master are in `xmpMM:DerivedFrom`, and its `DigitalSourceType` is kept as `masterDigitalSourceType`.

    Args:
      record: of the scan. Facts about the run are left out, and the key replaces the path of the master.
      master: tree of the master's packet, whose other statements are kept.
    """
    root = xmp.new() if master is None else copy.deepcopy(master)
    about = next((xmp.words(node.get(qualified("rdf:about"), "")) for node in xmp.descriptions(root)), "")

    def taken(name: str) -> str:
        return next(map(xmp.words, xmp.take(root, name)), "")

    work = [getattr(record, name) for name in _IDENTITY]
    if page := keys.split(record.key)[1]:  # several pictures have the digest of their file
        work.append(f"page {page}")
    identity = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(work))
    software = f"{TOOL}: {record.model} {record.model_version}"
    source = {
        "stRef:documentID": taken("xmpMM:DocumentID"),
        "stRef:instanceID": taken("xmpMM:InstanceID"),
        "colorize:sha256": record.source_sha256,
    }
    history = xmp.take(root, "xmpMM:History")
    for name in ("xmpMM:DerivedFrom", "xmp:CreatorTool", "colorize:record"):
        xmp.take(root, name)
    statements = {
        "rdf:about": about,
        "xmp:CreatorTool": software,
        "xmpMM:DocumentID": f"xmp.did:{identity}",
        "xmpMM:InstanceID": f"xmp.iid:{identity}",
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "colorize:masterDigitalSourceType": taken("Iptc4xmpExt:DigitalSourceType"),
        "colorize:record": record.replace(source=record.key, **_NOT_EMBEDDED).to_json(),
    }
    ours = ET.SubElement(root[0], qualified("rdf:Description"), _stated(statements))
    ET.SubElement(ours, qualified("xmpMM:DerivedFrom"), _stated(source))
    event = {"action": "derived", "instanceID": f"xmp.iid:{identity}", "softwareAgent": software}
    events = ET.SubElement(ET.SubElement(ours, qualified("xmpMM:History")), qualified("rdf:Seq"))
    events.extend(entry for told in history if isinstance(told, ET.Element) for entry in told.iterfind("*/*"))
    ET.SubElement(events, qualified("rdf:li"), {qualified(f"stEvt:{name}"): event[name] for name in event})
    return xmp.serialise(root)


def read_packet(packet: bytes | str) -> Record | None:
    """Record in the packet of a derivative, or None."""
    try:
        root = xmp.parse(packet.encode() if isinstance(packet, str) else packet)
    except xmp.Unusable:
        return None
    for description in xmp.descriptions(root):
        line = description.get(qualified("colorize:record"))
        if line:
            try:
                return Record.from_json(line)
            except (ValueError, TypeError):
                return None
    return None


def _stated(statements: dict[str, str]) -> dict[str, str]:
    """Attributes for non-empty values, and rdf:about."""
    return {qualified(name): value for name, value in statements.items() if value or name == "rdf:about"}
