"""Rounded to the decimals of GeoJSON, polygons stay what they were, on disk too."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.config import VectorizeConfig
from ctrs.vector import vectorize
from ctrs.vector.layers.degrees import round_degrees


def test_gdal_writes_what_is_rounded(tmp_path: Path) -> None:
    """Also where decimals end in 00000x or 99999x, which GDAL takes for errors."""
    rng = np.random.default_rng(0)
    near = rng.integers(-900_000, 900_000, (4000, 2)) * 10**6 + rng.integers(-30, 31, (4000, 2))
    places = np.concatenate([near, rng.integers(-90 * 10**10, 90 * 10**10, (2000, 2))]) / 1e10
    boxes = np.array([shapely.box(x, y, x + 1e-3, y + 1e-3) for x, y in places], object)
    rounded = round_degrees(boxes)
    layer = geopandas.GeoDataFrame(geometry=list(rounded), crs=4326)
    layer.to_file(tmp_path / "a.geojson", RFC7946="YES", COORDINATE_PRECISION="10")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    written = np.array([shapely.geometry.shape(feature["geometry"]) for feature in features], object)
    assert shapely.equals_exact(shapely.normalize(written), shapely.normalize(rounded)).all()
    assert shapely.equals_exact(shapely.normalize(boxes), shapely.normalize(rounded), 1.5e-8).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from([3.0, 10.0, 300.0]))
def test_what_rounding_breaks_is_mended(seed: int, size: float) -> None:
    """Stars some steps across, with walls that lie closer than a step."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.1, 1, (24, 1))
    star = shapely.Polygon(np.array([85.52, 27.63]) + 1e-10 * size * ring)
    (single,) = round_degrees(np.array([star], object))
    (multi,) = round_degrees(np.array([shapely.multipolygons([star])], object))
    if single.area:
        assert single.is_valid
        assert single.geom_type == "Polygon"
        assert single.hausdorff_distance(star) < 1e-10 * (3 + size / 2) + 1e-9
    if multi.area:
        assert multi.is_valid
        assert multi.geom_type == "MultiPolygon"
        assert multi.area >= single.area * (1 - 1e-6)


def test_a_coverage_along_a_round_coordinate_stays_valid(write_mask, tmp_path: Path) -> None:
    """Straight walls a hair below 27.63 degrees, where GDAL would move corners."""
    place = Affine(5e-6, 0, 85.52, 0, -5e-6, 27.63)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = np.kron(rng.random((14, 11)) < 0.6, np.ones((4, 4))).astype(np.uint8)
        mask = write_mask(labels, crs="EPSG:4326", transform=place)
        config = VectorizeConfig(classes=("all",), regularize="full", jobs=1)
        layers = []
        for extension in (".geojson", ".gpkg"):
            out = tmp_path / f"{seed}{extension}"
            vectorize(mask, out, config)
            layers.append(geopandas.read_file(out).geometry.to_numpy())
        assert shapely.is_valid(layers[0]).all()
        assert np.allclose(shapely.area(layers[0]), shapely.area(layers[1]), rtol=0, atol=25e-14)
