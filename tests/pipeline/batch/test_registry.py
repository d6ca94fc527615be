"""The model registry: pushing complete versions, the version in use, and rollback."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from model.card import CARD, CardError, read_card
from pipeline import storage
from pipeline.batch import job, registry
from pipeline.batch.inference import local_copy
from tests.pipeline.conftest import ROOT, export_model, make_archive

PASSED = [{"gate": "quality", "verdict": "passed"}]
FAILED = [{"gate": "quality", "verdict": "passed"}, {"gate": "serving", "verdict": "failed"}]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three different models."""
    folder = tmp_path_factory.mktemp("models")
    return [str(export_model(folder / name, version=name)) for name in ("10", "20", "30")]


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "pushed")


def command(*arguments: str):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.colorize", *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_versions_are_counted_from_one_and_the_newest_is_in_use(models, root):
    pushed = [registry.push(model, root, gates=PASSED) for model in models[:2]]
    assert [(p.version, p.new) for p in pushed] == [("1", True), ("2", True)]
    assert [(v.version, v.is_latest) for v in registry.versions(root)] == [("1", False), ("2", True)]
    assert registry.resolve(root) == os.path.join(root, "2")


def test_a_pushed_model_is_whole_and_its_card_says_version_gates_and_data(models, root):
    registry.push(models[0], root, gates=PASSED, data={"kept": 7})
    card = read_card(os.path.join(root, "1"))
    assert (card.version, card.gates, card.data) == ("1", PASSED, {"kept": 7})
    assert card.pushed.endswith("+00:00")


def test_an_identical_model_is_not_pushed_again(models, root):
    registry.push(models[0], root, gates=PASSED)
    again = registry.push(models[0], root, gates=PASSED)
    assert (again.version, again.new) == ("1", False)
    assert len(registry.versions(root)) == 1


def test_a_model_that_was_rolled_back_does_not_come_back_by_itself(models, root):
    for model in models[:2]:
        registry.push(model, root, gates=PASSED)
    assert registry.rollback(root).version == "1"
    assert not registry.push(models[1], root, gates=PASSED).new
    assert registry.latest(root).version == "1"


def test_rolling_back_passes_over_what_is_not_blessed(models, root):
    for model, gates in zip(models, (PASSED, FAILED, PASSED), strict=True):
        registry.push(model, root, gates=gates)
    assert registry.rollback(root).version == "1"


