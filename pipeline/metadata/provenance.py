"""The XMP packet of a derivative: its record and its labels, joined with the statements of the master."""

import base64
import copy
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib import metadata

from pipeline import storage
from pipeline.metadata import xmp
from pipeline.metadata.xmp import qualified
from pipeline.records import keys
from pipeline.records.record import BY_OPTION, Record

TOOL = "archive-colorize"
_LEFT_OUT = "-"  # a remainder that was too large
# IPTC NewsCodes: a photograph that was changed by a trained model.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

# Facts about the run, which are left out so that the same work gives the same bytes.
_NOT_EMBEDDED = {
    "source_version": "",
    "neighbors_sha256": "",  # it has times
    "derivative": "",
    "derivative_bytes": 0,
    "derivative_sha256": "",
    "milliseconds": 0,
    "run": "",
    "finished": "",
    **dict.fromkeys(BY_OPTION, ""),
}
_REPLACED = (  # statements of the master, which may be a derivative itself
    "xmpMM:DerivedFrom",
    "xmp:CreatorTool",
    "Iptc4xmpExt:AISystemUsed",
    "Iptc4xmpExt:AISystemVersionUsed",
    "colorize:modelSha256",
    "colorize:modelTerms",
    "colorize:masterCredit",
    "colorize:masterDigitalSourceType",
    "colorize:masterRemainder",
    "colorize:record",
)
_IDENTITY = (
    "source_sha256",
    "model_sha256",
    "options_sha256",
    "hints_sha256",
)  # two derivatives with equal values are equal


@dataclass(frozen=True)
class Labels:
    """What a derivative says about itself beside its record. Empty labels are left out."""

    date: str = ""  # ISO 8601
    description: str = ""  # added to that of the master
    credit: str = ""  # in place of that of the master
    terms: str = ""  # of the model
    remainder: bytes | None = None  # of a JPEG whose coded luminance is kept; see `imaging.recovery`


def packet(record: Record, master: ET.Element | None = None, labels: Labels = Labels()) -> bytes:
    """Makes the XMP packet of a derivative.

    Its identifiers follow from the bytes of the master, the model, the options, the hints, the neighbours and the
    date. The URI, the digest and the identifiers of the master are in `xmpMM:DerivedFrom`; its `DigitalSourceType` and
    a credit line that is replaced are kept as `masterDigitalSourceType` and `masterCredit`.

    Args:
      record: of the scan. Facts about the run are left out of it, and the key replaces the path of the master.
      master: tree of the master's packet, whose other statements are kept.
      labels: further statements.
    """
    root = xmp.new() if master is None else copy.deepcopy(master)
    about = next((xmp.words(node.get(qualified("rdf:about"), "")) for node in xmp.descriptions(root)), "")

    def taken(name: str) -> str:
        return next(map(xmp.words, xmp.take(root, name)), "")

    identity = _identity(record, labels)
    software = f"{TOOL}: {record.model} {record.model_version}"
    source = {
        "stRef:documentID": taken("xmpMM:DocumentID"),
        "stRef:instanceID": taken("xmpMM:InstanceID"),
        "stRef:filePath": storage.web_uri(record.source),
        "colorize:sha256": record.source_sha256,
    }
    history = xmp.take(root, "xmpMM:History")
    for name in _REPLACED:
        xmp.take(root, name)
    statements = {
        "rdf:about": about,
        "xmp:CreatorTool": software,
        "xmpMM:DocumentID": f"xmp.did:{identity}",
        "xmpMM:InstanceID": instance_id(record, labels),
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "colorize:masterDigitalSourceType": taken("Iptc4xmpExt:DigitalSourceType"),
        "Iptc4xmpExt:AISystemUsed": record.model,
        "Iptc4xmpExt:AISystemVersionUsed": record.model_version,
        "colorize:modelSha256": record.model_sha256,
        "colorize:modelTerms": labels.terms,
        "colorize:masterRemainder": _packed(labels.remainder),
        "colorize:record": record.replace(source=record.key, **_NOT_EMBEDDED).to_json(),
    }
    if labels.credit:
        statements["colorize:masterCredit"] = taken("photoshop:Credit")
        statements["photoshop:Credit"] = labels.credit
    ours = ET.SubElement(root[0], qualified("rdf:Description"), _stated(statements))
    ET.SubElement(ours, qualified("xmpMM:DerivedFrom"), _stated(source))
    if labels.description:
        ours.append(_described(xmp.take(root, "dc:description"), labels.description))
    event = {"action": "derived", "instanceID": instance_id(record, labels), "softwareAgent": software}
    event |= {"when": labels.date} if labels.date else {}
    events = ET.SubElement(ET.SubElement(ours, qualified("xmpMM:History")), qualified("rdf:Seq"))
    events.extend(entry for told in history if isinstance(told, ET.Element) for entry in told.iterfind("*/*"))
    ET.SubElement(events, qualified("rdf:li"), {qualified(f"stEvt:{name}"): event[name] for name in event})
    return xmp.serialise(root)


