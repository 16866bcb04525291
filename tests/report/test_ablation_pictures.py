"""What the pictures of an ablation draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from ctrs.report.ablation_pictures import GainPoint, draw_gains


@pytest.mark.parametrize(
    ("places", "rising", "line"),
    [([2000.0, 200.0, 8000.0], [1, 0, 2], "-"), (["usual", "hard", "none"], [0, 1, 2], "none")],
)
def test_lines_run_along_numbers_and_names_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[float | str], rising: list[int], line: str
) -> None:
    drawn: list[tuple[list[float], list[float], str]] = []
    errorbar = Axes.errorbar

    def noting(axes: Axes, x: Any, y: Any, **options: Any) -> Any:
        drawn.append((list(x), list(y), options["linestyle"]))
        return errorbar(axes, x, y, **options)

    monkeypatch.setattr(Axes, "errorbar", noting)
    points = [GainPoint(place=place, mean=n / 100, low=-0.1, high=0.1) for n, place in enumerate(places)]
    draw_gains(tmp_path / "gain.png", {"cl": points}, axis="setting", reference="none", title="town")
    ((x, y, style),) = drawn
    assert x == sorted(x)
    assert (y, style) == ([pytest.approx(n) for n in rising], line)
    assert (tmp_path / "gain.png").stat().st_size > 0
