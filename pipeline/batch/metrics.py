"""What Beam's metrics say about a run when it has ended."""

import contextlib

from apache_beam.metrics import MetricsFilter
from apache_beam.runners.runner import PipelineResult

from pipeline.batch import graph


def stages(result: PipelineResult) -> dict[str, dict[str, float]]:
    """Number of scans and mean milliseconds of each stage, from Beam's metrics; empty if the runner has none."""
    found = {}
    with contextlib.suppress(Exception):  # a runner without metrics, or a job that was not run
        for metric in result.metrics().query(MetricsFilter().with_namespace(graph.NAMESPACE))[
            "distributions"
        ]:
            name, figures = metric.key.metric.name, metric.committed or metric.attempted
            if name in ("open_milliseconds", "infer_milliseconds", "paint_milliseconds") and figures.count:
                count = figures.count
                found[name.partition("_")[0]] = {
                    "scans": count,
                    "milliseconds": round(figures.sum / count, 1),
                }
    return found


def not_started(result: PipelineResult) -> int:
    """Number of scans that were left because of a request to stop, as far as it is known."""
    with contextlib.suppress(Exception):  # as above
        counters = result.metrics().query(MetricsFilter().with_name(graph.NOT_STARTED))["counters"]
        return sum(counter.committed or counter.attempted or 0 for counter in counters)
    return 0
