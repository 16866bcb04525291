"""Evaluation: what predict would write, counted pixel by pixel, reported once and for all."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from ctrs.classes import ClassMap
from ctrs.config import EvalConfig
from ctrs.errors import BandMismatchError, DataError, DataWarning, InputNotFoundError, OutputExistsError
from ctrs.evaluation import split_scoring
from ctrs.evaluation.evaluation import choose_split, evaluate
from ctrs.evaluation.score_report import read_report
from ctrs.inference import scene_map
from ctrs.inference.predictor import Predictor
from ctrs.jobs import partial_dir
from ctrs.metrics import CalibrationCounts, erode_labels, scored_blocks
from ctrs.model_files import run_home
from ctrs.raster.bands import Bands
from ctrs.raster.confidence import confidence_path
from ctrs.tiles.manifest import Manifest, SceneMosaic
from tests.evaluation.scored_ground import BANDS, CPU, SIZES, make_checkpoint, make_run, prepare


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Prepared data and a run, made once; tests copy the run."""
    base = tmp_path_factory.mktemp("ground")
    (base / "prepared").mkdir()
    prepare(base / "prepared" / "town")
    make_run(base / "runs" / "first")
    return base


@pytest.fixture(scope="module")
def finished(ground, tmp_path_factory):
    """A run whose test split was scored; only to be read."""
    run = shutil.copytree(ground / "runs" / "first", tmp_path_factory.mktemp("finished") / "run")
    return evaluate(run, ground / "prepared" / "town", EvalConfig(predict=CPU))


@pytest.fixture
def data(ground):
    return ground / "prepared" / "town"


@pytest.fixture
def run(ground, tmp_path):
    return shutil.copytree(ground / "runs" / "first", tmp_path / "run")


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def naive_confusion(truth, pred):
    counts = np.zeros((3, 4), int)
    for t, p in zip(truth.ravel().tolist(), pred.ravel().tolist(), strict=True):
        if t != 255:
            counts[t, 3 if p == 255 else p] += 1
    return counts


def test_scores_are_those_of_the_masks_that_predict_writes(ground, data, run, tmp_path):
    calls = []
    report = evaluate(run, data, EvalConfig(predict=CPU), progress=lambda *call: calls.append(call))
    assert (report.split, report.reason, report.test_openings) == ("test", "the data have one", 1)
    folder = run / "eval" / "test"
    assert report.path == folder / "report.json"
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.csv", "confusion.png", "confusion_isprs.csv", "errors", "masks", "report.html", "report.json",
        "scores.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in (run / "eval").iterdir()) == ["test"]
    assert calls[-1] == (2, 2, "scoring scenes")

    predictor = Predictor.from_checkpoint(run, device="cpu")
    totals = {"strict": np.zeros((3, 4), int), "isprs": np.zeros((3, 4), int)}
    for scene in report.scenes:
        source = ground / "prepared" / "source" / f"{scene.name}.tif"
        mask = predictor.predict_raster(source, tmp_path / f"{scene.name}_mask.tif", CPU)
        ours, theirs = folder / scene.mask, mask
        np.testing.assert_array_equal(read(ours), read(theirs))
        with rasterio.open(ours) as first, rasterio.open(theirs) as second:
            assert (first.crs, first.transform, first.nodata) == (second.crs, second.transform, second.nodata)
        pred = read(mask)
        assert len(np.unique(pred)) > 2, "the network predicts one class only: the test shows little"
        truth = read(source.with_name(f"{scene.name}_label.tif"))
        border = (ndimage.maximum_filter(truth, 5) != truth) | (ndimage.minimum_filter(truth, 5) != truth)
        expected = {
            "strict": naive_confusion(truth, pred),
            "isprs": naive_confusion(np.where(border, 255, truth), pred),
        }
        for kind, counts in expected.items():
            np.testing.assert_array_equal(scene.confusions[kind].counts, counts)
            totals[kind] += counts
    for kind, counts in totals.items():
        np.testing.assert_array_equal(report.confusions[kind].counts, counts)
    assert totals["isprs"].sum() < 0.9 * totals["strict"].sum()

    head = report.headline
    scored = totals["strict"][:2]  # pixels whose truth is not clutter
    iou = [scored[k, k] / (scored[k].sum() + scored[:, k].sum() - scored[k, k]) for k in (0, 1)]
    assert head.name == "strict, without clutter"
    assert head.mean_iou == pytest.approx(np.mean(iou), abs=1e-12)
    assert head.overall_accuracy == pytest.approx((scored[0, 0] + scored[1, 1]) / scored.sum(), abs=1e-12)
    assert report.mean_iou == head.mean_iou


