"""Training on a fold: it validates, its neighbours stay out, and what looks at the run later uses the same fold."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from ctrs.ablation.grid import plan_ablation
from ctrs.config import AblationConfig, EvalConfig, NamedSettings, PredictConfig, TrainConfig, run_name
from ctrs.errors import ConfigError, DataError, DataWarning, UsageError
from ctrs.evaluation import evaluate
from ctrs.evaluation.fold_choice import data_of_checkpoint
from ctrs.inspection.embedding_map import inspect_embeddings
from ctrs.model_files import read_metadata
from ctrs.tiles.manifest import Manifest
from ctrs.training import TrainPlan, train
from ctrs.training.run_config import read_run_record

CPU = PredictConfig(device="cpu", threads=1)


def with_folds(folder: Path, folds: list[int | None], near: dict[int, tuple[int, ...]]) -> Path:
    manifest = Manifest.open(folder)
    tiles = [
        dataclasses.replace(tile, fold=fold, near_folds=near.get(number, ()))
        for number, (tile, fold) in enumerate(zip(manifest.tiles, folds, strict=True))
    ]
    dataclasses.replace(manifest, tiles=tuple(tiles)).save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Six tiles in three folds; the third tile lies near fold 0. One test tile."""
    folder = write_prepared(tmp_path_factory.mktemp("data") / "town", train=6, val=0, test=1)
    return with_folds(folder, [0, 0, 1, 1, 2, 2, None], {2: (0,)})


@pytest.fixture(scope="module")
def runs(
    data: Path, tmp_path_factory: pytest.TempPathFactory, tiny_config: TrainConfig
) -> tuple[tuple[Path, Path], list[TrainPlan]]:
    """A run of fold 0 and one of fold 1, and what each was going to do."""
    folder = tmp_path_factory.mktemp("runs")
    plans: list[TrainPlan] = []
    for fold in (0, 1):
        train(data, folder / f"run{fold}", dataclasses.replace(tiny_config, epochs=1, fold=fold), on_plan=plans.append)
    return (folder / "run0", folder / "run1"), plans


@pytest.fixture
def run(runs: tuple[tuple[Path, Path], list[TrainPlan]]) -> Path:
    """The run of fold 0."""
    return runs[0][0]


def test_the_fold_validates_and_what_is_near_it_stays_out(
    runs: tuple[tuple[Path, Path], list[TrainPlan]],
) -> None:
    assert [(plan.num_train, plan.num_val) for plan in runs[1]] == [(3, 2), (4, 2)]


def test_the_run_remembers_its_fold(data: Path, run: Path) -> None:
    record = read_run_record(run)
    assert record.config.fold == 0
    assert record.split_hash == Manifest.open(data).for_fold(0).split_hash
    assert read_metadata(run / "best").config["fold"] == 0


def test_a_fold_that_is_not_there(data: Path, tmp_path: Path, tiny_config: TrainConfig, prepared: Any) -> None:
    with pytest.raises(DataError, match=r"town: no fold 3; expected 0 to 2"):
        train(data, tmp_path / "run", dataclasses.replace(tiny_config, fold=3))
    with pytest.raises(DataError, match=r"fold 0 asked for, but these data have no folds; leave out --fold, or make"):
        train(prepared("plain"), tmp_path / "run", dataclasses.replace(tiny_config, fold=0))
    with pytest.raises(ConfigError, match="fold"):
        TrainConfig(fold=-1)
    assert not (tmp_path / "run").exists()


def test_without_a_fold_all_train_and_that_is_said(data: Path, tmp_path: Path, tiny_config: TrainConfig) -> None:
    plans: list[TrainPlan] = []
    with pytest.warns(DataWarning, match="has 3 folds and none was chosen: all train, nothing validates"):
        train(data, tmp_path / "run", dataclasses.replace(tiny_config, epochs=1), on_plan=plans.append)
    assert (plans[0].num_train, plans[0].num_val) == (6, 0)
    with pytest.raises(DataError, match="validates by folds, and what shall be scored was trained with none of them"):
        evaluate(tmp_path / "run", data, EvalConfig(split="val", predict=CPU))


