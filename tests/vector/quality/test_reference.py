from __future__ import annotations

import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.errors import InputNotFoundError, LabelError, LabelWarning
from ctrs.raster.geotiff import Grid
from ctrs.vector.quality.reference import cut_to, on_grid, read_reference

GRID = Grid(crs=CRS.from_epsg(32633), transform=Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000), width=200, height=200)
MASK = Path("town_mask.tif")
BOWTIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def save(tmp_path: Path, shapes: list[shapely.Geometry], *, crs: str | None = "EPSG:32633") -> Path:
    path = tmp_path / "truth.gpkg"
    geopandas.GeoDataFrame({"number": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path)
    return path


def at(x: float, y: float, width: float = 10, height: float = 10) -> shapely.Geometry:
    return shapely.box(400_000 + x, 5_000_000 - y - height, 400_000 + x + width, 5_000_000 - y)


def test_multipolygons_are_taken_apart_and_broken_ones_mended(tmp_path: Path) -> None:
    shapes = [shapely.MultiPolygon([at(0, 0), at(20, 0)]), BOWTIE, shapely.Point(0, 0)]
    path = save(tmp_path, shapes)
    with pytest.warns(LabelWarning) as told:
        found = read_reference(path)
    assert [str(entry.message) for entry in told] == [
        f"{path}: 1 of 2 polygons were invalid and have been made valid",
        f"{path}: 1 features without area left out",
    ]
    assert (found.num_repaired, found.num_dropped) == (1, 1)
    assert len(found.polygons) == 4  # two of the multipolygon, both halves of the bowtie
    assert found.polygons.is_valid.all()
    assert set(found.polygons.geom_type) == {"Polygon"}


def test_faults_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"absent.gpkg: not found"):
        read_reference(tmp_path / "absent.gpkg")
    (tmp_path / "text.gpkg").write_text("no layer")
    with pytest.raises(LabelError, match=r"text.gpkg: not readable as polygons"):
        read_reference(tmp_path / "text.gpkg")
    with pytest.raises(LabelError, match=r"no polygons found .1 features of other kinds., expected the true buildings"):
        read_reference(save(tmp_path, [shapely.Point(0, 0)]))
    with pytest.raises(LabelError, match=r": a folder that is no vector layer found, expected .* a FileGDB .NAME.gdb."):
        read_reference(tmp_path)


def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    shapes = [at(0, 0), at(20, 0)]
    found = read_reference(save(tmp_path, shapes)).hash_content()
    (tmp_path / "copy").mkdir()
    assert read_reference(save(tmp_path / "copy", shapes)).hash_content() == found
    others = [
        geopandas.GeoSeries([at(0, 0), at(20, 1)], crs="EPSG:32633"),
        geopandas.GeoSeries(shapes[:1], crs="EPSG:32633"),
        geopandas.GeoSeries(shapes, crs="EPSG:32632"),
        geopandas.GeoSeries([*shapes, shapely.Point(0, 0)], crs="EPSG:32633"),
    ]
    hashes = {found}
    for number, series in enumerate(others):
        path = tmp_path / f"{number}.gpkg"
        series.to_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LabelWarning)
            hashes.add(read_reference(path).hash_content())
    assert len(hashes) == 5


def test_buildings_that_stand_twice_are_told(tmp_path: Path) -> None:
    path = tmp_path / "twice.gpkg"
    boxes = [
        shapely.box(0, 0, 10, 10),
        shapely.box(0, 0, 10, 10),
        shapely.box(10, 0, 20, 10),
        shapely.box(18, 0, 28, 9),
    ]
    geopandas.GeoSeries(boxes, crs="EPSG:32633").to_file(path)
    with pytest.warns(LabelWarning, match=r"twice\.gpkg: 1 of 4 polygons lie mostly in another one"):
        reference = read_reference(path)
    assert len(reference.polygons) == 4
    geopandas.GeoSeries(boxes[1:], crs="EPSG:32633").to_file(path)
    assert len(read_reference(path).polygons) == 3


def test_another_crs_is_brought_to_the_masks(tmp_path: Path) -> None:
    path = tmp_path / "truth.geojson"
    geopandas.GeoSeries([at(10, 10)], crs="EPSG:32633").to_crs("EPSG:4326").to_file(path)
    found = on_grid(read_reference(path), GRID, MASK)
    assert found.crs == "EPSG:32633"
    assert found.iloc[0].hausdorff_distance(at(10, 10)) < 0.1


def test_without_crs_or_elsewhere(tmp_path: Path) -> None:
    nowhere = Grid(crs=None, transform=GRID.transform, width=200, height=200)
    with pytest.warns(UserWarning, match=r"'crs' was not provided"):
        path = save(tmp_path, [at(0, 0)], crs=None)
    reference = read_reference(path)
    with pytest.raises(LabelError, match=r"truth.gpkg: no CRS found, so nobody knows.*the mask is in EPSG:32633"):
        on_grid(reference, GRID, MASK)
    assert on_grid(reference, nowhere, MASK).crs is None
    (tmp_path / "truth.gpkg").unlink()
    reference = read_reference(save(tmp_path, [at(0, 0), at(500, 0)]))
    with pytest.raises(LabelError, match=r"truth.gpkg: in WGS 84 / UTM zone 33N, but town_mask.tif has no CRS"):
        on_grid(reference, nowhere, MASK)
    (tmp_path / "truth.gpkg").unlink()
    reference = read_reference(save(tmp_path, [at(500, 0)]))
    with pytest.raises(LabelError, match=r"no overlap with town_mask.tif: it covers 400500, .*the mask 400000, .*CRS"):
        on_grid(reference, GRID, MASK)
    (tmp_path / "truth.gpkg").unlink()
    antarctica = read_reference(save(tmp_path, [shapely.box(-170, -90, 170, -80)], crs="EPSG:4326"))
    with pytest.raises(LabelError, match=r"no overlap"):
        on_grid(antarctica, GRID, MASK)
    (tmp_path / "truth.gpkg").unlink()
    local = Grid(crs=CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), transform=GRID.transform, width=200, height=200)
    reference = read_reference(save(tmp_path, [at(0, 0)]))
    with pytest.raises(LabelError, match=r"truth.gpkg: in WGS 84 / UTM zone 33N, from which nothing leads .*\(site\)"):
        on_grid(reference, local, MASK)


def test_buildings_are_cut_where_the_mask_ends() -> None:
    area = np.array([at(0, 0, 100, 100) - at(40, 40, 20, 20)], object)
    polygons = geopandas.GeoSeries(
        [
            at(10, 10),  # inside
            at(-4, 30),  # 6 m of 10 inside
            at(99.5, 50),  # half a metre inside: 5 m² are below the smallest
            at(45, 45),  # in the hole
            at(35, 45, 30, 5),  # across the hole: two parts
            at(200, 0),  # outside
            at(20, 20, 1, 1),  # small, but whole
        ],
        crs="EPSG:32633",
    )
    part = cut_to(polygons, area, smallest=8.0)
    assert part.sources.tolist() == [1, 2, 5, 5, 7]
    assert part.cut.tolist() == [False, True, True, True, False]
    assert part.polygons.area.tolist() == pytest.approx([100, 60, 25, 25, 1])
    assert (part.num_outside, part.num_small) == (3, 1)
    nothing = cut_to(polygons, np.empty(0, object), smallest=8.0)
    assert (len(nothing.polygons), nothing.num_outside) == (0, 7)
