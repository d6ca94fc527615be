"""Batches for the network: their size is bounded, and no batch is empty."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.util import BatchElements

from pipeline.batch.inference import ColorizationHandler, Opened, predict
from pipeline.codec.codec import View
from pipeline.inputs.item import Item

SIDE = 8


def opened(name, tiles, pixels=1000):
    view = View(np.zeros((tiles, SIDE, SIDE), np.uint8), pixels)
    return Opened(Item(name, f"/scans/{name}"), view, 0)


def handler(**options):
    return ColorizationHandler("", "", SIDE, **{"batch_size": 8, "max_batch_pixels": 10_000} | options)


@pytest.mark.parametrize("first", [opened("panorama", 50), opened("map", 1, 10**9)])
def test_a_scan_that_fills_more_than_a_batch_comes_alone_and_no_batch_is_empty(first):
    scans = [first, opened("a", 1), opened("b", 1), first, opened("c", 1)]
    wanted = [[first.item.key], ["a", "b"], [first.item.key], ["c"]]
    with beam.Pipeline(FnApiRunner()) as root:
        together = root | beam.Create([scans]) | beam.FlatMap(lambda many: many)
        batches = together | BatchElements(**handler().batch_elements_kwargs())
        keys = batches | beam.Map(lambda batch: [one.item.key for one in batch])
        assert_that(keys, equal_to(wanted))


def test_an_empty_batch_has_no_predictions():
    assert predict([], None) == []
