"""``ctrs inspect``: pictures by path and by name, tables, JSON, and what is said when something is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ctrs.cli import app as program
from ctrs.config import AugmentConfig, PrepareConfig, TrainConfig

CLASSES = '[[class]]\nname = "ground"\ncolor = [0, 0, 0]\n[[class]]\nname = "building"\ncolor = [255, 0, 0]\n'


def write(path: Path, pixels: np.ndarray, east: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(0.1, 0, east, 0, -0.1, 5800000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prepared data (a house in each scene) and a run without contrast."""
    from ctrs.tiles import prepare_tiles
    from ctrs.training import train

    base = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    for number, name in enumerate(("north", "south", "west")):
        label = np.zeros((1, 64, 128), np.uint8)
        label[:, 8:28, 8 + 4 * number : 28 + 4 * number] = 1
        image = np.where(label == 1, 180, 70) + rng.integers(-30, 30, (3, 64, 128))
        write(base / "source" / "images" / f"{name}.tif", image.astype(np.uint8), 500_000 + 100 * number)
        write(base / "source" / "labels" / f"{name}.tif", label, 500_000 + 100 * number)
    (base / "source" / "classes.toml").write_text(CLASSES)
    prepare_tiles(base / "source", base / "prepared" / "town", PrepareConfig(tile_px=64, val=("west",), workers=1))
    config = TrainConfig(
        backbone="test_convnext", decoder="dcfam", loss="none", epochs=1, batch_size=2, crop=32, device="cpu",
        augment=AugmentConfig(scale=(1.0, 1.0)),
    )  # fmt: skip
    train(base / "prepared" / "town", base / "runs" / "plain", config)
    train(base / "prepared" / "town", base / "runs" / "contrast", replace(config, loss="cl"))
    return base


@pytest.fixture
def workspace(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prepared").symlink_to(ground / "prepared")
    shutil.copytree(ground / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_patches_of_a_tile_by_path(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tile = "prepared/town/masks/val/west_000_000.tif"
    assert program.main(["inspect", "patches", tile]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "west_000_000_patches.png"
    assert (workspace / "west_000_000_patches.png").is_file()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "stride" in line]
    # A house of 20 x 20 px, at columns 16 to 35: whole patches at stride 4, partly mixed ones above.
    assert cells[4:] == [
        ["building, stride 4", "25", "231", "0", "0"],
        ["building, stride 8", "4", "55", "5", "0"],
        ["building, stride 16", "0", "12", "4", "0"],
        ["building, stride 32", "0", "2", "2", "0"],
    ]


def test_patches_as_json_by_name_and_class(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        program.main(["inspect", "patches", "north", "west_000_000", "--class", "building", "--json", "-o", "p"]) == 0
    )
    captured = capsys.readouterr()
    tiles = json.loads(captured.out)["tiles"]
    assert [entry["path"] for entry in tiles] == [
        "p/north_000_000_patches_building.png",
        "p/west_000_000_patches_building.png",
    ]
    assert tiles[0]["drawn"] == ["building"]
    assert tiles[0]["classes"]["building"][0] == {
        "stride": 4, "positive": 25, "negative": 231, "discarded": 0, "void": 0,
    }  # fmt: skip
    assert captured.err.splitlines()[0] == "data: prepared/town"
    assert all((workspace / entry["path"]).is_file() for entry in tiles)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["scene.tif"], 1, "scene.tif: not found; it lies in no prepared data"),
        (["prepared/town/prepared.json"], 1, "no tile of"),
        (["prepared/town/images/val/west_100_000.tif"], 1, "not found; did you mean west_000_000"),
        (["nort"], 1, "no tile or scene 'nort'; did you mean north"),
        (["north", "--class", "Bilding"], 2, "did you mean 'building'?"),
        (["north", "--data", "absent"], 1, "absent: not found"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_with_a_tile_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, part: str
) -> None:
    assert program.main(["inspect", "patches", *arguments, "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert part in captured.err
    assert not list(workspace.glob("*.png"))


def test_a_tile_outside_prepared_data_says_what_is_missing(
    workspace: Path, ground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["inspect", "patches", str(ground / "source" / "images" / "north.tif")]) == 1
    assert "north.tif: lies in no prepared data, so its mask and classes are not known" in capsys.readouterr().err


def test_two_tiles_of_one_name_are_not_drawn_over_each_other(
    workspace: Path, ground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ground / "prepared" / "town", workspace / "other")
    names = [f"{root}/images/val/west_000_000.tif" for root in ("prepared/town", "other")]
    assert program.main(["inspect", "patches", *names]) == 2
    assert "would both be drawn there; draw them one by one" in capsys.readouterr().err
    assert not list(workspace.glob("*.png"))


def test_embeddings_beside_the_run_without_contrast(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", "embeddings", "runs/contrast", "--stage", "0", "--samples", "20", "--device", "cpu"]
    assert program.main(arguments) == 0
    captured = capsys.readouterr()
    assert "beside: runs/plain" in captured.err.splitlines()
    assert captured.out.splitlines()[-1] == "runs/contrast/embeddings_pca_stages0.png"
    assert "contrast (loss cl), stage 0" in captured.out
    assert "plain (loss none), stage 0" in captured.out
    assert program.main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    stages = json.loads(captured.out)["stages"]
    assert [(entry["run"], entry["stride"], entry["patches"]) for entry in stages] == [
        ("contrast", 4, {"ground": 20, "building": 20}),
        ("plain", 4, {"ground": 20, "building": 20}),
    ]
    assert all(set(entry) >= {"silhouette", "purity", "chance"} for entry in stages)
    assert "nothing to do" in captured.err
    assert program.main([*arguments, "--method", "tsne", "--alone", "--out", "alone.png"]) == 0
    assert "plain" not in capsys.readouterr().out
    assert (workspace / "alone.png").is_file()


def test_the_newest_run_is_taken_and_the_missing_one_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(workspace / "runs" / "plain")
    assert program.main(["inspect", "embeddings", "--stage", "0", "--samples", "5", "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "run: runs/contrast"
    assert "beside: no run without contrast in" in err
    assert "--config runs/contrast/config.toml --loss none`" in err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["runs/absent"], 1, "no such run or checkpoint"),
        (["prepared/town"], 1, "no checkpoint there"),
        (["runs/plain", "--projected"], 1, "heads.safetensors: not found"),
        (["runs/plain", "--stage", "4"], 2, "expected distinct numbers from 0 to 3"),
        (["runs/plain", "--split", "test"], 2, "'--split': 'test' is not one of 'train', 'val'"),
        (["runs/plain", "--alone", "--beside", "runs/contrast"], 2, "--alone and --beside were both given"),
        (["runs/plain", "--out", "folder"], 2, "expected a file that ends in .png"),
        (["runs/plain", "--samples", "1"], 2, "--samples 1 found, expected 2 to 5000"),
    ],
)
def test_what_is_wrong_with_a_run_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, part: str
) -> None:
    assert program.main(["inspect", "embeddings", *arguments, "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert part in captured.err
