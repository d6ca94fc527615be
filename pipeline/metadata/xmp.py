"""Reads, changes and writes XMP packets. Reading has limits; equal statements are written as equal bytes.

Specification: XMP, part 1 (ISO 16684-1) for the packet and its RDF, part 3 for its place in files.
"""

import copy
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {  # prefixes in written packets, whatever the master has
    "x": "adobe:ns:meta/",
    "rdf": RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "acdsee-rs": "http://ns.acdsee.com/regions/",
    "colorize": "urn:archive-colorize:record:1#",
}
_XML = "http://www.w3.org/XML/1998/namespace"
LANGUAGE = f"{{{_XML}}}lang"

LARGEST = 4 << 20  # bytes of a packet
_MOST_NODES = 50_000  # elements and attributes
_DEEPEST = 100  # levels

_ABOUT = f"{{{RDF}}}about"
_LONGEST_NAME = 1_000  # characters of an identifier or a namespace

_ROOT = r"<(?!\?xpacket|!--)"
_WIDE = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"<\0\0\0": "utf-32-le",
    b"\0\0\0<": "utf-32-be",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_HEAD, _TAIL = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>', '<?xpacket end="w"?>'


class Unusable(ValueError):
    """A packet cannot be used; the message continues "the XMP packet"."""


def qualified(name: str) -> str:
    """ "dc:title" -> "{http://purl.org/dc/elements/1.1/}title"."""
    prefix, _, local = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{local}"


def new() -> ET.Element:
    """Tree of a packet without statements."""
    root = ET.Element(qualified("x:xmpmeta"))
    ET.SubElement(root, qualified("rdf:RDF"))
    return root


def parse(packet: bytes) -> ET.Element:
    """Parses a packet in any Unicode encoding to a tree of x:xmpmeta with one rdf:RDF.

    Bytes after its end are ignored.

    Raises:
      Unusable: it is not well-formed, has no RDF, or exceeds the limits of size, depth or number of nodes.
    """
    if len(packet) > LARGEST:
        raise Unusable(f"has more than {LARGEST >> 20} MB")
    return _parse(packet, _Bounded())


def descriptions(root: ET.Element) -> list[ET.Element]:
    """Nodes whose attributes and children are the statements about the file."""
    return [node for node in root[0] if node.tag == qualified("rdf:Description")]


def take(root: ET.Element, name: str) -> list[str | ET.Element]:
    """Removes a property of the file in any form. Returns its values, texts or elements."""
    name = qualified(name)
    found: list[str | ET.Element] = []
    for node in descriptions(root):
        if name in node.attrib:
            found.append(node.attrib.pop(name))
        for child in node.findall(name):
            node.remove(child)
            found.append(child)
    return found


def put(root: ET.Element, name: str, value: str | ET.Element) -> None:
    """Adds a property of the file. The value has a form that `take` returns."""
    node = descriptions(root)[0]
    if isinstance(value, str):
        node.set(qualified(name), value)
    else:
        node.append(value)


def words(value: str | ET.Element) -> str:
    """Text of a simple property, or the URI that it refers to; empty if it is too long."""
    if not isinstance(value, str):
        value = value.get(qualified("rdf:resource")) or value.text or ""
    return value.strip() if len(value) <= _LONGEST_NAME else ""


def remove(root: ET.Element, names: frozenset[str]) -> bool:
    """Removes properties with these qualified names everywhere. Returns whether there were any."""
    found = False
    for node in root.iter():
        for name in names.intersection(node.attrib):
            del node.attrib[name]
            found = True
        for child in [child for child in node if child.tag in names]:
            node.remove(child)
            found = True
    return found


def serialise(root: ET.Element) -> bytes:
    """Encodes the packet in UTF-8.

    All prefixes are declared in the root: those of this program, otherwise the author's.
    """
    root = copy.deepcopy(root)
    chosen = {uri: prefix for prefix, uri in NAMESPACES.items()} | {_XML: "xml"}
    taken = set(chosen.values())
    authors = {name: uri for name, uri in root.attrib.items() if name.startswith("xmlns:")}
    for name, uri in authors.items():
        prefix = name.removeprefix("xmlns:")
        if uri not in chosen and prefix not in taken:
            chosen[uri] = prefix
            taken.add(prefix)
        del root.attrib[name]
    used = {}

    def prefixed(name: str) -> str:
        if name[:1] != "{":
            return name
        uri, _, local = name[1:].partition("}")
        prefix = chosen.get(uri)
        if prefix is None:
            number = 1
            while f"ns{number}" in taken:
                number += 1
            prefix = chosen[uri] = f"ns{number}"
            taken.add(prefix)
        used[prefix] = uri
        return f"{prefix}:{local}"

    for node in root.iter():
        node.tag = prefixed(node.tag)
        node.attrib = {prefixed(name): value for name, value in node.attrib.items()}
    root.attrib |= {f"xmlns:{prefix}": uri for prefix, uri in used.items() if prefix != "xml"}
    return (_HEAD + ET.tostring(root, encoding="unicode") + _TAIL).encode()


