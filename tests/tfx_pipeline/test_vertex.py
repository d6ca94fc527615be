"""The pipeline specification for Vertex AI, compiled and parsed offline."""

import json

import pytest
from google.api_core.exceptions import PermissionDenied
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform

from pipeline import storage
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
    more = ("--dataflow", "--project", "archive", "--region", "europe-west1", "--network", "fusion")
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
    ):
        assert option in arguments


@pytest.fixture
def started(monkeypatch):
    """The calls to the Vertex AI client. Nothing is sent."""
    calls = []

    def submit(job, **options):
        calls.append(("submit", job, options))
        job._gca_resource.name = "projects/1/locations/r/pipelineJobs/7"

    def create_schedule(job, **options):
        calls.append(("schedule", job, options))
        return type("Schedule", (), {"resource_name": "projects/1/locations/r/schedules/8"})

    monkeypatch.setattr(aiplatform.PipelineJob, "submit", submit)
    monkeypatch.setattr(aiplatform.PipelineJob, "create_schedule", create_schedule)
    aiplatform.init(credentials=AnonymousCredentials())
    return calls


def cloud_options(cloud: str, tmp_path) -> list[str]:
    options = ["--root", f"{cloud}/pipeline", "--image", "i", "--project", "p", "--region", "europe-west1"]
    options += ["--collections", f"{cloud}/photographs", "--service_account", "trainer@p"]
    return [*options, "--output", str(tmp_path / "pipeline.json")]


def test_a_run_is_submitted_with_its_schema_below_the_root(cloud, started, tmp_path, capsys):
    assert vertex_runner.main(["submit", *cloud_options(cloud, tmp_path)]) == 0
    [(name, _, options)] = started
    assert (name, options) == ("submit", {"service_account": "trainer@p"})
    assert "started: projects/1/locations/r/pipelineJobs/7" in capsys.readouterr().out
    [schema] = storage.list_files(f"{cloud}/pipeline/schemas")
    assert schema.uri in (tmp_path / "pipeline.json").read_text()


def test_a_scheduled_run_lists_the_collections_anew_each_time(cloud, started, tmp_path, capsys):
    assert vertex_runner.main(["schedule", "--cron", "0 3 * * 1", *cloud_options(cloud, tmp_path)]) == 0
    [(name, _, options)] = started
    assert (name, options["cron"], options["max_concurrent_run_count"]) == ("schedule", "0 3 * * 1", 1)
    assert "scheduled: projects/1/locations/r/schedules/8" in capsys.readouterr().out
    tasks = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    assert set(tasks) == {*NODES, "CollectionSnapshot"}
    assert "CollectionSnapshot" in tasks["CollectionExampleGen"]["dependentTasks"]
    assert "cachingOptions" not in tasks["CollectionSnapshot"]


def test_a_refusal_of_google_cloud_is_one_line(cloud, started, tmp_path, capsys, monkeypatch):
    def refuse(job, **options):
        raise PermissionDenied("no access\nto p")

    monkeypatch.setattr(aiplatform.PipelineJob, "submit", refuse)
    assert vertex_runner.main(["submit", *cloud_options(cloud, tmp_path)]) == 2
    assert capsys.readouterr().err == "vertex_runner: submit failed: 403 no access to p\n"


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
        (["compile", *COMMON, "--dataflow"], "--dataflow needs --project and --region"),
        (["compile", *COMMON, "--thresholds", "none.yaml"], "cannot read none.yaml"),
        (["compile", *COMMON, "--sizes", "97"], "sizes must be multiples of 32"),
    ],
)
def test_a_users_mistake_is_one_line_before_any_work(argv, words, capsys):
    assert vertex_runner.main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
