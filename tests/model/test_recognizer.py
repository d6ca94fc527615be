"""The trainer of the network that recognises negatives, and the network in NumPy that uses its weights."""

import cv2
import numpy as np
import pytest
from skimage import data

from model import negatives as trainer
from pipeline.imaging import negatives
from tests.model.conftest import landscape

PICTURES = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]


@pytest.fixture
def network(tmp_path, monkeypatch):
    """An untrained network in Keras, whose file the batch job reads."""
    import keras

    keras.utils.set_random_seed(3)
    built = trainer.build()
    for layer in built.get_layer("positive").layers[1:-2:3]:  # as if it had been trained
        rng = np.random.default_rng(layer.gamma.shape[0])
        scale, variance = rng.uniform(0.5, 2, (2, *layer.gamma.shape))
        layer.set_weights([scale, *rng.normal(0, 0.2, (2, *layer.gamma.shape)), variance])
    file = tmp_path / "negatives.npz"
    np.savez(file, **trainer.arrays(built, 1.5))
    monkeypatch.setattr(negatives, "WEIGHTS", file)
    negatives._weights.cache_clear()
    yield built
    negatives._weights.cache_clear()


def test_numpy_computes_what_keras_computes(network):
    for pixels in PICTURES:
        luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        view = cv2.resize(luma, (trainer.SIDE, trainer.SIDE), interpolation=cv2.INTER_AREA)
        wanted = float(network(view[None, ..., None].astype(np.float32))[0, 0])
        assert negatives.evidence(luma) == pytest.approx(wanted, abs=0.002 * max(1, abs(wanted)))


def test_the_evidence_of_the_inverted_picture_has_the_other_sign(network):
    luma = cv2.cvtColor(PICTURES[0], cv2.COLOR_RGB2GRAY)
    assert negatives.evidence(~luma) == pytest.approx(-negatives.evidence(luma), abs=0.01)


def test_examples_are_grey_and_those_of_negatives_are_inverted():
    seen = {
        negative: np.mean(
            [
                np.corrcoef(
                    trainer.example(np.dstack([ramp] * 3), negative, np.random.default_rng(seed)).mean(
                        axis=1
                    ),
                    np.arange(trainer.SIDE),
                )[0, 1]
                for seed in range(20)
            ]
        )
        for negative in (False, True)
    }
    assert seen[False] > 0.8 and seen[True] < -0.8


ramp = np.tile(np.arange(0, 250, 2, dtype=np.uint8)[:, None], (1, 125))


def test_a_run_writes_a_file_with_which_the_job_recognises_negatives(album, tmp_path, capsys, monkeypatch):
    file = tmp_path / "negatives.npz"
    monkeypatch.setattr(trainer, "LAYERS", ((8, 5, 4), (16, 3, 4)))
    monkeypatch.setattr(trainer, "BATCH", 8)
    assert trainer.main(["--photos", str(album), "--output", str(file), "--epochs", "30"]) == 0
    assert "as they are" in capsys.readouterr().out
    monkeypatch.setattr(negatives, "WEIGHTS", file)
    negatives._weights.cache_clear()
    lumas = [cv2.cvtColor(landscape(seed), cv2.COLOR_RGB2GRAY) for seed in range(100, 110)]
    assert np.mean([negatives.evidence(luma) < 0 for luma in lumas]) > 0.8
    assert np.mean([negatives.evidence(~luma) > 0 for luma in lumas]) > 0.8
    negatives._weights.cache_clear()


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    output = str(tmp_path / "negatives.npz")
    assert trainer.main(["--photos", str(tmp_path / "none"), "--output", output]) == 2
    assert capsys.readouterr().err.startswith("model.negatives: ")