def test_a_run_goes_on_with_its_own_fold(data: Path, run: Path, tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(tiny_config, epochs=1, fold=0)
    assert train(data, run, config).resumed_at == 1
    with pytest.raises(ConfigError, match="fold was 0 and is 1"):
        train(data, run, dataclasses.replace(config, fold=1), resume=True)


def test_scores_are_those_of_the_fold(data: Path, run: Path) -> None:
    report = evaluate(run, data, EvalConfig(split="val", predict=CPU))
    assert report.reason == "as asked for, fold 0 of 3"
    counted = sum(int(scene.confusions["strict"].counts.sum()) for scene in report.scenes)
    expected = Manifest.open(data).for_fold(0).class_counts("val")
    assert counted == sum(expected) > 0
    test = evaluate(run, data, EvalConfig(predict=CPU))
    assert (test.split, test.reason) == ("test", "the data have one")


def test_other_data_with_folds_are_not_divided_by_the_runs_fold(
    data: Path, run: Path, tmp_path: Path, write_prepared: Any
) -> None:
    other = with_folds(write_prepared(tmp_path / "other", train=4, val=0), [0, 1, 0, 1], {})
    manifest = Manifest.open(other)
    assert data_of_checkpoint(manifest, read_metadata(run / "best")) is manifest
    with pytest.raises(DataError, match="score a run of `ctrs train --fold`, on the data that it was trained on"):
        evaluate(run, other, EvalConfig(predict=CPU))


def test_features_are_looked_at_in_the_fold(
    data: Path, runs: tuple[tuple[Path, Path], list[TrainPlan]], tmp_path: Path
) -> None:
    run, other = runs[0]
    report = inspect_embeddings(run, tmp_path / "map.png", data_dir=data)
    assert (report.split, report.num_tiles) == ("val", 2)
    with pytest.raises(UsageError, match=r"was validated on fold 0 and .* on fold 1"):
        inspect_embeddings(run, tmp_path / "two.png", beside=other, data_dir=data)


def grid(data: Path, config: TrainConfig, folds: tuple[int, ...]) -> AblationConfig:
    settings = {"epochs": 1, "batch_size": 2, "crop": 32, "device": "cpu", "learning_rate": config.learning_rate}
    return AblationConfig(
        data=data,
        networks=(NamedSettings(name="net", settings={"backbone": config.backbone, "decoder": config.decoder}),),
        losses=(config.loss,),
        seeds=(0,),
        variants=tuple(NamedSettings(name=f"fold{fold}", settings={"fold": fold}) for fold in folds),
        train={**settings, "augment": {"scale": [1.0, 1.0]}},
        split="val",
    )


def test_a_grid_varies_the_fold(
    data: Path, runs: tuple[tuple[Path, Path], list[TrainPlan]], tmp_path: Path, tiny_config: TrainConfig
) -> None:
    config = grid(data, tiny_config, (0, 1))
    assert [run.name for run in config.runs] == ["net-cl-fold0-seed0", "net-cl-fold1-seed0"]
    for source, run in zip(runs[0], reversed(config.runs), strict=True):  # each under the other's name
        shutil.copytree(source, tmp_path / "swapped" / "runs" / run.name)
    for source, run in zip(runs[0], config.runs, strict=True):
        shutil.copytree(source, tmp_path / "right" / "runs" / run.name)
    shutil.rmtree(tmp_path / "right" / "runs" / config.runs[0].name / "eval", ignore_errors=True)
    evaluate(tmp_path / "right" / "runs" / config.runs[1].name, data, EvalConfig(split="val", predict=CPU))
    assert [status.state for status in plan_ablation(config, tmp_path / "right").runs] == ["trained", "finished"]
    changed = [status.changed for status in plan_ablation(config, tmp_path / "swapped").runs]
    assert changed[0] == ("fold was 1 and is 0", "the data are others")
    with pytest.raises(DataError, match="no fold 7; expected 0 to 2"):
        plan_ablation(grid(data, tiny_config, (0, 7)), tmp_path)


def test_names_of_runs_hold_the_fold() -> None:
    assert run_name(TrainConfig(fold=0), "town").endswith("_fold0")


def test_the_command_line_takes_a_fold(data: Path, run_ctrs: Any) -> None:
    result = run_ctrs("train", data, "--fold", "9")
    assert result.returncode != 0
    assert "no fold 9; expected 0 to 2" in " ".join(result.stderr.split())
