"""Makes a larger network that computes nearly the same function as a smaller one, so that training goes on from there.

    python -m model.grow --model small/model --output grown --layers '{"fused": 384}'
    python -m model.train --photos photographs --output run --warm grown --layers '{"fused": 384}'

Only for `fusion_small`, whose filters and blocks may increase. New filters get random inputs, but nothing that existed
before reads them at first; new blocks add hardly anything to their inputs (Chen et al. 2016, "Net2Net").
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_PROBE = 0.05  # of the usual deviation: weights at the end of new blocks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m model.grow",
        description="Make a larger network with nearly the function of a smaller one.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--model", required=True, metavar="DIR", help="exported model of fusion_small")
    add("--smaller", default="{}", metavar="JSON", help="the --layers that it was trained with")
    add("--layers", required=True, metavar="JSON", help="fields of the larger network's Config")
    add("--output", required=True, metavar="DIR", help="folder of the larger model, for --warm")
    add("--seed", type=int, default=0, help="random seed (default: 0)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code, which is 2 after one line about a user's mistake."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model.card import CardError

    try:
        _grow(arguments)
    except (CardError, ValueError, TypeError, OSError) as error:
        print(f"model.grow: {error}", file=sys.stderr)
        return 2
    return 0


def _grow(arguments: argparse.Namespace) -> None:
    from model import serving
    from model.card import read_card, weights_sha256, write_card
    from model.data.bins import BINS, read_bins
    from model.data.photos import HELD_OUT
    from model.networks import fusion_small
    from model.networks.layers import assign

    card, output = read_card(arguments.model), Path(arguments.output)
    centres = tuple((float(a), float(b)) for a, b in read_bins(arguments.model)["centres"])
    small, large = (
        fusion_small.Config(centres, gain=card.gain, folded=True, **_layers(text))
        for text in (arguments.smaller, arguments.layers)
    )
    check_larger(small, large)
    before, after = fusion_small.build(small), fusion_small.build(large)
    assign(before, serving.weights(arguments.model))
    set_grown(before, small, after, large, np.random.default_rng(arguments.seed))
    knots = np.linspace(1, 2, 33)  # of its confidence, which only a release can calibrate
    serving.export(after, np.array(centres, np.float32), knots, card.size, output)
    for name in (BINS, HELD_OUT):
        shutil.copy(Path(arguments.model) / name, output / name)
    write_card(output, dataclasses.replace(card, weights_sha256=weights_sha256(output)))
    print(f"{output}: {before.count_params():,} parameters became {after.count_params():,}")


def _layers(text: str) -> dict:
    def frozen(value):
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {name: frozen(value) for name, value in json.loads(text).items()}


def check_larger(small, large) -> None:
    """Raises ValueError unless no number of filters or blocks of a configuration decreases."""
    few, many = (_sizes(config) for config in (small, large))
    if len(few) != len(many) or any(a > b for a, b in zip(few, many, strict=True)) or large.extractor:
        raise ValueError("every number of filters and blocks must stay or increase, without an extractor")


def _sizes(config) -> list[int]:
    """All numbers of filters and blocks of a configuration."""
    return [
        config.stem,
        config.fused,
        *(number for pair in (*config.stages, *config.decoder) for number in pair),
    ]


def set_grown(before, small, after, large, rng: np.random.Generator) -> None:
    """Sets the weights of the larger of two folded networks from those of the smaller."""
    old, new = _names(small), _names(large)

    def kernel(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
        return rng.normal(0, scale * (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)

    def widened(one: str, other: str, inputs: np.ndarray) -> None:
        """A convolution or dense layer; `inputs` [c] are the places of the old inputs among the new ones."""
        weights, bias = before.get_layer(one).get_weights()
        shape = after.get_layer(other).get_weights()[0].shape
        outputs = weights.shape[-1]
        grown, offset = kernel(shape), np.zeros(shape[-1], np.float32)
        grown[..., :outputs] = 0
        grown[..., inputs, :outputs], offset[:outputs] = weights, bias
        after.get_layer(other).set_weights([grown, offset])

    def block(key: tuple[str, int], inputs: np.ndarray) -> None:
        depth, point = (new[*key, part] for part in ("depthwise", "pointwise"))
        grown, offset = after.get_layer(depth).get_weights()
        grown = rng.normal(0, 0.3, grown.shape).astype(np.float32)
        grown[1, 1] += 0.5
        if (*key, "depthwise") in old:
            weights, bias = before.get_layer(old[*key, "depthwise"]).get_weights()
            grown[:, :, inputs], offset[inputs] = weights, bias
        after.get_layer(depth).set_weights([grown, offset])
        if (*key, "pointwise") in old:
            widened(old[*key, "pointwise"], point, inputs)
        else:
            weights, bias = after.get_layer(point).get_weights()
            after.get_layer(point).set_weights([kernel(weights.shape, _PROBE), bias])

    widened(old["stem", 0, "convolution"], new["stem", 0, "convolution"], np.arange(1))
    inputs, skips = np.arange(small.stem), []
    for stage, ((filters, _), (wider, blocks)) in enumerate(zip(small.stages, large.stages, strict=True)):
        for number in range(blocks):
            block((f"stage {stage}", number), inputs)
            inputs = np.arange(filters)
        skips.append((inputs, wider))
    widened("scene_hidden", "scene_hidden", skips[3][0])
    widened("scene", "scene", np.arange(small.fused))
    widened(old["fused", 0, "convolution"], new["fused", 0, "convolution"], skips[2][0])
    inputs, width = np.arange(small.fused), large.fused
    decoders = zip((skips[1], skips[0]), small.decoder, large.decoder, strict=True)
    for stage, ((skip, _), (filters, _), (wider, blocks)) in enumerate(decoders):
        inputs = np.concatenate([inputs, width + skip])
        for number in range(blocks):
            block((f"decoder {stage}", number), inputs)
            inputs = np.arange(filters)
        width = wider
    weights, bias = before.get_layer("logits").get_weights()
    grown = rng.normal(0, 0.002, after.get_layer("logits").get_weights()[0].shape).astype(np.float32)
    grown[:, :, inputs] = weights
    after.get_layer("logits").set_weights([grown, bias])


def _names(config) -> dict[tuple[str, int, str], str]:
    """Names of the convolutions of a configuration by stage, block and part; they are numbered in this order."""

    def keys() -> Iterator[tuple[str, int, str]]:
        yield "stem", 0, "convolution"
        for stage, (_, blocks) in enumerate(config.stages):
            yield from ((f"stage {stage}", number, part) for number in range(blocks) for part in parts)
        yield "fused", 0, "convolution"
        for stage, (_, blocks) in enumerate(config.decoder):
            yield from ((f"decoder {stage}", number, part) for number in range(blocks) for part in parts)

    parts = "depthwise", "pointwise"
    return {key: f"convolution_{number}" for number, key in enumerate(keys())}


if __name__ == "__main__":
    sys.exit(main())
