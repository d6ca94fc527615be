"""Flicker of a colourised film, with its frames coloured alone and as a group; the error against its true colours.

    python -m tests.benchmarks.flicker [--sheet FILE.png] [--photos FOLDER]      takes one to two minutes

The job colours the film of `tests.benchmarks.clips` with a model that ships. Two successive frames of a shot are laid
over each other by the known motion of the camera, and both get the same lightness. Their mean CIEDE2000 is the flicker.
The true colours, joined to the luma of the film as the job does it, flicker, too: in a flash or a dark frame the gamut
has no room for them. That much is explained by luma; the ratio is that of what is above it. The error is the mean
CIEDE2000 between derivatives and true colours, at the lightness of the derivatives.

With a folder of colour photographs, it also counts cuts between unrelated ones that are missed, and moving pictures of
one that are taken for a cut; and it asks whether stills of a group, five of a folder, are nearer to their true colours
if each gets half of the group's mean strength, mean colour, or colour of its lightest tenth.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from model import MODELS, folder_of
from model.card import read_card
from model.color.conversion import luma_uint8, rgb_to_lab
from model.color.srgb import LIGHTNESS
from model.measuring.metrics import ciede2000
from pipeline.batch.inference import Network
from pipeline.imaging import chroma, steadying
from pipeline.inputs.neighbors import REACH
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
    parser.add_argument("--photos", metavar="FOLDER", help="colour photographs in folders")
    options = parser.parse_args()
    film = list(clips.frames(LENGTH))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(film, folder / "film")
        colored, seconds = {}, {}
        for kind, more in {ALONE: (), TOGETHER: ("--group_by=folder",)}.items():
            before = os.times()
            colored[kind] = colorize(folder / "film", folder / kind, "--model", options.model, *more)
            after = os.times()
            seconds[kind] = sum(after[2:4]) - sum(before[2:4])  # CPU of processes that have ended
        used = [used_neighbors(folder / TOGETHER, number) for number in range(len(film))]
    truth = [frame.rgb for frame in film]
    explained = flicker(film, [joined(frame) for frame in film])
    beyond = {kind: flicker(film, rgb) - explained for kind, rgb in colored.items()}
    print(f"flicker that luma explains: {explained:.2f}")
    for kind, value in beyond.items():
        print(f"{kind:11} beyond it {value:5.2f}, error {error(colored[kind], truth):6.2f}")
    print(f"as a group over alone: {beyond[TOGETHER] / beyond[ALONE]:.2f} (bound {GAIN})")
    extra = (seconds[TOGETHER] - seconds[ALONE]) / len(film)
    print(
        f"CPU of the jobs: {seconds[ALONE]:.1f} and {seconds[TOGETHER]:.1f} s; {1000 * extra:.0f} ms more for a frame"
    )
    crossed, missed = cuts(film, used)
    print(
        f"neighbours behind a cut that were used: {crossed}; neighbours in the shot that were not: {missed}"
    )
    if options.photos:
        photos = read(Path(options.photos), read_card(folder_of(options.model)).size)
        print_cuts([photo for group in photos for photo in group])
        print_stills(photos, options.model)
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


def cuts(film: Sequence[Frame], used: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many neighbours behind a cut were used, and how many in the same shot were not."""
    crossed = missed = 0
    for number, its in enumerate(used):
        near = range(max(0, number - REACH), min(len(film), number + REACH + 1))
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


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Frames of several versions of a film, a shot of each in a row, RGB uint8."""
    lines = []
    for start in range(0, len(rows[0]), LENGTH):
        for version in rows:
            line = np.concatenate(version[start : start + LENGTH], axis=1)
            lines.append(cv2.resize(line, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA))
    return np.concatenate(lines)


def read(folder: Path, side: int) -> list[list[np.ndarray]]:
    """Groups of five photographs of one folder, RGB uint8 [side, side, 3]; forty of each folder."""
    groups = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(file for file in part.rglob("*") if file.suffix in (".jpg", ".png", ".webp"))
        np.random.default_rng(0).shuffle(files)
        images = [Image.open(file).convert("RGB") for file in files[:40]]
        pixels = [cv2.resize(np.asarray(one), (side, side), interpolation=cv2.INTER_AREA) for one in images]
        groups += [pixels[at : at + 5] for at in range(0, len(pixels) - 4, 5)]
    return groups


def print_cuts(photos: Sequence[np.ndarray]) -> None:
    """Prints how often a cut is missed, and how often a moved, scaled, darker or brighter picture is called a cut."""
    rng = np.random.default_rng(0)
    tiles = [luma_uint8(photo) for photo in photos]
    none = np.zeros((1, *tiles[0].shape, 2), np.float32)

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        return bool(steadying.steadied(one[None], none, [steadying.Other(1, other[None], none)], REACH)[1])

    def filmed(tile: np.ndarray) -> np.ndarray:
        exposed = tile * (1 + rng.normal(0, 0.08)) + rng.normal(0, 4, tile.shape)
        return np.uint8(np.clip(exposed, 0, 255))

    missed = sum(same(one, other) for one, other in itertools.pairwise(tiles))
    wrong = 0
    for tile in tiles:
        height, width = tile.shape
        (wide, high), (right, down) = rng.uniform(0.96, 1.04, 2), rng.uniform(-0.06, 0.06, 2)
        motion = np.array([[wide, 0, right * width], [0, high, down * height]])
        moved = cv2.warpAffine(tile, motion, (width, height), borderMode=cv2.BORDER_REFLECT)
        wrong += not same(filmed(tile), filmed(moved))
    print(f"cuts missed: {missed} of {len(tiles) - 1}; called a cut: {wrong} of {len(tiles)} moving pictures")


def print_stills(groups: Sequence[Sequence[np.ndarray]], model: str) -> None:
    """Prints the errors of stills, and of what could make those of a group alike."""
    card = read_card(folder_of(model))
    network, found = Network(folder_of(model), card.size, calm=card.default_calm or 0.0), defaultdict(list)
    for group in groups:
        tiles = np.stack([luma_uint8(photo) for photo in group])
        ab = card.default_strength * network.predict(tiles)[0].astype(np.float32)
        strength, mean = np.maximum(np.hypot(*np.moveaxis(ab, -1, 0)).mean((1, 2)), 0.5), ab.mean((1, 2))
        light = [
            planes[tile >= np.quantile(tile, 0.9)].mean(0) for tile, planes in zip(tiles, ab, strict=True)
        ]
        half = {
            "alone": ab,
            "strength": ab * (0.5 + 0.5 * strength.mean() / strength)[:, None, None, None],
            "mean colour": ab + 0.5 * (mean.mean(0) - mean)[:, None, None],
            "light colour": ab + 0.5 * (np.mean(light, 0) - light)[:, None, None],
        }
        for name, planes in half.items():
            labs = np.concatenate([LIGHTNESS[tiles][..., None], planes], axis=-1)
            found[name] += [difference(lab, _lab(photo)) for lab, photo in zip(labs, group, strict=True)]
    print(
        f"error of {len(found['alone'])} stills: "
        + ", ".join(f"{n} {np.mean(v):.2f}" for n, v in found.items())
    )


def _lab(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(rgb_to_lab(rgb.astype(np.float32) / 255))


def _square(affine: np.ndarray) -> np.ndarray:
    return np.vstack([affine, [0, 0, 1]])


if __name__ == "__main__":
    main()
