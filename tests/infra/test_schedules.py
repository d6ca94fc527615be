"""The schedules start commands that the programs accept, and say what they mean."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.batch import options, runners
from tfx_pipeline import local_runner

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
UNITS = sorted((INFRA / "systemd").glob("*.service"))
CRON = (INFRA / "systemd" / "archive-colorize.cron").read_text()
MANIFESTS = sorted((INFRA / "k8s").rglob("*.yaml"))
RESOURCES = [
    (path, resource)
    for path in MANIFESTS
    for resource in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
CRON_JOBS = [resource for _, resource in RESOURCES if resource["kind"] == "CronJob"]
VERSION = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())[1]

# An image without the registry, and the command with which it starts (see the Dockerfile).
ENTRYPOINTS = {
    f"archive-colorize:{VERSION}": ["archive-colorize"],
    f"archive-colorize-tfx:{VERSION}": ["python", "-m", "tfx_pipeline.local_runner"],
    f"archive-colorize-worker:{VERSION}": ["/opt/apache/beam/boot"],
}


def pod(cron_job: dict) -> dict:
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def command_of_unit(unit: Path) -> list[str]:
    text = unit.read_text().replace("\\\n", " ")
    return shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])


def commands() -> list:
    """All commands of schedules, as (where, arguments)."""
    found = [(unit.name, command_of_unit(unit)) for unit in UNITS]
    for line in CRON.splitlines():
        if re.match(r"[\d*]", line):
            found.append((line[:12].strip(), shlex.split(line.split(maxsplit=6)[6])))
    for cron_job in CRON_JOBS:
        for container in pod(cron_job)["containers"]:
            command = container.get("command", ENTRYPOINTS[container["image"]]) + container["args"]
            found.append((cron_job["metadata"]["name"], command))
    return [pytest.param(command, id=where) for where, command in found]


@pytest.mark.parametrize("command", commands())
def test_the_program_accepts_the_options(command):
    """Of what may stand before the program (flock, nice) nothing is looked at."""
    if "tfx_pipeline.local_runner" in command:
        local_runner.parser().parse_args(command[command.index("tfx_pipeline.local_runner") + 1 :])
        return
    (program,) = [at for at, word in enumerate(command) if word.endswith("archive-colorize")]
    chosen, beam = options.parser().parse_known_args(command[program + 1 :])
    assert chosen.input and chosen.output
    runners.engine(beam, chosen.workers_share_files, chosen.gpu)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_timer_starts_the_service_at_the_time_that_cron_and_kubernetes_have(unit):
    assert unit.with_suffix(".timer").is_file()
    calendar = re.search(r"^OnCalendar=(.*)$", unit.with_suffix(".timer").read_text(), re.MULTILINE)[1]
    day, hour = re.fullmatch(r"(?:(\w+) )?\*-\*-\* (\d\d):00", calendar).groups()
    schedule = f"0 {int(hour)} * * {'6' if day == 'Sat' else '*'}"
    part = unit.stem.rpartition("-")[2]
    names = (f"colorize-{part}", f"colorize-flink-{part}")
    assert {job["spec"]["schedule"] for job in CRON_JOBS if job["metadata"]["name"] in names} == {schedule}
    assert re.search(rf"^{re.escape(schedule)} ", CRON, re.MULTILINE)


def test_systemd_accepts_the_units_and_finds_them_contained(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    shutil.copytree(INFRA / "systemd", tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):  # the commands are not installed here
        unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    units = sorted([*tmp_path.glob("*.service"), *tmp_path.glob("*.timer")])
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    for unit in tmp_path.glob("*.service"):
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", unit]
        contained = subprocess.run(command, capture_output=True, text=True)
        assert contained.returncode == 0, contained.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_service_may_write_what_its_command_writes_and_nothing_else(unit):
    command = command_of_unit(unit)
    written = command[command.index("--root" if "--root" in command else "--output") + 1]
    assert re.findall(r"^ReadWritePaths=(.*)$", unit.read_text(), re.MULTILINE) == [written]
    assert (
        "\nProtectSystem=strict\n" in (unit.parent / "archive-colorize-.service.d/contained.conf").read_text()
    )


@pytest.mark.parametrize("cron_job", CRON_JOBS, ids=lambda job: job["metadata"]["name"])
def test_a_pod_is_contained(cron_job):
    spec = pod(cron_job)
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
    for container in spec["containers"] + spec.get("initContainers", []):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == set(container["resources"])


@pytest.mark.parametrize("cron_job", CRON_JOBS, ids=lambda job: job["metadata"]["name"])
def test_a_pod_mounts_what_its_command_reads_and_can_write_its_output_only(cron_job):
    (container,) = pod(cron_job)["containers"]
    mounts = {mount["mountPath"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]}
    named = dict(word[2:].split("=", 1) for word in container["args"] if "=/" in word)
    assert mounts == {"/tmp": True} | {path: name in ("output", "root") for name, path in named.items()}


def test_flink_workers_see_the_places_that_the_launcher_sees():
    """`--workers_share_files` says so."""
    ((_, cluster),) = [(path, item) for path, item in RESOURCES if item["kind"] == "FlinkDeployment"]
    (launcher,) = [pod(job) for job in CRON_JOBS if job["metadata"]["name"] == "colorize-flink-nightly"]
    task_manager = cluster["spec"]["taskManager"]["podTemplate"]["spec"]
    (workers,) = [container for container in task_manager["containers"] if container["name"] == "workers"]
    assert workers["volumeMounts"] == launcher["containers"][0]["volumeMounts"]
    assert [volume for volume in task_manager["volumes"] if volume["name"] != "jars"] == launcher["volumes"]
    assert ENTRYPOINTS[workers["image"]]  # of this version
