"""Checks FlinkDeployments against the schema of Flink's operator, which Maven gets from Maven Central."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
OPERATOR = "1.10.0"
SCHEMA = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    if not shutil.which("mvn"):
        pytest.skip("Maven is not installed (Debian: apt install maven)")
    folder = tmp_path_factory.mktemp("operator")
    jar = f"org.apache.flink:flink-kubernetes-operator-api:{OPERATOR}"
    command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={jar}", f"-DoutputDirectory={folder}"]
    subprocess.run(command, check=True, cwd=folder)
    (file,) = folder.glob("*.jar")
    definition = yaml.safe_load(zipfile.ZipFile(file).read(SCHEMA))
    (version,) = definition["spec"]["versions"]
    return strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


@pytest.fixture
def cluster():
    return yaml.safe_load((ROOT / "infra/k8s/flink/cluster.yaml").read_text())


def strict(schema: dict) -> dict:
    """The schema, but unknown fields are errors; Kubernetes would leave them out."""
    schema = dict(schema)
    if "properties" in schema:
        schema["properties"] = {name: strict(below) for name, below in schema["properties"].items()}
        schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return schema


def test_the_operator_accepts_the_cluster(schema, cluster):
    errors = jsonschema.Draft7Validator(schema).iter_errors(cluster["spec"])
    assert [f"{'/'.join(map(str, error.path))}: {error.message}" for error in errors] == []


def test_the_operator_would_refuse_a_wrong_field(schema, cluster):
    cluster["spec"]["taskManager"]["podTemplate"]["spec"]["containers"][0]["volumeMount"] = []
    assert list(jsonschema.Draft7Validator(schema).iter_errors(cluster["spec"]))
