"""The rows of a comparison: figures of networks and traditional methods, their table, their pictures."""

import hashlib
import json
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image, ImageDraw, ImageFont

from model import default_model
from model.card import read_card
from model.color import conversion, propagation
from model.data import batches
from model.data.photos import Photo, Photos, chroma, read_photos
from model.files import replacing
from model.measuring import evaluation, metrics
from model.predictor import Predictor
from model.serving import WithUncertainty
from model.serving import load as load_model
from model.traditional import exemplar, luminance_table, rules
from model.training import fit
from model.training.options import Options, OptionsError, write_json
from pipeline.photographs.splits import PARTS

TABLE, SHEET, PART, FIGURES = "comparison.md", "comparison.jpg", "sheet.png", "figures.json"
CONDITIONS = "conditions.json"
PICTURES, CELL = 12, 128  # number of photographs in the sheet, and their size in pixels
SHIPPED = "fusion-small as it ships"
MARKS, MARK = 40, 7  # number of true marks for propagation, and their side in pixels
MARKED = f"propagation of {MARKS} true marks"
CONTROLS = ("grey", "mean chroma", "lightness table", "rules", "exemplar transfer", MARKED)
AS_IS = ("grey", "mean chroma", MARKED)  # a strength has no meaning for them
# Function of RGB, luma and lightness (see `evaluation.pictures`) to chroma.
Coloring = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_FIGURES = {  # columns of the table: heading, key and format
    "colour of truth": ("colorfulness", ".2f"),
    "PSNR": ("psnr", ".1f"),
    "SSIM": ("ssim", ".3f"),
    "AuC": ("raw_accuracy", ".3f"),
    "bleeding": ("bleeding", ".2f"),
    "grey": ("grey", ".0%"),
}
_COSTS = {
    "parameters, M": ("parameters", 1e-6, ".2f"),
    "GMAC": ("gmac", 1, ".2f"),
    "ms at batch 1": ("milliseconds_at_1", 1, ".0f"),
    "ms at batch 16": ("milliseconds_at_16", 1, ".0f"),
    "steps": ("steps", 1, ".0f"),
    "minutes trained": ("seconds", 1 / 60, ".0f"),
}
_REFERENCES = 64
_BATCH = 32


def folder_of(output: Path, name: str) -> Path:
    """Folder of a row, with its run, its figures and its pictures."""
    return output / "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def is_done(folder: Path) -> bool:
    """Whether a row is finished. A row without the weights that it needs is tried again."""
    file = folder / FIGURES
    return file.is_file() and "not_run" not in json.loads(file.read_text(encoding="utf-8"))


def require_same(output: Path, photos: Photos, sheet: list[Photo], conditions: dict[str, float]) -> None:
    """Raises OptionsError if the rows in `output` were made from other photographs or with other conditions."""
    parts = {part: getattr(photos, part) for part in PARTS} | {"sheet": sheet}
    digests = {
        part: hashlib.sha256("".join(sorted(photo.digest for photo in some)).encode()).hexdigest()
        for part, some in parts.items()
    }
    file, here = output / CONDITIONS, conditions | digests
    there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else here
    changed = [name for name in here if there.get(name) != here[name]]
    if changed:
        raise OptionsError(
            f"{output} holds a comparison with another {', '.join(changed)}; choose another folder"
        )
    write_json(file, here)


def pictures_of(test: list[Photo], folder: str | None) -> list[Photo]:
    """Twelve photographs for the sheet: from a folder, or from the collections of the test split in turn."""
    if folder is not None:
        found = read_photos(folder)
        return sorted([*found.train, *found.validation, *found.test], key=lambda photo: photo.path)[:PICTURES]
    by_collection: dict[str, list[Photo]] = {}
    for photo in test:
        by_collection.setdefault(photo.collection, []).append(photo)
    turns = [
        photo
        for turn in range(PICTURES)
        for some in by_collection.values()
        for photo in some[turn : turn + 1]
    ]
    return turns[:PICTURES]


