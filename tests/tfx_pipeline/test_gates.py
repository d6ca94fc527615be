"""Unit tests of the thresholds, the findings of the data gate, and the figures of the quality gate."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.metrics import metric_types

from model.color import conversion
from model.data import batches, records
from model.data.photos import Photo
from model.measuring import evaluation, metrics
from model.serving import load
from tests.tfx_pipeline.conftest import THRESHOLDS, picture
from tfx_pipeline import arguments, demo, sources, thresholds
from tfx_pipeline import evaluation as quality
from tfx_pipeline.components import data_gate

PARSED = thresholds.parse(THRESHOLDS)


@pytest.mark.parametrize("file", [thresholds.DEFAULT, demo.THRESHOLDS])
def test_the_thresholds_that_ship_are_valid(file):
    assert thresholds.read(file).bounds["rmse_over_grey"][1] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rmse_over_grey", "rsme_over_grey"), "bounds: unknown figure rsme_over_grey"),
        (("{relative: 0.1}", "{relative: much}"), "rmse must be a number, got 'much'"),
        (("{relative: 0.1}", "{relative: -0.1}"), "rmse must not be negative"),
        (("{at_most: 0.9}", "{atmost: 0.9}"), "rmse_over_grey must have at_least, at_most or both"),
        (
            ("  most_seconds: 1500\n", ""),
            "serving must have exactly the entries most_seconds, most_memory_mb",
        ),
        (("name: test gate", "name: [test"), "not YAML"),
    ],
)
def test_a_mistake_in_the_thresholds_is_one_line(change, words, tmp_path):
    file = tmp_path / "thresholds.yaml"
    file.write_text(THRESHOLDS.replace(*change))
    with pytest.raises(thresholds.ThresholdsError) as error:
        thresholds.read(file)
    assert words in str(error.value) and "\n" not in str(error.value)


def counts(**quarantined: int) -> dict:
    kept = {"train": 100, "validation": 10, "test": 20}
    return {
        "pictures": 130 + sum(quarantined.values()),
        "kept": 130,
        "parts": kept,
        "quarantined": quarantined,
    }


def test_clean_collections_have_no_findings():
    assert not list(data_gate.of_ingestion(counts(grey=5), PARSED))


def test_a_split_with_too_few_pictures_is_found():
    few = counts() | {"parts": {"train": 100, "test": 11}}
    found = {row["split"]: row["found"] for row in data_gate.of_ingestion(few, PARSED)}
    assert found == {"validation": "0; at least 6 are needed", "test": "11; at least 12 are needed"}


def test_too_many_quarantined_and_unreadable_pictures_are_found_with_their_reasons():
    rows = list(data_gate.of_ingestion(counts(grey=30, truncated=12), PARSED))
    assert [(row["what"], row["pictures"]) for row in rows] == [
        ("too many quarantined", 42),
        ("too many unreadable", 12),
    ]
    assert rows[0]["found"].endswith("30 grey, 12 truncated")


def statistics(**features: list):
    import pandas as pd
    import tensorflow_data_validation as tfdv

    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(features))


def test_a_collection_that_drifted_from_the_span_before_is_found():
    schema = schema_pb2.Schema()
    schema.feature.add(name="era", type=schema_pb2.BYTES)
    before = {"train": statistics(era=["1930s"] * 80 + ["1960s"] * 20)}
    alike = {"train": statistics(era=["1930s"] * 75 + ["1960s"] * 25)}
    other = {"train": statistics(era=["1930s"] * 5 + ["1960s"] * 95)}
    assert not list(data_gate.of_distributions(alike, before, schema, PARSED, counts()))
    [row] = data_gate.of_distributions(other, before, schema, PARSED, counts())
    assert row["split"] == "train: drift" and row["what"].startswith("era")
    assert not list(data_gate.of_distributions(other, {}, schema, PARSED, counts()))


@pytest.mark.parametrize("comparison", ["drift", "skew"])
def test_colours_that_differ_from_the_span_before_or_between_splits_are_found(comparison):
    schema = schema_pb2.Schema()
    schema.feature.add(name="colorfulness", type=schema_pb2.FLOAT)
    bounds = {"drift": {}, "skew": {}, comparison: {"colorfulness": 0.1}}
    chosen = dataclasses.replace(PARSED, **bounds)
    rng = np.random.default_rng(0)
    pale, vivid = (statistics(colorfulness=list(rng.normal(mean, 5, 300))) for mean in (20, 50))
    for other, findings in ((pale, 0), (vivid, 1)):
        now = {"train": pale, "test": other if comparison == "skew" else pale}
        before = {"train": other if comparison == "drift" else pale}
        rows = list(data_gate.of_distributions(now, before, schema, chosen, counts()))
        assert len(rows) == findings
    assert rows[0]["split"] == f"train: {comparison}" and rows[0]["what"].startswith("colorfulness")


def test_values_outside_the_schema_are_found_and_named(tmp_path):
    import tensorflow_data_validation as tfdv

    schema = arguments.read_schema(arguments.SCHEMA)
    schema.string_domain.add(name="collections").value.append("harbour")
    next(feature for feature in schema.feature if feature.name == "collection").domain = "collections"
    wanted = ("collection", "mode", "width", "colorfulness")
    kept = [feature for feature in schema.feature if feature.name in wanted]
    del schema.feature[:]
    schema.feature.extend(kept)
    good = {"collection": "harbour", "mode": "RGB", "width": 300, "colorfulness": 30.0}
    bad = {"collection": "stranger", "mode": "I;16", "width": 60, "colorfulness": 900.0}
    for part, rows in {"train": [good] * 9, "validation": [good] * 9, "test": [good] * 8 + [bad]}.items():
        found = tfdv.validate_statistics(
            statistics(**{name: [row[name] for row in rows] for name in wanted}), schema
        )
        folder = tmp_path / f"Split-{part}"
        folder.mkdir()
        (folder / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    rows = list(data_gate.of_validation(str(tmp_path), counts()))
    assert {row["split"] for row in rows} == {"test"}
    assert {row["what"].partition(":")[0] for row in rows} == set(wanted)
    words = " ".join(row["found"] for row in rows)
    assert all(value in words for value in ("stranger", "I;16", "60", "900"))


@pytest.fixture(scope="module")
def figures():
    """A few pictures, the shipped model and its card, and the figures of the model for these pictures."""
    from model import default_model
    from model.card import read_card

    card = read_card(default_model())
    squares = np.stack([batches.resized(picture(seed), card.size, card.size) for seed in range(4)])
    predictor = load(default_model(), card.default_calm)
    found = quality.figures_of_pictures(
        tf.constant(squares.astype(np.float32) / 255),
        lambda lightness: tf.constant(predictor(lightness.numpy())[0]),
        0.7,
        np.float32([3, 4]),
        np.tile(np.float32([[5, -6]]), (101, 1)),
    )
    return squares, predictor, card, {name: value.numpy() for name, value in found.items()}


def test_the_gate_measures_what_the_report_of_a_training_measures(figures):
    squares, predictor, card, found = figures
    photos = [Photo(str(i), "c", str(i), square) for i, square in enumerate(squares)]
    at = evaluation.measure(photos, card.size, predictor, 0.7)
    np.testing.assert_allclose(found["rmse"], at.rmse, rtol=1e-4)
    np.testing.assert_allclose(found["ciede2000"], at.ciede2000, rtol=1e-3)
    full = evaluation.measure(photos, card.size, predictor)
    np.testing.assert_allclose(found["colorfulness"], full.colorfulness, rtol=1e-4)


def test_the_controls_are_grey_one_chroma_and_a_table(figures):
    squares, _, card, found = figures
    photos = [Photo(str(i), "c", str(i), square) for i, square in enumerate(squares)]
    for name, control in {
        "grey": evaluation.grey,
        "mean_chroma": evaluation.constant(3, 4),
        "lightness_table": evaluation.constant(5, -6),
    }.items():
        expected = evaluation.measure(photos, card.size, control).rmse
        np.testing.assert_allclose(found[f"{name}_rmse"], expected, rtol=1e-4, err_msg=name)


def test_a_slice_with_too_few_pictures_is_ignored():
    key = metric_types.MetricKey(name="rmse", model_name=quality.CANDIDATE)
    mean = quality._MeanFn(key, "rmse", None, least_pictures=3)
    sums = mean.create_accumulator()
    for figure in (4.0, 5.0):
        sums = mean.add_input(
            sums, SimpleNamespace(prediction={quality.CANDIDATE: {"rmse": np.array([figure])}})
        )
    assert mean.extract_output(sums) == {key: 1.0}  # for both candidate and baseline: no change
    more = mean.add_input(mean.create_accumulator(), SimpleNamespace(prediction={"rmse": np.array([9.0])}))
    assert mean.extract_output(mean.merge_accumulators([sums, more])) == {key: 6.0}


def test_luma_hardly_drifts_in_joined_pictures(figures):
    assert figures[3]["luma_drift"].max() < 0.5


def test_lab_of_transform_agrees_with_scikit_image():
    from skimage.color import rgb2lab

    from tfx_pipeline.preprocessing import lab_png

    rgb = batches.resized(picture(3), 64, 64)
    png = tf.io.encode_png(rgb)
    lab = tf.io.decode_png(lab_png(png, 64)).numpy().astype(float)
    expected = rgb2lab(rgb / 255.0) * [2.55, 1, 1] + [0, 128, 128]
    assert np.abs(lab - expected).max() <= 1.0
    assert np.abs(lab - expected).mean() < 0.3


def test_training_decodes_the_pictures_that_transform_encoded():
    from tfx_pipeline.preprocessing import lab_png

    rgb = batches.resized(picture(4), 64, 64)
    back = records.decode_lab(lab_png(tf.io.encode_png(rgb), 64).numpy())
    one, other = (conversion.rgb_to_lab(pixels / np.float32(255)) for pixels in (rgb, back))
    error = np.mean(metrics.ciede2000(one, other))
    assert error < 0.6


def test_the_locks_of_pipeline_and_worker_agree_on_every_pin_that_they_share():
    root = Path(__file__).resolve().parents[2]

    def pins(name: str) -> dict[str, str]:
        lines = (root / name).read_text().split()
        pairs = (line.split("==") for line in lines if "==" in line)
        return {"tensorflow" if n == "tensorflow-cpu" else n: version for n, version in pairs}

    worker, tfx = pins("requirements.lock"), pins("requirements-tfx.lock")
    shared = worker.keys() & tfx.keys()
    assert shared >= {"apache-beam", "tensorflow", "keras", "numpy", "pillow"}
    assert {name: worker[name] for name in shared} == {name: tfx[name] for name in shared}


def test_a_change_of_any_module_that_is_imported_changes_the_digest_and_no_other_does(tmp_path):
    files = {name: tmp_path / "model" / f"{name}.py" for name in ("__init__", "one", "two", "three", "other")}
    (tmp_path / "model").mkdir()
    for file in files.values():
        file.write_text("import json\n")
    files["one"].write_text("from model import two\n")
    files["two"].write_text("def late():\n    import model.three\n")
    digests = [sources.digest(("model.one",), tmp_path)]
    for name in ("other", "one", "two", "three", "__init__"):
        files[name].write_text(files[name].read_text() + "# changed\n")
        digests.append(sources.digest(("model.one",), tmp_path))
    assert digests[0] == digests[1] and len(set(digests)) == 5


def test_digests_cover_the_code_of_their_components_and_training_does_not_depend_on_the_gates():
    names = [name for name in dir(sources) if name.isupper() and not name.startswith("_")]
    modules = {name: set(sources.imported(getattr(sources, name))) for name in names}
    for name in modules:
        assert all(sources.imported((entry,)) for entry in getattr(sources, name)), name
    assert modules["INGESTION"] >= {
        "pipeline.photographs.ingest",
        "pipeline.photographs.examiner",
        "pipeline.decoding.tiff",
        "pipeline.photographs.judge",
        "pipeline.photographs.duplicates",
    }
    assert modules["TRAINING"] >= {
        "model.training.fit",
        "model.training.losses",
        "model.networks.fusion_small",
    }
    assert modules["EVALUATION"] >= {"model.measuring.metrics", "model.color.conversion"}
    assert modules["SERVING_GATE"] >= {
        "tfx_pipeline.canary",
        "pipeline.batch.inference",
        "pipeline.codec.codec",
    }
    assert not modules["TRAINING"] & {
        "tfx_pipeline.evaluation",
        "tfx_pipeline.canary",
        "pipeline.photographs.ingest",
    }
    assert not modules["INGESTION"] & {"model.training.losses", "model.training.fit"}


def test_the_demonstration_has_at_least_72_pictures_of_known_eras_and_collections(tmp_path):
    manifest = demo.make_collections(str(tmp_path))
    lines = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    assert len(lines) >= 72
    assert all(Path(line["source"]).is_file() for line in lines)
    assert len({line["group"] for line in lines}) == len(demo.PARENTS)
