"""The picture of a confusion matrix: what is drawn where, without matplotlib."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ctrs.errors import OutputError
from ctrs.report.confusion_picture import confusion_picture


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share_of(picture, color):
    return (np.abs(picture - np.array(color)) <= 2).all(axis=-1)


def test_cells_are_as_dark_as_their_share_is_large(tmp_path):
    counts = np.array([[9, 1, 0], [5, 5, 0]])
    names = ("background", "building")
    plain = pixels(confusion_picture(tmp_path / "a.png", counts, names, "test, strict"))
    counts[1, 2] = 10
    wide = pixels(confusion_picture(tmp_path / "b.png", counts, names))
    assert wide.shape[1] > plain.shape[1]  # a column for pixels without prediction
    dark = share_of(plain, (8, 74, 145))  # 90 % in ColorBrewer's Blues
    half = share_of(plain, (107, 174, 214))
    assert dark.sum() > 5000
    assert half.sum() > 2 * 5000
    rows, cols = np.nonzero(dark)
    below, right = np.nonzero(half)
    assert rows.max() < below.min()  # truth in rows
    assert abs(cols.min() - right.min()) <= 1 < right.max() - cols.max()


def test_long_names_and_many_classes_stay_within_the_picture(tmp_path):
    names = ["a class of which the name goes on and on and on", "b", "größe", "здание"]
    picture = pixels(confusion_picture(tmp_path / "a.png", np.eye(4, 5, dtype=np.int64), names, "a title " * 20))
    edge = np.concatenate([picture[:3].reshape(-1, 3), picture[:, :3].reshape(-1, 3), picture[:, -3:].reshape(-1, 3)])
    assert (edge == 255).all()
    confusion_picture(tmp_path / "c.png", np.zeros((40, 41), np.int64), [f"class {number}" for number in range(40)])
    confusion_picture(tmp_path / "one.png", np.ones((1, 2), np.int64), ["land"])


def test_the_same_figures_give_the_same_bytes_and_others_do_not(tmp_path):
    counts = np.array([[3, 1, 0], [1, 3, 0]])
    first, second, other = (
        confusion_picture(tmp_path / name, given, ("a", "b"), "t").read_bytes()
        for name, given in (("1.png", counts), ("2.png", counts), ("3.png", counts[:, [1, 0, 2]]))
    )
    assert first == second != other


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="picture not written"):
        confusion_picture(tmp_path / "a.png", np.eye(2, 3, dtype=np.int64), ("a", "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_no_matplotlib_is_imported(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from ctrs.report.confusion_picture import confusion_picture\n"
        "confusion_picture(Path(sys.argv[1]), np.eye(2, 3, dtype=np.int64), ('a', 'b'), 'title')\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)
