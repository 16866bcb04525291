from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from ctrs.errors import OutputError
from ctrs.report.png import read_description, save_png


def figure() -> Figure:
    drawn = Figure(figsize=(1, 1))
    drawn.add_subplot().plot([1, 2])
    return drawn


def test_a_picture_says_what_it_shows(tmp_path):
    path = save_png(figure(), tmp_path / "sub" / "a.png", {"fingerprint": "x", "classes": ["Fläche"]})
    assert read_description(path) == {"fingerprint": "x", "classes": ["Fläche"]}
    assert read_description(save_png(figure(), tmp_path / "b.png")) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_what_is_no_picture_of_ours_has_no_description(tmp_path):
    path = save_png(figure(), tmp_path / "a.png", {"fingerprint": "x"})
    cut = tmp_path / "cut.png"
    cut.write_bytes(path.read_bytes()[:200])
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.png", "text.png", "absent.png"):
        assert read_description(tmp_path / name) is None


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = save_png(figure(), tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_png(figure(), path, {"value": float("nan")})
    assert path.read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"a\.png: picture not written"):
        save_png(figure(), tmp_path / "file" / "a.png")
