"""PREMIS: documents have the structure of the schema, name both files, and say what was done by which agent."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.colorize import main
from pipeline.records import manifest, premis
from pipeline.records.record import Outcome, Reason, Record, Refusal
from tests.pipeline.certificates import certify
from tests.pipeline.conftest import jpeg, make_archive, picture

NAMESPACE = "{http://www.loc.gov/premis/v3}"

# Children of the elements that are used, in the order of the schema (premis.xsd, version 3.0): ? for at most one, * for
# any number, + for one or more. Elements that are not here have only text.
_IDENTIFIER = "{0}Type {0}Value"
MODEL = {
    "premis": "object+ event* agent* rights*",
    "object": "objectIdentifier+ preservationLevel* significantProperties* objectCharacteristics+ originalName? "
    "storage* signatureInformation* relationship* linkingEventIdentifier* linkingRightsStatementIdentifier*",
    "event": "eventIdentifier eventType eventDateTime eventDetailInformation* eventOutcomeInformation* "
    "linkingAgentIdentifier* linkingObjectIdentifier*",
    "agent": "agentIdentifier+ agentName* agentType? agentVersion? agentNote* agentExtension* linkingEventIdentifier*",
    "objectCharacteristics": "compositionLevel? fixity* size? format+ creatingApplication* inhibitors*",
    "fixity": "messageDigestAlgorithm messageDigest messageDigestOriginator?",
    "format": "formatDesignation formatRegistry? formatNote*",
    "formatDesignation": "formatName formatVersion?",
    "creatingApplication": "creatingApplicationName creatingApplicationVersion? dateCreatedByApplication?",
    "storage": "contentLocation storageMedium?",
    "relationship": "relationshipType relationshipSubType relatedObjectIdentifier+ relatedEventIdentifier*",
    "eventDetailInformation": "eventDetail? eventDetailExtension*",
    "eventOutcomeInformation": "eventOutcome eventOutcomeDetail*",
    "eventOutcomeDetail": "eventOutcomeDetailNote eventOutcomeDetailExtension*",
    **{
        name: _IDENTIFIER.format(name)
        for name in (
            "objectIdentifier",
            "eventIdentifier",
            "agentIdentifier",
            "contentLocation",
            "relatedObjectIdentifier",
            "relatedEventIdentifier",
            "linkingEventIdentifier",
        )
    },
    "linkingAgentIdentifier": "linkingAgentIdentifierType linkingAgentIdentifierValue linkingAgentRole*",
    "linkingObjectIdentifier": "linkingObjectIdentifierType linkingObjectIdentifierValue linkingObjectRole*",
}


def check(data):
    """Checks a document against the structure, and that all its links lead somewhere. Returns its root."""
    root = ET.fromstring(data)
    for node in root.iter():
        name = node.tag.removeprefix(NAMESPACE)
        children = "".join(f"{child.tag.removeprefix(NAMESPACE)} " for child in node)
        parts = [re.sub(r"(\w+)(\W?)", r"(?:\1 )\2", part) for part in MODEL.get(name, "").split()]
        assert re.fullmatch("".join(parts), children), (name, children)
        assert len(node) or node.text, name
    assert root.get("version") == "3.0"

    def values(name):
        return {node.text for node in root.iter(f"{NAMESPACE}{name}Value")}

    assert values("linkingObjectIdentifier") | values("relatedObjectIdentifier") <= values("objectIdentifier")
    assert values("linkingEventIdentifier") | values("relatedEventIdentifier") <= values("eventIdentifier")
    assert values("linkingAgentIdentifier") <= values("agentIdentifier")
    events = [node.text for node in root.iterfind(f"{NAMESPACE}event/{NAMESPACE}eventIdentifier/*[2]")]
    objects = [node.text for node in root.iterfind(f"{NAMESPACE}object/{NAMESPACE}objectIdentifier[1]/*[2]")]
    assert len(set(events)) == len(events)
    assert len(set(objects)) == len(objects)
    return root


def texts(root, path):
    return [node.text for node in root.iterfind("/".join(NAMESPACE + name for name in path.split("/")))]


@pytest.mark.parametrize("place", ["", "embedded", "sidecar"])
def test_a_job_writes_documents_with_objects_events_and_agents(colorize, tmp_path, place):
    archive = make_archive(tmp_path / "in", 3)
    (archive / "broken.jpg").write_bytes(b"no picture")
    options = [*certify(tmp_path / "keys").options, "--c2pa", place] if place else []
    run = colorize(archive, tmp_path / "out", "--premis", "--digests", "md5", *options)
    assert run.code == 0, run.err
    documents = sorted((tmp_path / "out" / "premis").iterdir())
    shards = sorted((tmp_path / "out" / "manifest").iterdir())
    assert [path.stem for path in documents] == [path.stem for path in shards]
    roots = [check(path.read_bytes()) for path in documents]
    digests = {
        text for root in roots for text in texts(root, "object/objectCharacteristics/fixity/messageDigest")
    }
    for record in run.records.values():
        wanted = {record.source_sha256, record.source_md5, record.derivative_sha256, record.derivative_md5}
        assert (wanted | {record.sidecar_sha256}) - {""} <= digests
    kinds = sorted(text for root in roots for text in texts(root, "event/eventType"))
    assert kinds == ["creation"] * 4 + ["digital signature generation"] * (3 if place else 0)
    outcomes = sorted(
        text for root in roots for text in texts(root, "event/eventOutcomeInformation/eventOutcome")
    )
    assert outcomes == ["fail"] + ["success"] * (6 if place else 3)
    names = {text for root in roots for text in texts(root, "agent/agentName")}
    assert names == {"archive-colorize", "tiny"}
    assert main(["verify", str(tmp_path / "out")]) == 0
    before = {path: path.stat().st_mtime_ns for path in documents}
    (archive / "new.jpg").write_bytes(jpeg(picture(9)))
    assert colorize(archive, tmp_path / "out", "--premis", "--digests", "md5", *options).code == 0
    assert {path: path.stat().st_mtime_ns for path in documents} == before
    assert len(list((tmp_path / "out" / "premis").iterdir())) > len(documents)


RECORD = Record(
    "/in/a.tif", "a.tif", 5, source_sha256="ab" * 32, outcome=Outcome.COLORIZED, derivative="/out/a.jpg"
)


def test_pages_are_named_in_events_and_not_in_the_name_of_their_file():
    pages = [
        RECORD.replace(key=f"a.tif#page={page}", derivative=f"/out/a.tif#page={page}.ptif") for page in (1, 2)
    ]
    pages = [
        page.finish(derivative_sha256="cd" * 32, model_sha256="e", model="m", run=page.key) for page in pages
    ]
    refused = pages[1].refuse(Refusal(Reason.BLANK_PAGE, "nothing is on it"), key="a.tif#page=3", run="3")
    root = check(premis.document([*pages, refused], "tool", "1"))
    assert texts(root, "object/originalName") == ["a.tif"]
    details = texts(root, "event/eventDetailInformation/eventDetail")
    assert [detail.partition(";")[0] for detail in details] == ["page 1", "page 2", "page 3"]
    names = texts(root, "object/objectCharacteristics/format/formatDesignation/formatName")
    assert set(names) == {"image/tiff"}


@given(st.text(), st.text(), st.sampled_from([Reason.MISSING, Reason.ALREADY_COLOR]))
def test_any_name_and_any_words_give_a_document(name, words, reason):
    record = RECORD.replace(source=f"/{name}", key=name).finish(
        derivative_sha256="cd" * 32, model="m", detail=words
    )
    refused = record.refuse(Refusal(reason, words or "."))
    check(premis.document([record.replace(model_sha256="e"), refused], "tool", "1"))


def test_two_records_of_one_master_name_it_once():
    one = RECORD.finish(derivative_sha256="cd" * 32, model="m", model_sha256="e", run="1")
    two = one.replace(derivative_sha256="ce" * 32, run="2")
    root = check(premis.document([one, two], "tool", "1"))
    assert len(root.findall(f"{NAMESPACE}object")) == 3
    assert len(root.findall(f"{NAMESPACE}agent")) == 2


def test_documents_are_written_to_a_bucket_once(bucket):
    output = f"{bucket}/premis-out"
    manifest.commit(output, "run", [RECORD.finish(derivative_sha256="cd" * 32, model="m", model_sha256="e")])
    premis.write(output, "tool", "1")
    (info,) = storage.list_files(f"{output}/premis")
    check(storage.read(info.uri))
    premis.write(output, "tool", "2")
    assert list(storage.list_files(f"{output}/premis")) == [info]
