from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.vector.layers.columns import COLUMNS, MeanProbability, all_columns, model_of, orientation_deg
from ctrs.vector.regions.cleaning import ground_pixel_size
from ctrs.vector.regions.outlines import NO_REGION
from ctrs.vector.regions.probabilities import NO_BAND
from ctrs.vector.regions.runs import Runs

WALLS = np.array(["walls"], object)


def grid(transform: Affine, crs: str | None = "EPSG:32633") -> Grid:
    return Grid(crs=CRS.from_string(crs) if crs else None, transform=transform, width=500, height=400)


NORTH_UP = grid(Affine(0.2, 0, 400_000, 0, -0.2, 5_000_000))


def test_columns_are_those_of_the_layer_in_their_order() -> None:
    known = {"method": np.array(["walls", None], object), "class": np.array(["building"] * 2, object)}
    columns = all_columns(known, 2)
    assert list(columns) == [
        "class",
        "area_m2",
        "perimeter_m",
        "orientation_deg",
        "confidence",
        "regularization_iou",
        "method",
        "model",
    ]
    assert columns["model"].tolist() == [None, None]
    assert np.isnan(columns["confidence"]).all()
    assert columns["method"] is known["method"]
    empty = all_columns({}, 0)
    assert {name: values.dtype for name, values in columns.items()} == {n: v.dtype for n, v in empty.items()}
    assert {name: COLUMNS[name] == "number" for name in empty} == {n: v.dtype == float for n, v in empty.items()}
    assert list(all_columns({"instance": np.zeros(2, int)}, 2))[-2:] == ["model", "instance"]


def test_the_model_is_that_of_the_tags(tmp_path: Path) -> None:
    profile = {"width": 2, "height": 2, "count": 1, "dtype": "uint8", "transform": NORTH_UP.transform}
    for name, tags in (("a.tif", {"CTRS_MODEL": "3f" * 32}), ("b.tif", {})):
        with rasterio.open(tmp_path / name, "w", driver="GTiff", **profile) as dataset:
            dataset.update_tags(**tags)
        with rasterio.open(tmp_path / name) as dataset:
            assert model_of(dataset) == tags.get("CTRS_MODEL")


@pytest.mark.parametrize("azimuth", [0.0, 17.0, 45.0, 89.5, 90.0, 133.0, 179.0])
@pytest.mark.parametrize(
    "place",
    [
        NORTH_UP,
        grid(Affine(0.2, 0, 400_000, 0, -0.4, 5_000_000)),
        grid(Affine.translation(400_000, 5_000_000) @ Affine.rotation(31) @ Affine.scale(0.3, -0.2)),
        grid(Affine(2e-6, 0, 85.3, 0, -2e-6, 60.0), "EPSG:4326"),
        grid(Affine.identity(), None),
    ],
    ids=["utm", "oblong", "turned", "degrees", "pixels"],
)
def test_orientation_is_clockwise_from_grid_north(azimuth: float, place: Grid) -> None:
    # A house of 20 x 8 ground metres whose long walls run at the azimuth, drawn in the CRS.
    house = shapely.affinity.rotate(shapely.box(-4, -10, 4, 10), -azimuth)
    if place.crs is None:  # rows count downwards
        moved = shapely.affinity.scale(house, 1, -1, origin=(0, 0))
    elif place.crs.is_geographic:
        moved = shapely.affinity.scale(house, 1 / (111_415 * np.cos(np.radians(60))), 1 / 111_415, origin=(0, 0))
    else:
        moved = house
    x, y = place.transform @ (250, 200)
    moved = shapely.affinity.translate(moved, x, y)
    scale = ground_pixel_size(place)
    inverse = ~place.transform
    local = shapely.transform(moved, lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])) * scale)
    found = orientation_deg(np.array([local], object), WALLS, place)[0]
    assert 0 <= found < 180
    # In degrees north-up pixels are taken as the ellipsoid has them here, not as the sphere.
    assert min(abs(found - azimuth), 180 - abs(found - azimuth)) < (
        0.4 if place.crs and place.crs.is_geographic else 1e-4
    )


def test_diagonals_and_wings_do_not_turn_the_axis() -> None:
    chamfered = shapely.box(0, 0, 30, 12).difference(shapely.Polygon([(30, 12), (30, 6), (24, 12)]))
    wing = chamfered.union(shapely.box(0, 12, 6, 20))
    assert orientation_deg(np.array([wing], object), WALLS, NORTH_UP)[0] == pytest.approx(90)


def test_only_straight_walls_have_an_orientation() -> None:
    boxes = np.array([shapely.box(0, 0, 2, 1), shapely.box(0, 0, 1, 2), shapely.box(0, 0, 2, 1)], object)
    found = orientation_deg(boxes, np.array(["outline", "walls", None], object), NORTH_UP)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == pytest.approx(0)
    assert len(orientation_deg(boxes[:0], WALLS[:0], NORTH_UP)) == 0


@given(seed=st.integers(0, 2**20), rows=st.integers(1, 15), row_off=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_confidence_is_the_mean_over_all_pixels_of_a_region(seed: int, rows: int, row_off: int) -> None:
    rng = np.random.default_rng(seed)
    regions = rng.integers(-1, 4, (9, 7)).astype(np.int32)
    bands = np.array([0, 1, 2, NO_BAND])  # two bands in the raster; the third is what they leave
    shares = rng.dirichlet(np.ones(3), (15, 7)).transpose(2, 0, 1).astype(np.float32)
    shares[:, rng.random((15, 7)) < 0.1] = np.nan
    mean = MeanProbability(Runs.from_array(regions), bands, row_off=row_off)
    first = max(0, row_off - 1)
    blocks = [(row, shares[:2, row : row + rows + 1]) for row in range(first, min(15, row_off + 10), rows)]
    assert [row for row, _ in mean.watch(iter(blocks))] == [row for row, _ in blocks]
    found = mean.of(np.arange(4))
    for region in range(4):
        pixels = shares[bands[region]][row_off : row_off + 9][regions == region]
        pixels = pixels[~np.isnan(pixels)] if bands[region] != NO_BAND else pixels[:0]
        if len(pixels):
            assert found[region] == pytest.approx(pixels.mean(), abs=1e-5)
        else:
            assert np.isnan(found[region])
    assert NO_REGION == NO_BAND == -1
