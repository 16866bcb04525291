"""Masks made elsewhere against labels of every kind."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from ctrs.classes import BUILDING_CLASSES, ClassMap, LandClass
from ctrs.config import EvalConfig
from ctrs.errors import ConfigError, GridMismatchError, InputNotFoundError, LabelError, UnknownColorError
from ctrs.raster.cog import write_class_cog
from ctrs.raster.geotiff import Grid
from ctrs.training import scoring
from ctrs.training.mask_comparison import evaluate_masks

CRS_TOWN = CRS.from_epsg(32633)
TRANSFORM = Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
TOWN = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=2, name="tree", color=(0, 255, 0)),
    )
)


def write(path, pixels, *, transform=TRANSFORM, crs=CRS_TOWN, nodata=None):
    profile = {"driver": "GTiff", "count": len(pixels), "dtype": pixels.dtype, "crs": crs, "transform": transform}
    with rasterio.open(path, "w", **profile, height=pixels.shape[1], width=pixels.shape[2], nodata=nodata) as file:
        file.write(pixels)
    return path


@pytest.fixture
def masks():
    rng = np.random.default_rng(3)
    truth = np.kron(rng.integers(0, 3, (9, 11)), np.ones((10, 10))).astype(np.uint8)
    pred = np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, 3, truth.shape)).astype(np.uint8)
    truth[:5], pred[-5:] = 255, 255
    return truth, pred


@pytest.fixture
def pred_path(tmp_path, masks):
    grid = Grid(crs=CRS_TOWN, transform=TRANSFORM, width=110, height=90)
    return write_class_cog(tmp_path / "pred_mask.tif", [masks[1]], grid, TOWN)


def expected_counts(truth, pred, num_classes):
    counts = np.zeros((num_classes, num_classes + 1), int)
    for t, p in zip(truth.ravel().tolist(), pred.ravel().tolist(), strict=True):
        if t != 255:
            counts[t, num_classes if p == 255 else p] += 1
    return counts


def test_against_class_values_and_colours(tmp_path, masks, pred_path, monkeypatch):
    truth, pred = masks
    monkeypatch.setattr(scoring, "BLOCK_PX", 33)
    values = write(tmp_path / "truth.tif", truth[None], nodata=255)
    calls = []
    report = evaluate_masks(pred_path, values, progress=lambda *call: calls.append(call))
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(truth, pred, 3))
    assert calls[-1] == (12, 12, "scoring pred_mask")
    assert (report.split, report.path, report.data) == (None, None, values)
    assert report.summary().startswith("against truth.tif: mean IoU 0.")
    assert report.tables()[0].title.startswith("strict, all classes")

    full = np.where(truth == 255, 0, truth)
    colors = write(tmp_path / "colors.tif", TOWN.encode_colors(full))
    report = evaluate_masks(pred_path, colors)
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(full, pred, 3))


def test_a_mask_equals_itself(pred_path):
    report = evaluate_masks(pred_path, pred_path)
    assert report.mean_iou == report.headline.overall_accuracy == 1.0


def test_against_polygons_in_another_crs(tmp_path, masks, pred_path):
    _, pred = masks
    inside = np.zeros(pred.shape, np.uint8)
    inside[20:60, 30:70] = 1
    left, top = TRANSFORM @ (30, 20)
    right, bottom = TRANSFORM @ (70, 60)
    house = geopandas.GeoDataFrame(geometry=[shapely.box(left, bottom, right, top)], crs=32633)
    house.to_crs(4326).to_file(tmp_path / "truth.geojson")
    report = evaluate_masks(pred_path, tmp_path / "truth.geojson")
    binary = np.where(pred == 255, 255, pred == 1)
    assert report.classes == BUILDING_CLASSES
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(inside, binary, 2))

    house.assign(kind="tree").to_file(tmp_path / "kinds.gpkg")
    report = evaluate_masks(pred_path, tmp_path / "kinds.gpkg", EvalConfig(class_field="kind"))
    labelled = np.where(inside == 1, 2, 255)  # no class background: ground without polygons is not scored
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(labelled, pred, 3))

    house.assign(kind="lake").to_file(tmp_path / "lakes.gpkg")
    with pytest.raises(UnknownColorError, match="unknown label value 'lake' in 1 polygons"):
        evaluate_masks(pred_path, tmp_path / "lakes.gpkg", EvalConfig(class_field="kind"))


def test_masks_of_other_programs_need_a_class_table(tmp_path, masks):
    truth, pred = masks
    foreign = write(tmp_path / "foreign.tif", np.where(pred == 255, 0, pred * 10 + 10).astype(np.uint8)[None], nodata=0)
    label = write(tmp_path / "truth.tif", np.where(truth == 255, 0, truth * 10 + 10).astype(np.uint8)[None], nodata=0)
    with pytest.raises(LabelError, match=r"foreign\.tif: no tag CTRS_CLASSES found"):
        evaluate_masks(foreign, label)
    table = tmp_path / "classes.toml"
    table.write_text(
        "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\nscored = {v < 30!s}\n'.lower() for v in (10, 20, 30))
    )
    report = evaluate_masks(foreign, label, EvalConfig(classes=table))
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(truth, pred, 3))
    assert report.headline.name == "strict, without c30"
    table.write_text('[[class]]\nname = "roof"\nvalue = 10\n')
    with pytest.raises(UnknownColorError, match=r"(foreign|truth)\.tif: unknown label value"):
        evaluate_masks(foreign, label, EvalConfig(classes=table))
    outlines = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=32633)
    outlines.to_file(tmp_path / "outlines.gpkg")
    with pytest.raises(ConfigError, match="class 'building' is unknown; expected one of: roof"):
        evaluate_masks(foreign, tmp_path / "outlines.gpkg", EvalConfig(classes=table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": TRANSFORM @ Affine.translation(3, 0)}, "corners up to 3 pixels apart"),
        ({"crs": CRS.from_epsg(32632)}, "CRS EPSG:32633 instead of EPSG:32632"),
    ],
)
def test_other_grids_are_refused(tmp_path, masks, pred_path, change, message):
    truth = write(tmp_path / "truth.tif", masks[0][None], nodata=255, **change)
    with pytest.raises(GridMismatchError, match=message):
        evaluate_masks(pred_path, truth)


def test_other_sizes_and_missing_files_are_refused(tmp_path, masks, pred_path):
    truth = write(tmp_path / "truth.tif", masks[0][None, 1:], nodata=255)
    with pytest.raises(GridMismatchError, match=r"the truth .*truth\.tif: size 110 x 90 instead of 110 x 89"):
        evaluate_masks(pred_path, truth)
    with pytest.raises(InputNotFoundError, match=r"none\.tif: not found"):
        evaluate_masks(pred_path, tmp_path / "none.tif")
    with pytest.raises(InputNotFoundError, match=r"none\.tif: not found"):
        evaluate_masks(tmp_path / "none.tif", truth)
    with pytest.raises(InputNotFoundError, match=r"none\.gpkg: not found"):
        evaluate_masks(pred_path, tmp_path / "none.gpkg")
