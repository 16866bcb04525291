from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure
from rasterio.errors import NotGeoreferencedWarning

from ctrs.errors import OutputError
from ctrs.report.curves import draw_curves

LOSSES = {"total": [3.0, 2.0, 1.5], "cl": [1.0, math.nan, 0.5]}


def read(path: Path) -> np.ndarray:
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as dataset:
        return dataset.read()


def test_losses_and_scores_stand_side_by_side(tmp_path: Path) -> None:
    draw_curves(tmp_path / "both.png", [1, 2, 3], losses=LOSSES, scores={"mean IoU": [0.1, 0.2, 0.3]}, best_epoch=3)
    draw_curves(tmp_path / "losses.png", [1, 2, 3], losses=LOSSES, scores={}, title="a")
    both, losses = read(tmp_path / "both.png"), read(tmp_path / "losses.png")
    assert both.shape[1:] == (440, 1280)
    assert losses.shape[1:] == (440, 640)
    assert (both[:3].max(axis=0) < 60).mean() > 0.005  # ink
    assert {entry.name for entry in tmp_path.iterdir()} == {"both.png", "losses.png"}


def test_one_epoch_is_enough(tmp_path: Path) -> None:
    draw_curves(tmp_path / "one.png", [1], losses={"total": [1.0]}, scores={"mean IoU": [math.nan]}, best_epoch=1)
    assert (tmp_path / "one.png").stat().st_size > 1000


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_whole_epochs_have_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    ticks: list[float] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **_: (ticks.extend(figure.axes[0].get_xticks()), path.touch())
    )
    epochs = list(range(1, count + 1))
    draw_curves(tmp_path / "one.png", epochs, losses={"total": [1.0] * count}, scores={})
    assert set(epochs) <= set(ticks)
    assert all(tick == round(tick) for tick in ticks)


def test_a_place_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file")
    with pytest.raises(OutputError, match=r"curves\.png: picture not written \(.*\); choose another place"):
        draw_curves(tmp_path / "no" / "curves.png", [1], losses={"total": [1.0]}, scores={})
    draw_curves(tmp_path / "new" / "curves.png", [1], losses={"total": [1.0]}, scores={})
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["curves.png"]
