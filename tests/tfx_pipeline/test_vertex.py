"""The pipeline specification for Vertex AI, compiled and parsed offline."""

import json

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform

from pipeline import storage
from tests import rest
from tests.tfx_pipeline.vertex import Vertex
from tfx_pipeline import vertex_runner

COMMON = ("--root", "gs://archive/pipeline", "--image", "europe-docker.pkg.dev/archive/images/pipeline:1")
NODES = (
    *(
        "CollectionExampleGen",
        "StatisticsGen",
        "ImportSchemaGen",
        "ExampleValidator",
        "DataGate",
        "Transform",
    ),
    *("Trainer", "Resolver", "Evaluator", "CanaryValidator", "Pusher"),
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("vertex") / "pipeline.json"
    more = ["--dataflow", "--project", "archive", "--region", "europe-west1", "--network", "fusion"]
    more += ["--worker_image", "workers:1", "--worker_service_account", "worker@archive", "--private_workers"]
    more += ["--subnetwork", "regions/europe-west1/subnetworks/archive", "--kms_key", "key"]
    assert vertex_runner.main(["compile", *COMMON, *more, "--output", str(file)]) == 0
    return json.loads(file.read_text())["pipelineSpec"]


def test_every_component_is_in_the_specification(spec):
    assert set(spec["root"]["dag"]["tasks"]) == set(NODES)


def test_the_vertex_sdk_accepts_the_specification(spec):
    assert spec["pipelineInfo"]["name"] == "colorization"  # `compile` itself parses it with PipelineJob


def test_training_waits_for_the_data_gate(spec):
    assert "DataGate" in spec["root"]["dag"]["tasks"]["Transform"]["dependentTasks"]


def test_the_model_in_use_is_looked_up_in_each_run(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert "cachingOptions" not in tasks["Resolver"]
    assert tasks["Trainer"]["cachingOptions"]["enableCache"]


def test_components_run_in_the_image_that_is_given(spec):
    executors = spec["deploymentSpec"]["executors"]
    for node in ("DataGate", "CanaryValidator", "Pusher", "Resolver", "Trainer"):
        assert executors[f"{node}_executor"]["container"]["image"] == COMMON[3]


def test_beam_stages_run_on_dataflow_if_told(spec):
    arguments = " ".join(spec["deploymentSpec"]["executors"]["StatisticsGen_executor"]["container"]["args"])
    for option in (
        "--runner=DataflowRunner",
        "--project=archive",
        "--temp_location=gs://archive/pipeline/temp",
        "--sdk_container_image=workers:1",
        "--service_account_email=worker@archive",
        "--subnetwork=regions/europe-west1/subnetworks/archive",
        "--no_use_public_ips",
        "--dataflow_kms_key=key",
    ):
        assert option in arguments


@pytest.fixture
def vertex():
    """A server with Vertex AI's interface, which the real client calls over HTTP."""
    interface = Vertex()
    before = aiplatform.initializer.global_config._credentials
    with rest.server(interface.answer) as url:
        aiplatform.init(credentials=AnonymousCredentials(), api_endpoint=url, api_transport="rest")
        yield interface
    config = aiplatform.initializer.global_config
    config._api_endpoint = config._api_transport = None
    config._credentials = before


def cloud_options(cloud: str, tmp_path) -> list[str]:
    options = ["--root", f"{cloud}/pipeline", "--image", "i", "--project", "p", "--region", "europe-west1"]
    options += ["--collections", f"{cloud}/photographs", "--service_account", "trainer@p"]
    return [*options, "--output", str(tmp_path / "pipeline.json")]


def test_a_run_is_submitted_with_its_schema_below_the_root(cloud, vertex, tmp_path, capsys):
    key, network = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k", "projects/1/global/networks/n"
    more = ("--kms_key", key, "--peered_network", network)
    assert vertex_runner.main(["submit", *cloud_options(cloud, tmp_path), *more]) == 0
    [(name, job)] = vertex.jobs.items()
    assert (job["serviceAccount"], job["network"]) == ("trainer@p", network)
    assert job["encryptionSpec"]["kmsKeyName"] == key
    assert f"started: {name}" in capsys.readouterr().out
    [schema] = storage.list_files(f"{cloud}/pipeline/schemas")
    assert schema.uri in (tmp_path / "pipeline.json").read_text()


def test_a_scheduled_run_lists_the_collections_anew_each_time(cloud, vertex, tmp_path, capsys):
    assert vertex_runner.main(["schedule", "--cron", "0 3 * * 1", *cloud_options(cloud, tmp_path)]) == 0
    [(name, schedule)] = vertex.schedules.items()
    assert (schedule["cron"], schedule["maxConcurrentRunCount"]) == ("0 3 * * 1", "1")
    assert schedule["createPipelineJobRequest"]["pipelineJob"]["serviceAccount"] == "trainer@p"
    assert f"scheduled: {name}" in capsys.readouterr().out
    tasks = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    assert set(tasks) == {*NODES, "CollectionSnapshot"}
    assert "CollectionSnapshot" in tasks["CollectionExampleGen"]["dependentTasks"]
    assert "cachingOptions" not in tasks["CollectionSnapshot"]


def test_a_schedule_replaces_those_with_its_name(cloud, vertex, tmp_path):
    options = cloud_options(cloud, tmp_path)
    assert vertex_runner.main(["schedule", "--cron", "0 3 * * 1", *options, "--pipeline", "other"]) == 0
    for day in (1, 2):
        assert vertex_runner.main(["schedule", "--cron", f"0 3 * * {day}", *options]) == 0
    found = {(s["displayName"], s["cron"], s["state"]) for s in vertex.schedules.values()}
    assert found == {("other", "0 3 * * 1", "ACTIVE"), ("colorization", "0 3 * * 2", "ACTIVE")}
    vertex.refused.add("POST schedules")
    assert vertex_runner.main(["schedule", "--cron", "0 3 * * 3", *options]) == 2
    assert {(s["displayName"], s["cron"], s["state"]) for s in vertex.schedules.values()} == found
    assert "POST 3:pause" in vertex.calls, "two schedules ran at the same time"


def test_a_refusal_of_google_cloud_is_one_line(cloud, vertex, tmp_path, capsys):
    vertex.refused.add("POST pipelineJobs")
    assert vertex_runner.main(["submit", *cloud_options(cloud, tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vertex_runner: submit failed: 403 ")
    assert "no access to p" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["compile", "--root", "/tmp/x", "--image", "i"], "--root must be gs://"),
        (["submit", *COMMON], "submit needs --collections"),
        (
            ["schedule", *COMMON, "--collections", "gs://a/b", "--project", "p", "--region", "r"],
            "schedule needs --cron",
        ),
        (["compile", *COMMON, "--collections", "photos"], "--collections must be gs://"),
        (["compile", *COMMON, "--dataflow"], "--dataflow needs --project, --region and --worker_image"),
        (["compile", *COMMON, "--private_workers"], "--private_workers is for Dataflow"),
        (["compile", *COMMON, "--worker_image", COMMON[3]], "--worker_image must not be --image"),
        (["compile", *COMMON, "--thresholds", "none.yaml"], "cannot read none.yaml"),
        (["compile", *COMMON, "--sizes", "97"], "sizes must be multiples of 32"),
    ],
)
def test_a_users_mistake_is_one_line_before_any_work(argv, words, capsys):
    assert vertex_runner.main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
