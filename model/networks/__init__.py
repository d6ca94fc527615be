"""The networks by name. Each module has a frozen dataclass `Config`, `STRIDE`, `SCALE` and `build(config)`.

Input `lightness` [N, H, W, 1] float32, L* 0..100; output `chroma` [N, H, W, 2] float32, a* and b* in Lab
units; H and W are multiples of the network's stride. What a network is trained on is the output of one of its
layers, at 1/scale of the size: `logits` [N, H/scale, W/scale, Q] over chroma bins, where its `Config` has
`centres`; `planes` [N, H/scale, W/scale, K] of a colour space, -1..1, where it has a `space`; else `chroma`.

`STRIDE` and `SCALE` are those of the default `Config`. Where they depend on it, `Config` has `stride` and `scale`;
`stride(network, config)` and `scale(network, config)` know which applies.

A module whose network is used in another form than it is trained in has `fold` and `unfold`.
"""

from model.networks import gan

NETWORKS = {**gan.GENERATORS, "gan": gan}


def stride(network, config) -> int:
    """What height and width must be multiples of, for a module of `NETWORKS` and its `Config`."""
    return getattr(config, "stride", network.STRIDE)


def scale(network, config) -> int:
    """How much smaller than the input that is which the network of a `Config` is trained on."""
    return getattr(config, "scale", network.SCALE)
