"""The report of a run, an HTML file with data, curves, figures and pictures; and the last lines on the terminal."""

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import jinja2
import matplotlib
import numpy as np
import tensorflow as tf
import tensorflow_data_validation as tfdv

from model.card import SIGNATURE, read_card
from model.color import conversion, fading
from model.data import batches, records
from model.data.photos import Photo
from pipeline import storage
from pipeline.batch import registry
from tfx_pipeline import evaluation, runs
from tfx_pipeline.artifacts import Verdict, table
from tfx_pipeline.components.example_gen import COUNTS
from tfx_pipeline.components.resolver import SERVING
from tfx_pipeline.thresholds import HIGHER_IS_BETTER, Thresholds

REPORT = "report.html"
_PICTURES, _DRAWN_FROM = 12, 240
_MEASURED = ("colorfulness", "width", "height")  # features with a histogram


def write(folder: Path, run: runs.Run, thresholds: Thresholds, outcome: str, closed: Verdict | None) -> Path:
    """Writes the report of a run into a folder. Returns the file.

    Args:
        outcome: result of the run in one line.
        closed: verdict of the gate that stopped the run, if any.
    """
    uris = run.uris
    verdicts = {verdict.gate: verdict for verdict in run.verdicts()}
    if ("Evaluator", "evaluation") in uris:
        verdicts["quality"] = evaluation.verdict(uris["Evaluator", "evaluation"], thresholds)
    if closed:
        verdicts[closed.gate] = closed
    counts = _json(uris.get(("CollectionExampleGen", "examples")), COUNTS)
    slices = verdicts["quality"].figures.get("slices", []) if "quality" in verdicts else []
    history = _json(uris.get(("Trainer", "model_run")), "history.json")
    environment = jinja2.Environment(loader=jinja2.PackageLoader("tfx_pipeline"), autoescape=True)
    page = environment.get_template(REPORT).render(
        title="A run of the training pipeline",
        started=folder.name,
        gates_name=thresholds.name,
        outcome=outcome,
        stopped=closed is not None,
        verdicts=[verdicts[gate] for gate in ("data", "quality", "serving") if gate in verdicts],
        counts=counts,
        tables=_tables(counts or {}),
        histograms=dict(_histograms(uris.get(("StatisticsGen", "statistics")))),
        curves=dict(_curves(history or [])),
        figures=list(HIGHER_IS_BETTER),
        slices=slices,
        number=lambda value: "–" if value is None else f"{value:.3g}",
        pictures=list(_pictures(run)),
    )
    storage.write(os.fspath(folder / REPORT), page.encode())
    return folder / REPORT


def last_lines(run: runs.Run, pushed: str, closed: Verdict | None) -> list[str]:
    """The last lines of a run: its result, the reason, and what to do next.

    Args:
        pushed: folder of the pushed models.
        closed: verdict of the gate that stopped the run, if any.
    """
    in_use = registry.latest(pushed) if storage.is_folder(pushed) and registry.versions(pushed) else None
    stays = f"version {in_use.version} stays current" if in_use else "nothing has been pushed yet"
    if closed is None:
        if in_use is None or not run.has_pushed:
            return [f"nothing new to push: the model is version {run.pushed_version} already; {stays}"]
        return [
            f"pushed: version {in_use.version} of {in_use.card.name} is the current model",
            f"use it: archive-colorize --model {pushed} --input SRC --output DST",
            f"undo:   archive-colorize rollback {pushed}",
        ]
    advice = {
        "data": "correct the collections, or widen the schema or the thresholds if the data are right",
        "quality": "train longer, or with more pictures of the weak slices; widen the thresholds if they are wrong",
        "serving": "check the exported model, and the limits of the worker in the thresholds",
    }
    return [
        f"stopped by the {closed.gate} gate: {stays}",
        *table(closed.findings).splitlines(),
        f"next: {advice[closed.gate]}",
    ]


def _json(folder: str | None, name: str):
    file = folder and os.path.join(folder, name)
    return json.loads(storage.read(file)) if file and storage.stat(file) else None


