"""Masks made elsewhere against labels of every kind."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import reproject, transform_bounds

from ctrs.classes import BUILDING_CLASSES, ClassMap, LandClass
from ctrs.cli import app as program
from ctrs.config import EvalConfig
from ctrs.errors import (
    ConfigError,
    GridMismatchError,
    InputNotFoundError,
    LabelError,
    LabelWarning,
    MissingCrsWarning,
    OutputExistsError,
    UnknownColorError,
    UsageError,
)
from ctrs.evaluation import scoring
from ctrs.evaluation.mask_comparison import evaluate_masks
from ctrs.evaluation.score_report import read_report
from ctrs.metrics import erode_labels
from ctrs.raster.cog import RowBands, write_class_cog
from ctrs.raster.confidence import confidence_path, to_steps, write_confidence_cog
from ctrs.raster.geotiff import Grid

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


def test_a_report_on_masks_has_a_page_and_an_error_map(tmp_path, masks, pred_path):
    truth, pred = masks
    values = write(tmp_path / "truth.tif", truth[None], nodata=255)
    report = evaluate_masks(pred_path, values, EvalConfig(num_places=2), out=tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{report.mean_iou:.3f}" in page
    assert "W1" in page
    with rasterio.open(tmp_path / "report" / "errors" / "pred_mask_errors.tif") as dataset:
        found = dataset.read(1)
    np.testing.assert_array_equal(found, np.where(truth == 255, 255, np.where(truth == pred, 0, truth + 1)))
    evaluate_masks(pred_path, values, EvalConfig(pixels_only=True), out=tmp_path / "pixels")
    assert not (tmp_path / "pixels" / "errors").exists()


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
    with pytest.raises(LabelError, match=r"foreign\.tif: no tag CTRS_CLASSES found.*--classes FILE"):
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
    outlines = geopandas.GeoDataFrame(geometry=[shapely.box(400_001, 5_799_990, 400_009, 5_799_999)], crs=32633)
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


def resampled(tmp_path, pred, *, transform, crs=CRS_TOWN, name="moved_mask.tif"):
    grid = Grid(crs=crs, transform=transform, width=pred.shape[1], height=pred.shape[0])
    return write_class_cog(tmp_path / name, [pred], grid, TOWN)


def test_a_mask_on_another_grid_is_resampled_on_request_only(tmp_path, masks, caplog):
    truth, pred = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    # Pixels of half the size, and one row and two columns of the truth beyond the mask.
    fine = np.kron(pred[1:, 2:], np.ones((2, 2), np.uint8))
    moved = resampled(tmp_path, fine, transform=TRANSFORM @ Affine.translation(2, 1) @ Affine.scale(0.5))
    both = r"mask 216 x 178 px in EPSG:32633, origin 400001, .*truth 110 x 90 px in EPSG:32633, origin 400000, "
    with pytest.raises(GridMismatchError, match=rf"moved_mask\.tif: does not lie on the grid .*{both}.*--resample"):
        evaluate_masks(moved, label)
    caplog.set_level("INFO", "ctrs")
    report = evaluate_masks(moved, label, EvalConfig(resample=True), out=tmp_path / "scores")
    expected = pred.copy()
    expected[:1], expected[:, :2] = 255, 255
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(truth, expected, 3))
    note = report.scenes[0].notes[0]
    assert note.startswith("mask resampled (nearest) from 216 x 178 px in EPSG:32633, origin 400001")
    assert note.endswith("of which it covers 96.9%")  # at 65 x 65 places; 97.1 % of the pixels
    assert note in caplog.text
    assert read_report(tmp_path / "scores" / "report.json").scenes[0].notes == (note,)
    assert json.loads((tmp_path / "scores" / "report.json").read_text())["scenes"][0]["notes"] == [note]


def test_a_mask_in_another_crs_is_resampled_on_request_only(tmp_path, masks):
    truth, _ = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    other = CRS.from_epsg(3857)
    left, bottom, right, top = transform_bounds(CRS_TOWN, other, 400_000 - 20, 5_800_000 - 65, 400_000 + 75, 5_800_020)
    grid = Affine((right - left) / 400, 0, left, 0, (bottom - top) / 300, top)
    known = np.where(truth == 255, 0, truth).astype(np.uint8)
    pixels = np.zeros((300, 400), np.uint8)
    reproject(
        known, pixels, src_transform=TRANSFORM, src_crs=CRS_TOWN, dst_transform=grid, dst_crs=other, dst_nodata=255,
        init_dest_nodata=True,
    )  # fmt: skip
    mask = resampled(tmp_path, pixels, transform=grid, crs=other)
    with pytest.raises(GridMismatchError, match=r"CRS EPSG:3857 instead of EPSG:32633"):
        evaluate_masks(mask, label)
    report = evaluate_masks(mask, label, EvalConfig(resample=True))
    assert report.confusions["strict"].total == (truth != 255).sum()
    assert report.headline.overall_accuracy > 0.9  # what nearest twice loses at the borders of squares
    assert "in EPSG:3857" in report.scenes[0].notes[0]


def test_masks_that_cannot_be_brought_onto_the_truth_are_refused(tmp_path, masks):
    truth, pred = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    away = resampled(tmp_path, pred, transform=TRANSFORM @ Affine.translation(5000, 0))
    with pytest.raises(GridMismatchError, match=r"moved_mask\.tif: lies elsewhere than the truth"):
        evaluate_masks(away, label, EvalConfig(resample=True))
    plain = resampled(tmp_path, pred[1:], transform=Affine.identity(), crs=None, name="plain_mask.tif")
    with pytest.raises(GridMismatchError, match=r"plain_mask\.tif: cannot be brought onto .* has no georeference"):
        evaluate_masks(plain, label, EvalConfig(resample=True))


def test_the_report_of_masks_stands_in_its_folder(tmp_path, masks, pred_path, monkeypatch):
    label = write(tmp_path / "truth.tif", masks[0][None], nodata=255)
    out = tmp_path / "scores"
    report = evaluate_masks(pred_path, label, out=out)
    assert report.path == out / "report.json"
    assert {"report.json", "scores.csv", "confusion.csv", "confusion.png"} <= {path.name for path in out.iterdir()}
    assert report.area is not None
    assert report.calibration is None
    assert list(report.objects) == ["building"]
    with monkeypatch.context() as patch:
        patch.setattr("ctrs.evaluation.mask_comparison.score_scene", lambda *a, **k: pytest.fail("scored again"))
        assert evaluate_masks(pred_path, label, out=out).to_json() == report.to_json()
    # Limits are no part of the result.
    evaluate_masks(pred_path, label, EvalConfig(fail_under=(("building", 0.5),)), out=out)
    with pytest.raises(OutputExistsError, match="scores: exists and is the result of other inputs or options"):
        evaluate_masks(pred_path, label, EvalConfig(boundary_px=2), out=out)
    with pytest.raises(ConfigError, match="score 'roof' is unknown"):
        evaluate_masks(pred_path, label, EvalConfig(fail_under=(("roof", 0.5),)))
    # What cannot be scored leaves nothing behind.
    strange = write(tmp_path / "strange.tif", masks[0][None] + np.uint8(3), nodata=2)
    with pytest.raises(UnknownColorError, match="unknown label value"):
        evaluate_masks(pred_path, strange, EvalConfig(boundary_px=2), out=tmp_path / "strange")
    assert not list(tmp_path.glob(".strange*"))


def test_several_masks_are_scenes(tmp_path, masks, pred_path):
    truth, pred = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    other = resampled(tmp_path, np.roll(pred, 3, axis=1), transform=TRANSFORM, name="other_mask.tif")
    report = evaluate_masks([pred_path, other], [label, label])
    assert [scene.name for scene in report.scenes] == ["pred_mask", "other_mask"]
    low, high = report.intervals.bounds["mean_iou"]
    assert low < report.mean_iou < high
    with pytest.raises(UsageError, match="2 masks and 1 truths found, expected one truth for each mask"):
        evaluate_masks([pred_path, other], label)


def test_labels_are_eroded_on_request(tmp_path, masks, pred_path):
    truth, pred = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    report = evaluate_masks(pred_path, label, EvalConfig(eroded=True))
    assert report.labels == ("strict", "isprs (eroded here)")
    counts = report.confusions["isprs (eroded here)"].counts
    np.testing.assert_array_equal(counts, expected_counts(erode_labels(truth), pred, 3))
    assert 0 < counts.sum() < report.confusions["strict"].total


def test_the_confidence_beside_a_mask_is_taken_if_it_is_of_the_same_job(tmp_path, masks):
    truth, pred = masks
    label = write(tmp_path / "truth.tif", truth[None], nodata=255)
    grid = Grid(crs=CRS_TOWN, transform=TRANSFORM, width=110, height=90)
    mask = write_class_cog(tmp_path / "town_mask.tif", [pred], grid, TOWN, {"CTRS_JOB": "a"})
    for job, kind, known in (("a", "probability", True), ("b", "probability", False), ("a", "margin", False)):
        bands = RowBands(tmp_path / f"rows_{job}_{kind}", 110)
        bands.append(to_steps(np.full(pred.shape, 0.75), pred != 255))
        write_confidence_cog(confidence_path(mask), bands, grid, {"CTRS_JOB": job}, kind=kind)
        report = evaluate_masks(mask, label)
        assert (report.calibration is not None) == known
        if report.calibration is not None:
            counted = (truth != 255) & (pred != 255)
            expected = abs((truth == pred)[counted].mean() - 0.75)
            assert report.calibration.ece == pytest.approx(expected, abs=1e-4)


def test_the_command_scores_masks(tmp_path, masks, pred_path, capsys):
    truth, _ = masks
    label = write(tmp_path / "truth.tif", truth[None, 1:], nodata=255, transform=TRANSFORM @ Affine.translation(0, 1))
    call = ["eval", "--pred", str(pred_path), "--truth", str(label)]
    assert program.main(call) == 1
    assert "pass --resample" in capsys.readouterr().err
    assert program.main([*call, "--resample", "--fail-under", "building=0.99", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out, err
    document = json.loads(out)
    assert document["path"] == str(tmp_path / "eval" / "pred_mask" / "report.json")
    assert "pred_mask: mask resampled (nearest)" in err
    assert "error: pred_mask: building iou (strict, all classes) is 0." in err


def test_a_class_table_says_what_is_scored_and_the_mask_what_its_pixels_mean(tmp_path, masks, pred_path):
    truth, pred = masks
    table = tmp_path / "classes.toml"
    rows = [("ground", 10, "true"), ("building", 20, "true"), ("tree", 30, "false")]
    text = '[[class]]\nname = "{}"\nvalue = {}\nscored = {}\n'
    table.write_text("".join(text.format(*row) for row in rows))
    values = np.where(truth == 255, 0, truth * 10 + 10).astype(np.uint8)
    label = write(tmp_path / "truth.tif", values[None], nodata=0)
    report = evaluate_masks(pred_path, label, EvalConfig(classes=table))
    np.testing.assert_array_equal(report.confusions["strict"].counts, expected_counts(truth, pred, 3))
    assert report.headline.name == "strict, without tree"
    table.write_text(text.format("ground", 10, "true") + text.format("roof", 20, "true"))
    with pytest.raises(LabelError, match=r"names the classes ground, building, tree, but .* has ground, roof"):
        evaluate_masks(pred_path, label, EvalConfig(classes=table))


def house_file(path, left, *, crs=32633):
    box = shapely.box(left, 5_799_980, left + 10, 5_799_990)
    geopandas.GeoDataFrame(geometry=[box], crs=crs).to_file(path)
    return path


def test_polygons_elsewhere_are_refused(tmp_path, pred_path):
    away = house_file(tmp_path / "away.gpkg", 500_000)
    with pytest.raises(GridMismatchError, match=r"no polygon of .*away\.gpkg \(1 in all\) touches the mask .*500010"):
        evaluate_masks(pred_path, away)


def test_ground_between_polygons_is_scored_with_a_warning(tmp_path, pred_path):
    around = tmp_path / "around.gpkg"
    boxes = [shapely.box(left, 5_799_980, left + 10, 5_799_990) for left in (399_000, 401_000)]
    geopandas.GeoDataFrame(geometry=boxes, crs=32633).to_file(around)
    with pytest.warns(LabelWarning, match=r"none of the 2 polygons of .*around\.gpkg touches the mask"):
        report = evaluate_masks(pred_path, around)
    assert report.confusions["strict"].support[1] == 0


def test_a_mask_without_crs_is_not_laid_under_polygons_with_one(tmp_path, masks):
    plain = resampled(tmp_path, masks[1], transform=TRANSFORM, crs=None)
    houses = house_file(tmp_path / "houses.gpkg", 400_010)
    with pytest.raises(GridMismatchError, match=r"has no CRS, but .* are in EPSG:32633; .*gdal_edit\.py -a_srs EPSG:"):
        evaluate_masks(plain, houses)


def test_255_that_nothing_declares_is_no_nodata(tmp_path, masks):
    pixels = np.where(masks[1] == 1, 255, 0).astype(np.uint8)
    foreign = write(tmp_path / "foreign.tif", pixels[None])
    houses = house_file(tmp_path / "houses.gpkg", 400_010)
    table = tmp_path / "classes.toml"
    text = '[[class]]\nname = "ground"\nvalue = 0\n[[class]]\nname = "building"\nvalue = {}\n'
    table.write_text(text.format(1))
    number = int((pixels == 255).sum())
    with pytest.raises(UnknownColorError, match=rf"value 255 in {number} px .*-a_nodata 255, or pass --classes"):
        evaluate_masks(foreign, houses, EvalConfig(classes=table))
    table.write_text(text.format(255))
    report = evaluate_masks(foreign, houses, EvalConfig(classes=table))
    assert report.confusions["strict"].counts[:, 1].sum() == number


def test_a_pair_given_twice_is_refused(tmp_path, masks, pred_path):
    label = write(tmp_path / "truth.tif", masks[0][None], nodata=255)
    with pytest.raises(UsageError, match=r"pred_mask\.tif: given twice with the truth .*truth\.tif"):
        evaluate_masks([pred_path, pred_path], [label, label])


def test_rasters_without_crs_are_scored_in_pixels_with_a_warning(tmp_path, masks):
    plain = resampled(tmp_path, masks[1], transform=TRANSFORM, crs=None)
    label = write(tmp_path / "truth.tif", masks[0][None], nodata=255, crs=None)
    with pytest.warns(MissingCrsWarning, match=r"moved_mask\.tif: no CRS found; scored in pixels, without areas"):
        report = evaluate_masks(plain, label)
    assert report.area is None


def test_a_truth_without_any_scored_pixel_is_warned_of(tmp_path, masks, pred_path):
    label = write(tmp_path / "truth.tif", np.full_like(masks[0], 255)[None], nodata=255)
    with pytest.warns(LabelWarning, match=r"truth\.tif: no pixel of it is scored"):
        evaluate_masks(pred_path, label, out=tmp_path / "report")
