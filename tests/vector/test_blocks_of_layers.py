"""Blocks leave no trace, continued: probabilities beside the mask, numbered buildings, threads and straight walls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from scipy.ndimage import gaussian_filter

from ctrs.config import VectorizeConfig
from ctrs.vector import vectorize
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.class_mask import open_class_mask
from ctrs.vector.regions.instances import open_instance_mask
from ctrs.vector.regions.probabilities import open_probabilities
from ctrs.vector.vectorize import choose_classes, draw_parts

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
NAMES = ("background", "building", "tree", "water")


def houses(seed: int = 0) -> npt.NDArray[np.float64]:
    """Probability of building: houses with wobbling edges far enough apart for blocks of their own, some fused."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((300, 120))
    for row in range(8, 280, 46):
        truth[row : row + 26, 10:44] = truth[row + 3 : row + 24, 47:80] = 1
        truth[row + 10 : row + 14, 44:47] = 1
        truth[row + 5 : row + 20, 92:112] = 1
    noise = gaussian_filter(rng.normal(size=truth.shape), 1.5)
    return np.clip(gaussian_filter(truth, 1.0) + 0.15 * noise / noise.std(), 0.02, 0.98)


def write_probabilities(mask: Path, building: npt.NDArray[np.float64]) -> Path:
    path = mask.with_name("scene_probabilities.tif")
    bands = np.round(np.stack([1 - building, building, 0 * building, 0 * building]) * 254).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=bands.shape[1], width=bands.shape[2], dtype="uint8", nodata=255,
        crs="EPSG:32633", transform=UTM,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
        dataset.descriptions = NAMES
        dataset.update_tags(CTRS_PROBABILITIES="uint8")
    return path


def assert_same(found: LayerPart, whole: LayerPart) -> None:
    assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(whole.polygons).tolist()
    assert list(found.columns) == list(whole.columns)
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(found.columns[name], values, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [{}, {"regularize": "full"}, {"split": "probability"}, {"split": "probability", "regularize": "full"},
     {"classes": ("all",), "regularize": "full"}],
    ids=["outlines", "straight", "split", "split and straight", "all classes"],
)  # fmt: skip
def test_rows_leave_no_trace_in_what_probabilities_tell(write_mask, options) -> None:
    building = houses()
    mask = write_mask((building > 0.5).astype(np.uint8))
    config = VectorizeConfig(jobs=1, **options)
    with open_class_mask(mask) as file:
        probabilities = open_probabilities(
            write_probabilities(mask, building), mask, file.grid, file.classes, named=True
        )
        wanted = choose_classes(file.classes, config.classes, mask)
        whole, *cut = [
            LayerPart.joined(list(draw_parts(file, wanted, config, probabilities=probabilities, band_rows=rows)))
            for rows in (300, 7, 64)
        ]
    assert len(whole) >= 12
    assert np.isfinite(whole.columns["confidence"].astype(float)).all()
    for found in cut:
        assert_same(found, whole)


@pytest.mark.parametrize("regularize", ["none", "full"])
def test_rows_leave_no_trace_in_numbered_buildings(tmp_path: Path, regularize) -> None:
    rng = np.random.default_rng(1)
    numbers = np.zeros((300, 120), np.uint16)
    for place, row in enumerate(range(8, 280, 46)):
        for house in range(4):
            left = 10 + 22 * house
            numbers[row + house : row + 26, left : left + 22] = 500 * place + house + 1
    numbers[rng.random(numbers.shape) < 0.01] = 0
    mask = tmp_path / "numbers.tif"
    with rasterio.open(
        mask, "w", driver="GTiff", count=1, height=300, width=120, dtype="uint16", crs="EPSG:32633", transform=UTM
    ) as dataset:
        dataset.write(numbers, 1)
    config = VectorizeConfig(jobs=1, instances=True, regularize=regularize)
    with open_instance_mask(mask) as file:
        wanted = choose_classes(file.classes, config.classes, mask)
        whole, *cut = [
            LayerPart.joined(list(draw_parts(file, wanted, config, band_rows=rows))) for rows in (300, 7, 64)
        ]
    assert whole.columns["instance"].tolist() == sorted(set(numbers[numbers > 0].tolist()))
    for found in cut:
        assert_same(found, whole)


@pytest.mark.parametrize("options", [{}, {"classes": ("all",)}, {"split": "watershed"}])
def test_threads_leave_no_trace_in_straight_walls(write_mask, tmp_path: Path, options) -> None:
    mask = write_mask((houses(2) > 0.5).astype(np.uint8))
    layers = []
    for jobs in (1, 2, 5):
        out = tmp_path / str(jobs) / "a.parquet"
        vectorize(mask, out, VectorizeConfig(regularize="full", jobs=jobs, **options))
        layers.append(out.read_bytes())
    assert layers[0] == layers[1] == layers[2]
