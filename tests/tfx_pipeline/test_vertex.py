"""The pipeline's specification for Vertex AI, compiled and parsed without a network."""

import json

import pytest

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


def test_the_vertex_sdk_takes_it(spec):
    assert spec["pipelineInfo"]["name"] == "colorization"  # compile itself parses it by PipelineJob


def test_training_waits_for_the_data_gate(spec):
    assert "DataGate" in spec["root"]["dag"]["tasks"]["Transform"]["dependentTasks"]


def test_what_is_in_use_is_looked_up_anew_in_each_run(spec):
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


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["compile", "--root", "/tmp/x", "--image", "i"], "--root must be gs://"),
        (["submit", *COMMON], "--collections is missing, which submit needs"),
        (
            ["schedule", *COMMON, "--collections", "x", "--project", "p", "--region", "r"],
            "--cron is missing, which schedule needs",
        ),
        (["compile", *COMMON, "--dataflow"], "--dataflow needs --project and --region"),
        (["compile", *COMMON, "--thresholds", "none.yaml"], "cannot read none.yaml"),
        (["compile", *COMMON, "--sizes", "97"], "sizes must be multiples of 32"),
    ],
)
def test_a_users_mistake_is_one_line_before_any_work(argv, words, capsys):
    assert vertex_runner.main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
