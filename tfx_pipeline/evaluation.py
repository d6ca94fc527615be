"""The quality gate in TFMA: figures of each picture from a signature, their means by slice, thresholds.

The candidate and the baseline are exported models with only the serving signature. The measuring code is added when
they are loaded, so that both are always measured by the same, current code.
"""

import functools
import json
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from model.card import SIGNATURE, read_card
from model.color import conversion
from model.data.features import COLLECTION, ERA, LAB
from model.measuring import metrics
from tfx_pipeline import controls
from tfx_pipeline.artifacts import FAILED, PASSED, Verdict
from tfx_pipeline.thresholds import HIGHER_IS_BETTER, Thresholds

EVALUATE = "evaluate"
BASELINE, CANDIDATE = "baseline", "candidate"
SLICES = (COLLECTION, ERA)

# Figure -> output whose mean it is, and the output whose mean divides it.
FIGURES = {
    "psnr": ("psnr", None),
    "ssim": ("ssim", None),
    "rmse": ("rmse", None),
    "ciede2000": ("ciede2000", None),
    "colorfulness_over_truth": ("colorfulness", "truth_colorfulness"),
    "grey_rate": ("is_grey", None),
    "bleeding_over_truth": ("bleeding", "truth_bleeding"),
    "luma_drift": ("luma_drift", None),
    "rmse_over_grey": ("rmse", "grey_rmse"),
    "rmse_over_mean_chroma": ("rmse", "mean_chroma_rmse"),
    "rmse_over_lightness_table": ("rmse", "lightness_table_rmse"),
    "ciede2000_over_grey": ("ciede2000", "grey_ciede2000"),
}
COUNT = "example_count"
GATED = "_gated"  # suffix of a figure that is compared with the baseline


def figures_of_pictures(
    rgb: tf.Tensor, predictor, strength: float, mean_chroma: np.ndarray, table: np.ndarray
) -> dict[str, tf.Tensor]:
    """Outputs [N] of the pictures.

    Args:
        rgb: the truth, [N, S, S, 3] float32, whole 8-bit levels over 255.
        predictor: function from lightness [N, S, S, 1] to chroma [N, S, S, 2] in Lab units.
        strength: factor on chroma at the operating point, where errors are measured.
        mean_chroma: chroma of a control, [2]; NaN if there is none.
        table: chroma of a control by rounded L*, [101, 2]; NaN if there is none.
    """
    grey = tf.round(conversion.luma(rgb) * 255) / 255
    lightness = conversion.lightness_of_grey(grey)
    chroma = predictor(lightness[..., None])
    truth = conversion.rgb_to_lab(rgb)
    levels = tf.cast(tf.round(lightness), tf.int32)
    joined = {
        "": conversion.join(grey, strength * chroma),
        "grey_": tf.repeat(grey[..., None], 3, axis=-1),
        "mean_chroma_": conversion.join(grey, tf.zeros_like(chroma) + mean_chroma),
        "lightness_table_": conversion.join(grey, tf.gather(tf.constant(table, tf.float32), levels)),
    }
    full = conversion.join(grey, chroma)
    outputs = {}
    for prefix, result in joined.items():
        lab = conversion.rgb_to_lab(result)
        outputs[f"{prefix}rmse"] = metrics.chroma_rmse(truth[..., 1:], lab[..., 1:])
        if prefix in ("", "grey_"):
            outputs[f"{prefix}ciede2000"] = tf.reduce_mean(metrics.ciede2000(truth, lab), axis=(1, 2))
    return outputs | {
        "psnr": metrics.psnr(rgb, joined[""]),
        "ssim": metrics.ssim(rgb, joined[""]),
        "colorfulness": metrics.colorfulness(full),
        "truth_colorfulness": metrics.colorfulness(rgb),
        "is_grey": metrics.is_grey(full),
        "bleeding": metrics.bleeding(grey, conversion.rgb_to_lab(full)[..., 1:]),
        "truth_bleeding": metrics.bleeding(grey, truth[..., 1:]),
        "luma_drift": metrics.luma_drift(grey, full),
    }


