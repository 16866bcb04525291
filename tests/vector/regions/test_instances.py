from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.config import VectorizeConfig
from ctrs.errors import InputNotFoundError, LabelError
from ctrs.raster.cog import CLASSES_TAG
from ctrs.raster.geotiff import Grid
from ctrs.vector import vectorize
from ctrs.vector.regions.cleaning import RegionGraph
from ctrs.vector.regions.instances import fill_between
from ctrs.vector.regions.runs import Runs

TRANSFORM = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)


def write(path: Path, pixels: npt.NDArray[Any], *, nodata: int | None = None, classes: list[str] | None = None) -> Path:
    height, width = pixels.shape
    profile = {"width": width, "height": height, "count": 1, "dtype": pixels.dtype, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=TRANSFORM, **profile) as dataset:
        dataset.write(pixels, 1)
        if classes is not None:
            table = [{"value": value, "name": name, "color": [0, value, 0]} for value, name in enumerate(classes)]
            dataset.update_tags(**{CLASSES_TAG: json.dumps(table)})
    return path


def row(numbers: tuple[int, int, int], dtype: str) -> npt.NDArray[Any]:
    pixels = np.zeros((60, 80), dtype)
    for place, number in enumerate(numbers):
        pixels[10:34, 8 + 16 * place : 24 + 16 * place] = number
    return pixels


def draw(mask: Path, **options: Any) -> geopandas.GeoDataFrame:
    out = mask.with_suffix(".gpkg")
    vectorize(mask, out, VectorizeConfig(instances=True, overwrite=True, **options))
    return geopandas.read_file(out)


@pytest.mark.parametrize(
    ("dtype", "numbers"), [("uint8", (255, 254, 1)), ("uint16", (256, 65_000, 255)), ("int32", (2_000_000_000, 511, 7))]
)
@pytest.mark.parametrize("regularize", ["none", "full"])
def test_each_number_is_a_building_of_its_own(
    tmp_path: Path, dtype: str, numbers: tuple[int, int, int], regularize: str
) -> None:
    layer = draw(write(tmp_path / "ids.tif", row(numbers, dtype)), regularize=regularize)
    assert layer["instance"].tolist() == list(numbers)
    assert set(layer["class"]) == {"building"}
    assert layer["id"].tolist() == [1, 2, 3]
    assert layer["area_m2"].to_numpy() == pytest.approx(96.0, rel=0.02)
    assert shapely.coverage_is_valid(layer.geometry.to_numpy())
    assert shapely.intersection(layer.geometry[0], layer.geometry[1]).length == pytest.approx(12, abs=0.1)


def test_a_number_in_two_pieces_is_two_polygons(tmp_path: Path) -> None:
    layer = draw(write(tmp_path / "ids.tif", row((9, 0, 9), "uint16")))
    assert layer["instance"].tolist() == [9, 9]


def test_nodata_is_no_building(tmp_path: Path) -> None:
    pixels = row((3, 4, 5), "int32")
    pixels[:, 40:] = -1
    layer = draw(write(tmp_path / "ids.tif", pixels, nodata=-1))
    assert layer["instance"].tolist() == [3, 4]
    with pytest.raises(LabelError, match=r"value -1 found, expected numbers of buildings from 1"):
        draw(write(tmp_path / "other.tif", pixels))


def test_an_empty_mask_has_the_columns_too(tmp_path: Path) -> None:
    layer = draw(write(tmp_path / "ids.tif", np.zeros((40, 40), np.uint16)))
    assert len(layer) == 0
    assert "instance" in layer.columns


def test_specks_of_a_neighbour_go_to_the_building_around(tmp_path: Path) -> None:
    pixels = row((300, 301, 302), "uint16")
    pixels[20:22, 12:14] = 301
    layer = draw(write(tmp_path / "ids.tif", pixels))
    assert layer["instance"].tolist() == [300, 301, 302]
    assert layer["area_m2"].tolist() == [96.0, 96.0, 96.0]


def test_a_pinhole_on_a_party_wall_is_filled(tmp_path: Path) -> None:
    pixels = row((300, 301, 302), "uint16")
    pixels[20:22, 23:26] = 0
    layer = draw(write(tmp_path / "ids.tif", pixels))
    assert shapely.get_num_interior_rings(layer.geometry.to_numpy()).sum() == 0
    assert layer["area_m2"].sum() == 3 * 96.0
    assert shapely.coverage_is_valid(layer.geometry.to_numpy())