def test_only_the_ground_of_the_split_is_scored(ground, data, run):
    report = evaluate(run, data, EvalConfig(split="val", predict=CPU))
    truth = read(ground / "prepared" / "source" / "area_label.tif")
    assert [scene.name for scene in report.scenes] == ["area"]
    # Validation tiles begin at column 128 or, shifted inwards, cover 96 rows.
    assert report.confusions["strict"].total == (truth[:, 128:] != 255).sum()
    mask = read(run / "eval" / "val" / report.scenes[0].mask)
    assert mask.shape == SIZES["area"]
    assert (mask[:, :128] == 255).all()
    assert (mask[:, 128:] != 255).all()
    assert report.test_openings is None
    assert not (run / "test_openings.json").exists()


def test_a_finished_report_is_read_not_made_again(data, run, monkeypatch):
    first = evaluate(run, data, EvalConfig(predict=CPU))
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *a, **k: pytest.fail("the network was loaded"))
    again = evaluate(run / "best", data, EvalConfig(predict=CPU))
    assert again.to_json() == first.to_json() | {"data": str(data)}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    other = (
        r"eval/test: holds the report of other weights, data or options \(checkpoint .*best, data .*town\); pass --ov"
    )
    with pytest.raises(OutputExistsError, match=other):
        evaluate(run, data, EvalConfig(predict=replace(CPU, overlap=0.5)))
    first.path.unlink()
    with pytest.raises(OutputExistsError, match=r"eval/test: exists and holds no report .* pass --overwrite"):
        evaluate(run, data, EvalConfig(predict=CPU))


def test_openings_of_test_are_counted(data, run, caplog):
    caplog.set_level("INFO", "ctrs")
    first = evaluate(run, data, EvalConfig(predict=CPU))
    assert "opened it never before" in caplog.text
    other = EvalConfig(predict=replace(CPU, overlap=0.5), overwrite=True)
    second = evaluate(run, data, other)
    assert "opened it once before" in caplog.text
    assert (first.test_openings, second.test_openings) == (1, 2)
    assert evaluate(run, data, replace(other, overwrite=False)).test_openings == 2
    rows = json.loads((run / "test_openings.json").read_text())["openings"]
    assert [row["data"] for row in rows] == [str(data)] * 2
    assert "opening 2 of the test split" in second.summary()
    (run / "test_openings.json").write_text("[]")
    with pytest.raises(DataError, match=r"test_openings\.json: not readable as the record of test openings"):
        evaluate(run, data, replace(EvalConfig(predict=CPU), overwrite=True))


def test_the_page_and_the_error_maps_are_those_of_the_masks(ground, finished):
    folder = finished.path.parent
    page = (folder / "report.html").read_text()
    assert f"{finished.mean_iou:.3f}" in page
    assert finished.weights in page
    assert read_report(finished.path).weights == finished.weights
    assert page.count("data:image/jpeg") > 2, "no places, or places without imagery"
    for scene in finished.scenes:
        truth = read(ground / "prepared" / "source" / f"{scene.name}_label.tif")
        wrong = np.where(truth == read(folder / scene.mask), 0, truth + 1)
        np.testing.assert_array_equal(
            read(folder / "errors" / f"{scene.name}_errors.tif"), np.where(truth == 255, 255, wrong)
        )
        assert (folder / "errors" / f"{scene.name}_errors.tif.aux.xml").is_file()
    assert not list(folder.rglob("*.rows")), "scratch files are left"


