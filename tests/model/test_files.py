import pytest

from model.files import replacing


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "state.weights.h5"
    path.write_text("before")
    with replacing(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
        assert partial.name.endswith(".weights.h5")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "state.npz"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), replacing(path) as partial:  # noqa: PT012 - the second write fails
        partial.write_text("half")
        (tmp_path / "none" / "other").write_text("never")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
