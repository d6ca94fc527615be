"""The distribution of a figure, in bounded memory."""

import numpy as np
import pytest

from pipeline.records.distribution import Distribution


def test_quantiles_are_exact_to_about_2_percent_and_merging_loses_nothing():
    values = np.random.default_rng(1).lognormal(3, 2, 10_000)
    halves = [Distribution(), Distribution()]
    for number, value in enumerate(values):
        halves[number % 2].add(float(value))
    both = Distribution().merge(halves)
    for share in (0.05, 0.5, 0.95):
        assert both.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.025)
    assert both.to_dict()["count"] == 10_000
    assert both.to_dict()["mean"] == pytest.approx(values.mean(), rel=1e-3)
    assert len(both.counts) < 1_000


def test_zeros_count():
    found = Distribution()
    for value in (0, 0, 0, 8):
        found.add(value)
    assert (found.quantile(0.5), found.quantile(1)) == (0, 8)
    assert found.to_dict() == {"count": 4, "mean": 2.0, "p5": 0.0, "p50": 0.0, "p95": 8.0}


def test_no_values_have_no_quantile():
    assert Distribution().to_dict() == {"count": 0, "mean": 0.0, "p5": 0.0, "p50": 0.0, "p95": 0.0}
