"""What is remembered of a network."""

import numpy as np
import pytest

from pipeline.batch.recall import Recall


def views(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 4), level, np.uint8) for level in levels])


def test_a_view_is_predicted_once_while_it_is_among_the_last():
    asked: list[int] = []

    def predict(tiles):
        asked.extend(int(tile[0, 0]) for tile in tiles)
        return tiles[..., None] * np.float32(2), tiles[:, 0, 0].astype(np.float32)

    recall = Recall(most=3)
    for levels in ((1, 2, 1), (2, 3, 3), (3, 4, 2), (1,)):
        chroma, confidence = recall.predict(predict, views(*levels))
        np.testing.assert_array_equal(chroma, views(*levels)[..., None] * np.float32(2))
        np.testing.assert_array_equal(confidence, levels)
    assert asked == [1, 2, 3, 4, 1], "the first was forgotten"


def test_an_error_leaves_nothing_behind():
    recall = Recall()

    def fail(tiles):
        raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        recall.predict(fail, views(7))
    (answer,) = recall.predict(lambda tiles: (tiles,), views(7))
    np.testing.assert_array_equal(answer, views(7))
