"""Adversarial training: each half of a step trains its own networks, and a killed run resumes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from model.color import conversion
from model.networks import gan
from model.training.adversarial import Adversary, StateError, load_generator
from tests.model.networks.test_networks import QUICK, scenery

SMALL = {"width": 0.1, "generator_config": {"width": 0.1, "depth": 3}}
FIGURES = {
    "pix2pix": {"discriminator", "adversarial", "chroma_error"},
    "multiscale": {"discriminator", "adversarial", "chroma_error", "features"},
}


@pytest.fixture
def eager():
    """Run TensorFlow functions eagerly, which is faster than compiling them for a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def adversary(variant: str, seed: int = 0, **options) -> Adversary:
    keras.utils.set_random_seed(seed)
    config = gan.Config(variant=variant, **{**SMALL, **options})
    return Adversary(gan.build(config), config, rate=2e-3)


def picture(side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Lightness and chroma of one picture, as a batch."""
    lightness, rgb = scenery(side)
    return lightness, ops.convert_to_numpy(conversion.rgb_to_lab(rgb))[..., 1:]


def values(variables) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def changed(before: list[np.ndarray], variables) -> list[bool]:
    return [not np.array_equal(one, other) for one, other in zip(before, values(variables), strict=True)]


@pytest.mark.parametrize("variant", gan.VARIANTS)
def test_the_generator_learns_a_small_picture_in_seconds(variant):
    trained = adversary(variant)
    lightness, chroma = picture()
    for _ in range(120):
        figures = trained.step(lightness, chroma)
    assert figures.keys() == FIGURES[variant]
    assert trained.steps == 120
    found = ops.convert_to_numpy(trained.generator(lightness))
    assert np.abs(found - chroma)[0, [8, 24], 16].max() < 8
    if variant == "multiscale":
        assert float(trained.generator.get_layer("attention").gamma) != 0


@pytest.mark.parametrize(
    ("generator", "variant"),
    [
        *((name, "pix2pix") for name in gan.GENERATORS),
        ("beta", "multiscale"),
        ("classification", "multiscale"),
    ],
)
def test_any_network_can_be_the_generator(generator, variant, eager):
    trained = adversary(variant, generator=generator, generator_config=QUICK[generator])
    before = values(trained.generator.trainable_variables)
    figures = trained.step(*picture())
    assert figures.keys() == FIGURES[variant]
    assert np.all(np.isfinite(list(figures.values())))
    assert any(changed(before, trained.generator.trainable_variables))


def test_each_half_of_a_step_trains_its_own_networks_only(monkeypatch):
    check_halves(adversary("pix2pix"), monkeypatch)


def test_spectral_norms_and_all_scales_are_frozen_in_the_generators_half(monkeypatch, eager):
    check_halves(adversary("multiscale"), monkeypatch)


def check_halves(trained: Adversary, monkeypatch) -> None:
    halves = []
    original = keras.Model.train_on_batch

    def watched(model, *arguments, **options):
        before = values(trained.generator.trainable_variables), values(trained.discriminators.variables)
        figures = original(model, *arguments, **options)
        halves.append(
            (
                any(changed(before[0], trained.generator.trainable_variables)),
                any(changed(before[1], trained.discriminators.variables)),
            )
        )
        return figures

    monkeypatch.setattr(type(trained._critic), "train_on_batch", watched)
    trained.step(*picture(32))
    trained.step(*picture(64))  # a new size causes a retrace
    trained.step(*picture(32))
    assert halves == [(False, True), (True, False)] * 3


def test_a_killed_run_resumes_with_the_same_results(tmp_path):
    batch = picture()
    whole = adversary("pix2pix")
    for _ in range(3):
        whole.step(*batch)
    whole.save(tmp_path / "state.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    expected = [whole.step(*batch) for _ in range(2)]

    resumed = adversary("pix2pix", seed=1)
    resumed.load(tmp_path / "state.npz")
    assert resumed.steps == 3
    for one in expected:
        assert resumed.step(*batch) == pytest.approx(one, rel=1e-3)
    for one, other in zip(whole.generator.get_weights(), resumed.generator.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_generator_can_be_loaded_alone(tmp_path):
    trained = adversary("multiscale")
    trained.save(tmp_path / "state.npz")
    keras.utils.set_random_seed(1)
    generator = gan.build(gan.Config(variant="multiscale", gain=2.0, **SMALL))
    load_generator(generator, tmp_path / "state.npz")
    lightness, _ = picture()
    np.testing.assert_allclose(
        ops.convert_to_numpy(generator(lightness)),
        2 * ops.convert_to_numpy(trained.generator(lightness)),
        atol=1e-3,
    )


def test_states_of_other_networks_and_broken_states_are_refused(tmp_path):
    adversary("pix2pix").save(tmp_path / "state.npz")
    wider = adversary("pix2pix", width=0.2)
    with pytest.raises(StateError, match="other networks: discriminator"):
        wider.load(tmp_path / "state.npz")
    content = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(StateError, match="broken"):
        wider.load(tmp_path / "half.npz")


def test_patches_and_scales_have_their_sizes():
    pixels = np.zeros((2, 64, 96, 3), np.float32)
    patches = gan.discriminators(gan.Config(variant="pix2pix", **SMALL))(pixels)
    assert patches.shape == (2, 8, 12, 1)
    found = gan.discriminators(gan.Config(variant="multiscale", **SMALL))(pixels)
    assert [tuple(score.shape[1:]) for score in found[:3]] == [(8, 12, 1), (4, 6, 1), (2, 3, 1)]
    assert len(found) == 3 + 3 * 4


def test_the_patch_discriminator_has_the_parameters_of_the_paper():
    # The published code has 2,768,705 parameters for 3 + 3 channels. The three additional channels account for 3,072.
    assert gan.discriminators(gan.Config()).count_params() == 2_765_633


def test_a_gan_has_the_stride_of_its_generator():
    assert gan.Config(variant="multiscale").stride == 64
    assert gan.Config(generator="beta").stride == 8
    assert gan.Config(generator_config={"depth": 4}).stride == 16


def test_an_unknown_variant_or_generator_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match="pix2pix, multiscale"):
        gan.Config(variant="cyclegan")
    with pytest.raises(ValueError, match="alpha, beta"):
        gan.Config(generator="gan")