def test_two_pushers_get_two_versions(models, root):
    found = []
    threads = [
        threading.Thread(target=lambda m=model: found.append(registry.push(m, root, gates=PASSED).version))
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["1", "2", "3"]
    assert [v.version for v in registry.versions(root) if v.is_latest] == ["3"]


def test_of_two_pushers_the_newer_version_is_in_use_whoever_ends_last(models, root, monkeypatch):
    write, overtaken = storage.write, []

    def slow(uri, data, **options):
        if uri.endswith("latest"):
            monkeypatch.undo()
            overtaken.append(registry.push(models[1], root, gates=PASSED).version)
        write(uri, data, **options)

    monkeypatch.setattr(storage, "write", slow)  # forces the critical order of events
    assert registry.push(models[0], root, gates=PASSED).version == "1"
    assert overtaken == ["2"]
    assert registry.latest(root).version == "2"


def test_a_first_push_that_was_killed_before_its_end_is_finished_by_the_next(models, root):
    registry.push(models[0], root, gates=PASSED)
    os.unlink(os.path.join(root, "latest"))
    with pytest.raises(registry.RegistryError, match="latest does not exist .*archive-colorize rollback"):
        registry.latest(root)
    assert not registry.push(models[0], root, gates=PASSED).new
    assert registry.latest(root).version == "1"


def test_the_version_in_use_is_found_beside_one_whose_card_is_broken(models, root):
    for model in models[:2]:
        registry.push(model, root, gates=PASSED)
    storage.write(os.path.join(root, "2", CARD), b"{")
    with pytest.raises(CardError, match="unreadable model card .*/2/"):
        registry.resolve(root)
    registry.rollback(root, "1")
    assert registry.resolve(root) == os.path.join(root, "1")


def test_gates_that_would_spoil_the_card_are_not_pushed(models, root):
    with pytest.raises(CardError, match="invalid values of gates"):
        registry.push(models[0], root, gates=[{"gate": "quality"}])
    assert registry.versions(root) == []


def test_an_unblessed_version_can_be_activated_explicitly(models, root):
    registry.push(models[0], root, gates=FAILED)
    registry.push(models[1], root, gates=PASSED)
    assert registry.rollback(root, "1", allow_unblessed=True).version == "1"
    assert registry.latest(root).version == "1"


def test_a_push_that_breaks_off_leaves_no_version(models, root, monkeypatch):
    registry.push(models[0], root, gates=PASSED)
    write = storage.write

    def full(uri, data, **options):
        if "variables" in uri:
            raise OSError(28, "no space left on device")
        write(uri, data, **options)

    monkeypatch.setattr(storage, "write", full)
    with pytest.raises(OSError, match="no space left"):
        registry.push(models[1], root, gates=PASSED)
    assert [v.version for v in registry.versions(root)] == ["1"]
    assert sorted(os.listdir(root)) == ["1", "latest"]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("7", "there is no version 7"),
        ("2", "version 2 in .* is not blessed"),
        (None, "no blessed version before 1"),
    ],
)
def test_an_impossible_rollback_is_refused_with_its_reason(models, root, version, words):
    registry.push(models[0], root, gates=PASSED)
    registry.push(models[1], root, gates=FAILED)
    registry.rollback(root)
    with pytest.raises(registry.RegistryError, match=words):
        registry.rollback(root, version)


def test_a_pointer_to_a_missing_version_is_an_error_that_names_the_remedy(models, root):
    registry.push(models[0], root, gates=PASSED)
    storage.write(os.path.join(root, "latest"), b"9\n")
    with pytest.raises(registry.RegistryError, match="names version '9'.*archive-colorize rollback"):
        registry.resolve(root)
    registry.rollback(root, "1")
    assert registry.latest(root).version == "1"


def test_the_job_takes_the_version_in_use_and_records_it(models, root, colorize, tmp_path):
    for model in models[:2]:
        registry.push(model, root, gates=PASSED)
    registry.rollback(root)
    run = colorize(make_archive(tmp_path / "scans", 3), tmp_path / "out", "--model", root)
    assert {record.model_version for record in run.records.values()} == {"1"}
    assert {record.model_sha256 for record in run.records.values()} == {read_card(models[0]).weights_sha256}
    assert run.summary["model_uri"] == os.path.join(root, "1")
    why = f"the current version in {root}, after a rollback from version 2; passed: quality"
    assert run.summary["model_why"] == why
    assert f"model         {root}/1 ({why})\n" in run.out


def test_a_push_during_the_job_is_told_at_its_end(models, root, colorize, tmp_path, monkeypatch):
    registry.push(models[0], root, gates=PASSED)
    real = job._execute

    def meanwhile(*arguments):
        registry.push(models[1], root, gates=PASSED)
        return real(*arguments)

    monkeypatch.setattr(job, "_execute", meanwhile)
    run = colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--model", root)
    assert run.code == 0
    assert f"a newer model was pushed during the run: {os.path.join(root, '2')}" in run.out
    assert run.summary["model_version"] == "1"


def test_no_push_is_told_of_a_model_that_ships(colorize, tmp_path):
    run = colorize(make_archive(tmp_path / "in", 1), tmp_path / "out", "--model", "open")
    assert run.code == 0 and run.summary["model_why"] == "the shipped model"
    assert "newer model" not in run.out


