"""The job without Beam: a loop over the same functions, for `job_cost` to compare with.

python -m tests.benchmarks.plain_loop --input SRC --output DST
"""

import argparse
import os
import time

from model import default_model
from model.card import read_card
from pipeline import collections, manifest, storage
from pipeline.codec import View
from pipeline.graph import SHARD_SECONDS, paint
from pipeline.guard import Guard
from pipeline.inference import Network, Opened, predict
from pipeline.plan import plan
from pipeline.settings import Settings

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
    network = Network(default_model(), card.size, BATCH, threads=len(os.sched_getaffinity(0)))
    guard = Guard(settings)
    batch, records, since = [], [], time.monotonic()
    for item in collections.expand(arguments.input):
        for task in plan([item], [], None, settings, "stale"):
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
