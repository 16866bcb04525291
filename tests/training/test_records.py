from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path

from ctrs.training.records import EpochRecord, TrainPlan, TrainResult

RECORD = EpochRecord(
    epoch=3,
    step=30,
    learning_rate=5e-4,
    losses={"total": 1.5, "grad_norm": 2.0, "cl": 0.25, "cl/raw": 0.5},
    scores={"mean_iou": 0.625, "overall_accuracy": 0.75, "iou low vegetation": math.nan},
    seconds=12.34,
    images_per_second=4.0,
    data_wait=0.1,
    is_best=True,
)
PLAN = TrainPlan(
    run_dir=Path("runs/a"), data="town", model="swin + dcfam, loss cl", parameters=21_100_000, num_train=100,
    num_val=20,
    epochs=50, first_epoch=1, steps_per_epoch=12, batch_size=8, crop_px=512, learning_rate=8e-5, device="cpu",
    precision="fp32", workers=0, cached=True, seconds_per_epoch=60.0,
)  # fmt: skip


def test_record_survives_json() -> None:
    again = EpochRecord.from_json(json.loads(json.dumps(RECORD.to_json(), allow_nan=False)))
    assert math.isnan(again.scores["iou low vegetation"])
    assert again.to_json() == RECORD.to_json()
    assert again.score == 0.625


def test_record_in_one_line() -> None:
    assert RECORD.describe() == "epoch 3, loss 1.5000, cl 0.2500, val mean IoU 0.6250 (best), 4.0 images/s, 12 s"


def test_line_says_whether_contrast_is_alive() -> None:
    def line(**losses: float) -> str:
        return dataclasses.replace(RECORD, losses={"total": 1.5, **losses}).describe()

    bounded = line(**{"infonce": 1.0, "infonce/clip_active": 0.75, "infonce/anchors_4": 9.0})
    assert "infonce 1.0000 (at its bound in 75% of steps), val" in bounded
    assert "cms 0.0000 (no anchors), pne 0.5000, val" in line(
        **{"cms": 0.0, "cms/anchors_4": 0.0, "pne": 0.5, "pne/anchors": 3.0}
    )


def test_row_has_names_without_blanks_and_slashes() -> None:
    assert list(RECORD.to_row())[:8] == [
        "epoch", "step", "learning_rate", "train_total", "train_grad_norm", "train_cl", "train_cl_raw", "val_mean_iou",
    ]  # fmt: skip
    assert "val_iou_low_vegetation" in RECORD.to_row()


def test_score_that_is_not_a_number_is_none() -> None:
    row = RECORD.to_json()
    row["scores"] = {"mean_iou": None}
    assert EpochRecord.from_json(row).score is None


def lines_of(plan: TrainPlan) -> dict[str, str]:
    now = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    return {
        name: text.strip() for name, _, text in (line.partition(":") for line in plan.describe(now=now).split("\n"))
    }


def test_plan_names_the_expected_end() -> None:
    assert PLAN.expected_seconds == 3000
    assert lines_of(PLAN)["time"] == "about 1 min 0 s for each epoch; expected end 12:50, in 50 min 0 s"
    late = dataclasses.replace(PLAN, seconds_per_epoch=3600.0, first_epoch=27)
    assert lines_of(late)["time"].endswith("expected end 12:00 on 2024-05-02, in 1 d 0 h")
    assert lines_of(late)["training"].startswith("50 epochs from epoch 27 of 12 steps, batch 8, ")


def test_plan_names_parameters_memory_and_what_is_written() -> None:
    lines = lines_of(
        dataclasses.replace(
            PLAN, frozen_parameters=1_500_000, memory_bytes=3_100_000_000, memory_available=20_000_000_000,
            cache_bytes=400_000_000, disk_bytes=512_000_000, disk_free=9_000_000_000, written=("best/", "metrics.csv"),
            unlabelled=0.125,
        )
    )  # fmt: skip
    assert list(lines) == ["network", "data", "training", "memory", "time", "output"]
    assert lines["network"] == "swin + dcfam, loss cl; 21.1 M parameters to train, 1.5 M frozen"
    assert lines["data"] == ("100 training and 20 validation tiles of town; 12.5% of the training pixels without label")
    assert lines["memory"] == "about 3.1 GB of 20.0 GB at the peak; 400 MB of tiles held in memory"
    assert lines["output"] == "runs/a: best/, metrics.csv; up to 512 MB, 9.0 GB free"
    assert "memory" not in lines_of(PLAN)  # not known


def test_one_epoch_is_no_epochs() -> None:
    text = lines_of(dataclasses.replace(PLAN, epochs=1, steps_per_epoch=1, workers=1))["training"]
    assert text.startswith("1 epoch of 1 step, ")
    assert text.endswith(", 1 loader process")


def test_result_as_json() -> None:
    result = TrainResult(run_dir=Path("runs/a"), epochs=2, best_epoch=1, metrics={"mean_iou": math.nan}, seconds=1.0)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["metrics"] == {"mean_iou": None}