def test_a_small_hole_goes_to_the_neighbour_with_most_of_its_border() -> None:
    labels = np.full((6, 8), 5)
    labels[:, 4:] = 6
    labels[2:4, 3:6] = 0
    runs = Runs.from_array(labels)
    grid = Grid(crs=None, transform=Affine.identity(), width=8, height=6)
    graph = RegionGraph.of(runs, grid)
    kept = fill_between(graph, min_hole_m2=6.0, none=0)
    assert 0 in kept.classes
    filled = fill_between(graph, min_hole_m2=6.5, none=0)
    assert (filled.classes[filled.members][runs.values == 0] == 6).all()


def test_other_classes_are_refused(tmp_path: Path) -> None:
    mask = write(tmp_path / "classes.tif", row((1, 2, 1), "uint8"), classes=["background", "building", "road"])
    with pytest.raises(LabelError, match=r"classes background, building, road found.*leave --instances out"):
        draw(mask)
    mask = write(tmp_path / "buildings.tif", row((1, 1, 1), "uint8"), classes=["background", "building"])
    assert draw(mask)["instance"].tolist() == [1]


def test_a_class_mask_with_too_many_values_is_told_of_instances(tmp_path: Path) -> None:
    numbers = np.arange(8192, dtype=np.uint16).reshape(64, 128)
    mask = write(tmp_path / "numbers.tif", numbers)
    with pytest.raises(LabelError, match=r"is it a class mask.*--instances"):
        vectorize(mask, tmp_path / "out.gpkg", VectorizeConfig())
    mask = write(tmp_path / "few.tif", row((1, 2, 3), "uint8"))
    with pytest.raises(LabelError, match=r"their meaning is unknown.*--instances"):
        vectorize(mask, tmp_path / "out.gpkg", VectorizeConfig())


def test_split_by_probability_asks_for_probabilities(tmp_path: Path) -> None:
    mask = write(tmp_path / "plain.tif", row((1, 1, 1), "uint8"))
    with pytest.raises(InputNotFoundError, match="no probabilities found for --split probability"):
        vectorize(mask, tmp_path / "out.gpkg", VectorizeConfig(split="probability"))


@pytest.mark.filterwarnings("ignore:.*no class names found")
@pytest.mark.parametrize("split", ["erosion", "watershed"])
def test_split_parts_two_buildings_that_touch(tmp_path: Path, split: Any) -> None:
    pixels = np.zeros((60, 80), np.uint8)
    pixels[10:40, 8:38] = 1
    pixels[10:40, 42:72] = 1
    pixels[22:26, 36:44] = 1
    mask = write(tmp_path / "plain.tif", pixels)
    for regularize, parts in (("none", 2), ("full", 2)):
        out = tmp_path / f"{split}_{regularize}.gpkg"
        vectorize(mask, out, VectorizeConfig(split=split, regularize=regularize))
        layer = geopandas.read_file(out)
        assert len(layer) == parts
        assert shapely.coverage_is_valid(layer.geometry.to_numpy())
    whole = tmp_path / "whole.gpkg"
    vectorize(mask, whole, VectorizeConfig())
    assert len(geopandas.read_file(whole)) == 1


def test_houses_that_meet_in_a_junction_stay_together_with_probabilities_beside(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80), np.uint16)
    pixels[10:30, 10:60] = 7
    pixels[30:54, 10:34] = 8
    pixels[30:54, 34:60] = 9
    mask = write(tmp_path / "town_mask.tif", pixels)
    building = np.where(pixels > 0, 200, 40).astype(np.uint8)
    path = write(tmp_path / "town_probabilities.tif", building, nodata=255)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("building",)
        dataset.update_tags(CTRS_PROBABILITIES="uint8")
    layer = draw(mask, regularize="full")
    assert layer["instance"].tolist() == [7, 8, 9]
    assert layer["method"].tolist() == ["walls"] * 3
    assert shapely.coverage_is_valid(layer.geometry.to_numpy())
    assert shapely.get_num_interior_rings(shapely.union_all(layer.geometry.to_numpy())) == 0