def test_pixels_only_draws_no_places(data, run):
    report = evaluate(run, data, EvalConfig(predict=CPU, pixels_only=True))
    folder = report.path.parent
    assert not (folder / "errors").exists()
    page = (folder / "report.html").read_text()
    assert f"{report.mean_iou:.3f}" in page
    assert 'id="worst"' not in page


def test_the_largest_scene_is_mapped_first_and_scores_keep_the_order_of_the_scenes(data, tmp_path, monkeypatch):
    mapped, told = [], []
    monkeypatch.setattr(
        split_scoring.SplitScoring, "_predict", lambda _self, _network, mosaic, _progress: mapped.append(mosaic)
    )
    monkeypatch.setattr(split_scoring.SplitScoring, "_score", lambda _self, mosaic, _mask: mosaic.scene.name)
    scene = Manifest.open(data).scenes[0]
    sizes = {"small": (30, 20), "tall": (90, 10), "large": (40, 40)}
    mosaics = [
        SceneMosaic(scene=replace(scene, name=name, height=rows, width=cols), image=data, mask=data, mask_eroded=None)
        for name, (rows, cols) in sizes.items()
    ]
    scoring = split_scoring.SplitScoring(
        manifest=Manifest.open(data), config=EvalConfig(), scores=tmp_path / "s", masks=tmp_path / "m",
        errors=tmp_path / "e",
    )  # fmt: skip
    names = scoring.run(None, mosaics, lambda done, total, what: told.append((done, total, what)))
    assert [mosaic.scene.name for mosaic in mapped] == ["large", "tall", "small"]
    assert names == ("small", "tall", "large")
    assert told == [(number, 3, split_scoring.SCENES) for number in (1, 2, 3)]


def test_interrupted_work_is_gone_on_with(data, run, monkeypatch):
    whole = evaluate(run, data, EvalConfig(predict=CPU)).to_json()
    page = (run / "eval" / "test" / "report.html").read_bytes()
    shutil.rmtree(run / "eval")
    (run / "test_openings.json").unlink()
    count, scored = split_scoring.score_scene, []

    def interrupt(masks, *args, **options):
        if masks.name == "t2":
            raise KeyboardInterrupt
        scored.append(masks.name)
        return count(masks, *args, **options)

    monkeypatch.setattr(split_scoring, "score_scene", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        evaluate(run, data, EvalConfig(predict=CPU))
    assert str(run / "eval" / ".test.partial") in caught.value.__notes__[-1]
    assert not (run / "eval" / "test").exists()
    monkeypatch.undo()
    with pytest.raises(OutputExistsError, match=r"\.test\.partial: holds unfinished work"):
        evaluate(run, data, EvalConfig(predict=replace(CPU, overlap=0.5)))
    mapped = []
    monkeypatch.setattr(scene_map, "_map_block", lambda *a, **k: mapped.append(1))
    monkeypatch.setattr(split_scoring, "score_scene", lambda *a, **k: (scored.append(a[0].name), count(*a, **k))[1])
    again = evaluate(run, data, EvalConfig(predict=CPU)).to_json()
    assert not mapped, "scenes that were mapped before the stop are mapped again"
    assert scored == ["t1", "t2"], "scenes that were scored before the stop are scored again"
    assert again["test_openings"] == 1
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert (run / "eval" / "test" / "report.html").read_bytes() == page
    assert [path.name for path in (run / "eval").iterdir()] == ["test"]


def test_a_report_that_a_kill_left_aside_is_put_back(data, run, monkeypatch):
    first = evaluate(run, data, EvalConfig(predict=CPU))
    final = run / "eval" / "test"
    partial_dir(final).mkdir()
    final.rename(partial_dir(final) / "replaced")
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *a, **k: pytest.fail("the network was loaded"))
    assert evaluate(run, data, EvalConfig(predict=CPU)).to_json() == first.to_json()
    assert [path.name for path in (run / "eval").iterdir()] == ["test"]


