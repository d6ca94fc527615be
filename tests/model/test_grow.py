"""A grown network has the function of the smaller one, and training can go on from it."""

import dataclasses
import json

import numpy as np
import pytest

from model import card, grow, serving
from model.data.photos import HELD_OUT
from model.networks import fusion_small
from model.training import warm_start
from tests.model.networks.test_networks import CENTRES, SMALL, lightness
from tests.model.test_serving import CARD

LARGER = {
    "stem": SMALL["stem"] + 2,
    "stages": [[filters + 4, blocks + 1] for filters, blocks in SMALL["stages"]],
    "fused": SMALL["fused"] + 4,
    "decoder": [[filters + 4, blocks] for filters, blocks in SMALL["decoder"]],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "model"
    network = fusion_small.build(fusion_small.Config(CENTRES, folded=True, **SMALL))
    rng = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(rng.normal(0, 0.2, variable.shape).astype(np.float32))
    serving.export(network, np.array(CENTRES), np.linspace(10, 40, 5), 64, folder)
    shares = np.full(len(CENTRES), 1 / len(CENTRES)).tolist()
    bins = {"centres": np.array(CENTRES).tolist(), "shares": shares, "uniform": 0.5}
    (folder / "bins.json").write_text(json.dumps(bins))
    (folder / HELD_OUT).write_text('{"validation": [], "test": []}')
    card.write_card(folder, dataclasses.replace(CARD, weights_sha256=card.weights_sha256(folder)))
    return folder


def arguments(small, output, layers):
    smaller = ["--smaller", json.dumps(SMALL)]
    return ["--model", str(small), "--output", str(output), *smaller, "--layers", json.dumps(layers)]


def test_the_larger_network_has_nearly_the_same_function(small, tmp_path):
    assert grow.main(arguments(small, tmp_path / "grown", LARGER)) == 0
    before, _ = serving.load(small)(lightness(2, 64, 64))
    after, _ = serving.load(tmp_path / "grown")(lightness(2, 64, 64))
    assert np.abs(after - before).mean() < 0.1 * np.abs(before).mean()
    exported = warm_start.read(str(tmp_path / "grown"))
    assert sum(map(np.size, exported.weights.values())) > sum(map(np.size, serving.weights(small).values()))
    assert card.read_card(tmp_path / "grown").name == CARD.name


@pytest.mark.parametrize(
    ("change", "words"),
    [({"stem": 1}, "stay or increase"), ({"stages": [[99, 9]]}, "stay or increase"), ({"depth": 3}, "depth")],
)
def test_a_network_that_is_not_larger_is_refused_with_one_line(small, tmp_path, capsys, change, words):
    assert grow.main(arguments(small, tmp_path / "grown", LARGER | change)) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (tmp_path / "grown").exists()