class Examiner(tf.Module):
    """An exported model with a signature that measures serialized Lab examples."""

    def __init__(self, folder: str):
        super().__init__()
        self.model = tf.saved_model.load(folder)  # a signature does not keep its model alive
        card = read_card(folder)
        fitted = controls.read(folder)
        serve, size = self.model.signatures[SIGNATURE], card.size

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
        def evaluate(serialized):
            parsed = tf.io.parse_example(serialized, {LAB: tf.io.FixedLenFeature((), tf.string)})
            rgb = tf.map_fn(functools.partial(_rgb, size=size), parsed[LAB], fn_output_signature=tf.float32)
            rgb = tf.ensure_shape(rgb, (None, size, size, 3))

            def predictor(lightness):
                found = serve(lightness=lightness)
                if not card.default_calm:
                    return found["chroma"]
                # as `model.color.fading`
                return found["chroma"] * tf.minimum(found["certainty"] / card.default_calm, 1)[..., None]

            return figures_of_pictures(
                rgb, predictor, card.operating_strength, fitted["mean_chroma"], fitted["lightness_table"]
            )

        self.signatures = {EVALUATE: evaluate.get_concrete_function()}


def _rgb(png: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a Lab PNG to RGB [S, S, 3] float32, whole 8-bit levels over 255."""
    lab = tf.cast(tf.io.decode_png(png, channels=3), tf.float32)
    lab = tf.image.resize(lab, (size, size), method="area", antialias=False)
    lab = tf.stack([lab[..., 0] * (100 / 255), lab[..., 1] - 128, lab[..., 2] - 128], axis=-1)
    return tf.round(tf.clip_by_value(conversion.lab_to_rgb(lab), 0, 1) * 255) / 255


def custom_eval_shared_model(eval_saved_model_path, model_name, eval_config, **_) -> tfma.EvalSharedModel:
    """Entry point for TFX: loads a model for evaluation."""
    return tfma.EvalSharedModel(
        model_path=eval_saved_model_path,
        model_name=model_name,
        model_type=tfma.TF_GENERIC,
        model_loader=tfma.ModelLoader(
            construct_fn=functools.partial(Examiner, eval_saved_model_path), tags=["serve"]
        ),
    )


def eval_config(thresholds: Thresholds, sources: str = "") -> config_pb2.EvalConfig:
    """Configuration of the gate for TFMA: all figures, overall and by slice, with their thresholds.

    `sources` is a digest of the measuring code; if the code changes, the models are measured again.
    """
    slices = [config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=[name]) for name in SLICES)]
    specs = [config_pb2.MetricConfig(class_name="ExampleCount")]
    for name, (over, under) in FIGURES.items():
        entries = {"over": over, "under": under, "sources": sources}
        figure = _metric(name, **entries)
        if name in thresholds.bounds:
            least, most = thresholds.bounds[name]
            bounds = config_pb2.GenericValueThreshold(
                lower_bound={"value": least}, upper_bound={"value": most}
            )
            _limit(figure, slices[:1], value_threshold=bounds)
        specs.append(figure)
        if name in thresholds.tolerances:
            gated = _metric(name + GATED, **entries, least_pictures=thresholds.least_pictures_in_slice)
            _limit(gated, slices, change_threshold=_change(name, thresholds))
            specs.append(gated)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, signature_name=EVALUATE),
            config_pb2.ModelSpec(name=BASELINE, signature_name=EVALUATE, is_baseline=True),
        ],
        slicing_specs=slices,
        metrics_specs=[config_pb2.MetricsSpec(metrics=specs, model_names=[CANDIDATE, BASELINE])],
    )


def _metric(name: str, **entries) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=MeanFigure.__name__,
        module=MeanFigure.__module__,
        config=json.dumps({"name": name, **entries}),
    )


def _limit(config: config_pb2.MetricConfig, slices: list[config_pb2.SlicingSpec], **threshold) -> None:
    """Adds a threshold for slices. A threshold without slices would apply to all of them."""
    config.per_slice_thresholds.append(
        config_pb2.PerSliceMetricThreshold(
            slicing_specs=slices, threshold=config_pb2.MetricThreshold(**threshold)
        )
    )


def _change(name: str, thresholds: Thresholds) -> config_pb2.GenericChangeThreshold:
    kind, amount = thresholds.tolerances[name]
    if HIGHER_IS_BETTER[name]:
        direction, amount = config_pb2.MetricDirection.HIGHER_IS_BETTER, -amount
    else:
        direction = config_pb2.MetricDirection.LOWER_IS_BETTER
    return config_pb2.GenericChangeThreshold(direction=direction, **{kind: {"value": amount}})


class MeanFigure(tfma.metrics.Metric):
    """The mean of an output over the pictures of a slice, or the ratio of two means.

    In a slice with fewer than `least_pictures` it is always 1, so that a comparison decides nothing. (TFMA's own
    minimum size would remove the figure, and a missing figure fails a threshold.)
    """

    def __init__(
        self, name: str, over: str, under: str | None = None, least_pictures: int = 0, sources: str = ""
    ):
        del sources
        super().__init__(_computations, name=name, over=over, under=under, least_pictures=least_pictures)


def _computations(
    name: str,
    over: str,
    under: str | None,
    least_pictures: int,
    model_names: Iterable[str] = ("",),
    **_,
) -> metric_types.MetricComputations:
    keys = [metric_types.MetricKey(name=name, model_name=model) for model in model_names]
    return [
        metric_types.MetricComputation(
            keys=[key], preprocessors=None, combiner=_MeanFn(key, over, under, least_pictures)
        )
        for key in keys
    ]


class _MeanFn(beam.CombineFn):
    """Combines the number of pictures and the sums of two outputs to a `MeanFigure`."""

    def __init__(self, key: metric_types.MetricKey, over: str, under: str | None, least_pictures: int):
        self._key, self._over, self._under, self._least = key, over, under, least_pictures

    def create_accumulator(self) -> tuple[int, float, float]:
        return 0, 0.0, 0.0

    def add_input(self, sums, inputs):
        outputs = inputs.prediction
        if self._key.model_name in outputs:
            outputs = outputs[self._key.model_name]
        over = float(np.squeeze(outputs[self._over]))
        under = float(np.squeeze(outputs[self._under])) if self._under else 1.0
        return sums[0] + 1, sums[1] + over, sums[2] + under

    def merge_accumulators(self, accumulators):
        return tuple(map(sum, zip(*accumulators, strict=True)))

    def extract_output(self, sums):
        pictures, over, under = sums
        if pictures < self._least:
            return {self._key: 1.0}
        return {self._key: over / under if under else float("nan")}


def read_figures(folder: str) -> Iterator[tuple[str, str, dict[str, dict[str, float]]]]:
    """Reads TFMA's output: name and value of each slice (empty for all pictures), and the figures of both models."""
    result = tfma.load_eval_result(folder, model_name=CANDIDATE)
    baseline = dict(tfma.load_eval_result(folder, model_name=BASELINE).slicing_metrics)
    for key, values in result.slicing_metrics:
        name, value = key[0] if key else ("", "")
        yield name, value, {CANDIDATE: _plain(values), BASELINE: _plain(baseline.get(key, {}))}


def _plain(values: dict) -> dict[str, float]:
    """The finite figures among TFMA's values; JSON has no others."""
    figures = values.get("", {}).get("", {})
    found = {name: float(value["doubleValue"]) for name, value in figures.items() if "doubleValue" in value}
    return {name: value for name, value in found.items() if name in (*FIGURES, COUNT) and np.isfinite(value)}


def verdict(folder: str, thresholds: Thresholds) -> Verdict:
    """Reads the verdict of the quality gate from TFMA's output: what failed where, and all figures by slice."""
    rows = []
    slices = {(name, value): figures for name, value, figures in read_figures(folder)}
    result = tfma.load_validation_result(folder)
    for failed in result.metric_validations_per_slice:
        name, value = next(
            ((key.column, key.bytes_value.decode()) for key in failed.slice_key.single_slice_keys), ("", "")
        )
        for failure in failed.failures:
            figures = slices.get((name, value), {CANDIDATE: {}, BASELINE: {}})
            figure = failure.metric_key.name.removesuffix(GATED)
            rows.append(
                {
                    "figure": figure,
                    "slice": f"{name} {value}".strip() or "all pictures",
                    "candidate": _number(figures[CANDIDATE].get(figure)),
                    "baseline": _number(figures[BASELINE].get(figure)),
                    "allowed": _allowed(figure, failure.metric_key.is_diff, thresholds),
                    "pictures": int(figures[CANDIDATE].get(COUNT, 0)),
                }
            )
    for missing in result.missing_slices:
        rows.append(
            {"figure": "no test pictures", "slice": str(missing).strip(), "candidate": "", "baseline": ""}
            | {"allowed": "", "pictures": 0}
        )
    table = [
        {"slice": name, "value": value, "candidate": figures[CANDIDATE], "baseline": figures[BASELINE]}
        for (name, value), figures in sorted(slices.items())
    ]
    return Verdict("quality", PASSED if result.validation_ok else FAILED, rows, {"slices": table})


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _allowed(figure: str, is_change: bool, thresholds: Thresholds) -> str:
    if is_change:
        kind, amount = thresholds.tolerances[figure]
        return f"{amount:.0%} worse" if kind == "relative" else f"{amount:g} worse"
    least, most = thresholds.bounds[figure]
    bounds = (f"at least {least:g}" if least > -np.inf else "", f"at most {most:g}" if most < np.inf else "")
    return " and ".join(filter(None, bounds))