@pytest.mark.parametrize("gates", [FAILED, []])
def test_an_unblessed_version_is_refused_unless_told(models, root, colorize, gates, tmp_path):
    registry.push(models[0], root, gates=gates)
    scans, output = make_archive(tmp_path / "scans", 2), tmp_path / "out"
    refused = colorize(scans, output, "--model", root)
    assert refused.code == 2
    assert "is not blessed" in refused.err and "--allow_unblessed" in refused.err
    assert not output.exists()
    run = colorize(scans, output, "--model", root, "--allow_unblessed")
    assert run.code == 0
    why = "serving (failed)" if gates else "it has no gates"
    assert run.summary["model_why"] == f"the current version in {root}; not blessed: {why}"


def test_a_candidate_that_has_not_passed_its_gates_is_refused(models, colorize, tmp_path):
    candidate = tmp_path / "candidate"
    shutil.copytree(models[0], candidate)
    card = json.loads((candidate / CARD).read_text())
    (candidate / CARD).write_text(json.dumps(card | {"gates": [{"gate": "data", "verdict": "pending"}]}))
    refused = colorize(make_archive(tmp_path / "scans", 1), tmp_path / "out", "--model", candidate)
    assert refused.code == 2 and "data (pending)" in refused.err


def test_models_are_listed_and_rolled_back_from_the_command_line(models, root):
    for model in models[:2]:
        registry.push(model, root, gates=PASSED, data={"kept": 7})
    listed = command("models", root)
    assert listed.returncode == 0
    [line] = [line for line in listed.stdout.splitlines() if "*" in line]
    assert line.split()[:3] == ["*", "2", "tiny"] and "quality passed" in line
    back = command("rollback", root)
    assert back.stdout.startswith("version 2 was current; version 1 of tiny is current now")
    again = command("rollback", root)
    assert (again.returncode, again.stderr) == (
        2,
        f"archive-colorize: there is no blessed version before 1 in {root}\n",
    )


def test_a_folder_without_pushed_models_is_a_users_mistake(tmp_path):
    listed = command("models", str(tmp_path))
    assert (listed.returncode, listed.stderr) == (
        2,
        f"archive-colorize: no models were pushed to {tmp_path}\n",
    )


def test_a_registry_can_be_in_an_object_store(models, bucket):
    root = f"{bucket}/models"
    for model in models[:2]:
        registry.push(model, root, gates=PASSED)
    assert registry.resolve(root) == f"{root}/2"
    assert registry.rollback(root).uri == f"{root}/1"
    assert registry.resolve(root) == f"{root}/1"
    assert read_card(local_copy(f"{root}/1")).version == "1"


def test_a_version_number_claimed_by_another_pusher_is_skipped_in_an_object_store(
    models, bucket, monkeypatch
):
    root, write = f"{bucket}/contested", storage.write

    def conditional(uri, data, *, keep_existing=False):
        if not (keep_existing and storage.stat(uri)):
            write(uri, data)

    monkeypatch.setattr(storage, "write", conditional)  # the emulator ignores the condition
    storage.write(f"{root}/1/.claim", b"of another")
    storage.write(f"{root}/1/saved_model.pb", b"half of another")
    assert registry.push(models[0], root, gates=PASSED).version == "2"
    assert storage.read(f"{root}/1/saved_model.pb") == b"half of another"
    assert [v.version for v in registry.versions(root)] == ["2"]


def test_the_job_takes_the_version_in_use_from_an_object_store(models, bucket, colorize, tmp_path):
    root = f"{bucket}/used"
    for model in models[:2]:
        registry.push(model, root, gates=PASSED)
    registry.rollback(root)
    run = colorize(make_archive(tmp_path / "scans", 2), tmp_path / "out", "--model", root)
    assert {record.model_version for record in run.records.values()} == {"1"}
    assert run.summary["model_uri"] == f"{root}/1"


def test_a_bucket_that_cannot_be_read_is_a_users_mistake(bucket, colorize, tmp_path):
    none = f"{storage.scheme(bucket)}no-such-bucket/models"
    refused = colorize(make_archive(tmp_path / "scans", 1), tmp_path / "out", "--model", none)
    assert refused.code == 2
    assert refused.err.startswith(f"archive-colorize: cannot read the model {none}: ")
    assert refused.err.count("\n") == 1