def test_a_checkpoint_of_no_run_keeps_its_own_report(ground, data, tmp_path):
    folder = shutil.copytree(ground / "runs" / "first" / "best", tmp_path / "roofs")
    report = evaluate(folder / "model.safetensors", data, EvalConfig(predict=CPU))
    assert report.path == folder / "eval" / "test" / "report.json"
    assert (folder / "test_openings.json").exists()


def test_run_home(tmp_path, monkeypatch):
    run = tmp_path / "run"
    for name in ("best", "last", "export"):
        (run / name).mkdir(parents=True)
    assert run_home(run / "best") == run / "best"
    (run / "config.toml").touch()
    assert run_home(run / "best") == run_home(run / "last") == run
    assert run_home(run / "export") == run / "export"
    monkeypatch.chdir(run / "best")
    assert run_home(run.__class__()) == run


def test_splits(ground, tmp_path):
    manifest = Manifest.open(ground / "prepared" / "town")
    assert choose_split(manifest, None)[0] == "test"
    assert choose_split(manifest, "train") == ("train", "as asked for")
    without_test = replace(manifest, tiles=manifest.split("train") + manifest.split("val"))
    assert choose_split(without_test, None) == ("val", "the data have no test split")
    with pytest.raises(DataError, match=r"town: no split 'test' found, it has train and val; choose one of them"):
        choose_split(without_test, "test")
    with pytest.raises(DataError, match=r"town: neither test nor val split found, it has train; prepare"):
        choose_split(replace(manifest, tiles=manifest.split("train")), None)


def test_data_that_do_not_fit_are_refused(data, tmp_path):
    other = ClassMap.from_json([{"name": "ground"}, {"name": "roof"}, {"name": "clutter"}])
    checkpoint = make_checkpoint(tmp_path / "a", classes=other)
    with pytest.raises(
        DataError, match=r"town: classes ground, building, clutter found, but .*a knows ground, roof, cl"
    ):
        evaluate(checkpoint, data, EvalConfig(predict=CPU))
    two = Bands(names=("red", "green"), dtype="uint8", low=(0, 0), high=(9, 9), mean=(1, 1), std=(1, 1))
    checkpoint = make_checkpoint(tmp_path / "b", bands=two)
    with pytest.raises(
        BandMismatchError, match=r"3 bands of uint8 \(red, green, blue\) found, .* takes 2 of uint8 \(red"
    ):
        evaluate(checkpoint, data, EvalConfig(predict=CPU))
    checkpoint = make_checkpoint(tmp_path / "c", bands=replace(BANDS, dtype="uint16"))
    with pytest.raises(BandMismatchError, match=r"3 bands of uint8 .* takes 3 of uint16"):
        evaluate(checkpoint, data, EvalConfig(predict=CPU))
    checkpoint = make_checkpoint(tmp_path / "d", bands=replace(BANDS, names=("nir", "red", "green")))
    with pytest.warns(DataWarning, match="bands red, green, blue found, .* learnt nir, red, green"):
        evaluate(checkpoint, data, EvalConfig(split="val", predict=CPU))
    with pytest.raises(InputNotFoundError, match="no such run or checkpoint"):
        evaluate(tmp_path / "none", data)
    with pytest.raises(InputNotFoundError, match="run `ctrs prepare SOURCE` first"):
        evaluate(checkpoint, tmp_path / "none")


