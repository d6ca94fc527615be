"""GPU presets: what they set, and what contradicts them."""

import os

import pytest
import tensorflow as tf

from pipeline.batch import gpus, runners
from pipeline.batch.inference import ModelError, Network, load
from pipeline.errors import JobError
from tests.pipeline.conftest import SIDE

DATAFLOW = ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t"]
DATAFLOW += ["--sdk_container_image=image"]
L4 = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"


@pytest.mark.parametrize("kind", gpus.GPUS)
def test_a_preset_sets_machine_driver_process_and_codecs(kind):
    engine = runners.engine(DATAFLOW, gpu=kind)
    chosen, gpu = engine.options.get_all_options(), gpus.GPUS[kind]
    assert chosen["machine_type"] == gpu.machine_type
    accelerator = f"worker_accelerator=type:{gpu.accelerator};count:1;install-nvidia-driver:5xx"
    assert chosen["dataflow_service_options"] == [accelerator]
    assert "no_use_multiple_sdk_containers" in chosen["experiments"]
    assert chosen["number_of_worker_harness_threads"] == engine.bundles == gpu.codecs


def test_what_a_user_sets_in_accordance_with_a_preset_stays():
    own = [
        "--machine_type=g2-standard-4",
        f"--dataflow_service_options={L4}",
        "--number_of_worker_harness_threads=4",
    ]
    engine = runners.engine([*DATAFLOW, *own], gpu="l4")
    chosen = engine.options.get_all_options()
    assert (chosen["machine_type"], chosen["dataflow_service_options"]) == ("g2-standard-4", [L4])
    assert engine.bundles == 4


@pytest.mark.parametrize(
    ("gpu", "option", "words"),
    [
        ("t4", f"--dataflow_service_options={L4}", "--gpu t4 contradicts"),
        ("none", f"--dataflow_service_options={L4}", "--gpu none contradicts"),
        ("l4", "--machine_type=n1-standard-8", "has no L4: use g2-standard-12"),
        ("l4", "--experiments=use_multiple_sdk_containers", "one GPU holds one network"),
        (
            None,
            "--dataflow_service_options=worker_accelerator=nvidia-l4",
            "write worker_accelerator=type:TYPE;count:N",
        ),
        (
            None,
            "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1",
            "write worker_accelerator",
        ),
    ],
)
def test_contradictions_and_malformed_options_are_one_line(gpu, option, words):
    with pytest.raises(JobError) as error:
        runners.engine([*DATAFLOW, option], gpu=gpu)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_worker_that_lacks_the_promised_gpu_says_so(model):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelError, match="sees no GPU, but --gpu asks for one"):
        load(str(model), "", SIDE, 2, 0, gpu=True)


@pytest.mark.parametrize(("listed", "part"), [("24564\n", 11053), ("24564\n16384\n", 7372), ("N/A\n", 0)])
def test_workers_share_the_memory_of_the_smallest_gpu(listed, part, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{listed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus.part_of_memory(2) == part


def test_without_a_driver_the_memory_of_a_gpu_has_no_limit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpus.part_of_memory(2) == 0


def test_a_limit_on_the_memory_of_a_gpu_reaches_tensorflow(model, monkeypatch):
    """Simulated, because tests have no GPU."""
    config, limits = tf.config, []
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["gpu 0", "gpu 1"])
    monkeypatch.setattr(
        config,
        "set_logical_device_configuration",
        lambda gpu, parts: limits.append((gpu, [part.memory_limit for part in parts])),
    )
    Network(str(model), SIDE, gpu_memory=5000)
    assert limits == [("gpu 0", [5000]), ("gpu 1", [5000])]
    Network(str(model), SIDE)
    assert len(limits) == 2
