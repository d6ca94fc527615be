"""The networks by name. Each module has a frozen dataclass `Config`, a `STRIDE` and `build(config) -> keras.Model`.

Input `lightness` [N, H, W, 1] float32, L* 0..100; output `chroma` [N, H, W, 2] float32, a* and b* in Lab
units; H and W are multiples of the module's `STRIDE`. A network that classifies has a layer `logits`.
"""

from model.networks import fusion

NETWORKS = {"fusion": fusion}
