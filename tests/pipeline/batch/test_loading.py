"""Loading the network in a process."""

import sys
import threading

from pipeline.batch import inference
from tests.pipeline.conftest import SIDE, jpeg, picture


def test_threads_that_ask_at_once_get_one_network(model, monkeypatch):
    made, network = [], inference.Network
    monkeypatch.setattr(inference, "Network", lambda *given: made.append(given) or network(*given))
    inference._load.cache_clear()
    found, go = [], threading.Barrier(4)

    def ask():
        go.wait()
        found.append(inference.load(str(model), "", SIDE, 2, 0))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inference._load.cache_clear()
    assert len(made) == 1
    assert len(set(map(id, found))) == 1


def test_a_gpu_that_is_in_use_already_does_no_harm(model, monkeypatch):
    import tensorflow as tf

    def refuse(gpu, enable):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])  # simulates a GPU
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    inference.try_out(inference.Network(str(model), SIDE), SIDE)


def test_a_missing_tensorflow_is_one_line_with_both_extras(model, tmp_path, colorize, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(picture(1)))
    inference._load.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    run = colorize(tmp_path / "in", tmp_path / "out")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "TensorFlow is not installed: pip install 'archive-colorize[cpu]', or [gpu]" in run.err
    assert run.lines == []
