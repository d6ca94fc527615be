"""PREMIS 3: the records as objects, events and agents, in XML for the systems of archives.

    OUTPUT/premis/RUN-DIGEST.xml    one for each shard of the manifest, with the same name

Shards do not change, so each document is made once, and events of earlier runs stay. Specification: PREMIS Data
Dictionary 3.0, and its schema (premis.xsd, version 3.0, Library of Congress).
"""

import itertools
import mimetypes
import posixpath
import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.errors import JobError
from pipeline.records import keys, manifest
from pipeline.records.record import Outcome, Record

FOLDER = "premis"
WRITERS = 8  # documents that are written at the same time

_PREMIS, _XSI = "http://www.loc.gov/premis/v3", "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = f"{_PREMIS} https://www.loc.gov/standards/premis/premis.xsd"
_EVENTS = "http://id.loc.gov/vocabulary/preservation/eventType"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_OUTCOMES = {Outcome.COLORIZED: "success", Outcome.SKIPPED: "skipped", Outcome.FAILED: "fail"}
_SIGNATURE = "digital signature generation"
_TYPES = {  # that the standard library does not have on every machine
    **dict.fromkeys((".tif", ".tiff", ".ptif", ".ptiff"), "image/tiff"),
    **dict.fromkeys((".jp2", ".jpf", ".jpx"), "image/jp2"),
    ".webp": "image/webp",
    ".c2pa": "application/c2pa",
}
_ALGORITHMS = {"sha256": "SHA-256", "md5": "MD5", "sha512": "SHA-512"}

ET.register_namespace("premis", _PREMIS)
ET.register_namespace("xsi", _XSI)


def write(output: str, tool: str, version: str) -> None:
    """Writes the documents that are missing. A few of them are in memory at a time.

    Args:
      output: of a job.
      tool, version: name and version of the program that made the records.

    Raises:
      JobError: the manifest cannot be read, or a document cannot be written.
    """
    folder = storage.join(output, FOLDER)

    def one(shard: str) -> None:
        storage.write(_document_uri(folder, shard), document(manifest.read_shard(shard), tool, version))

    try:
        there = {info.uri for info in storage.list_files(folder)}
        missing = (shard for shard in manifest.shards(output) if _document_uri(folder, shard) not in there)
        with ThreadPoolExecutor(WRITERS) as pool:
            while batch := list(itertools.islice(missing, 4 * WRITERS)):
                list(pool.map(one, batch))
    except OSError as error:
        raise JobError(manifest.unwritable(output, error)) from error


def _document_uri(folder: str, shard: str) -> str:
    return storage.join(folder, shard.rpartition("/")[2].removesuffix(".jsonl") + ".xml")


def document(records: Iterable[Record], tool: str, version: str) -> bytes:
    """A PREMIS document about some records, in UTF-8.

    Each record gives the master as an object, the creation of a derivative as an event, with its outcome, and if there
    is a derivative, the latter with its signature. Agents are the tool and the models.

    Args:
      records: at least one.
      tool, version: of the program.
    """
    objects: dict[str, ET.Element] = {}
    events: list[ET.Element] = []
    agents = {f"{tool} {version}": _agent(("name and version", f"{tool} {version}"), tool, version)}
    for record in records:
        for node in _objects(record, tool, version):
            objects.setdefault(node[0][1].text or "", node)  # two records may have the same master
        events += _events(record, f"{tool} {version}")
        if record.outcome == Outcome.COLORIZED and record.model_sha256 not in agents:
            identity = ("SHA-256", record.model_sha256)
            agents[record.model_sha256] = _agent(identity, record.model, record.model_version)
    root = ET.Element(f"{{{_PREMIS}}}premis", {"version": "3.0", f"{{{_XSI}}}schemaLocation": _SCHEMA})
    root.extend(itertools.chain(objects.values(), events, agents.values()))
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _objects(record: Record, tool: str, version: str) -> Iterator[ET.Element]:
    fixity = record.fixity("source")
    yield _file(_master(record), record.source, fixity, record.source_bytes, name=keys.split(record.key)[0])
    if record.outcome != Outcome.COLORIZED:
        return
    yield _file(
        _derivative(record),
        record.derivative,
        record.fixity("derivative"),
        record.derivative_bytes,
        made=(tool, version, record.finished),
        source=(_master(record), _event(record, "creation")),
        events=[_event(record, kind) for kind in _kinds(record)],
    )
    if digest := record.sidecar_sha256:
        signed, made = [_event(record, _SIGNATURE)], (tool, version, record.finished)
        yield _file(_sidecar(record), record.c2pa, {"sha256": digest}, -1, made=made, events=signed)


