"""Several networks on the same ground, the honesty of the test split, and required scores, through the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from ctrs.cli import app as program
from ctrs.config import EvalConfig
from ctrs.errors import CheckpointError, ConfigError, DataError, OutputExistsError, UsageError
from ctrs.evaluation import evaluate, evaluate_models, split_scoring
from ctrs.evaluation.openings import count_openings, record_opening
from ctrs.inference.predictor import Predictor
from ctrs.tiles.manifest import Manifest
from tests.evaluation.scored_ground import CPU, make_run, prepare

PIXELS = EvalConfig(predict=CPU, pixels_only=True)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    base = tmp_path_factory.mktemp("ground")
    prepare(base / "prepared" / "town")
    for seed, name in enumerate(("first", "second")):
        make_run(base / "runs" / name, seed=seed)
    return base


@pytest.fixture
def town(ground, tmp_path, monkeypatch):
    """A workspace with two runs that are not scored yet."""
    shutil.copytree(ground / "runs", tmp_path / "runs")
    (tmp_path / "prepared").symlink_to(ground / "prepared")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(town):
    return [town / "runs" / "first", town / "runs" / "second"]


@pytest.fixture
def data(town):
    return town / "prepared" / "town"


def test_models_are_compared_on_validation_unless_the_test_is_asked_for(runs, data, town):
    comparison = evaluate_models(runs, data, PIXELS)
    assert comparison.names == ("first", "second")
    assert comparison.reference.split == "val"
    assert not list(town.rglob("test_openings.json")), "a comparison looked at the test without being asked to"
    folder = town / "comparisons" / "first-vs-second-val"
    assert comparison.path.resolve() == folder / "comparison.json"
    document = json.loads(comparison.path.read_text())
    assert [row["name"] for row in document["models"]] == ["first", "second"]
    for name, report in zip(comparison.names, comparison.reports, strict=True):
        assert report.to_json()["confusion"] == evaluate(town / "runs" / name, data, PIXELS_VAL).to_json()["confusion"]
    assert "no intervals: a single scene" in comparison.summary()
    lines = (folder / "comparison.csv").read_text().splitlines()
    assert lines[0] == "model,score,reference,value,difference,low,high,two_sided,better,worse"
    assert lines[1].startswith("second,mean_iou,0.")


PIXELS_VAL = replace(PIXELS, split="val")


def test_on_request_the_test_is_opened_and_each_model_says_how_often(runs, data, caplog, monkeypatch):
    caplog.set_level("INFO", "ctrs")
    evaluate(runs[1], data, PIXELS)
    evaluate(runs[1], data, replace(PIXELS, bootstrap=7, overwrite=True))
    comparison = evaluate_models(runs, data, replace(PIXELS, split="test", overwrite=True))
    assert [report.test_openings for report in comparison.reports] == [1, 3]
    assert "runs/second opened it 2 times before" in caplog.text
    assert comparison.tables()[-1].rows == (("first", "1"), ("second", "3"))
    assert comparison.reason is None
    # A finished comparison is read: nothing is opened or mapped again.
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *a, **k: pytest.fail("the network was loaded"))
    again = evaluate_models(runs, data, replace(PIXELS, split="test"))
    assert again.to_json() == comparison.to_json()
    with pytest.raises(OutputExistsError, match=r"eval/test: holds the report of other weights, data or options"):
        evaluate_models(runs, data, replace(PIXELS, split="test", bootstrap=9))


def test_models_that_cannot_be_compared_are_refused_before_the_first_is_scored(runs, data, town, monkeypatch):
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *a, **k: pytest.fail("the network was loaded"))
    with pytest.raises(UsageError, match="first/best: given twice"):
        evaluate_models([runs[0], runs[1], runs[0] / "best"], data, PIXELS)
    with pytest.raises(UsageError, match="1 model found"):
        evaluate_models(runs[:1], data, PIXELS)
    shutil.copytree(runs[0] / "best", runs[0] / "last")
    with pytest.raises(UsageError, match=r"first/last: its report would take the place of another checkpoint's"):
        evaluate_models([runs[0], runs[0] / "last"], data, PIXELS)
    table = Manifest.open(data).classes
    renamed = [replace(entry, name=entry.name.replace("building", "roof")) for entry in table.classes]
    other = make_run(town / "runs" / "roofs", classes=replace(table, classes=tuple(renamed)))
    with pytest.raises(DataError, match=r"classes ground, building, clutter found, .*roofs/best knows ground, roof"):
        evaluate_models([*runs, other], data, PIXELS)
    with pytest.raises(ConfigError, match="score 'roof' is unknown"):
        evaluate_models(runs, data, replace(PIXELS, fail_under=(("roof", 0.5),)))
    # Only a test: choosing by it has to be asked for.
    manifest = Manifest.open(data)
    only_test = replace(manifest, tiles=manifest.split("train") + manifest.split("test"))
    monkeypatch.setattr(Manifest, "open", classmethod(lambda cls, folder: only_test))
    with pytest.raises(DataError, match="no validation split found, and models are not chosen by the test"):
        evaluate_models(runs, data, PIXELS)


def test_openings_are_counted_by_the_ground_of_the_test(data, tmp_path):
    manifest = Manifest.open(data)
    record_opening(tmp_path, manifest, weights="a")
    # Another validation split, or another fold, is the same test.
    other = replace(manifest, tiles=manifest.split("train") + manifest.split("test"))
    assert other.split_hash != manifest.split_hash
    assert record_opening(tmp_path, other, weights="b") == 2
    fewer = replace(manifest, tiles=manifest.split("train") + manifest.split("test")[1:])
    assert count_openings(tmp_path, fewer) == 0
    path = tmp_path / "test_openings.json"  # as earlier versions wrote it
    document = json.loads(path.read_text())
    for row in document["openings"]:
        del row["test_hash"]
    path.write_text(json.dumps(document))
    assert count_openings(tmp_path, manifest) == 1


def run(*arguments):
    return program.main(["eval", *map(str, arguments), "--device", "cpu", "--threads", "1", "--pixels-only", "-q"])


def test_the_command_fails_below_a_required_score(runs, data, capsys, monkeypatch):
    assert run(runs[0], "--split", "val", "--fail-under", "building=0.999", "--fail-under", "mean_iou=0.998") == 1
    out, err = capsys.readouterr()
    assert "report.json" in out, "the result is printed all the same"
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 2
    assert lines[0].startswith("error: first: building iou (strict, without clutter) is 0")
    assert lines[0].endswith("below the required 0.999")
    assert (runs[0] / "eval" / "val" / "report.json").exists()
    # Limits decide nothing about the report: it is read again.
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda *a, **k: pytest.fail("the network was loaded"))
    assert run(runs[0], "--split", "val", "--fail-under", "mean_iou=0.0001") == 0
    for text, message in (
        ("roof=0.5", "score 'roof' is unknown"),
        ("building", "expected NAME=VALUE such as building=0.8"),
        ("building=x", "expected NAME=VALUE such as building=0.8"),
        ("building=80", "80.0 found, expected above 0, up to 1"),
    ):
        assert run(runs[1], "--split", "val", "--fail-under", text) == 2
        assert message in capsys.readouterr().err
    assert not (runs[1] / "eval").exists()


def test_the_command_compares(runs, data, town, capsys):
    assert run(*runs, "--data", data, "--out", town / "versus", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "ctrs comparison"
    assert (town / "versus" / "comparison.json").exists()
    assert run(*runs, "--data", data, "--out", town / "versus", "--fail-under", "building=0.999") == 1
    out, err = capsys.readouterr()
    assert "second against first" in out
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["first", "second"]


def test_options_without_meaning_are_refused(runs, capsys):
    for arguments, message in (
        ((runs[0], "--resample"), "--resample found without --pred"),
        ((runs[0], "--out", "x"), "--out found with one model"),
        (("--pred", "a.tif"), "--pred and --truth belong together"),
        ((runs[0], "--pred", "a.tif", "--truth", "b.tif"), "MODELS and --pred found"),
        ((runs[0], "--distances", "1;3"), "--distances '1;3' found"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err


def test_data_of_each_model_must_be_one(runs, data, town, capsys):
    shutil.copytree(data, town / "other", symlinks=True)
    for folder, place in zip(runs, (data, town / "other"), strict=True):
        (folder / "config.toml").write_text(f'epochs = 1\n[data]\npath = "{place}"\n')
    assert run(*runs) == 2
    assert "say with --data what all are to be scored on" in capsys.readouterr().err


def test_a_network_that_breaks_while_a_scene_is_scored_leaves_no_thread(runs, data, monkeypatch):
    predict, calls = Predictor.predict_raster, []

    def fail(self, *args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise CheckpointError("broken")
        return predict(self, *args, **options)

    monkeypatch.setattr(Predictor, "predict_raster", fail)
    with pytest.raises(CheckpointError, match="broken"):
        evaluate(runs[0], data, PIXELS)
    assert not (runs[0] / "eval" / "test").exists()
    monkeypatch.undo()
    scored = []
    score = split_scoring.score_scene
    monkeypatch.setattr(split_scoring, "score_scene", lambda *a, **k: (scored.append(a[0].name), score(*a, **k))[1])
    assert evaluate(runs[0], data, PIXELS).test_openings == 1
    assert "t2" in scored


def test_objects_that_there_are_not_are_refused_before_the_test_is_opened(runs, data, town):
    config = replace(PIXELS, pixels_only=False, objects=("building", "nosuch"), split="test")
    with pytest.raises(ConfigError, match=r"objects = 'nosuch' found, expected classes of .*building.*, or none"):
        evaluate_models(runs, data, config)
    assert not list(town.rglob("test_openings.json"))


def test_a_folder_of_something_else_is_left_alone(runs, data, town):
    (town / "mine").mkdir()
    (town / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"mine: exists and holds no comparison .*; choose another --out$"):
        evaluate_models(runs, data, replace(PIXELS, overwrite=True), out=town / "mine")
    assert (town / "mine" / "notes.txt").read_text() == "mine"
