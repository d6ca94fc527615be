"""The networks by name. Each module has a frozen dataclass `Config`, `STRIDE`, `SCALE` and `build(config)`.

Input `lightness` [N, H, W, 1] float32, L* 0..100; output `chroma` [N, H, W, 2] float32, a* and b* in Lab
units; H and W are multiples of the module's `STRIDE`. What a network is trained on is the output of one of its
layers, at 1/`SCALE` of the size: `logits` [N, H/SCALE, W/SCALE, Q] over chroma bins, where its `Config` has
`centres`, or `planes` [N, H/SCALE, W/SCALE, K] of a colour space, -1..1, where it has a `space`.

A module whose network is used in another form than it is trained in has `fold` and `unfold`.
"""

from model.networks import alpha, beta, fusion_small

NETWORKS = {"alpha": alpha, "beta": beta, "fusion_small": fusion_small}
