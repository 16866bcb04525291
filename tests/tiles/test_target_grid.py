"""The grid of a scene's tiles: the image's own as long as nothing asks for another."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.errors import DataError, RasterError, UsageError
from ctrs.raster.geotiff import Grid, GroundControl
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles.target_grid import MAX_EDGE_PX, edge_px, parse_crs, target_grid, tilt

UTM, WEB, WGS = CRS.from_epsg(32633), CRS.from_epsg(3857), CRS.from_epsg(4326)
IMAGE = Path("a.tif")
OWN = Grid(crs=UTM, transform=Affine(0.5, 0, 400000.3, 0, -0.5, 5800000.1), width=301, height=200)


def rotated(angle: float, *, crs: CRS | None = UTM, width: int = 301, height: int = 200) -> Grid:
    turn = Affine.translation(4e5, 5.8e6) @ Affine.rotation(angle) @ Affine.scale(0.5, -0.5)
    return Grid(crs=crs, transform=turn, width=width, height=height)


def bounds(grid: Grid) -> tuple[float, float, float, float]:
    left, top = grid.transform @ (0.0, 0.0)
    right, bottom = grid.transform @ (float(grid.width), float(grid.height))
    return left, bottom, right, top


def outline(grid: Grid, crs: CRS) -> shapely.Polygon:
    ring = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    dense = shapely.segmentize(shapely.Polygon(ring), 10)
    xy = np.array([grid.transform @ (col, row) for col, row in dense.exterior.coords])
    return shapely.Polygon(np.column_stack(rasterio.warp.transform(grid.crs, crs, xy[:, 0], xy[:, 1])))


@pytest.mark.parametrize(
    "grid",
    [
        OWN,
        Grid(crs=None, transform=Affine.identity(), width=50, height=40),
        Grid(crs=None, transform=Affine(0.5, 0, 10, 0, -0.5, 20), width=50, height=40),
        Grid(crs=UTM, transform=Affine(0.5, 1e-9, 4e5, 1e-9, -0.5, 5.8e6), width=6000, height=6000),
    ],
)
def test_nothing_asked_for_nothing_changed(grid: Grid) -> None:
    assert target_grid(grid, IMAGE) is grid


def test_what_the_image_has_already_changes_nothing() -> None:
    assert target_grid(OWN, IMAGE, crs=UTM, gsd_m=0.5) is OWN
    assert target_grid(OWN, IMAGE, crs=UTM, gsd_m=0.50004) is OWN
    assert target_grid(OWN, IMAGE, gsd_m=0.51) != OWN


def test_a_coarser_pixel_begins_where_the_image_does() -> None:
    grid = target_grid(OWN, IMAGE, gsd_m=1.0)
    assert grid.transform == Affine(1.0, 0, 400000.3, 0, -1.0, 5800000.1)
    assert (grid.width, grid.height) == (151, 100)


@pytest.mark.parametrize("crs", [UTM, WEB, WGS, CRS.from_epsg(3067), CRS.from_epsg(2953)])
@pytest.mark.parametrize("gsd_m", [0.25, 0.7, None])
def test_ground_metres_in_any_crs(crs: CRS, gsd_m: float | None) -> None:
    grid = target_grid(OWN, IMAGE, crs=crs, gsd_m=gsd_m)
    assert grid.crs == crs
    for edge in ground_pixel_size_m(grid):
        assert edge == pytest.approx(gsd_m or 0.5, rel=2e-3)
    assert tuple(grid.transform)[1::2][:2] == (0, 0) or (grid.transform.b, grid.transform.d) == (0, 0)
    assert grid.transform.a > 0 > grid.transform.e
    covered = shapely.box(*bounds(grid)).buffer(0.02 * grid.transform.a)
    assert covered.contains(outline(OWN, crs))
    assert target_grid(OWN, IMAGE, crs=crs, gsd_m=gsd_m) == grid


def test_pixels_of_another_crs_lie_at_multiples_of_their_size() -> None:
    grid = target_grid(OWN, IMAGE, crs=CRS.from_epsg(32634), gsd_m=0.25)
    assert grid.transform.a == 0.25
    assert grid.transform.c / 0.25 == round(grid.transform.c / 0.25)
    assert grid.transform.f / 0.25 == round(grid.transform.f / 0.25)


@given(angle=st.floats(-179, 179).filter(lambda angle: abs(angle) > 0.1), shear=st.floats(-20, 20))
def test_straightened_grids_cover_the_image_and_keep_its_pixel(angle: float, shear: float) -> None:
    plain = rotated(angle)
    own = Grid(crs=UTM, transform=plain.transform @ Affine.shear(shear, 0), width=301, height=200)
    grid = target_grid(own, IMAGE)
    assert tilt(own)
    assert not tilt(grid)
    assert grid.crs == UTM
    assert grid.transform.a == pytest.approx(math.hypot(own.transform.a, own.transform.d))
    left, bottom, right, top = bounds(grid)
    image = outline(own, UTM)
    assert shapely.box(left, bottom, right, top).buffer(1e-3).contains(image)
    x0, y0, x1, y1 = image.bounds
    assert max(x0 - left, y0 - bottom, right - x1, top - y1) <= 2 * max(grid.transform.a, -grid.transform.e)


def test_tilts_are_named() -> None:
    assert tilt(rotated(12.5)) == "rotated by 12.5 degrees"
    assert tilt(rotated(0)) == ""
    assert "sheared" in tilt(Grid(crs=UTM, transform=OWN.transform @ Affine.shear(10, 0), width=99, height=99))
    assert tilt(Grid(crs=UTM, transform=Affine(0.5, 0, 0, 0, 0.5, 0), width=99, height=99)) == "stored south up"
    assert tilt(Grid(crs=UTM, transform=Affine(-0.5, 0, 0, 0, 0.5, 0), width=99, height=99)) == "rotated by 180 degrees"
    assert tilt(Grid(crs=None, transform=Affine.identity(), width=99, height=99)) == ""
    points = GroundControl(crs=UTM, points=((0.0, 0.0, 1.0, 2.0, 0.0),) * 3)
    placed = Grid(crs=None, transform=Affine.identity(), width=9, height=9, ground_control=points)
    assert tilt(placed) == "placed by 3 ground control points"


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_quarter_turns_keep_their_pixels(angle: float) -> None:
    own = rotated(angle)
    grid = target_grid(own, IMAGE)
    assert (grid.width, grid.height) == ((301, 200) if angle == 180 else (200, 301))
    assert shapely.box(*bounds(grid)).equals_exact(shapely.box(*outline(own, UTM).bounds), 1e-6)


def test_metres_need_a_crs() -> None:
    unplaced = Grid(crs=None, transform=Affine.identity(), width=99, height=99)
    placed = Grid(crs=None, transform=OWN.transform, width=99, height=99)
    with pytest.raises(RasterError, match=r"a\.tif: no CRS found, so a ground pixel of 0\.2 m cannot .*--src-crs"):
        target_grid(placed, IMAGE, gsd_m=0.2)
    with pytest.raises(RasterError, match=r"a\.tif: no CRS found, so a place in EPSG:3857 cannot be had; .*--src-crs"):
        target_grid(placed, IMAGE, crs=WEB)
    with pytest.raises(RasterError, match=r"a\.tif: no transform .* found, .* add a world file"):
        target_grid(unplaced, IMAGE, gsd_m=0.2)
    with pytest.raises(
        DataError, match=r"a\.tif: no CRS found, so --tile in metres .*--src-crs, or give --tile in pix"
    ):
        edge_px("--tile", 50.0, placed, IMAGE)
    with pytest.raises(DataError, match=r"no transform \(world file or georeference\).*--src-crs alone does not place"):
        edge_px("--tile", 50.0, unplaced, IMAGE)
    assert edge_px("--tile", 50.1, OWN, IMAGE) == 100


def test_control_points_need_a_crs_and_company() -> None:
    def image(crs: CRS | None, number: int) -> Grid:
        rows = [
            (row, col, *(rotated(10).transform @ (col, row)), 0.0)
            for row, col in ((0, 0), (0, 300), (200, 0), (200, 300))
        ]
        control = GroundControl(crs=crs, points=tuple(tuple(map(float, row)) for row in rows[:number]))
        return Grid(crs=None, transform=Affine.identity(), width=300, height=200, ground_control=control)

    grid = target_grid(image(UTM, 4), IMAGE)
    assert grid.crs == UTM
    assert grid.ground_control is None
    assert grid.transform.a == pytest.approx(0.5)
    with pytest.raises(RasterError, match=r"a\.tif: ground control points without CRS found, .*--src-crs"):
        target_grid(image(None, 4), IMAGE)
    with pytest.raises(RasterError, match=r"a\.tif: 2 ground control points found, expected at least 3"):
        target_grid(image(UTM, 2), IMAGE)


def test_no_place_in_a_crs() -> None:
    south = Grid(crs=WGS, transform=Affine(0.01, 0, 10, 0, -0.01, -20), width=50, height=100)
    north_only = CRS.from_string("+proj=gnom +lat_0=90 +lon_0=0 +datum=WGS84 +units=m")
    with pytest.raises(RasterError, match=r"a\.tif: parts of it have no place in .*own CRS is EPSG:4326"):
        target_grid(south, IMAGE, crs=north_only)


def test_grids_beyond_reason() -> None:
    with pytest.raises(RasterError, match=rf"expected at most {MAX_EDGE_PX} along an edge; choose a coarser --gsd"):
        target_grid(OWN, IMAGE, gsd_m=1e-5)


@pytest.mark.parametrize("text", ["EPSG:99999", "nonsense", "", "EPSG:5773", "EPSG:4978"])
def test_crs_texts(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--crs: .*expected one like EPSG:32633") as caught:
        parse_crs(text, "--crs")
    assert "\n" not in str(caught.value)
    assert parse_crs("EPSG:32633", "--crs") == UTM
