"""Layers without any tolerance, drawn in the blocks of the command: each pixel once, each hole, on its own ground."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy import ndimage

from ctrs.config import VectorizeConfig
from ctrs.vector import vectorize
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.class_mask import open_class_mask
from ctrs.vector.vectorize import choose_classes, draw_parts

CODES = {"background": 0, "building": 1, "tree": 2, "water": 3}
NORTH_UP = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 400_000, 0, 0.5, 5_000_000)
ROTATED = Affine.translation(400_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)
TRANSFORMS = pytest.mark.parametrize(
    "transform", [NORTH_UP, SOUTH_UP, ROTATED], ids=["north up", "south up", "rotated"]
)


@st.composite
def masks(draw: st.DrawFn) -> npt.NDArray[np.uint8]:
    """Single pixels of noise, and patches large enough to hold others, with nodata among them."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    labels = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(0, 6))):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, wide = rng.integers(1, 16, 2)
        labels[top : top + tall, left : left + wide] = rng.choice([0, 1, 1, 2, 3, 255])
    noise = rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    labels[noise] = rng.choice([0, 1, 2, 3, 255], int(noise.sum()))
    return labels


def regions_of(labels: npt.NDArray[np.uint8], codes: list[int]) -> list[tuple[int, int, int, int]]:
    """First pixel, class, pixels and holes of each region, pixel by pixel."""
    found = []
    for code in codes:
        regions, count = ndimage.label(labels == code)
        for number in range(1, count + 1):
            inside = regions == number
            _, outside = ndimage.label(np.pad(~inside, 1, constant_values=True))
            found.append((int(np.flatnonzero(inside)[0]), code, int(inside.sum()), outside - 1))
    return sorted(found)


@TRANSFORMS
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=masks(), rows=st.integers(1, 40), classes=st.sampled_from([("all",), ("building",), ("tree", "water")]))
def test_each_pixel_and_each_hole_is_drawn_once(write_mask, transform, labels, rows, classes) -> None:
    config = VectorizeConfig(classes=classes, min_area_m2=0, min_hole_m2=0, tolerance_m=0, jobs=1)
    with open_class_mask(write_mask(labels, transform=transform)) as file:
        wanted = choose_classes(file.classes, config.classes, file.path)
        parts = list(draw_parts(file, wanted, config, band_rows=rows))
    codes = [entry.value for entry in wanted]
    expected = regions_of(labels, codes)
    assert bool(parts) == bool(expected)
    if not parts:
        return
    part = LayerPart.joined(parts)
    values = [CODES[name] for name in part.columns["class"]]
    pixel_m2 = abs(transform.determinant)
    holes = shapely.get_num_interior_rings(part.polygons).tolist()
    pixels = np.round(part.columns["area_m2"] / pixel_m2, 6).tolist()
    assert list(zip(part.firsts.tolist(), values, pixels, holes, strict=True)) == expected
    assert part.columns["area_m2"].sum() == pytest.approx(np.isin(labels, codes).sum() * pixel_m2)
    assert shapely.area(part.polygons) == pytest.approx(part.columns["area_m2"])
    assert shapely.is_valid(part.polygons).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(part.polygons)).all()
    pairs = zip(part.polygons, values, strict=True)
    back = rasterize(pairs, labels.shape, fill=255, transform=transform, dtype="uint8")
    np.testing.assert_array_equal(back, np.where(np.isin(labels, codes), labels, 255))


@pytest.fixture
def labels() -> npt.NDArray[np.uint8]:
    """A house with a court, one with nodata inside, a tree."""
    labels = np.zeros((80, 100), np.uint8)
    labels[5:29, 5:35] = 1
    labels[12:22, 12:22] = 0
    labels[40:70, 10:40] = 1
    labels[50:60, 20:30] = 255
    labels[45:60, 60:80] = 2
    return labels


OWN_CRS = pyproj.CRS.from_proj4(
    "+proj=tmerc +lat_0=48.3 +lon_0=11.77 +k=0.9999 +x_0=400000 +y_0=5000000 +ellps=GRS80 +units=m"
).to_wkt("WKT2_2019")
DEGREES = Affine(5e-6, 0, 85.52, 0, -5e-6, 27.63)


@pytest.mark.parametrize("extension", [".gpkg", ".parquet", ".fgb"])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", NORTH_UP),
        ("EPSG:4326", DEGREES),
        ("EPSG:3857", NORTH_UP),
        (OWN_CRS, NORTH_UP),
        ("EPSG:25832+5783", NORTH_UP),
        ("EPSG:31468", Affine(0.5, 0, 4_468_000, 0, -0.5, 5_333_000)),
        (None, NORTH_UP),
    ],
    ids=["EPSG", "degrees", "Web Mercator", "WKT2 of no authority", "with heights", "northing first", "none"],
)
@pytest.mark.filterwarnings("ignore:.*no CRS found")
def test_layers_stand_in_the_crs_of_the_mask(write_mask, tmp_path: Path, labels, crs, transform, extension) -> None:
    out = tmp_path / f"a{extension}"
    vectorize(write_mask(labels, crs=crs, transform=transform), out)
    layer = geopandas.read_parquet(out) if extension == ".parquet" else geopandas.read_file(out)
    assert layer.crs == (None if crs is None else pyproj.CRS(crs))
    left, top = transform @ (5, 5)
    right, bottom = transform @ (40, 70)
    assert layer.total_bounds == pytest.approx([left, bottom, right, top], abs=abs(transform.a) / 100)


@TRANSFORMS
@pytest.mark.parametrize("regularize", ["none", "fast", "full"])
def test_polygons_lie_where_their_pixels_lie(write_mask, tmp_path: Path, labels, transform, regularize) -> None:
    """A rotated or flipped grid mirrors nothing, with straight walls neither."""
    out = tmp_path / "a.gpkg"
    vectorize(write_mask(labels, transform=transform), out, VectorizeConfig(regularize=regularize, min_hole_m2=1))
    layer = geopandas.read_file(out)
    assert layer.is_valid.all()
    assert [len(shape.interiors) for shape in layer.geometry] == [1, 1]
    back = rasterize(layer.geometry, labels.shape, transform=transform, dtype="uint8")
    assert (back != (labels == 1)).mean() < 0.005
    assert set(layer["method"].dropna()) == ({"walls"} if regularize != "none" else set())
