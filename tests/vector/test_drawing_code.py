"""A layer that another version of the drawing made is another result."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import ctrs
from ctrs.errors import OutputExistsError
from ctrs.vector import vectorize
from ctrs.vector.drawing_code import hash_drawing_code


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Append a line to a file of ctrs, or rather of a copy that is hashed in its place."""
    copy = tmp_path / "ctrs"
    shutil.copytree(Path(ctrs.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(resources, "files", lambda package: copy)

    def change(name: str) -> None:
        (copy / name).write_text((copy / name).read_text() + "\n")

    return change


def test_the_hash_knows_all_that_draws(change: Callable[[str], None]) -> None:
    hash_anew = hash_drawing_code.__wrapped__
    found = [hash_anew()]
    for name in ("vector/quality/scores.py", "cli/vectorize.py"):
        change(name)
        assert hash_anew() == found[0]
    for name in ("vector/drawing.py", "vector/regularize/walls.py", "vector/coverage/arcs.py", "config/vectorize.py"):
        change(name)
        assert hash_anew() not in found
        found.append(hash_anew())


def test_a_layer_of_another_drawing_is_not_taken_for_finished(
    write_mask: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[4:12, 5:20] = 1
    mask, out = write_mask(labels), tmp_path / "houses.gpkg"
    vectorize(mask, out)
    assert vectorize(mask, out).skipped
    monkeypatch.setattr(sys.modules["ctrs.vector.vectorize"], "hash_drawing_code", lambda: "another")
    with pytest.raises(OutputExistsError, match=r"houses\.gpkg: exists and is the result of other inputs or options"):
        vectorize(mask, out)
