from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from ctrs.errors import OutputExistsError
from ctrs.report.model_card import read_card
from ctrs.report.stac_item import stac_item, write_stac_item
from tests.report.trained import GROUND, write_run


def test_required_fields_of_item_and_extension(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs 5")
    item = json.loads(write_stac_item(read_card(run)).read_text())
    assert {"type", "stac_version", "id", "geometry", "bbox", "properties", "links", "assets"} <= set(item)
    assert (item["type"], item["stac_version"]) == ("Feature", "1.1.0")
    assert item["geometry"] == GROUND
    assert item["bbox"] == [11.0, 48.0, 11.5, 48.25]
    properties = item["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] < properties["end_datetime"]
    required = {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}
    assert required <= set(properties)
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert "semantic-segmentation" in properties["mlm:tasks"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["mlm:framework_version"])
    assert (properties["mlm:pretrained"], properties["mlm:pretrained_source"]) == (False, None)
    assert properties["gsd"] == 0.05
    assert properties["ctrs:data_licence"] == "CC BY 4.0"
    used = {key.partition(":")[0] for key in properties if ":" in key} - {"ctrs"}
    declared = {address.split("/")[3] for address in item["stac_extensions"]}
    assert used <= declared
    assert {"mlm", "file", "classification", "eo"} == declared
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", properties["created"])


def test_input_and_output(tmp_path: Path) -> None:
    properties = stac_item(read_card(write_run(tmp_path / "roofs")))["properties"]
    (given,), (result,) = properties["mlm:input"], properties["mlm:output"]
    # Bands that an input names must be described by the item.
    assert given["bands"] == [band["name"] for band in properties["bands"]] == ["near infrared", "red", "green"]
    assert [band["eo:common_name"] for band in properties["bands"]] == ["nir", "red", "green"]
    assert properties["bands"][0]["data_type"] == "uint16"
    assert given["input"] == {
        "shape": [-1, 3, 512, 512], "dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"
    }  # fmt: skip
    assert given["value_scaling"][1] == {"type": "z-score", "mean": 800, "stddev": 90}
    assert len(given["value_scaling"]) == len(given["bands"])
    assert given["resize_type"] == "interpolation-linear"
    assert result["result"]["shape"] == [-1, 3, 512, 512]
    classes = result["classification:classes"]
    assert [entry["value"] for entry in classes] == [0, 1, 2]
    assert classes[0]["name"] == "low-vegetation"
    assert classes[0]["color_hint"] == "00FFFF"
    assert all(re.fullmatch("[0-9A-Za-z_-]+", entry["name"]) for entry in classes)


def test_assets_are_the_files_beside_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs")
    path = write_stac_item(read_card(run))
    assert path == run / "best" / "model.stac.json"
    assets = json.loads(path.read_text())["assets"]
    weights = path.parent / assets["weights"]["href"]
    assert assets["weights"]["file:checksum"] == "1220" + hashlib.sha256(weights.read_bytes()).hexdigest()
    assert assets["weights"]["file:size"] == weights.stat().st_size
    assert "mlm:model" in assets["weights"]["roles"]
    # STAC 1.1's schema refuses bands in an item's properties where no asset has any.
    assert [band["name"] for band in assets["weights"]["bands"]] == ["near infrared", "red", "green"]
    assert (path.parent / assets["description"]["href"]).is_file()
    lone = tmp_path / "7.safetensors"
    lone.write_bytes(weights.read_bytes())
    alone = json.loads(write_stac_item(read_card(lone)).read_text())
    assert (tmp_path / "7.stac.json").is_file()
    assert set(alone["assets"]) == {"weights"}
    assert alone["id"] == "model-7"


def test_without_a_place_the_geometry_is_null(tmp_path: Path) -> None:
    item = stac_item(read_card(write_run(tmp_path / "roofs", data={}, pixel_size_m=None, config={})))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert "gsd" not in item["properties"]
    assert "mlm:hyperparameters" not in item["properties"]


def test_what_it_began_from_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "roofs", init={"path": "runs/old", "weights_hash": "ab", "data": "inria"})
    properties = stac_item(read_card(run))["properties"]
    assert (properties["mlm:pretrained"], properties["mlm:pretrained_source"]) == (True, "runs/old")


def test_another_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    card = read_card(write_run(tmp_path / "roofs"))
    path = write_stac_item(card)
    assert write_stac_item(card) == path
    path.write_text("{}")
    with pytest.raises(OutputExistsError, match="exists and differs; pass --overwrite"):
        write_stac_item(card)
    write_stac_item(card, overwrite=True)
    assert json.loads(path.read_text())["type"] == "Feature"
