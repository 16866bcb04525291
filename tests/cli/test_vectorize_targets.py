"""Where ``ctrs vectorize`` puts the layers of several masks."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.cli import app as program


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two masks of the same name in two folders, with one building and with two."""
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("north", "south"), start=1):
        pixels = np.zeros((1, 40, 80), np.uint8)
        for index in range(number):
            pixels[0, 10:30, 10 + 40 * index : 30 + 40 * index] = 1
        (tmp_path / folder).mkdir()
        with rasterio.open(
            tmp_path / folder / "town_mask.tif",
            "w",
            driver="GTiff",
            width=80,
            height=40,
            count=1,
            dtype="uint8",
            crs="EPSG:32633",
            transform=Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000),
        ) as dataset:
            dataset.write(pixels)
    return ["north/town_mask.tif", "south/town_mask.tif"]


@pytest.mark.parametrize("further", [[], ["--overwrite"]])
def test_layers_of_one_name_are_refused_before_one_replaces_the_other(
    masks: list[str], further: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["vectorize", *masks, "-o", "layers", *further]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: layers/town_mask.gpkg: is the layer of both north/town_mask.tif and south/town_mask")
    assert not Path("layers").exists()
    assert program.main(["vectorize", *masks]) == 0
    assert [len(geopandas.read_file(Path(mask).with_suffix(".gpkg"))) for mask in masks] == [1, 2]


def test_a_folder_that_stands_may_have_a_dot_in_its_name(masks: list[str]) -> None:
    Path("layers.2").mkdir()
    assert program.main(["vectorize", masks[1], "-o", "layers.2", "-q"]) == 0
    assert len(geopandas.read_file("layers.2/town_mask.gpkg")) == 2


@pytest.mark.parametrize("name", ["absent.tif", "notes.tif"])
def test_masks_that_cannot_be_drawn_are_told_before_any_is(
    masks: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.tif").write_text("no raster")
    assert program.main(["vectorize", *masks, name]) != 0
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert name in error
    assert not list(Path().rglob("*.gpkg"))
