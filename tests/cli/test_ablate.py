"""``ctrs ablate`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from ctrs.cli import app as program

GRID = """
data = "prepared/town"
seeds = [0]
losses = ["none", "cl"]
[train]
epochs = 1
batch_size = 2
crop = 32
device = "cpu"
[[network]]
name = "tiny"
backbone = "test_convnext"
decoder = "dcfam"
"""


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with prepared data of three scenes and a grid."""
    rng = np.random.default_rng(0)
    for place, scene in enumerate(("a", "b", "c")):
        label = np.kron(rng.integers(0, 2, (4, 4)), np.ones((32, 32))).astype(np.uint8)
        image = np.where(label == 1, 180, 70) + rng.integers(-30, 30, (3, 128, 128))
        for folder, pixels in (("images", image.astype(np.uint8)), ("labels", label[None])):
            path = tmp_path / "town" / folder / f"{scene}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                path, "w", driver="GTiff", count=len(pixels), height=128, width=128, dtype="uint8",
                crs="EPSG:32633", transform=rasterio.Affine(0.1, 0, 500000 + 100 * place, 0, -0.1, 5800000),
            ) as dataset:  # fmt: skip
                dataset.write(pixels)
    (tmp_path / "town" / "classes.toml").write_text(
        '[[class]]\nvalue = 0\nname = "ground"\n[[class]]\nvalue = 1\nname = "building"\n'
    )
    (tmp_path / "grid.toml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    arguments = ["prepare", "town", "--tile", "64", "--val", "b", "--test", "c", "--label-kind", "values"]
    assert program.main(arguments) == 0, capsys.readouterr().err
    capsys.readouterr()
    return tmp_path


def test_a_grid_is_trained_shown_and_rebuilt(
    town: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.main(["ablate", "grid.toml", "--dry-run"]) == 0
    listed = capsys.readouterr()
    assert "0 of 2 runs are finished; test split is scored" in listed.out
    assert "tiny-cl-seed0" in listed.out
    assert "to do" in listed.out
    assert not (town / "ablations").exists()

    assert program.main(["ablate", "grid.toml", "--split", "val"]) == 0
    shown = capsys.readouterr()
    assert "run 1 of 2: tiny-none-seed0" in shown.err
    assert "val split, strict, all classes" in shown.out
    assert "difference to none" in shown.out
    assert shown.out.splitlines()[-3:] == [
        f"ablations/grid/{name}" for name in ("table.md", "table.csv", "ablation.json")
    ]
    assert not list(town.glob("ablations/grid/runs/*/test_openings.json"))
    assert program.main(["eval", "ablations/grid/runs/tiny-cl-seed0", "--split", "val", "--quiet"]) == 0
    capsys.readouterr()

    def train_again(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("ctrs.ablation.grid.train", train_again)
    (town / "ablations" / "grid" / "table.md").unlink()
    assert program.main(["ablate", "grid.toml", "--split", "val", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((town / "ablations" / "grid" / "ablation.json").read_text())
    assert [run["state"] for run in printed["runs"]] == ["finished"] * 2
    assert printed["rows"][1]["difference_to_none"]["n"] == 1
    assert (town / "ablations" / "grid" / "table.md").is_file()
    assert program.main(["ablate", "grid.toml", "--split", "val", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["num_runs"], plan["num_finished"], plan["split"]) == (2, 2, "val")


def test_a_failing_run_shows_in_table_and_exit_code(
    town: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctrs.errors import TrainingError

    def diverge(*_: Any, **__: Any) -> None:
        raise TrainingError("epoch 1, step 1: the loss is nan")

    monkeypatch.setattr("ctrs.ablation.grid.train", diverge)
    assert program.main(["ablate", "grid.toml", "-o", "out"]) == 1
    captured = capsys.readouterr()
    assert "0/1, 1 failed" in captured.out
    assert captured.err.splitlines()[-1] == (
        "error: 2 of 2 runs failed, the first, tiny-none-seed0, because: epoch 1, step 1: the loss is nan; "
        "the same command tries them again"
    )
    assert "- `tiny-cl-seed0`: epoch 1, step 1: the loss is nan" in (town / "out" / "table.md").read_text()
    assert program.main(["ablate", "grid.toml", "-o", "out", "--dry-run"]) == 0
    assert "failed: epoch 1, step 1: the loss is nan" in capsys.readouterr().out


def test_a_grid_whose_data_are_not_there_can_be_listed_but_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(GRID)
    assert program.main(["ablate", "grid.toml", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "tiny-none-seed0" in captured.out
    assert "prepared/town: no prepared data there yet" in captured.err
    assert program.main(["ablate", "grid.toml"]) == 1
    assert "error: prepared/town: not found; run `ctrs prepare SOURCE` first" in capsys.readouterr().err
    assert not (tmp_path / "ablations").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [", "grid.toml: not readable as TOML"),
        (GRID.replace('"cl"]', '"cl", "moco"]'), "error: grid.toml: loss 'moco': unknown term 'moco', expected none"),
        (GRID.replace("epochs = 1", "epoch = 1"), "error: grid.toml: [train]: unknown key 'epoch'; did you mean"),
        (GRID.replace("seeds = [0]", "seeds = [0, 0]"), "error: grid.toml: seeds: 0 found twice"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(text)
    assert program.main(["ablate", "grid.toml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["grid.toml"]
