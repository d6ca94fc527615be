"""Flicker of a colourised film, with its frames coloured alone and as a group; the error against its true colours.

    python -m tests.benchmarks.flicker [--sheet FILE.png]      takes one to two minutes

The job colours the film of `tests.benchmarks.clips` with a model that ships. Two successive frames of a shot are laid
over each other by the known motion of the camera, and both get the same lightness. Their mean CIEDE2000 is the flicker.
The true colours, joined to the luma of the film as the job does it, flicker, too: in a flash or a dark frame the gamut
has no room for them. That much is explained by luma; the ratio is that of what is above it. The error is the mean
CIEDE2000 between derivatives and true colours, at the lightness of the derivatives.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from model import MODELS
from model.color.conversion import rgb_to_lab
from model.measuring.metrics import ciede2000
from pipeline.imaging import chroma
from tests.benchmarks import clips
from tests.benchmarks.clips import HEIGHT, WIDTH, Frame

GAIN = 0.5  # largest flicker as a group over that alone, both beyond what luma explains
LENGTH = 8  # frames of a shot
ALONE, TOGETHER = "alone", "as a group"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODELS[0])
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="frames alone and as a group, one below the other"
    )
    options = parser.parse_args()
    film = list(clips.frames(LENGTH))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(film, folder / "film")
        colored = {
            ALONE: colorize(folder / "film", folder / "alone", "--model", options.model),
            TOGETHER: colorize(
                folder / "film", folder / "group", "--model", options.model, "--group_by=folder"
            ),
        }
        used = [used_neighbors(folder / "group", number) for number in range(len(film))]
    truth = [frame.rgb for frame in film]
    explained = flicker(film, [joined(frame) for frame in film])
    beyond = {kind: flicker(film, rgb) - explained for kind, rgb in colored.items()}
    print(f"flicker that luma explains: {explained:.2f}")
    for kind, value in beyond.items():
        print(f"{kind:11} beyond it {value:5.2f}, error {error(colored[kind], truth):6.2f}")
    print(f"as a group over alone: {beyond[TOGETHER] / beyond[ALONE]:.2f} (bound {GAIN})")
    crossed, missed = cuts(film, used)
    print(
        f"neighbours behind a cut that were used: {crossed}; neighbours in the shot that were not: {missed}"
    )
    if options.sheet:
        Image.fromarray(sheet([truth, *colored.values()])).save(options.sheet)


def write(film: Sequence[Frame], folder: Path) -> None:
    """Writes the film as grey JPEGs: `frame0.jpg` and so on, without leading zeros."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(film):
        Image.fromarray(frame.luma).save(folder / f"frame{number}.jpg", quality=92)


def colorize(source: Path, output: Path, *arguments: str) -> list[np.ndarray]:
    """Runs the job. Returns the derivatives, uint8 [HEIGHT, WIDTH, 3] each."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.colorize", "--input", source, "--output", output),
            *("--gallery_size=0", "--layout=whole", *arguments),
        ],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return derivatives(output)


def derivatives(output: Path) -> list[np.ndarray]:
    number = len(list(output.glob("frame*_color.jpg")))
    return [np.asarray(Image.open(output / f"frame{at}.jpg_color.jpg")) for at in range(number)]


def used_neighbors(output: Path, number: int) -> list[int]:
    """The numbers of the frames with which a frame was steadied."""
    lines = "".join(shard.read_text() for shard in output.glob("manifest/*.jsonl")).splitlines()
    (record,) = [record for record in map(json.loads, lines) if record["key"] == f"frame{number}.jpg"]
    return [int(key.removeprefix("frame").removesuffix(".jpg")) for key in record.get("neighbors", ())]


def cuts(film: Sequence[Frame], used: Sequence[Sequence[int]], reach: int = 2) -> tuple[int, int]:
    """How many neighbours behind a cut were used, and how many in the same shot were not."""
    crossed = missed = 0
    for number, its in enumerate(used):
        near = range(max(0, number - reach), min(len(film), number + reach + 1))
        same = {other for other in near if other != number and film[other].shot == film[number].shot}
        crossed, missed = crossed + len({*its} - same), missed + len(same - {*its})
    return crossed, missed


def joined(frame: Frame) -> np.ndarray:
    """The true colours of a frame at the luma of the film, in the gamut, RGB uint8 [HEIGHT, WIDTH, 3]."""
    ab = np.ascontiguousarray(_lab(frame.rgb)[..., 1:])
    return chroma.to_rgb(frame.luma, *chroma.limit(frame.luma, *chroma.to_ycc(frame.luma, ab)))


def flicker(film: Sequence[Frame], colored: Sequence[np.ndarray]) -> float:
    """Mean CIEDE2000 between successive frames of a shot at equal lightness, without what moves by itself.

    Args:
      film: the frames.
      colored: RGB uint8 [HEIGHT, WIDTH, 3] of each.
    """
    labs, found = [_lab(rgb) for rgb in colored], []
    for at, (one, other) in enumerate(itertools.pairwise(film)):
        if one.shot != other.shot:
            continue
        motion = (np.linalg.inv(_square(other.to_scene)) @ _square(one.to_scene))[:2]
        there = dict(M=motion, dsize=(WIDTH, HEIGHT))
        moved = cv2.warpAffine(labs[at + 1], **there, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        seen = cv2.warpAffine(np.uint8(other.still), **there, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        places = one.still & (seen > 0)
        found.append(difference(labs[at][places], moved[places]))
    return float(np.mean(found))


def error(colored: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean CIEDE2000 between frames and their true colours, at the lightness of the frames."""
    pairs = zip(colored, truth, strict=True)
    return float(np.mean([difference(_lab(rgb), _lab(true)) for rgb, true in pairs]))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean CIEDE2000 of Lab [..., 3] at the lightness of the first."""
    return float(np.mean(ciede2000(one, np.concatenate([one[..., :1], other[..., 1:]], axis=-1))))


def sheet(rows: Sequence[Sequence[np.ndarray]], every: int = 1) -> np.ndarray:
    """Frames of several versions of a film, a shot of each in a row, RGB uint8."""
    lines = []
    for start in range(0, len(rows[0]), LENGTH):
        for version in rows:
            line = np.concatenate(version[start : start + LENGTH : every], axis=1)
            lines.append(cv2.resize(line, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA))
    return np.concatenate(lines)


def _lab(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(rgb_to_lab(rgb.astype(np.float32) / 255))


def _square(affine: np.ndarray) -> np.ndarray:
    return np.vstack([affine, [0, 0, 1]])


if __name__ == "__main__":
    main()
