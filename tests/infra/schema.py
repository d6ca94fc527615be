"""The schema of Terraform's provider of Google Cloud, from a package on PyPI.

Terraform's registry serves the provider, which needs a network and 100 MB. The bindings for Python of the CDK for
Terraform hold the same names and types: `cdktf-cdktf-provider-google`. They do not tell which optional arguments the
provider also computes, how many blocks it accepts where it accepts several, and sets from lists.
"""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

REQUIREMENT = (
    "cdktf-cdktf-provider-google==16.12.1 "
    "--hash=sha256:88d021c89e1cf2abf2c935716d6548d26fe3da4bed30713d4fa36df1ef137436"
)
_PREFIX = "@cdktf/provider-google."
_LINK = re.compile(r"/providers/hashicorp/google/([\d.]+)/docs(?:/(resources|data-sources)/(\w+))?#(\w+) ")
_PRIMITIVES = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic", "json": "dynamic"}
_COMPUTED = {"id", "project", "region", "location", "zone"}  # if they are optional


def write(wheel: Path, target: Path) -> str:
    """Writes the schema in the format of `terraform providers schema -json`. Returns the version of the provider."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(packed.read(name))) as tar:
            assembly = json.load(tar.extractfile("package/.jsii"))  # type: ignore[arg-type]
    types = _Types(assembly["types"])
    schemas: dict = {"provider": {}, "resource_schemas": {}, "data_source_schemas": {}}
    version = ""
    for name, kind in assembly["types"].items():
        if not name.endswith("Config") or "cdktf.TerraformMetaArguments" not in kind.get("interfaces", ()):
            continue
        link = next(filter(None, map(_link, kind.get("properties", ()))), None)
        if link is None or link[2] is None:
            continue  # the provider itself, and data sources without arguments
        version = link[1]
        group = {"resources": "resource_schemas", "data-sources": "data_source_schemas"}[link[2]]
        schemas[group][f"google_{link[3]}"] = {"block": types.block(name, name.removesuffix("Config"))}
    schemas["provider"] = {"block": types.block(f"{_PREFIX}provider.GoogleProviderConfig", None)}
    target.write_text(json.dumps(schemas))
    return version


class _Types:
    def __init__(self, types: dict):
        self._types = types

    def block(self, struct: str, resource: str | None) -> dict:
        """A block from the type of its arguments and, if it is a resource, the class that has its attributes."""
        attributes, blocks, names = {}, {}, set()
        for argument in self._types[struct].get("properties", ()):
            names.add(argument["name"])
            name, optional = _name(argument), bool(argument.get("optional"))
            kind = _plain(argument["type"])
            element = _plain(kind.get("collection", {}).get("elementtype", kind))
            if f"{name} block." in argument["docs"].get("summary", ""):
                limits = {"min_items": int(not optional)} | ({"max_items": 1} if "fqn" in kind else {})
                blocks[name] = {"block": self.block(element["fqn"], None), "nesting_mode": "list"} | limits
            else:
                attributes[name] = {"type": self._type(kind), "optional" if optional else "required": True}
                if resource and optional and name in _COMPUTED:
                    attributes[name]["computed"] = True
        for name, kind in self._results(resource) if resource else ():
            if name not in names:
                attributes[_snake(name)] = {"type": self._type(kind), "computed": True}
        return {"attributes": attributes, "block_types": blocks}

    def _results(self, resource: str):
        """Names and types of the attributes that a class of results has."""
        for property in self._types[resource].get("properties", ()):
            name = property["name"]
            if property.get("static") or not property.get("immutable") or name.endswith("Input"):
                continue
            if name not in ("fqn", "internalValue"):
                yield name, _plain(property["type"])

    def _type(self, kind: dict):
        """A type in Terraform's JSON."""
        if primitive := kind.get("primitive"):
            return _PRIMITIVES[primitive]
        if collection := kind.get("collection"):
            word = {"array": "list", "map": "map"}[collection["kind"]]
            return [word, self._type(_plain(collection["elementtype"]))]
        name = kind["fqn"]
        if name.startswith("cdktf."):
            words = {"StringMap": "string", "NumberMap": "number", "BooleanMap": "bool", "AnyMap": "string"}
            return ["map", words[name.removeprefix("cdktf.")]] if name.endswith("Map") else "dynamic"
        if name.endswith("List") and (single := f"{name.removesuffix('List')}OutputReference") in self._types:
            return ["list", ["object", {_snake(n): self._type(k) for n, k in self._results(single)}]]
        properties = self._types[name].get("properties", ())
        return ["object", {_name(p): self._type(_plain(p["type"])) for p in properties}]


def _link(property: dict) -> re.Match | None:
    return _LINK.search(property["docs"].get("summary", "") + " " + property["docs"].get("remarks", ""))


def _name(property: dict) -> str:
    """The name of an argument in Terraform, which its documentation links to."""
    link = _link(property)
    return link[4] if link else _snake(property["name"])


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda found: f"_{found[1].lower()}", name)


def _plain(kind: dict) -> dict:
    """The type without the alternative that it is a reference (`IResolvable`)."""
    others = [one for one in kind.get("union", {}).get("types", ()) if one.get("fqn") != "cdktf.IResolvable"]
    return _plain(others[0]) if others else kind
