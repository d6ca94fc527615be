"""Loads a model and tries it out, in a process of its own: `python -m pipeline.batch.trial MODEL SHA256 SIDE`.

Exits with 1 and one line on stdout if the batch job cannot use the model.
"""

import sys

from pipeline import console
from pipeline.batch.inference import ModelError, load
from pipeline.errors import JobError


def main(model: str, sha256: str, side: int) -> int:
    console.prepare()
    try:
        load(model, sha256, side, batch_size=1, threads=0)
    except (ModelError, JobError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
