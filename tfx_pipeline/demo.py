"""The whole pipeline in miniature.

    python -m tfx_pipeline.demo [--scratch DIR] [any option of the local runner]

The collections are crops of photographs that scikit-image, scikit-learn and matplotlib install. All crops of one
photograph are in the same split. Training starts from the shipped model. The thresholds are for demonstration only,
because eighty crops of ten photographs tell little about a model.
"""

import argparse
import io
import json
import os
import sys
from pathlib import Path

from pipeline import demo, storage
from pipeline.demo import Photograph

SCRATCH = "scratch/pipeline"
THRESHOLDS = Path(__file__).with_name("demo_thresholds.yaml")
HUBBLE = Photograph("skimage", "data/hubble_deep_field.jpg", "NASA, ESA")
RETINA = Photograph("skimage", "data/retina.jpg", "M. Häggström, CC0")

# Photograph -> its collection and era.
PARENTS = {
    demo.ADMIRAL: ("portraits", "1980s"),
    demo.ASTRONAUT: ("portraits", "1990s"),
    demo.TEMPLE: ("places", "unknown"),
    demo.ROCKET: ("places", "2010s"),
    HUBBLE: ("places", "1990s"),
    demo.DAHLIA: ("nature", "unknown"),
    demo.CAT: ("nature", "unknown"),
    demo.COFFEE: ("things", "2010s"),
    demo.MOTORCYCLE: ("things", "2010s"),
    RETINA: ("things", "2010s"),
}
COLUMNS, ROWS, MARGIN = 4, 2, 12  # crops of each photograph, and pixels between them


def make_collections(folder: str) -> str:
    """Writes the crops and a manifest. Returns the manifest.

    Raises:
      NoPhotographs: a package is missing.
    """
    lines = []
    for photograph, (collection, era) in PARENTS.items():
        image = photograph.open()
        name = Path(photograph.path).stem
        width, height = image.width // COLUMNS, image.height // ROWS
        for index in range(COLUMNS * ROWS):
            left, top = index % COLUMNS * width, index // COLUMNS * height
            crop = io.BytesIO()
            box = (left + MARGIN, top + MARGIN, left + width, top + height)
            image.crop(box).save(crop, "PNG")
            path = storage.join(folder, collection, f"{name}_{index + 1}.png")
            if not (os.path.isfile(path) and storage.read(path) == crop.getvalue()):
                storage.write(path, crop.getvalue())
            key = f"{collection}/{name}_{index + 1}.png"
            line = {"source": path, "key": key, "collection": collection, "era": era, "group": name}
            lines.append(json.dumps(line))
    manifest = storage.join(folder, "crops.jsonl")
    storage.write(manifest, ("\n".join(lines) + "\n").encode())
    return manifest


def main(argv: list[str] | None = None) -> int:
    """Runs the demonstration. Returns the exit code of the runner."""
    parser = argparse.ArgumentParser(
        prog="python -m tfx_pipeline.demo",
        description="Runs the pipeline on crops of installed photographs. Other options go to the local runner.",
        allow_abbrev=False,
    )
    parser.add_argument("--scratch", default=SCRATCH, metavar="DIR", help="where to work (%(default)s)")
    chosen, further = parser.parse_known_args(argv)
    scratch = os.path.abspath(chosen.scratch)
    try:
        manifest = make_collections(os.path.join(scratch, "photographs"))
    except demo.NoPhotographs as error:
        print(f"{error} is missing; {demo.MISSING}", file=sys.stderr)
        return 2
    from tfx_pipeline.local_runner import main as run

    options = ["--collections", manifest, "--root", os.path.join(scratch, "run")]
    options += ["--thresholds", str(THRESHOLDS), "--warm", "shipped", "--name", "demonstration"]
    options += ["--side", "128", "--min_side", "96", "--shares", "0.5", "0.2", "0.3"]
    options += ["--epochs", "3", "--steps", "10", "--batch", "16", "--sizes", "96", "128", "--size", "128"]
    return run([*options, "--rate", "0.0003", *further])


if __name__ == "__main__":
    from tfx_pipeline.terminal import leave

    leave(main())
