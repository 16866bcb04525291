from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ctrs.model_files import read_metadata
from ctrs.report.model_card import read_card
from tests.report.trained import network, write_evaluation, write_run


def rows_of(run: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    return {table.title: {row[0]: row[1:] for row in table.rows} for table in read_card(run).tables()}


def test_the_card_says_what_the_files_say(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs")
    tables = rows_of(run)
    facts = tables["roofs"]
    parameters = sum(parameter.numel() for parameter in network().parameters())
    assert facts["parameters"] == (f"{parameters:,}",)
    assert facts["architecture"] == ("test_convnext + dcfam",)
    assert facts["epoch"] == ("5 of 7",)
    assert facts["ground pixel"] == ("5 cm",)
    assert facts["licence of the data"] == ("CC BY 4.0",)
    assert facts["tiles"] == ("train 20, val 4",)
    assert facts["ground"] == ("longitude 11 to 11.5, latitude 48 to 48.25",)
    assert facts["weights hash"] == (read_metadata(run).weights_hash,)
    assert facts["began from"] == ("random weights",)
    assert tables["classes"]["0"] == ("low vegetation", "#00ffff", "3", "yes")
    assert tables["classes"]["2"] == ("clutter", "#ff0000", "9", "no")
    assert tables["classes"]["–"] == ("boundary", "#000000", "0", "ignored")
    assert tables["bands"]["1"] == ("near infrared", "uint16", "0", "4000", "1000", "100")
    assert tables["training"]["recipe"] == ("ct-paper",)
    assert tables["training"]["learning_rate"] == ("8e-05",)
    assert tables["training"]["segmentation loss"] == ("ce+dice",)


def test_scores_stand_under_the_name_of_their_protocol(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs")
    tables = rows_of(run)
    title = "validation tiles: strict, without clutter, epoch 5, overall accuracy 0.900"
    assert tables[title] == {
        "low vegetation": ("0.600",), "building": ("0.800",), "clutter": ("–",), "mean": ("0.700",)
    }  # fmt: skip
    write_evaluation(run)
    tables = rows_of(run)
    head = tables["test split of potsdam, whole scenes, strict, without clutter, overall accuracy 0.910"]
    assert head["building"] == ("0.834", "0.800", "0.850", "0.750")
    assert head["mean"] == ("0.673", "0.800", "0.850", "–")
    assert set(tables["test split of potsdam, every protocol"]) == {"strict, without clutter", "strict, all classes"}


def test_scores_of_other_weights_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_run(tmp_path / "roofs")
    old = write_evaluation(run, "val")
    os.utime(old, (100, 100))
    other = write_evaluation(run, "test", weights="0" * 32)
    broken = write_evaluation(run, "train")
    broken.write_text("{")
    assert read_card(run).evaluations == ()
    for path in (old, other):
        assert f"{path}: passed over, it scored other weights" in caplog.text
    assert f"{broken}: passed over, not readable" in caplog.text
    scored = hashlib.sha256((run / "best" / "model.safetensors").read_bytes()).hexdigest()[:32]
    other.write_text(json.dumps(json.loads(other.read_text()) | {"weights": scored}))
    os.utime(other, (100, 100))
    assert [entry.split for entry in read_card(run).evaluations] == ["test"]


def test_the_page_holds_tables_limits_and_commands(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs")
    write_evaluation(run)
    text = read_card(run).markdown()
    assert text.startswith("# roofs\n")
    assert "3 classes (low vegetation, building, clutter)" in text
    assert "| 1 | building | #0000ff | 7 | yes |" in text
    assert f"ctrs predict SCENE.tif --model {run.as_posix()}" in text
    assert "Headline scores leave out clutter." in text
    assert "opened its test split 2 times" in text
    assert "The validation tiles chose the epoch" in text
    assert "No scores of test scenes" not in text
    assert "licence" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count(" | ") >= 1


def test_what_is_not_known_is_said_so(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "roofs", data={}, metrics={}, protocol=None, pixel_size_m=None, recipe=None, config={}, epoch=0,
        init={"path": "runs/old", "weights_hash": "ab" * 32, "data": "inria"},
    )  # fmt: skip
    card = read_card(run)
    facts = {row[0]: row[1] for row in card.tables()[0].rows}
    assert facts["licence of the data"] == "not given"
    assert facts["ground pixel"] == "unknown (data without CRS)"
    assert facts["began from"] == "runs/old (weights abababababab, trained on inria)"
    text = card.markdown()
    assert "The licence of its data was not given" in text
    assert "No scores of test scenes stand beside it." in text
    assert "nan" not in text.lower().replace("test_convnext", "")


def test_a_weight_file_alone_has_a_card(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs")
    lone = tmp_path / "alone" / "town.safetensors"
    lone.parent.mkdir()
    lone.write_bytes((run / "best" / "model.safetensors").read_bytes())
    card = read_card(lone)
    assert card.name == "town"
    assert f"--model {lone.as_posix()}" in card.markdown()
    row = card.to_json()
    json.dumps(row, allow_nan=False)
    assert row["classes"][1]["name"] == "building"
