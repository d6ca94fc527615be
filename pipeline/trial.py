"""Loads a model and asks it once, in a process of its own: `python -m pipeline.trial MODEL SIDE`.

Exits with 1 and one line on stdout where the batch job could not use it.
"""

import sys

import numpy as np

from pipeline.inference import ModelError, Network, local_copy


def main(model: str, side: int) -> int:
    try:
        network = Network(local_copy(model), side, batch_size=1)
        chroma, confidence = network.predict(np.full((1, side, side), 128, np.uint8))
    except ModelError as error:
        print(error)
        return 1
    if not (np.isfinite(chroma).all() and 0 <= confidence[0] <= 1):
        print(f"the model in {model} answers a plain grey with no sound chroma and confidence")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