def _tables(counts: dict) -> dict[str, dict[str, int]]:
    names = {"split": "parts", "collection": "collections", "era": "eras", "quarantined for": "quarantined"}
    return {title: counts.get(name, {}) for title, name in names.items()}


def _histograms(folder: str | None) -> Iterator[tuple[str, str]]:
    """Name and picture of the distribution of each measured feature in the training split."""
    file = folder and os.path.join(folder, "Split-train", "FeatureStats.pb")
    if not file or not os.path.isfile(file):
        return
    for feature in tfdv.load_stats_binary(file).datasets[0].features:
        name = ".".join(feature.path.step)
        if name in _MEASURED and feature.num_stats.histograms:
            buckets = feature.num_stats.histograms[0].buckets
            edges = [bucket.low_value for bucket in buckets] + [buckets[-1].high_value]
            counts = [bucket.sample_count for bucket in buckets]
            yield name, _plot(name, "pictures", lambda axes, c=counts, e=edges: axes.stairs(c, e, fill=True))


def _curves(history: list[dict]) -> Iterator[tuple[str, str]]:
    for name in ("loss", "chroma_error"):
        series = {
            label: [(row["epoch"], row[key]) for row in history if key in row]
            for label, key in (("training", name), ("validation", f"val_{name}"))
        }

        def draw(axes, series=series):
            for label, points in series.items():
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
            axes.legend(frameon=False)
            axes.xaxis.get_major_locator().set_params(integer=True)

        if series["training"]:
            yield name, _plot("epoch", name.replace("_", " "), draw)


def _plot(x: str, y: str, draw) -> str:
    """A small diagram as the source of an HTML image."""
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2.4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    figure.savefig(data, format="svg", transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(data.getvalue()).decode()


def _pictures(run: runs.Run) -> Iterator[dict]:
    """Test pictures of every collection: grey, coloured by the candidate and by the current model, and the truth."""
    folders = {name: run.uris.get((node, "model"), "") for name, node in _MODELS.items()}
    examples = run.uris.get(("Transform", "transformed_examples"))
    if not examples or not all(folders.values()):
        return
    shards = sorted(info.uri for info in storage.list_files(os.path.join(examples, "Split-test")))
    photos = _chosen(records.read_photos(shards, _DRAWN_FROM))
    painters = {name: _painter(os.path.join(folder, SERVING)) for name, folder in folders.items()}
    for photo in photos:
        grey = conversion.luma_uint8(photo.pixels)
        images = {"grey": np.repeat(grey[..., None], 3, axis=-1)}
        images |= {name: paint(photo.pixels) for name, paint in painters.items()}
        yield {
            "key": photo.path,
            "images": {name: _jpeg(rgb) for name, rgb in (images | {"truth": photo.pixels}).items()},
        }


_MODELS = {"candidate": "Trainer", "model in use": "Resolver"}


def _chosen(photos: list[Photo]) -> list[Photo]:
    """A dozen photographs, from the collections in turn."""
    by_collection: dict[str, list[Photo]] = {}
    for photo in photos:
        by_collection.setdefault(photo.collection, []).append(photo)
    turns = max(map(len, by_collection.values()))
    ordered = [some[turn] for turn in range(turns) for some in by_collection.values() if turn < len(some)]
    return ordered[:_PICTURES]


def _painter(folder: str):
    """Returns a function that colours RGB [H, W, 3] uint8 with a model, at the strength of its card."""
    card, model = read_card(folder), tf.saved_model.load(folder)

    def paint(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        lightness = batches.lightness(batches.resized(pixels, card.size, card.size))[None]
        found = model.signatures[SIGNATURE](
            lightness=tf.constant(lightness)
        )  # a failed candidate may lack outputs
        chroma = found["chroma"][0].numpy()
        if card.default_calm and "certainty" in found:
            chroma = fading.faded(chroma, found["certainty"][0].numpy(), card.default_calm)
        chroma = card.default_strength * cv2.resize(chroma, (width, height))
        grey = conversion.luma_uint8(pixels).astype(np.float32) / 255
        return np.rint(255 * np.clip(conversion.join(grey, chroma), 0, 1)).astype(np.uint8)

    return paint


def _jpeg(rgb: np.ndarray) -> str:
    data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