def _file(
    identity: str,
    uri: str,
    fixity: dict[str, str],
    size: int,
    *,
    name: str = "",
    made: tuple[str, str, str] | None = None,
    source: tuple[str, str] | None = None,
    events: Iterable[str] = (),
) -> ET.Element:
    """An object of the type file: identifiers, characteristics, name, place, source, and events."""
    node = ET.Element(f"{{{_PREMIS}}}object", {f"{{{_XSI}}}type": "premis:file"})
    _pair(node, "objectIdentifier", "UUID", identity)
    _pair(node, "objectIdentifier", "URI", storage.web_uri(uri))
    features = _put(node, "objectCharacteristics")
    for algorithm, digest in fixity.items():
        stated = _put(features, "fixity")
        _put(stated, "messageDigestAlgorithm", _ALGORITHMS[algorithm])
        _put(stated, "messageDigest", digest)
    if size >= 0:
        _put(features, "size", str(size))
    kind = _TYPES.get(posixpath.splitext(uri)[1].lower()) or mimetypes.guess_type(uri, strict=False)[0]
    form = _put(features, "format")
    _put(_put(form, "formatDesignation"), "formatName", kind or "application/octet-stream")
    _put(form, "formatNote", "media type, from the extension of the name")
    if made:
        program = _put(features, "creatingApplication")
        for tag, value in zip(
            ("creatingApplicationName", "creatingApplicationVersion", "dateCreatedByApplication"),
            made,
            strict=True,
        ):
            _put(program, tag, value)
    if name:
        _put(node, "originalName", name)
    _pair(_put(node, "storage"), "contentLocation", "URI", storage.web_uri(uri))
    if source:
        relation = _put(node, "relationship")
        _put(relation, "relationshipType", "derivation")
        _put(relation, "relationshipSubType", "has source")
        _pair(relation, "relatedObjectIdentifier", "UUID", source[0])
        _pair(relation, "relatedEventIdentifier", "UUID", source[1])
    for event in events:
        _pair(node, "linkingEventIdentifier", "UUID", event)
    return node


def _kinds(record: Record) -> list[str]:
    return ["creation", _SIGNATURE] if record.c2pa else ["creation"]


def _events(record: Record, tool: str) -> Iterator[ET.Element]:
    colorized = record.outcome == Outcome.COLORIZED
    for kind in _kinds(record):
        node = ET.Element(f"{{{_PREMIS}}}event")
        _pair(node, "eventIdentifier", "UUID", _event(record, kind))
        _put(node, "eventType", kind).attrib |= {"authority": "eventType", "authorityURI": _EVENTS}
        _put(node, "eventDateTime", record.finished)
        if detail := _detail(record, kind):
            _put(_put(node, "eventDetailInformation"), "eventDetail", detail)
        outcome = _put(node, "eventOutcomeInformation")
        _put(outcome, "eventOutcome", _OUTCOMES.get(Outcome(record.outcome), ""))
        if note := ": ".join(filter(None, (record.reason, record.detail))):
            _put(_put(outcome, "eventOutcomeDetail"), "eventOutcomeDetailNote", note)
        agent = _pair(node, "linkingAgentIdentifier", "name and version", tool)
        _put(agent, "linkingAgentRole", "executing program")
        if colorized and kind == "creation":
            agent = _pair(node, "linkingAgentIdentifier", "SHA-256", record.model_sha256)
            _put(agent, "linkingAgentRole", "model")
        linked = [("source", _master(record))]
        if colorized:
            derivative = ("outcome", _derivative(record))
            linked = [*linked, derivative] if kind == "creation" else [derivative]
            if kind == _SIGNATURE and record.sidecar_sha256:
                linked = [("source", _derivative(record)), ("outcome", _sidecar(record))]
        for role, identity in linked:
            _put(_pair(node, "linkingObjectIdentifier", "UUID", identity), "linkingObjectRole", role)
        yield node


def _detail(record: Record, kind: str) -> str:
    page = keys.split(record.key)[1]
    if record.outcome != Outcome.COLORIZED:
        return f"page {page}" if page else ""
    if kind == _SIGNATURE:
        place = "in a file of its own" if record.sidecar_sha256 else record.c2pa
        return f"a manifest of C2PA was signed, {place}"
    words = f"page {page}; " if page else ""
    words += f"colours were estimated by {record.model} {record.model_version}; run {record.run}"
    words += f"; options {record.options_sha256}"
    words += f"; hints {record.hints_sha256}" if record.hints_sha256 else ""
    return words + (f"; confidence {record.confidence:.4f}" if record.confidence is not None else "")


def _agent(identity: tuple[str, str], name: str, version: str) -> ET.Element:
    node = ET.Element(f"{{{_PREMIS}}}agent")
    _pair(node, "agentIdentifier", *identity)
    _put(node, "agentName", name)
    _put(node, "agentType", "software")
    if version:
        _put(node, "agentVersion", version)
    return node


def _uuid(*words: str) -> str:
    """An identifier that follows from the words."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(words)))


def _master(record: Record) -> str:
    return _uuid(storage.web_uri(record.source), record.source_sha256)


def _derivative(record: Record) -> str:
    return _uuid(storage.web_uri(record.derivative), record.derivative_sha256)


def _sidecar(record: Record) -> str:
    return _uuid(storage.web_uri(record.c2pa), record.sidecar_sha256)


def _event(record: Record, kind: str) -> str:
    return _uuid(kind, storage.web_uri(record.source), record.run, record.finished, record.derivative_sha256)


def _pair(parent: ET.Element, name: str, kind: str, value: str) -> ET.Element:
    node = _put(parent, name)
    _put(node, f"{name}Type", kind)
    _put(node, f"{name}Value", value)
    return node


def _put(parent: ET.Element, name: str, text: str = "") -> ET.Element:
    node = ET.SubElement(parent, f"{{{_PREMIS}}}{name}")
    if text:
        node.text = _UNPRINTABLE.sub("\ufffd", text)
    return node
