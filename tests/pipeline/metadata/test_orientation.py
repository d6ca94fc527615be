"""Stored pixels are turned upright, and back."""

import numpy as np
import pytest

from pipeline.metadata.orientation import stored, upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_undoes_upright(orientation):
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(stored(upright(array, orientation), orientation), array)