def tool_version() -> str:
    """The version of this program; "0" if it is not installed."""
    try:
        return metadata.version(TOOL)
    except metadata.PackageNotFoundError:
        return "0"


def instance_id(record: Record, labels: Labels) -> str:
    """The `xmpMM:InstanceID` of a derivative."""
    return f"xmp.iid:{_identity(record, labels)}"


def _identity(record: Record, labels: Labels) -> uuid.UUID:
    made = [*(getattr(record, name) for name in _IDENTITY), labels.date]
    if record.neighbors_content_sha256:
        made.append(f"neighbors {record.neighbors_content_sha256}")
    if page := keys.split(record.key)[1]:  # several pictures have the digest of their file
        made.append(f"page {page}")
    return uuid.uuid5(uuid.NAMESPACE_URL, " ".join(made).rstrip())


def _described(masters: list[str | ET.Element], words: str) -> ET.Element:
    """The description of the master, with the words added to its text in the default language.

    Texts in other languages stay as they are. A description without languages is one in the default language.
    """
    whole = ET.Element(qualified("dc:description"))
    texts = ET.SubElement(whole, qualified("rdf:Alt"))
    default = ET.SubElement(texts, qualified("rdf:li"), {xmp.LANGUAGE: "x-default"})
    said = []
    for value in masters:
        if isinstance(value, str) or not len(value):
            said.append(value if isinstance(value, str) else value.text)
            continue
        for text in value.iterfind("*/*"):
            if text.get(xmp.LANGUAGE, "x-default") == "x-default":
                said.append(text.text)
            else:
                texts.append(text)
    default.text = "\n".join([*(text.strip() for text in said if text and text.strip()), words])
    return whole


def read_packet(packet: bytes | str) -> Record | None:
    """Record in the packet of a derivative, or None."""
    line = _statement(packet, "colorize:record")
    try:
        return Record.from_json(line) if line else None
    except (ValueError, TypeError):
        return None


def read_remainder(packet: bytes | str) -> bytes | None:
    """`Labels.remainder` in the packet of a derivative, or None. It is empty if it was too large."""
    text = _statement(packet, "colorize:masterRemainder")
    try:
        return None if text is None else base64.b64decode(text.removeprefix(_LEFT_OUT), validate=True)
    except ValueError:
        return None


def _packed(remainder: bytes | None) -> str:
    return "" if remainder is None else base64.b64encode(remainder).decode() or _LEFT_OUT


def _statement(packet: bytes | str, name: str) -> str | None:
    """A statement that this program has written as an attribute. Other programs make elements of them."""
    try:
        root = xmp.parse(packet.encode() if isinstance(packet, str) else packet)
    except xmp.Unusable:
        return None
    tag = qualified(name)
    found = (one.get(tag) or one.findtext(tag) for one in xmp.descriptions(root))
    return next((text for text in found if text), None)


def _stated(statements: dict[str, str]) -> dict[str, str]:
    """Attributes for non-empty values, and rdf:about."""
    return {qualified(name): value for name, value in statements.items() if value or name == "rdf:about"}
