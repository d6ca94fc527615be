"""The interface of all ways of colouring, for those modules that measure them."""

from collections.abc import Callable

import numpy as np

# Lightness [N, S, S, 1], L* 0..100 -> chroma [N, S, S, 2] in Lab units and confidence [N], 0..1.
Predictor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
