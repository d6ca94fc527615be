"""The networks by name. Each module has a frozen dataclass `Config`, `STRIDE`, `SCALE` and `build(config)`.

The input is `lightness` [N, H, W, 1] float32, L* 0..100. The output is `chroma` [N, H, W, 2] float32, a* and b* in
Lab units. H and W are multiples of the stride of the network. The loss is applied to one of the layers, at 1/scale
of the size:

* `logits` [N, H/scale, W/scale, Q] over chroma bins, if the `Config` has `centres`;
* `planes` [N, H/scale, W/scale, K] of a colour space, -1..1, if it has a `space`;
* otherwise `chroma`.

`STRIDE` and `SCALE` belong to the default `Config`. If they depend on it, the `Config` has `stride` and `scale`; the
functions `stride` and `scale` below return the right value.

If a network has one form for training and another for inference, its module has `fold` and `unfold`.
"""

from model.networks import gan
from model.networks.generators import GENERATORS

NETWORKS = {**GENERATORS, "gan": gan}


def stride(network, config) -> int:
    """Height and width must be multiples of this. Takes a module of `NETWORKS` and its `Config`."""
    return getattr(config, "stride", network.STRIDE)


def scale(network, config) -> int:
    """Downsampling factor of the training target. Takes a module of `NETWORKS` and its `Config`."""
    return getattr(config, "scale", network.SCALE)
