"""Trains a network on a folder of photographs: `python -m model.train --photos photos --output run`.

On two CPU cores about 55 pictures of 128 x 128 a second; a killed run goes on where its last epoch ended.
"""

import argparse
import dataclasses
import os
import sys
import time


def parser() -> argparse.ArgumentParser:
    """The command line; defaults are those of `training.Options`."""
    result = argparse.ArgumentParser(prog="python -m model.train", description=__doc__.splitlines()[0])
    result.add_argument("--photos", required=True, help="folder of photographs; its sub-folders are the collections")
    result.add_argument("--output", required=True, help="folder of the run; an unfinished run in it is continued")
    result.add_argument("--network", help="name of the network (default: fusion)")
    result.add_argument("--epochs", type=int, help="number of epochs, each ends with a checkpoint (default: 20)")
    result.add_argument("--steps", type=int, help="batches an epoch (default: 250)")
    result.add_argument("--batch", type=int, help="pictures a batch (default: 32)")
    result.add_argument("--sizes", type=int, nargs="+", help="heights of batches in pixels (default: 96 128 160 192)")
    result.add_argument("--rate", type=float, help="peak learning rate (default: 0.002)")
    result.add_argument("--uniform", type=float, help="rebalancing, 0 most, 1 none (default: 0.5)")
    result.add_argument("--weights", nargs="+", metavar="COLLECTION=WEIGHT", help="how often to draw a collection")
    result.add_argument("--seed", type=int, help="of everything random (default: 0)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 after one line about a user's mistake."""
    arguments = vars(parser().parse_args(argv))
    folder, output = arguments.pop("photos"), arguments.pop("output")
    given = {name: value for name, value in arguments.items() if value is not None}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from model import training
    from model.photos import PhotosError, read_photos

    if "weights" in given:
        given["weights"] = {name: float(value) for name, value in (item.split("=") for item in given["weights"])}
    if "sizes" in given:
        given["sizes"] = tuple(given["sizes"])
    options = training.Options(**given)
    try:
        photos = read_photos(folder)
    except PhotosError as error:
        print(f"model.train: {error}", file=sys.stderr)
        return 2
    print(f"{len(photos.train)} photographs to train, {len(photos.validation)} to validate, "
          f"{len(photos.test)} to test; left out as grey {sum(photos.grey.values())}, unreadable {sum(photos.broken.values())}")
    training.train(photos, options, output, callbacks=[_progress(options)])
    return 0


def _progress(options):
    import keras

    class Lines(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.t = time.time(); self.n = 0
        def on_train_batch_end(self, batch, logs=None):
            self.n += 1
            if self.n % 50 == 0:
                print(self.n, f"{self.n*options.batch/(time.time()-self.t):.1f}/s", {k: round(float(v), 4) for k, v in (logs or {}).items()}, flush=True)
        def on_epoch_end(self, epoch, logs=None):
            print(time.strftime("%H:%M:%S"), "epoch", epoch + 1, {k: round(float(v), 4) for k, v in (logs or {}).items()}, flush=True)
    return Lines()


if __name__ == "__main__":
    sys.exit(main())
