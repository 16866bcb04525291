"""Pixels that touch at corners as one polygon."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError
from ctrs.vector import vectorize

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
EXACT = VectorizeConfig(classes=("building", "tree"), min_area_m2=0, min_hole_m2=0, tolerance_m=0, connectivity=8)
LABELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 10), st.integers(1, 10)), elements=st.integers(0, 2))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=LABELS)
def test_one_polygon_for_each_set_of_pixels_that_hang_together(write_mask, tmp_path: Path, labels) -> None:
    out = tmp_path / "corners.parquet"
    config = VectorizeConfig(**{**vars(EXACT), "overwrite": True})
    vectorize(write_mask(labels), out, config)
    layer = geopandas.read_parquet(out)
    assert layer.is_valid.all()
    assert set(layer.geom_type) <= {"MultiPolygon"}
    expected = sum(int(ndimage.label(labels == value, np.ones((3, 3)))[1]) for value in (1, 2))
    assert len(layer) == expected
    values = layer["class"].map({"building": 1, "tree": 2})
    back = np.zeros(labels.shape, np.uint8)
    if len(layer):
        back = rasterize(zip(layer.geometry, values, strict=True), labels.shape, transform=UTM, dtype="uint8")
    np.testing.assert_array_equal(back, labels * np.isin(labels, (1, 2)))


@pytest.mark.parametrize("extension", [".gpkg", ".parquet", ".fgb", ".geojson"])
def test_every_format_says_multipolygon(write_mask, tmp_path: Path, extension: str) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8, 2:8] = labels[8:12, 8:12] = labels[15:19, 1:5] = 1
    out = tmp_path / f"corners{extension}"
    vectorize(write_mask(labels), out, VectorizeConfig(connectivity=8))
    layer = geopandas.read_parquet(out) if extension == ".parquet" else geopandas.read_file(out)
    assert layer["id"].tolist() == [1, 2] or sorted(layer["id"]) == [1, 2]
    parts = layer.set_index("id").sort_index().geometry.apply(lambda shape: len(shapely.get_parts(shape)))
    assert parts.tolist() == [2, 1]
    assert layer.is_valid.all()


def test_specks_that_touch_at_corners_are_measured_together(write_mask, tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:5, 2:5] = labels[5:8, 5:8] = 1  # 2.25 m2 each
    labels[12:15, 2:5] = 1
    found = {
        connectivity: vectorize(
            write_mask(labels), tmp_path / f"{connectivity}.gpkg", VectorizeConfig(connectivity=connectivity)
        ).counts["building"]
        for connectivity in (4, 8)
    }
    assert found == {4: 0, 8: 1}


def test_corners_and_straight_walls_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="connectivity"):
        VectorizeConfig(connectivity=8, regularize="full")
