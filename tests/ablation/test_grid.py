"""Grids of tiny networks: interrupted, failing, rebuilt from files, compared in pairs."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrs.ablation import ablate, grid, keep_results, pictures, plan_ablation
from ctrs.ablation.gain import Gain
from ctrs.ablation.pictures import draw_pictures, varied_settings
from ctrs.ablation.runs import read_status
from ctrs.ablation.spread import Spread
from ctrs.ablation.table import AblationResult, AblationRow
from ctrs.config import AblationConfig, TrainConfig, ablation_from_mapping, merge, read_ablation
from ctrs.errors import (
    DataError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
    TrainingError,
    UsageError,
)
from ctrs.evaluation.openings import OPENINGS_FILE
from ctrs.evaluation.score_report import read_report
from ctrs.jobs import fingerprint
from ctrs.locks import held
from ctrs.training import batch_step, train, trainer

TRAIN = {
    "epochs": 1, "batch_size": 2, "crop": 32, "learning_rate": 3e-3, "device": "cpu", "augment": {"scale": [1, 1]},
}  # fmt: skip
NETWORKS = [
    {"name": "a", "backbone": "test_convnext", "decoder": "dcfam"},
    {"name": "b", "backbone": "test_convnext2", "decoder": "unetformer"},
]
NAMES = [f"{network}-{loss}-seed{seed}" for seed in (0, 1) for network in "ab" for loss in ("none", "cl")]


def plain(data: Path) -> dict[str, Any]:
    return {"data": str(data), "seeds": [0, 1], "losses": ["none", "cl"], "train": TRAIN, "network": NETWORKS}


def grid_of(data: Path, **layer: Any) -> AblationConfig:
    return ablation_from_mapping(merge(plain(data), layer))


def files_of(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): fingerprint({"bytes": path.read_bytes().hex()}) for path in paths}


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


class Calls:
    """Stands for ``train`` or ``evaluate``: notes the names of the runs, and fails where it is told to."""

    def __init__(self, original: Callable[..., Any], failures: dict[str, BaseException] | None = None) -> None:
        self.original = original
        self.failures = failures or {}
        self.names: list[str] = []
        self.options: list[dict[str, Any]] = []

    def __call__(self, first: Path, second: Path, *rest: Any, **options: Any) -> Any:
        name = second.name if self.original is train else first.name
        self.names.append(name)
        self.options.append(options)
        if name in self.failures:
            raise self.failures[name]
        return self.original(first, second, *rest, **options)


@pytest.fixture(scope="module", autouse=True)
def _no_curves() -> Iterator[None]:
    """Pictures take longer than such small runs; others test them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes, with a test split."""
    return write_prepared(tmp_path_factory.mktemp("data") / "town", test=2)


@pytest.fixture(scope="module")
def whole(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid that was stopped twice on its way: after a training, and in one."""
    out = tmp_path_factory.mktemp("ablations") / "whole"
    config = grid_of(town)
    stop = KeyboardInterrupt()
    stop.add_note("`ctrs train --resume` goes on")
    with pytest.MonkeyPatch.context() as patch:
        trained = Calls(train)
        scored = Calls(grid.evaluate, {"a-cl-seed0": stop})
        patch.setattr(grid, "train", trained)
        patch.setattr(grid, "evaluate", scored)
        with pytest.raises(KeyboardInterrupt) as caught:
            ablate(config, out)
        assert caught.value.__notes__ == [f"{out} holds all finished epochs; the same command goes on"]
        assert trained.names == scored.names == NAMES[:2]
        assert [row["state"] for row in csv_rows((out / "table.csv").read_text())] == ["finished"] + ["to do"] * 7
        states = [status.describe() for status in plan_ablation(config, out).runs]
        assert states == ["finished", "trained, not scored"] + ["to do"] * 6
        first = files_of(out / "runs" / NAMES[0])

        trained.names.clear()
        scored.names.clear()
        scored.failures.clear()
        trained.failures["b-none-seed0"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            ablate(config, out)
        assert trained.names == ["b-none-seed0"]  # the second run is scored, not trained again
        assert scored.names == ["a-cl-seed0"]
        trained.names.clear()
        trained.failures.clear()
        result = ablate(config, out)
        assert trained.names == NAMES[2:]
        assert files_of(out / "runs" / NAMES[0]) == first
        assert (result.num_finished, result.failed) == (8, ())
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A finished grid to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_stopped_grid_goes_on_and_each_run_is_an_ordinary_one(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {"runs", "pictures", "table.md", "table.csv", "ablation.json"}
    assert sorted(path.name for path in (whole / "runs").iterdir() if path.name != "lock") == sorted(NAMES)
    for name in NAMES:
        assert (whole / "runs" / name / "best" / "model.safetensors").is_file()
        assert (whole / "runs" / name / "eval" / "test" / "report.json").is_file()


def test_the_test_split_is_opened_once_for_each_run(town: Path, whole: Path) -> None:
    result = ablate(grid_of(town), whole)
    assert result.split == "test"
    for status in result.runs:
        openings = json.loads((status.folder / OPENINGS_FILE).read_text())["openings"]
        assert len(openings) == 1
        assert status.report is not None
        assert status.report.test_openings == 1


def test_the_table_is_what_the_reports_say(town: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "train", Calls(train, dict.fromkeys(NAMES, AssertionError("trained again"))))
    result = ablate(grid_of(town), whole)
    reports = {name: read_report(whole / "runs" / name / "eval" / "test" / "report.json") for name in NAMES}
    assert [(row.network, row.loss, row.variant) for row in result.rows] == [
        ("a", "none", ""), ("a", "cl", ""), ("b", "none", ""), ("b", "cl", ""),
    ]  # fmt: skip
    for row in result.rows:
        scores = [reports[f"{row.network}-{row.loss}-seed{seed}"].mean_iou for seed in (0, 1)]
        assert row.mean_iou.mean == pytest.approx(np.mean(scores), abs=1e-12)
        assert row.mean_iou.sd == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
        without = [reports[f"{row.network}-none-seed{seed}"].mean_iou for seed in (0, 1)]
        if row.loss == "none":
            assert row.difference is None
        else:
            assert row.difference is not None
            assert row.difference.spread.mean == pytest.approx(np.subtract(scores, without).mean(), abs=1e-12)
            assert row.difference.spread.sd == pytest.approx(np.subtract(scores, without).std(ddof=1), abs=1e-12)
        building = [reports[f"{row.network}-{row.loss}-seed{s}"].headline.class_score("building").iou for s in (0, 1)]
        assert row.class_iou["building"].mean == pytest.approx(np.mean(building), abs=1e-12)
        assert (row.num_finished, row.num_runs, row.num_failed) == (2, 2, 0)
        assert row.seconds.mean > 0
    cl = result.rows[1]
    assert f"| a | cl | {cl.mean_iou.describe()} | {cl.difference_text} |" in result.to_markdown()
    table, classes = result.tables()
    assert table.header == (
        "network",
        "loss",
        "mean IoU",
        "difference to none",
        "at its bound",
        "training",
        "memory",
        "runs",
    )
    assert table.rows[1][:4] == ("a", "cl", cl.mean_iou.describe(), cl.difference_text)
    assert table.rows[1][-1] == "2/2"
    assert classes.header == ("network", "loss", "ground", "building", "boundary IoU")
    rows = csv_rows(result.to_csv())
    assert [row["run"] for row in rows] == NAMES
    assert float(rows[1]["mean_iou"]) == pytest.approx(reports["a-cl-seed0"].mean_iou, abs=1e-7)
    assert float(rows[1]["iou building"]) == pytest.approx(
        reports["a-cl-seed0"].headline.class_score("building").iou, abs=1e-7
    )


def test_the_table_comes_back_without_data_weights_or_training(
    town: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "train", Calls(train, dict.fromkeys(NAMES, AssertionError("trained again"))))
    names = ("table.md", "table.csv", "ablation.json")
    config = replace(grid_of(town), data=copy / "absent" / "town")
    before = {name: (copy / name).read_text() for name in names}
    before["ablation.json"] = before["ablation.json"].replace(str(town), str(config.data))
    for name in names:
        (copy / name).unlink()
    small = {"config.toml", "metrics.csv", "report.json"}
    for path in [path for path in copy.rglob("*") if path.is_file() and path.name not in small]:
        path.unlink()
    result = ablate(config, copy)
    assert {name: (copy / name).read_text() for name in names} == before
    assert result.num_finished == 8
    plan = plan_ablation(config, copy)
    assert (plan.num_finished, plan.parameters, plan.split) == (8, {}, "test")


def test_what_is_kept_makes_the_same_table_without_places_of_this_machine(
    town: Path, whole: Path, tmp_path: Path
) -> None:
    result = ablate(grid_of(town, split="test"), whole)
    kept = tmp_path / "kept"
    grid_file, *tables = keep_results(result, kept)
    assert [path.name for path in tables] == ["table.md", "table.csv", "ablation.json"]
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".safetensors"]
    for path in files:
        assert str(whole) not in path.read_text(), path
        assert str(town.parent) not in path.read_text(), path
    before = {path: path.read_text() for path in tables}
    for path in tables:
        path.unlink()
    again = ablate(read_ablation(grid_file), kept)  # neither data nor weights are there
    assert {path: path.read_text() for path in again.paths} == before
    assert (kept / "table.csv").read_text() == (whole / "table.csv").read_text()
    assert [row.difference for row in again.rows] == [row.difference for row in result.rows]
    with pytest.raises(OutputExistsError, match="--keep"):
        keep_results(result, whole)


def test_an_unfinished_ablation_is_not_kept(town: Path, whole: Path, tmp_path: Path) -> None:
    result = ablate(grid_of(town), whole)
    unfinished = replace(result, runs=(*result.runs[:-1], replace(result.runs[-1], state="trained")))
    with pytest.raises(DataError, match=f"{NAMES[-1]} not finished"):
        keep_results(unfinished, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_gains_and_learning_curves_are_drawn(town: Path, whole: Path) -> None:
    pictures = draw_pictures(ablate(grid_of(town), whole))
    assert [path.name for path in pictures] == ["gain-a.png", "curves-a.png", "gain-b.png", "curves-b.png"]
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("variants", "axes"),
    [
        (
            [{"contrast": {"num_pairs": 10}}, {"contrast": {"num_pairs": 40}}],
            {"contrast.num_pairs": {"0": 10.0, "1": 40.0}},
        ),
        (
            [{"train_share": 1.0, "epochs": 2}, {"train_share": 0.1, "epochs": 20}],
            {"train_share": {"0": 1.0, "1": 0.1}},
        ),
        ([{}, {"train_share": 0.1}], {"train_share": {"0": 1.0, "1": 0.1}}),
        (
            [{"contrast": {"clip_mode": "hard"}}, {"contrast": {"clip_mode": "none"}}],
            {"contrast.clip_mode": {"0": "hard", "1": "none"}},
        ),
        (
            [{}, {"contrast": {"stages": [3]}}, {"pne": {"temperature": 0.3}}, {"pne": {"temperature": 2}}],
            {
                "contrast.stages": {"0": "0, 1, 2, 3", "1": "3"},
                "pne.temperature": {"0": 1.0, "2": 0.3, "3": 2.0},
            },
        ),
        ([{"train_share": 0.5, "ema": 0.9}, {"train_share": 0.1, "ema": 0.99}], {}),
        ([{}, {"train_share": 0.5}, {"train_share": 0.1, "ema": 0.99}], {}),
        ([], {}),
    ],
)
def test_variants_that_differ_in_one_setting_stand_along_it(
    variants: list[dict[str, Any]], axes: dict[str, dict[str, float | str]]
) -> None:
    named = [{"name": str(number), **variant} for number, variant in enumerate(variants)]
    assert varied_settings(grid_of(Path("town"), variant=named)) == axes


def test_each_varied_setting_has_a_picture_of_its_own(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, tuple[str, dict[str, list[float | str]]]] = {}

    def noting(path: Path, gains: Any, *, axis: str, **_: Any) -> None:
        drawn[path.name] = (axis, {loss: [point.place for point in points] for loss, points in gains.items()})

    monkeypatch.setattr(pictures, "draw_gains", noting)
    monkeypatch.setattr(pictures, "draw_learning_curves", lambda *_, **__: None)
    row = AblationRow(
        network="a", loss="cl", variant="", num_runs=2, num_finished=2, num_failed=0, class_iou={},
        difference=Gain(spread=Spread(mean=0.01, sd=0.0, count=2)),
        **dict.fromkeys(("mean_iou", "boundary_iou", "at_bound", "seconds", "memory_mb"), Spread.of([0.0, 0.0])),
    )  # fmt: skip
    variants = [
        {"name": "usual"},
        {"name": "few", "contrast": {"num_pairs": 10}},
        {"name": "deep", "contrast": {"stages": [3]}},
    ]
    result = AblationResult(config=grid_of(town, variant=variants), out_dir=tmp_path, split="test", runs=())
    result.__dict__["rows"] = tuple(replace(row, variant=name) for name in ("usual", "few", "deep"))
    draw_pictures(result)
    assert drawn == {
        "gain-a-contrast.num_pairs.png": ("contrast.num_pairs", {"cl": [2000.0, 10.0]}),
        "gain-a-contrast.stages.png": ("contrast.stages", {"cl": ["0, 1, 2, 3", "3"]}),
    }


def test_a_failing_run_is_shown_and_does_not_cost_the_others(
    town: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, before = grid_of(town), (copy / "table.csv").read_text()
    for name in ("a-cl-seed0", "b-none-seed1"):
        shutil.rmtree(copy / "runs" / name)
    failures = {
        "a-cl-seed0": TrainingError("epoch 1, step 2: the loss is nan"),
        "b-none-seed1": ValueError("odd\nsize"),
    }
    calls = Calls(train, dict(failures))
    monkeypatch.setattr(grid, "train", calls)
    result = ablate(config, copy)
    assert calls.names == ["a-cl-seed0", "b-none-seed1"]  # the second is tried though the first failed
    assert [(status.run.name, status.error) for status in result.failed] == [
        ("a-cl-seed0", "epoch 1, step 2: the loss is nan"), ("b-none-seed1", "unexpected ValueError: odd size"),
    ]  # fmt: skip
    cl = result.rows[1]
    assert (cl.num_finished, cl.num_failed, cl.mean_iou.sd, cl.mean_iou.count) == (1, 1, None, 1)
    assert result.tables()[0].rows[1][-1] == "1/2, 1 failed"
    assert cl.mean_iou.describe().endswith("(n = 1)")
    assert result.rows[3].difference_text.endswith("(n = 1)")  # both seeds, but one has no pair
    assert "- `a-cl-seed0`: epoch 1, step 2: the loss is nan\n" in (copy / "table.md").read_text()
    assert plan_ablation(config, copy).runs[1].describe() == "failed: epoch 1, step 2: the loss is nan"

    calls.failures.clear()
    calls.names.clear()
    again = ablate(config, copy)
    assert calls.names == list(failures)
    assert again.failed == ()
    assert list((copy / "failures").iterdir()) == []
    for old, new in zip(csv_rows(before), csv_rows((copy / "table.csv").read_text()), strict=True):
        measured = {"training_seconds", "peak_memory_mb"}
        assert {key: new[key] for key in new if key not in measured} == {
            key: old[key] for key in old if key not in measured
        }


def test_a_half_trained_run_goes_on_at_its_last_epoch(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = grid_of(town, seeds=[3], losses=["cl"], network=NETWORKS[:1], train={"epochs": 2})

    def stop_in_the_second_epoch(done: int, total: int, what: str) -> None:
        if what == "training" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(config, tmp_path / "out", progress=stop_in_the_second_epoch)
    assert plan_ablation(config, tmp_path / "out").runs[0].describe() == "epoch 1 of 2"
    results = []
    monkeypatch.setattr(grid, "train", lambda *a, **k: results.append(train(*a, **k)))
    phases: list[str] = []
    result = ablate(config, tmp_path / "out", progress=lambda done, total, what: phases.append(what))
    assert list(dict.fromkeys(phases)) == ["reading tiles", "training", "scoring scenes", "runs"]
    assert [(entry.resumed_at, entry.epochs) for entry in results] == [(1, 2)]
    assert result.tables()[0].header == ("network", "loss", "mean IoU", "at its bound", "training", "memory", "runs")
    (row,) = result.rows
    assert (row.mean_iou.count, row.mean_iou.sd, row.difference) == (1, None, None)
    assert "±" not in "".join(cell for table in result.tables() for line in table.rows for cell in line)


def test_a_run_that_patience_ended_is_finished(town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_better = {"epochs": 6, "patience": 2, "learning_rate": 1e-12}
    config = grid_of(town, seeds=[3], losses=["none"], network=NETWORKS[:1], train=never_better)
    monkeypatch.setattr(trainer, "selection_scores", lambda *_: {"mean_iou": 0.25})
    result = ablate(config, tmp_path / "out")
    (status,) = result.runs
    assert (status.state, status.best_epoch, status.epochs) == ("finished", 1, 3)
    assert result.rows[0].num_finished == 1
    monkeypatch.setattr(grid, "train", lambda *_, **__: pytest.fail("trained again"))
    assert ablate(config, tmp_path / "out").num_finished == 1
    keep_results(result, tmp_path / "kept")


def test_runs_of_another_grid_are_refused_and_with_overwrite_only_they_are_replaced(
    town: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, write_prepared: Any, tmp_path: Path
) -> None:
    calls = Calls(train, {name: TrainingError("not now") for name in NAMES})
    monkeypatch.setattr(grid, "train", calls)
    other = grid_of(town, network=[NETWORKS[0], {**NETWORKS[1], "weight_decay": 0.5}])
    before = files_of(copy)
    with pytest.raises(OutputExistsError, match=r"b-none-seed0: another run stands there \(weight_decay was 0.01 and"):
        ablate(other, copy)
    with pytest.raises(OutputExistsError, match=r"epochs was 1 and is 2.*and 7 more such runs; pass --overwrite"):
        ablate(grid_of(town, train={"epochs": 2}), copy)
    with pytest.raises(OutputExistsError, match="the data are others"):
        ablate(grid_of(write_prepared(tmp_path / "village", train=4, test=1)), copy)
    assert files_of(copy) == before
    assert calls.names == []
    ablate(other, copy, overwrite=True)
    assert calls.names == [name for name in NAMES if name.startswith("b")]
    assert [options["overwrite"] for options in calls.options] == [True] * 4


def test_with_overwrite_a_run_of_other_settings_is_trained_anew(town: Path, tmp_path: Path) -> None:
    config = grid_of(town, seeds=[0], losses=["none"], network=NETWORKS[:1])
    ablate(config, tmp_path / "out")
    other = grid_of(town, seeds=[0], losses=["none"], network=NETWORKS[:1], train={"weight_decay": 0.5})
    ablate(other, tmp_path / "out", overwrite=True)
    (status,) = plan_ablation(other, tmp_path / "out").runs
    assert status.is_finished
    assert status.record is not None
    assert status.record.config.weight_decay == 0.5


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        (
            {"network": [*NETWORKS, {"name": "c", "backbone": "swim", "decoder": "fpn"}]},
            UsageError,
            "did you mean swin",
        ),
        ({"train": {"weights": "absent.pth"}}, InputNotFoundError, "weights 'absent.pth': no such file"),
        ({"data": "absent"}, InputNotFoundError, "absent: not found; run `ctrs prepare"),
        ({"split": "test"}, DataError, "no split 'test' found"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    layer: dict[str, Any], kind: type[Exception], message: str, prepared: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = Calls(train)
    monkeypatch.setattr(grid, "train", calls)
    with pytest.raises(kind, match=message):
        ablate(ablation_from_mapping(merge(plain(prepared()), layer)), tmp_path / "out")
    assert calls.names == []
    assert not (tmp_path / "out").exists()


def test_a_plan_names_sizes_and_writes_nothing(town: Path, tmp_path: Path) -> None:
    plan = plan_ablation(grid_of(town), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert {status.state for status in plan.runs} == {"to do"}
    assert set(plan.parameters) == {"a", "b"}
    assert 1e5 < plan.parameters["a"] < plan.parameters["b"] < 1e7
    json.dumps(plan.to_json(), allow_nan=False)


def test_one_process_at_a_time(town: Path, copy: Path) -> None:
    shutil.rmtree(copy / "runs" / NAMES[0])
    with held(copy / "runs", copy), pytest.raises(OutputError, match="copy: another process is writing it now"):
        ablate(grid_of(town), copy)


def test_a_file_in_the_way_is_named(town: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputExistsError, match="is a file; choose a folder with --out"):
        ablate(grid_of(town), tmp_path / "out")


def test_a_report_on_other_data_is_no_score_of_the_run(town: Path, copy: Path) -> None:
    config = grid_of(town)
    path = copy / "runs" / NAMES[0] / "eval" / "test" / "report.json"
    path.write_text(path.read_text().replace(f'"data": "{town}"', '"data": "/elsewhere/village"'))
    assert read_status(config.runs[0], copy, "test").state == "trained"


def test_all_losses_of_a_seed_see_the_same_batches_and_first_weights(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: TrainConfig
) -> None:
    original = batch_step.forward_backward
    seen: list[tuple[float, ...]] = []  # epoch, step, weights at the start, batch

    def recording(work: Any, config: TrainConfig, batch: Any, *, epoch: int, number: int, part: int = 0) -> Any:
        first = sum(float(value.detach().double().sum()) for value in work.step.model.parameters()) if not seen else 0.0
        seen.append((epoch, number, first, float(batch["image"].double().sum()), float(batch["mask"].sum())))
        return original(work, config, batch, epoch=epoch, number=number, part=part)

    monkeypatch.setattr(batch_step, "forward_backward", recording)

    def batches(loss: str, seed: int) -> Sequence[tuple[float, ...]]:
        config = replace(tiny_config, loss=loss, seed=seed)
        train(town, tmp_path / f"{loss}-{seed}", config, on_plan=lambda _: seen.clear())
        return list(seen)

    without = batches("none", 0)
    assert len(without) == 6
    assert batches("cl", 0) == batches("infonce", 0) == without
    assert batches("none", 1) != without
