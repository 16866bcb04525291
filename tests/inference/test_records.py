"""The log, the style and the item of a mask: what they say, when they are written, and that they decide nothing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from ctrs.errors import OutputError, OutputExistsError
from ctrs.inference.guard import Difference
from ctrs.inference.prediction_log import (
    PhaseClock,
    PredictionLog,
    log_path,
    mapped_at,
    without_secrets,
    write_log,
)
from ctrs.inference.records import WantedRecords, complete_records, refuse_foreign_records, write_records
from ctrs.memory import process_memory
from ctrs.raster.windows import PixelWindow
from tests.report.masks import UTM, write_mask


def make_log(**changes: Any) -> PredictionLog:
    values: dict[str, Any] = {
        "command": ("ctrs", "predict", "town.tif"), "scene": Path("town.tif"),
        "model": Path("run/best/model.safetensors"),
        "weights_hash": "ab", "input": "sha256:cd", "options": {"window_px": 512}, "clock": PhaseClock(), "windows": 9,
        "windows_seen": 7, "windows_skipped": 2, "batch_size": 2, "threads": {"network": 2}, "device": "cpu",
        "precision": "float32", "memory_bound": 10**8,
    }  # fmt: skip
    return PredictionLog(**{**values, **changes})


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_log_says_what_happened(tmp_path: Path) -> None:
    difference = Difference(kind="values", text="band red is darker", figures={"distance": 1.5})
    block = PixelWindow(col_off=0, row_off=512, width=256, height=256)
    clock = PhaseClock()
    with clock.phase("network"):
        time.sleep(0.02)
    clock.add("network", 1.0)
    clock.add("writing", 0.25)
    log = make_log(clock=clock, unreadable=[block], differences=[difference], resumed_from_row=256)
    path = write_log(tmp_path / "town_mask.tif", log)
    assert path == tmp_path / "town_mask.json"
    row = read(path)
    assert (row["kind"], row["format_version"], row["mask"]) == ("ctrs prediction log", 1, "town_mask.tif")
    assert row["command"] == ["ctrs", "predict", "town.tif"]
    assert row["windows"] == {"total": 9, "seen": 7, "skipped": 2}
    assert row["unreadable"] == [{"col_off": 0, "row_off": 512, "width": 256, "height": 256}]
    assert row["differences"] == [{"kind": "values", "text": "band red is darker", "figures": {"distance": 1.5}}]
    assert row["resumed_from_row"] == 256
    assert 1.02 <= row["seconds"]["network"] < 2
    assert row["seconds"]["writing"] == 0.25
    assert 0.02 <= row["seconds"]["total"] < 2
    assert datetime.fromisoformat(row["started"]) <= datetime.fromisoformat(row["ended"])
    assert abs(datetime.fromisoformat(row["ended"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert row["memory"]["bound_bytes"] == 10**8
    assert {"ctrs", "gdal", "torch", "python", "rasterio"} <= set(row["versions"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory")
def test_the_peak_of_the_memory_is_the_systems(tmp_path: Path) -> None:
    held = np.ones(50_000_000, np.uint8)
    row = read(write_log(tmp_path / "m.tif", make_log()))
    del held
    assert row["memory"]["peak_bytes"] >= max(process_memory("VmRSS"), 60_000_000)


def test_a_phase_that_fails_is_counted() -> None:
    clock = PhaseClock()
    with pytest.raises(ValueError, match="x"), clock.phase("writing"):
        raise ValueError("x")
    assert "writing" in clock.seconds()


def test_a_call_from_python_has_no_command_and_no_model_file(tmp_path: Path) -> None:
    row = read(write_log(tmp_path / "m.tif", make_log(command=None, model=None, memory_bound=None)))
    assert row["command"] is None
    assert row["model"] == {"path": None, "weights_hash": "ab"}
    assert row["memory"]["bound_bytes"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:word@host/a@b/town.tif?sig=abc&x=1", "https://...@host/a@b/town.tif?..."),
        ("--aoi=https://host/a.gpkg?token=1", "--aoi=https://host/a.gpkg?..."),
        ("/vsicurl/https://host/town.tif?sig=abc", "/vsicurl/https://host/town.tif?..."),
        ("s3://bucket/town.tif", "s3://bucket/town.tif"),
        ("what?.tif", "what?.tif"),
    ],
)
def test_secrets_of_urls_are_left_out(text: str, expected: str, tmp_path: Path) -> None:
    assert without_secrets(text) == expected
    row = read(write_log(tmp_path / "m.tif", make_log(command=("ctrs", text), scene=text)))
    assert row["command"] == ["ctrs", expected]


def test_a_log_that_cannot_be_written_is_an_error_and_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / ".m.json.new").mkdir()
    log_path(tmp_path / "m.tif").write_text("old")
    with pytest.raises(OutputError, match=r"m\.json: cannot be written"):
        write_log(tmp_path / "m.tif", make_log())
    assert log_path(tmp_path / "m.tif").read_text() == "old"


def test_when_a_mask_was_made(tmp_path: Path) -> None:
    mask = tmp_path / "m.tif"
    mask.write_bytes(b"")
    os.utime(mask, (1e9, 1e9))
    assert mapped_at(mask) == datetime.fromtimestamp(1e9, UTC)
    log_path(mask).write_text('{"kind": "of another"}')
    assert mapped_at(mask) == datetime.fromtimestamp(1e9, UTC)
    write_log(mask, make_log())
    assert abs(mapped_at(mask) - datetime.now(UTC)) < timedelta(minutes=1)


def staged_mask(folder: Path) -> tuple[Path, Path]:
    """Return a mask in a folder for unfinished work, and where it will stand."""
    (folder / "work").mkdir()
    return write_mask(folder / "work/town_mask.tif"), folder / "town_mask.tif"


def write_town(folder: Path) -> Path:
    path = folder / "town.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=40, count=1, dtype="uint8", crs="EPSG:32633", transform=UTM
    ) as dataset:
        dataset.write(np.zeros((1, 40, 60), np.uint8))
        dataset.update_tags(TIFFTAG_DATETIME="2021:06:30 10:11:12")
    return path


def test_records_are_written_beside_the_mask_that_is_to_come(tmp_path: Path) -> None:
    staged, dst = staged_mask(tmp_path)
    before = staged.read_bytes()
    weights = tmp_path / "best/model.safetensors"
    weights.parent.mkdir()
    weights.with_name("model.stac.json").write_text("{}")
    wanted = WantedRecords(scene=write_town(tmp_path), weights=weights, style=True, stac=True)
    written = write_records(staged, dst, make_log(), wanted)
    assert [path.name for path in written] == ["town_mask.json", "town_mask.qml", "town_mask.stac.json"]
    assert all(path.parent == tmp_path for path in written)
    assert staged.read_bytes() == before
    item = read(written[2])
    assert item["properties"]["datetime"] == "2021-06-30T10:11:12Z"
    assert item["assets"]["mask"]["file:checksum"] == f"1220{hashlib.sha256(before).hexdigest()}"
    assert set(item["assets"]) == {"mask", "style", "log"}
    assert [link["href"] for link in item["links"]] == ["./town.tif", "./best/model.stac.json"]


def test_the_log_alone_is_written_unless_more_is_wanted(tmp_path: Path) -> None:
    staged, dst = staged_mask(tmp_path)
    written = write_records(staged, dst, make_log(), WantedRecords(scene=None, weights=None))
    assert [path.name for path in written] == ["town_mask.json"]


def test_an_item_of_the_mask_before_is_brought_up_to_date(tmp_path: Path) -> None:
    staged, dst = staged_mask(tmp_path)
    stale = tmp_path / "town_mask.stac.json"
    stale.write_text('{"properties": {"processing:software": {"ctrs": "0.0.1"}}}')
    write_records(staged, dst, make_log(), WantedRecords(scene=tmp_path / "gone.tif", weights=tmp_path / "gone"))
    assert read(stale)["assets"]["mask"]["file:size"] == staged.stat().st_size


def test_an_item_that_others_wrote_stays(tmp_path: Path) -> None:
    staged, dst = staged_mask(tmp_path)
    theirs = tmp_path / "town_mask.stac.json"
    theirs.write_text('{"properties": {"title": "mine"}}')
    write_records(staged, dst, make_log(), WantedRecords(scene=None, weights=None))
    assert theirs.read_text() == '{"properties": {"title": "mine"}}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("town_mask.json", '{"type": "FeatureCollection", "features": []}'),
        ("town_mask.json", "[1]"),
        ("town_mask.qml", "<qgis/>"),
        ("town_mask.stac.json", '{"type": "Feature", "properties": {}}'),
    ],
)
def test_what_others_wrote_where_records_go_is_refused(name: str, text: str, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "town_mask.tif")
    wanted = WantedRecords(scene=write_town(tmp_path), weights=None, style=True, stac=True)
    refuse_foreign_records(mask, wanted)
    write_log(mask, make_log())
    complete_records(mask, wanted)
    refuse_foreign_records(mask, wanted)  # our own
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(OutputExistsError, match=rf"{name}: stands there and is not what ctrs predict wrote"):
        refuse_foreign_records(mask, wanted)
    if not name.endswith("_mask.json"):
        refuse_foreign_records(mask, WantedRecords(scene=None, weights=None))  # nothing goes there


def test_a_finished_mask_gets_what_is_wanted_and_stays_as_it_is(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "town_mask.tif")
    write_log(mask, make_log())
    before = mask.read_bytes(), log_path(mask).read_bytes()
    wanted = WantedRecords(scene=write_town(tmp_path), weights=None, style=True, stac=True)
    assert [path.name for path in complete_records(mask, wanted)] == ["town_mask.qml", "town_mask.stac.json"]
    item = read(tmp_path / "town_mask.stac.json")
    assert item["properties"]["created"] == read(log_path(mask))["ended"].replace("+00:00", "Z")
    assert complete_records(mask, WantedRecords(scene=None, weights=None)) == ()
    assert (mask.read_bytes(), log_path(mask).read_bytes()) == before
