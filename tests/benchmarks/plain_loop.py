"""The job without Beam: a loop over the same functions. `job_cost` compares the job with it.

python -m tests.benchmarks.plain_loop --input SRC --output DST
"""

import argparse
import os
import time

from model import default_model
from model.card import read_card
from pipeline import storage
from pipeline.batch.graph import SHARD_SECONDS, paint
from pipeline.batch.inference import Network, Opened, predict
from pipeline.batch.plan import plan
from pipeline.codec.codec import View
from pipeline.codec.guard import Guard
from pipeline.codec.settings import Settings
from pipeline.inputs import collection
from pipeline.records import manifest

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--input", "--output", "--gallery_size"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    card = read_card(default_model())
    output = storage.normalize(arguments.output)
    settings = Settings(
        output=output,
        run="loop",
        model=card.name,
        model_version=card.version,
        model_sha256=card.weights_sha256,
        side=card.size,
        strength=card.default_strength,
    )
    network = Network(
        default_model(), card.size, BATCH, threads=len(os.sched_getaffinity(0)), calm=card.default_calm or 0.0
    )
    guard = Guard(settings)
    batch, records, since = [], [], time.monotonic()
    for item in collection.expand(arguments.input):
        for task in plan([item], [], {}, settings, "stale"):
            view = guard.open(task.item)
            if not isinstance(view, View):
                records.append(view)
                continue
            batch.append(Opened(task.item, view, 0))
        if len(batch) == BATCH:
            records += [paint(guard, prediction, settings) for prediction in predict(batch, network)]
            batch = []
        if time.monotonic() - since > SHARD_SECONDS[True]:
            manifest.commit(output, settings.run, records)
            records, since = [], time.monotonic()
    if batch:
        records += [paint(guard, prediction, settings) for prediction in predict(batch, network)]
    manifest.commit(output, settings.run, records)
    guard.close()


if __name__ == "__main__":
    main()