def split(packet: bytes, limit: int) -> tuple[bytes, bytes]:
    """Splits a packet of this program into a packet of at most `limit` bytes and ExtendedXMP (part 3, 1.1.3.1).

    The largest statements are moved. Statements in the namespace of this program stay in the first packet, which
    names the second by its MD5.

    Raises:
      ValueError: the statements that must stay exceed the limit.
    """
    root, extension = _parse(packet, _Tree()), new()
    ours = next(node for node in descriptions(root) if qualified("colorize:record") in node.attrib)
    ours.set(qualified("xmpNote:HasExtendedXMP"), "0" * 32)
    size = len(serialise(root))
    for weight, node, moved in sorted(_movable(root), key=lambda found: -found[0]):
        if size <= limit:
            break
        size -= weight
        if node is root[0] and isinstance(moved, ET.Element):
            node.remove(moved)
            extension[0].append(moved)
            continue
        home = ET.SubElement(extension[0], node.tag, {_ABOUT: node.get(_ABOUT, "")})
        if isinstance(moved, str):
            home.set(moved, node.attrib.pop(moved))
        else:
            node.remove(moved)
            home.append(moved)
        if not len(node) and not any(name != _ABOUT for name in node.attrib):
            root[0].remove(node)
    _borrow_prefixes(root, extension)
    extended = serialise(extension)[len(_HEAD.encode()) : -len(_TAIL)]
    ours.set(qualified("xmpNote:HasExtendedXMP"), hashlib.md5(extended).hexdigest().upper())
    main = serialise(root)
    if len(main) > limit:
        raise ValueError(f"{len(main)} bytes of XMP that cannot be split do not fit into {limit}")
    return main, extended


def join(main: ET.Element, extended: ET.Element) -> ET.Element:
    """Joins the statements of both packets. Prefixes of the first take precedence."""
    _borrow_prefixes(extended, main)
    main[0].extend(extended[0])
    return main


def _borrow_prefixes(source: ET.Element, target: ET.Element) -> None:
    for name, uri in source.attrib.items():
        if name.startswith("xmlns:") and name not in target.attrib:
            target.set(name, uri)


def _movable(root: ET.Element) -> Iterator[tuple[int, ET.Element, str | ET.Element]]:
    """Yields the properties that may move to an extension: least number of bytes, node, and its attribute or child."""
    stay = (f"{{{NAMESPACES['colorize']}}}", _ABOUT)
    for node in root[0]:
        if node.tag != qualified("rdf:Description"):
            yield _weight(node), root[0], node
            continue
        for name, value in node.attrib.items():
            if not name.startswith(stay):
                yield len(value.encode()), node, name
        for child in node:
            yield _weight(child), node, child


class _Tree(ET.TreeBuilder):
    """Builds a tree whose root has all prefixes of the author as attributes `xmlns:…`."""

    def __init__(self):
        super().__init__()
        self.depth = 0
        self.prefixes: dict[str, str] = {}
        self.root: ET.Element | None = None

    def start_ns(self, prefix: str, uri: str) -> None:
        if len(uri) > _LONGEST_NAME:
            raise Unusable(f"names a namespace with more than {_LONGEST_NAME} characters")
        if prefix:
            self.prefixes.setdefault(f"xmlns:{prefix}", uri)

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        self.depth += 1
        return super().start(tag, attributes)

    def end(self, tag: str) -> ET.Element:
        self.depth -= 1
        node = super().end(tag)
        if not self.depth:
            self.root = node
        return node


class _Bounded(_Tree):
    def __init__(self):
        super().__init__()
        self.nodes = 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise Unusable("declares a document type")

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        self.nodes += 1 + len(attributes)
        if self.depth >= _DEEPEST:
            raise Unusable(f"is nested more than {_DEEPEST} levels deep")
        if self.nodes > _MOST_NODES:
            raise Unusable(f"has more than {_MOST_NODES} elements and attributes")
        return super().start(tag, attributes)


def _parse(packet: bytes, builder: _Tree) -> ET.Element:
    parser = ET.XMLParser(target=builder)
    try:
        parser.feed(_body(packet))
    except ET.ParseError as error:  # anything may follow its end
        if builder.root is None:
            raise Unusable(f"is not well-formed: {error}") from error
    root = builder.root
    if root is None:
        raise Unusable("is truncated")
    rdf = root if root.tag == qualified("rdf:RDF") else root.find(qualified("rdf:RDF"))
    if rdf is None:
        raise Unusable("has no RDF")
    toolkit = {name: value for name, value in root.attrib.items() if len(value) <= _LONGEST_NAME}
    whole = ET.Element(qualified("x:xmpmeta"), toolkit if rdf is not root else {})
    whole.attrib |= builder.prefixes
    ET.SubElement(whole, rdf.tag).extend(rdf)
    return whole


def _body(packet: bytes) -> bytes | str:
    """The packet from its root element on. UTF-16 and UTF-32 (XML 1.0, appendix F) are decoded."""
    for mark, encoding in _WIDE.items():
        if packet.startswith(mark):
            text = packet.decode(encoding, "replace")
            match = re.search(_ROOT, text)
            return text[match.start() :] if match else ""
    found = re.search(_ROOT.encode(), packet)
    return packet[found.start() :] if found else b""


def _weight(child: ET.Element) -> int:
    """Smallest number of bytes of an element."""
    return sum(len((node.text or "").encode()) + sum(map(len, node.attrib.values())) for node in child.iter())