def assess(photos: list[Photo], size: int, coloring: Coloring, strength: float) -> dict[str, np.ndarray]:
    """Figures [P] of all photographs: errors with chroma times `strength`, the others at full strength."""
    rows = []
    for rgb, grey, lightness in evaluation.pictures(photos, size):
        predicted = coloring(rgb, grey, lightness)
        truth, blank = conversion.rgb_to_lab(rgb), conversion.rgb_to_lab(conversion.join(grey, 0 * predicted))
        at, full = conversion.join(grey, strength * predicted), conversion.join(grey, predicted)
        at_lab, full_lab = conversion.rgb_to_lab(at), conversion.rgb_to_lab(full)
        figures = {
            "rmse": metrics.chroma_rmse(truth[..., 1:], at_lab[..., 1:]),
            "ciede2000": ops.mean(metrics.ciede2000(truth, at_lab), axis=(1, 2)),
            "rmse_of_grey": metrics.chroma_rmse(truth[..., 1:], blank[..., 1:]),
            "ciede2000_of_grey": ops.mean(metrics.ciede2000(truth, blank), axis=(1, 2)),
            "colorfulness": metrics.colorfulness(full),
            "colorfulness_of_truth": metrics.colorfulness(rgb),
            "psnr": metrics.psnr(rgb, full),
            "ssim": metrics.ssim(rgb, full),
            "raw_accuracy": metrics.raw_accuracy(truth[..., 1:], full_lab[..., 1:]),
            "bleeding": metrics.bleeding(grey, full_lab[..., 1:]),
            "grey": metrics.is_grey(full),
        }
        rows.append({name: ops.convert_to_numpy(value) for name, value in figures.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _row(
    name: str,
    photos: Photos,
    sheet: list[Photo],
    size: int,
    coloring: Coloring,
    strength: float,
    folder: Path,
) -> dict:
    """Figures of a row. Its pictures are written to `sheet.png` in its folder."""
    found = assess(photos.test, size, coloring, strength)
    names = np.array([photo.collection for photo in photos.test])
    by_collection = {
        collection: {key: float(values[names == collection].mean()) for key, values in found.items()}
        for collection in sorted(set(names))
    }
    _column(sheet, size, coloring, strength).save(folder / PART)
    counts = {collection: int((names == collection).sum()) for collection in by_collection}
    return {"row": name, "strength": round(strength, 3), "pictures": counts, "collections": by_collection}


def measured(
    folder: Path, name: str, options: Options, photos: Photos, sheet: list[Photo], size: int
) -> dict:
    """Figures of a trained network, including its costs."""
    network, centres = fit.trained(str(folder), options)
    model = WithUncertainty(network, centres)

    def predictor(lightness):
        found = model(lightness)
        return tuple(ops.convert_to_numpy(found[name]) for name in ("chroma", "uncertainty"))

    costs = {"parameters": network.count_params(), **cost(network, size)}
    return _row(name, photos, sheet, size, *_at_work(photos, size, predictor), folder) | costs


def _at_work(photos: Photos, size: int, predictor: Predictor) -> tuple[Coloring, float]:
    """A predictor as a `Coloring`, and its strength at the operating point."""
    strength = evaluation.operating_strength(photos.validation, size, predictor)
    return lambda rgb, grey, lightness: predictor(lightness)[0], strength


def write_controls(output: Path, photos: Photos, sheet: list[Photo], size: int) -> None:
    """Writes the rows that need no training and that of the shipped model. Existing rows are kept.

    The row of a model that shipped earlier is replaced.
    """
    average = np.mean([chroma(photo.pixels).mean(axis=(0, 1)) for photo in photos.train], axis=0)
    references = sorted(photos.train, key=lambda photo: photo.digest)[:_REFERENCES]
    makers: dict[str, Callable] = {
        "grey": lambda: lambda rgb, grey, lightness: np.zeros((*grey.shape, 2), np.float32),
        "mean chroma": lambda: lambda rgb, grey, lightness: evaluation.constant(*average)(lightness)[0],
        "lightness table": lambda: luminance_table.predictor(luminance_table.fit(photos.train)),
        "rules": lambda: rules.predictor(rules.fit(photos.train)),
        "exemplar transfer": lambda: exemplar.predictor(
            [exemplar.reference(one.pixels) for one in references]
        ),
        MARKED: lambda: _marked,
        SHIPPED: lambda: load_model(default_model(), shipped.default_calm or 0.0),
    }
    shipped = read_card(default_model())
    for name, make in makers.items():
        folder = folder_of(output, name)
        identity = {"weights_sha256": shipped.weights_sha256} if name == SHIPPED else {}
        file = folder / FIGURES
        if file.is_file() and identity.items() <= json.loads(file.read_text(encoding="utf-8")).items():
            continue
        print(f"{name} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        own = shipped.size if name == SHIPPED else size
        coloring, strength = (make(), 1.0) if name in AS_IS else _at_work(photos, own, make())
        write_json(file, _row(name, photos, sheet, own, coloring, strength, folder) | identity)
    truth = [batches.resized(photo.pixels, CELL, CELL) for photo in sheet]
    Image.fromarray(np.concatenate(truth)).save(output / f"truth_{PART}")


def _marked(rgb: np.ndarray, grey: np.ndarray, lightness: np.ndarray) -> np.ndarray:
    """Chroma [N, S, S, 2] propagated from `MARKS` squares of the true colours, at the same places in all pictures."""
    size = grey.shape[1]
    marked = np.zeros((size, size), bool)
    for top, left in np.random.default_rng(0).integers(0, size - MARK + 1, (MARKS, 2)):
        marked[top : top + MARK, left : left + MARK] = True
    truth = ops.convert_to_numpy(conversion.rgb_to_lab(rgb))[..., 1:]
    levels = np.rint(255 * grey).astype(np.uint8)
    return np.stack(
        [propagation.propagate(luma, planes, marked) for luma, planes in zip(levels, truth, strict=True)]
    )


def cost(network: keras.Model, size: int) -> dict[str, float]:
    """Costs of a picture of `size` x `size`: billions of multiply-accumulates, milliseconds in batches of 1 and 16.

    Needs the TensorFlow back end; empty with another.
    """
    if keras.backend.backend() != "tensorflow":
        return {}
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    found = {}
    for batch in (1, 16):
        function = tf.function(lambda x: network(x, training=False))
        concrete = function.get_concrete_function(tf.TensorSpec((batch, size, size, 1), tf.float32))
        pictures = tf.random.uniform((batch, size, size, 1), 0, 100)
        concrete(pictures)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            concrete(pictures)
            times.append(time.perf_counter() - started)
        found[f"milliseconds_at_{batch}"] = round(1000 * float(np.median(times)) / batch, 2)
        if batch == 1:
            profiler = tf.compat.v1.profiler
            options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
            graph = convert_variables_to_constants_v2(concrete).graph
            flops = profiler.profile(graph, options=options.with_empty_output().build()).total_float_ops
            found["gmac"] = round(flops / 2e9, 3)
    return found


def write(output: Path, names: list[str], budget: float) -> None:
    """Writes `comparison.md` and `comparison.jpg` from the existing rows."""
    rows = []
    for name in [*CONTROLS, *names, SHIPPED]:
        file = folder_of(output, name) / FIGURES
        if file.is_file():
            rows.append((file.parent, json.loads(file.read_text(encoding="utf-8"))))
    with replacing(output / TABLE) as partial:
        partial.write_text(_tables([row for _, row in rows], budget), encoding="utf-8")
    columns = {row["row"]: folder / PART for folder, row in rows if "not_run" not in row}
    _sheet(columns | {"truth": output / f"truth_{PART}"}, output / SHEET)


def _tables(rows: list[dict], budget: float) -> str:
    """Two tables: quality of all rows, and costs of the networks."""
    grey = next(row for row in rows if row["row"] == "grey")
    counts = ", ".join(f"{count} {name}" for name, count in grey["pictures"].items())
    run = [row for row in rows if "not_run" not in row]
    not_run = [f"{row['row']} (not run: {row['not_run']})" for row in rows if "not_run" in row]
    quality = [["", *grey["collections"], *_FIGURES]]
    for row in run:
        cells = [row["row"]]
        for name in grey["collections"]:
            its = row["collections"][name]
            ratios = (its[error] / its[f"{error}_of_grey"] for error in ("rmse", "ciede2000"))
            cells.append(", ".join(format(ratio, ".3f") for ratio in ratios))
        cells.append(f"{_mean(row, 'colorfulness') / _mean(row, 'colorfulness_of_truth'):.2f}")
        cells += [format(_mean(row, key), form) for key, form in list(_FIGURES.values())[1:]]
        quality.append(cells)
    costs = [["", *_COSTS]]
    for row in run:
        if "parameters" in row:
            own = [format(row[key] * unit, form) if key in row else "" for key, unit, form in _COSTS.values()]
            costs.append([row["row"], *own])
    words = (
        f"Each network was trained on the same photographs for about {budget:g} minutes. It was measured on {counts} "
        "that no network was trained on, except for those that a classifier saw in ImageNet. The columns of the "
        "collections have the RMSE of a\\*b\\* and the CIEDE2000, both divided by those of the grey picture. For "
        "them, chroma is scaled so that the mean colourfulness on the validation pictures is 60 % of the true one; "
        f"{', '.join(AS_IS)} are not scaled. All other figures are means over pictures at full strength. AuC is the "
        "area under the curve of the raw accuracy. Bleeding is the gradient of chroma in Lab units per pixel where "
        "luma is flat. Grey is the share of pictures that are left without colour. The shipped model is measured at "
        "its own input size."
    )
    parts = [words, _markdown(quality), _markdown(costs)]
    return "\n\n".join(parts + ["Missing: " + "; ".join(not_run) + "."] * bool(not_run)) + "\n"


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _mean(row: dict, key: str) -> float:
    total = sum(row["pictures"].values())
    return sum(row["collections"][name][key] * count for name, count in row["pictures"].items()) / total


def _column(photos: list[Photo], size: int, coloring: Coloring, strength: float) -> Image.Image:
    """A column of the sheet: the pictures of one method, one below the other."""
    cells = []
    for rgb, grey, lightness in evaluation.pictures(photos, size):
        joined = ops.convert_to_numpy(conversion.join(grey, strength * coloring(rgb, grey, lightness)))
        cells += [
            batches.resized(np.rint(255 * np.clip(one, 0, 1)).astype(np.uint8), CELL, CELL) for one in joined
        ]
    return Image.fromarray(np.concatenate(cells))


def _sheet(columns: dict[str, Path], path: Path) -> None:
    """Joins the columns of all rows, with their names above them."""
    pictures = [(name, Image.open(file)) for name, file in columns.items()]
    top, font = 34, ImageFont.load_default(13)
    sheet = Image.new("RGB", (len(pictures) * (CELL + 4), top + pictures[0][1].height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, column) in enumerate(pictures):
        left = index * (CELL + 4)
        draw.multiline_text((left + 2, 2), _wrapped(name), fill="black", font=font, spacing=1)
        sheet.paste(column, (left, top))
    sheet.save(path, quality=88)


def _wrapped(name: str, width: int = 19) -> str:
    return "\n".join(textwrap.wrap(name, width)[:2])
