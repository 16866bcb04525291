"""What other programs rely on in the files, on a coverage of noisy classes drawn as the command draws it."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from scipy.ndimage import gaussian_filter

from ctrs.config import VectorizeConfig
from ctrs.errors import OutputError
from ctrs.vector import vectorize


@pytest.fixture
def labels() -> npt.NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(3, 120, 160)), (0, 2.5, 2.5))
    labels = noise.argmax(axis=0).astype(np.uint8)
    labels[20:60, 20:60], labels[30:50, 30:50] = 2, 1  # a house among trees
    return labels


@pytest.fixture(params=["none", "full"])
def config(request: pytest.FixtureRequest) -> VectorizeConfig:
    return VectorizeConfig(classes=("all",), regularize=request.param)


def test_geoparquet_says_of_its_geometries_what_is_so(write_mask, tmp_path: Path, labels, config) -> None:
    out = tmp_path / "a.parquet"
    vectorize(write_mask(labels), out, config)
    table = pq.read_table(out)
    geo = json.loads(pq.read_metadata(out).metadata[b"geo"])
    assert set(geo) == {"version", "primary_column", "columns"}
    assert (geo["version"], geo["primary_column"], list(geo["columns"])) == ("1.1.0", "geometry", ["geometry"])
    said = geo["columns"]["geometry"]
    assert said["encoding"] == "WKB"
    assert pyproj.CRS.from_json_dict(said["crs"]) == pyproj.CRS("EPSG:32633")
    shapes = shapely.from_wkb(table["geometry"].to_numpy())
    assert said["geometry_types"] == ["Polygon"]
    assert (shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON).all()
    assert said["orientation"] == "counterclockwise"
    rings = [ring for shape in shapes for ring in shape.interiors]
    assert rings
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
    assert not shapely.is_ccw(rings).any()
    assert said["bbox"] == shapely.total_bounds(shapes).tolist()
    sides = ["xmin", "ymin", "xmax", "ymax"]
    assert said["covering"] == {"bbox": {side: ["bbox", side] for side in sides}}
    boxes = table["bbox"].combine_chunks()
    assert [(field.name, field.type) for field in boxes.type] == [(side, pa.float64()) for side in sides]
    np.testing.assert_array_equal(
        np.column_stack([boxes.field(side).to_numpy() for side in sides]), shapely.bounds(shapes)
    )
    assert table["id"].to_pylist() == list(range(1, len(shapes) + 1))


def test_flatgeobuf_finds_rows_by_an_index(write_mask, tmp_path: Path, labels, config) -> None:
    out = tmp_path / "a.fgb"
    vectorize(write_mask(labels), out, config)
    assert pyogrio.read_info(out)["capabilities"]["fast_spatial_filter"]
    box = shapely.box(400_010, 4_999_960, 400_020, 4_999_970)
    layer = geopandas.read_file(out)
    found = geopandas.read_file(out, bbox=box.bounds)
    assert 0 < len(found) < len(layer)
    assert set(found["id"]) == set(layer["id"][layer.intersects(box)])


def test_a_crs_of_no_place_on_earth_is_kept_and_refused_for_geojson(write_mask, tmp_path: Path, labels, config) -> None:
    mask = write_mask(labels, crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(OutputError, match=r"a\.geojson: GeoJSON is in WGS84, and nothing leads there .*\(site\)"):
        vectorize(mask, tmp_path / "a.geojson", config)
    assert not list(tmp_path.glob("*a.geojson*"))
    vectorize(mask, tmp_path / "a.gpkg", config)
    assert geopandas.read_file(tmp_path / "a.gpkg").crs.name == "site"


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3857", "EPSG:2263"])
def test_geojson_is_in_degrees_by_the_right_hand_and_valid(
    write_mask, tmp_path: Path, labels, config, crs: str
) -> None:
    mask = write_mask(labels, crs=crs)
    vectorize(mask, tmp_path / "a.geojson", config)
    vectorize(mask, tmp_path / "a.gpkg", config)
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in document
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in document["features"]]
    assert shapely.is_valid(shapes).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
    assert not shapely.is_ccw([ring for shape in shapes for ring in shape.interiors]).any()
    assert shapely.coverage_is_valid(shapes)
    expected = geopandas.read_file(tmp_path / "a.gpkg").to_crs(4326).geometry.to_numpy()
    assert shapely.equals_exact(shapely.normalize(shapes), shapely.normalize(expected), 1.5e-9).all()


@pytest.mark.parametrize("extension", [".gpkg", ".fgb", ".parquet"])
def test_a_coverage_stays_one_on_disk(write_mask, tmp_path: Path, labels, config, extension: str) -> None:
    """To the last digit: a common border is common, and all together are the mask."""
    out = tmp_path / f"a{extension}"
    vectorize(write_mask(labels), out, config)
    layer = geopandas.read_parquet(out) if extension == ".parquet" else geopandas.read_file(out)
    shapes = layer.geometry.to_numpy()
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert layer["area_m2"].sum() == pytest.approx(labels.size / 4, rel=1e-9)
    assert shapely.area(shapely.union_all(shapes)) == pytest.approx(labels.size / 4, rel=1e-9)
