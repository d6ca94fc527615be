"""The Terraform module, checked by Terraform itself with a stand-in for the provider; see `provider/main.go`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.batch import graph
from pipeline.records.record import Outcome
from tests.infra import schema

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "infra" / "terraform"


@pytest.fixture(scope="module")
def terraform(tmp_path_factory):
    """Function that runs Terraform in a folder, with the stand-in as the only provider that it can find."""
    for program in ("terraform", "go"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    home = tmp_path_factory.mktemp("terraform")
    (home / "requirements.txt").write_text(schema.REQUIREMENT)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    run([*pip, "-d", home, "-r", home / "requirements.txt"])
    version = schema.write(next(home.glob("*.whl")), home / "schema.json")
    system = run(["go", "env", "GOOS", "GOARCH"]).split()
    folder = home / "mirror/registry.terraform.io/hashicorp/google" / version / "_".join(system)
    folder.mkdir(parents=True)
    (home / "schema.json").rename(folder / "schema.json")
    program = folder / f"terraform-provider-google_v{version}"
    run(["go", "build", "-o", program, "."], cwd=Path(__file__).parent / "provider")
    config = home / "config"
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{home}/mirror" }}\n}}\n')
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "GOOGLE_"))}
    env |= {"TF_CLI_CONFIG_FILE": str(config), "CHECKPOINT_DISABLE": "1"}

    def terraform(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
        command = ["terraform", *arguments, "-no-color"]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)

    return terraform


@pytest.fixture
def module(terraform, tmp_path):
    """A copy of the module that is ready for Terraform."""
    folder = tmp_path / "module"
    shutil.copytree(MODULE, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    made = terraform("init", "-backend=false", "-input=false", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


def run(command, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_module_is_valid(terraform, module):
    found = terraform("validate", cwd=module)
    assert found.returncode == 0, found.stderr


def test_the_tests_of_the_module_pass(terraform, module):
    found = terraform("test", cwd=module)
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(re.search(r"(\d+) passed, 0 failed", found.stdout)[1]) >= 11


@pytest.mark.parametrize(
    ("file", "right", "wrong", "words"),
    [
        (
            "nightly.tf",
            "attempt_deadline =",
            "deadline         =",
            'argument named "deadline" is not expected',
        ),
        ("nightly.tf", "retry_count = 0", 'retry_count = "none"', "a number is required"),
        ("accounts.tf", "  account_id ", "  # account_id ", 'argument "account_id" is required'),
        (
            "nightly.tf",
            "subnetwork.this.name",
            "subnetwork.this.nmae",
            'no argument, nested block, or exported attribute named "nmae"',
        ),
        (
            "storage.tf",
            '"google_storage_bucket"',
            '"google_storage_buckets"',
            "does not support resource type",
        ),
        ("accounts.tf", "  condition {", "  conditions {", 'Blocks of type "conditions" are not expected'),
    ],
)
def test_mistakes_are_refused(terraform, module, file, right, wrong, words):
    text = (module / file).read_text()
    assert right in text
    (module / file).write_text(text.replace(right, wrong))
    found = terraform("validate", cwd=module)
    assert found.returncode == 1
    assert words in " ".join(found.stderr.split())


def test_alerts_and_dashboard_use_counters_that_the_job_has():
    """Names of counters are text in Terraform; here they are compared with those in the job's graph."""
    text = (MODULE / "watching.tf").read_text()
    named = set()
    for pattern in re.findall(r'metric_name=~?\\?"([^"\\]+)\\?"', text):
        prefix, _, rest = pattern.partition("(")
        words, _, suffix = rest.partition(")")
        named |= {prefix + word + suffix for word in words.split("|")} if rest else set(pattern.split("|"))
    source = Path(graph.__file__).read_text()
    distributions = set(re.findall(r'_distribution\("(\w+)"\)', source))
    distributions |= {f"{stage}_milliseconds" for stage in re.findall(r'_timed\("(\w+)"\)', source)}
    has = {str(outcome) for outcome in Outcome} | {"reason_.*"} | {f"{name}_MEAN" for name in distributions}
    assert len(named) >= 8
    assert named - has == set()
