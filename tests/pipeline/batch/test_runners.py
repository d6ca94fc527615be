"""Runners: options are checked before any work, each mistake in one line."""

import pytest

from pipeline.batch import job, runners
from pipeline.batch.inference import SHIPPED
from pipeline.colorize import main
from pipeline.errors import JobError
from tests.pipeline.conftest import make_archive

PROCESS = ["--environment_type=PROCESS", '--environment_config={"command": "archive-colorize-worker"}']


@pytest.fixture
def jar(tmp_path):
    (tmp_path / "server.jar").write_bytes(b"")
    return f"--flink_job_server_jar={tmp_path}/server.jar"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--runner=FlinkRunner"], "--environment_type is missing; choose where the workers run"),
        (["--runner=SparkRunner", "--environment_type=VM"], "--environment_type VM is not supported"),
        (["--runner=FlinkRunner", "--environment_type=PROCESS"], "PROCESS needs a command"),
        (
            ["--runner=FlinkRunner", "--environment_type=PROCESS", "--environment_config=x"],
            "is not a JSON object",
        ),
        (
            ["--runner=FlinkRunner", "--environment_type=PROCESS", "--environment_config=[1]"],
            "is not a JSON object",
        ),
        (
            ["--runner=FlinkRunner", "--environment_type=EXTERNAL", "--environment_config=here"],
            "needs HOST:PORT",
        ),
        (["--runner=FlinkRunner", "--environment_type=DOCKER"], "needs an image with this package"),
        (["--runner=FlinkRunner", *PROCESS], "--flink_job_server_jar is missing"),
        (["--runner=FlinkRunner", *PROCESS, "--flink_job_server_jar=/no.jar"], "no such file"),
        (["--runner=PortableRunner", *PROCESS], "--job_endpoint=HOST:PORT of a job server is missing"),
        (["--runner=DataflowRunner"], "--project is missing"),
        (
            ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t"],
            "the workers would lack this package",
        ),
        (["--runner=FlinkRunner", *PROCESS, "--max_bundel_size=3"], "did you mean --max_bundle_size"),
        (["--max_bundle_size=3"], "unknown option: --max_bundle_size"),
    ],
)
def test_a_users_mistake_is_one_line(argv, words):
    with pytest.raises(JobError) as error:
        runners.engine(argv)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_cluster_needs_the_number_of_slots(jar):
    argv = ["--runner=FlinkRunner", *PROCESS, jar, "--flink_master=flink:8081"]
    with pytest.raises(JobError, match="--parallelism is missing"):
        runners.engine(argv)
    assert not runners.engine([*argv, "--parallelism=2"]).local


def test_options_of_the_job_server_are_passed_on(jar):
    java = ["--execution_mode_for_batch=BATCH", "--max_bundle_size", "500", "--attached_mode=true"]
    options = runners.engine(["--runner=FlinkRunner", *PROCESS, jar, *java]).options
    assert options._flags[-4:] == java


def test_a_restarted_job_gets_another_harness(jar):
    options = runners.engine(["--runner=FlinkRunner", *PROCESS, jar]).options
    assert options.get_all_options()["environment_cache_millis"] == 1000
    assert "--environment_expiration_millis=10000" in options._flags


def test_the_expiration_of_harnesses_can_be_set(jar):
    own = "--environment_expiration_millis=7000"
    options = runners.engine(["--runner=FlinkRunner", *PROCESS, jar, own]).options
    assert [flag for flag in options._flags if "expiration_millis" in flag] == [own]


@pytest.mark.parametrize(
    ("argv", "local", "shares"),
    [
        ([], True, True),
        (["--runner=DirectRunner"], True, True),
        (["--runner=PrismRunner"], False, True),
        (["--runner=PortableRunner", "--job_endpoint=h:1", "--environment_type=LOOPBACK"], False, True),
        (["--runner=PortableRunner", "--job_endpoint=h:1", *PROCESS], False, False),
    ],
)
def test_workers_elsewhere_see_no_local_places(argv, local, shares):
    engine = runners.engine(argv)
    assert (engine.local, engine.shares_files) == (local, shares)
    places = [("--input", "gs://bucket/in"), ("--output", "/out"), ("--hints", None)]
    if shares:
        runners.check_places(engine, places)
    else:
        with pytest.raises(JobError, match="may not see --output /out.*--workers_share_files"):
            runners.check_places(engine, places)
        runners.check_places(runners.engine(argv, workers_share_files=True), places)


@pytest.mark.parametrize(
    ("name", "options"),
    [("fusion-small", ()), ("fusion-small", ("--workers_share_files",)), ("open", ("--model", "open"))],
)
def test_workers_take_a_shipped_model_from_their_own_installation(name, options, jar, tmp_path, monkeypatch):
    """With shared files, too: the launcher may be installed elsewhere."""
    seen, made = [], job._settings
    monkeypatch.setattr(job, "_settings", lambda *arguments: seen.append(made(*arguments)) or seen[0])
    monkeypatch.setattr(job, "_execute", lambda *arguments: job._Ended("no"))
    monkeypatch.setattr(runners, "check_places", lambda engine, places: None)
    argv = ["--runner=FlinkRunner", *PROCESS, jar, "--flink_master=flink:8081", "--parallelism=2"]
    places = ["--input", str(make_archive(tmp_path / "in", 1)), "--output", str(tmp_path / "out")]
    assert main([*places, *argv, *options]) == 1
    assert seen[0].model_uri == f"{SHIPPED}{name}"