def test_data_without_crs_or_eroded_labels(run, tmp_path):
    (tmp_path / "prepared").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        prepare(tmp_path / "prepared" / "town", crs=None, eroded=False, splits=("train", "val"))
    report = evaluate(run, tmp_path / "prepared" / "town", EvalConfig(predict=CPU))
    assert (report.split, report.labels) == ("val", ("strict",))
    assert [entry.name for entry in report.protocols] == [
        "strict, without clutter", "strict, clutter as error", "strict, all classes",
    ]  # fmt: skip


def test_reports_go_round(finished, tmp_path):
    report = finished
    again = read_report(report.path)
    assert again.to_json() == json.loads(report.path.read_text()) == report.to_json() | {
        "path": str(report.path), "seconds": again.seconds
    }  # fmt: skip
    rows = list(csv.reader((report.path.parent / "confusion.csv").read_text().splitlines()))
    assert rows[0] == ["truth \\ prediction", "ground", "building", "clutter", "not predicted"]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == report.confusions["strict"].counts.tolist()
    tables = report.tables()
    assert [table.title.split(",")[0] for table in tables] == [
        "test split", "every protocol", "outlines", "objects", "area of each class", "confidence", "scenes",
    ]  # fmt: skip
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert [row[0] for row in tables[0].rows] == ["ground", "building", "mean"]
    assert len(tables[1].rows) == 6
    broken = tmp_path / "report.json"
    for text, message in (
        ("{}", "kind None, format_version None found"),
        ("{", "not readable as a report"),
        ("[]", "no report found"),
        (json.dumps({"kind": "ctrs evaluation", "format_version": 1}), "'scenes' is missing or wrong"),
    ):
        broken.write_text(text)
        with pytest.raises(DataError, match=rf"report\.json: {message}"):
            read_report(broken)


def test_labels_are_eroded_here_where_an_isprs_set_has_none_or_on_request(run, data, tmp_path):
    pixels = EvalConfig(split="val", predict=CPU, pixels_only=True)
    prepare(tmp_path / "prepared" / "town", eroded=False, splits=("train", "val"), preset="potsdam")
    report = evaluate(run, tmp_path / "prepared" / "town", pixels)
    here = "isprs (eroded here)"
    assert report.labels == ("strict", here)
    assert [entry.name for entry in report.protocols][3] == f"{here}, without clutter"
    truth = read(tmp_path / "prepared" / "source" / "area_label.tif")
    truth[:, :128] = 255  # ground of the training tiles
    pred = read(run / "eval" / "val" / report.scenes[0].mask)
    np.testing.assert_array_equal(report.confusions[here].counts, naive_confusion(erode_labels(truth), pred))
    assert (run / "eval" / "val" / "confusion_isprs_eroded_here.csv").exists()
    with pytest.raises(OutputExistsError, match="other weights, data or options"):
        evaluate(run, tmp_path / "prepared" / "town", replace(pixels, eroded=False))
    # Data with eroded labels of their own are scored with these; on request also with those made here.
    both = evaluate(run, data, replace(pixels, eroded=True, overwrite=True))
    assert both.labels == ("strict", "isprs", here)


def test_confidence_is_that_of_predict(ground, finished, tmp_path):
    predictor = Predictor.from_checkpoint(finished.checkpoint, device="cpu")
    totals = CalibrationCounts(15)
    for scene in finished.scenes:
        source = ground / "prepared" / "source" / f"{scene.name}.tif"
        options = replace(CPU, confidence="probability")
        mask = predictor.predict_raster(source, tmp_path / f"{scene.name}_mask.tif", options)
        truth, pred, steps = read(source.with_name(f"{scene.name}_label.tif")), read(mask), read(confidence_path(mask))
        np.testing.assert_array_equal(steps, read(confidence_path(finished.path.parent / scene.mask)))
        confidence = steps.astype(np.float32) * np.float32(1 / 65535)
        for block in scored_blocks(truth, pred, confidence=confidence):
            totals.update(block)
    assert finished.calibration == totals
    assert 0 < finished.calibration.ece < 1
    assert finished.object_scores["building"].average_precision is not None
