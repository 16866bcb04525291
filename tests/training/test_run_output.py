"""What a run writes for others: the description of its checkpoints, and the STAC item beside the best one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.warp

from ctrs.config import TrainConfig
from ctrs.model_files import hash_weights, read_metadata
from ctrs.raster.imagery_profile import ImageryProfile
from ctrs.tiles.manifest import Manifest
from ctrs.training import EpochRecord, train

LICENCE = "CC BY 4.0, city of Somewhere"
NUMBER, LIST, TEXT = (int, float), list, str
ITEM: dict[str, Any] = {
    "type": TEXT, "stac_version": TEXT, "stac_extensions": LIST, "id": TEXT, "geometry": dict, "bbox": LIST,
    "properties": dict, "links": LIST, "assets": dict,
}  # fmt: skip
"""What the specification of a STAC item asks for (bbox, as the geometry is known)."""
PROPERTIES: dict[str, Any] = {
    "datetime": type(None), "start_datetime": TEXT, "end_datetime": TEXT, "created": TEXT, "gsd": NUMBER, "bands": LIST,
    "mlm:name": TEXT, "mlm:architecture": TEXT, "mlm:tasks": LIST, "mlm:input": LIST, "mlm:output": LIST,
    "mlm:framework": TEXT, "mlm:framework_version": TEXT, "mlm:total_parameters": int, "mlm:pretrained": bool,
}  # fmt: skip
"""Those of an item without a single time, and of the MLM extension: required ones and ones that tools look for."""
INPUT: dict[str, Any] = {
    "name": TEXT, "bands": LIST, "input": dict, "value_scaling": LIST, "pre_processing_function": (dict, type(None)),
}  # fmt: skip
RESULT: dict[str, Any] = {"name": TEXT, "tasks": LIST, "result": dict, "classification:classes": LIST}
ARRAY: dict[str, Any] = {"shape": LIST, "dim_order": LIST, "data_type": TEXT}
ASSET: dict[str, Any] = {"href": TEXT, "title": TEXT, "type": TEXT, "roles": LIST}
CLASS: dict[str, Any] = {"value": int, "name": TEXT}


def holds(found: dict[str, Any], fields: dict[str, Any]) -> bool:
    """Whether all fields are there, each of its type."""
    wrong = {name: found.get(name, "missing") for name in fields if not isinstance(found.get(name, ...), fields[name])}
    assert wrong == {}
    return True


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Manifest:
    """Prepared data with a licence, and the order of bands that an aerial camera of false colours has."""
    folder = write_prepared(tmp_path_factory.mktemp("data") / "town", test=1)
    manifest = Manifest.open(folder)
    bands = dataclasses.replace(manifest.bands, names=("near infrared", "red", "green"))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 600), np.uint8)
    imagery = ImageryProfile.of([pixels], [1.0], [0.1])
    dataclasses.replace(manifest, licence=LICENCE, bands=bands, imagery=imagery).save(folder)
    return Manifest.open(folder)


@pytest.fixture(scope="module")
def run(town: Manifest, tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    path = tmp_path_factory.mktemp("runs") / "first"
    records: list[EpochRecord] = []
    train(town.root, path, dataclasses.replace(tiny_config, epochs=1, log=()), on_epoch=records.append)
    (path / "score.json").write_text(json.dumps(records[0].scores))
    return path


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_description_says_what_the_weights_come_from(town: Manifest, run: Path, checkpoint: str) -> None:
    described = json.loads((run / checkpoint / "model.json").read_text())
    scores = json.loads((run / "score.json").read_text())
    assert described["kind"] == "ctrs segmentation model"
    assert described["data"] == {
        "name": "town", "path": str(town.root), "preset": None, "split_hash": town.split_hash,
        "fingerprint": town.fingerprint, "num_tiles": {"train": 6, "val": 2, "test": 1}, "licence": LICENCE,
        "footprint": json.loads(json.dumps(town.training_ground)),
        "imagery": json.loads(json.dumps(town.imagery.to_json() if town.imagery else None)),
    }  # fmt: skip
    assert ImageryProfile.from_json(described["data"]["imagery"], where="model.json") == town.imagery
    assert described["pixel_size_m"] == 0.1
    assert described["bands"]["names"] == ["near infrared", "red", "green"]
    assert [described["bands"][key] for key in ("mean", "std")] == [[100.0] * 3, [50.0] * 3]
    assert described["metrics"]["val_mean_iou"] == pytest.approx(scores["mean_iou"], abs=1e-7)
    assert described["protocol"] == "validation tiles: strict, all classes"
    assert described["epoch"] == 1
    assert described["config"]["learning_rate"] == 3e-3
    assert described["weights_hash"] == hash_weights(run / checkpoint / "model.safetensors")
    assert re.fullmatch(r"[0-9a-f]{64}", described["weights_hash"])
    assert read_metadata(run / checkpoint).data["licence"] == LICENCE


def test_the_best_checkpoint_has_a_stac_item(town: Manifest, run: Path) -> None:
    path = run / "best" / "model.stac.json"
    item = json.loads(path.read_text())
    assert holds(item, ITEM)
    assert item["type"] == "Feature"
    assert re.fullmatch(r"1\.\d+\.\d+", item["stac_version"])
    assert re.fullmatch(r"\S+", item["id"])
    properties = item["properties"]
    assert holds(properties, PROPERTIES)
    assert any(re.search(r"/mlm/v1\.\d+\.\d+/schema\.json$", address) for address in item["stac_extensions"])
    for key in ("start_datetime", "end_datetime", "created"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", properties[key])
    assert properties["mlm:total_parameters"] > 1000
    assert properties["gsd"] == 0.1
    assert (properties["ctrs:data_licence"], properties["ctrs:split_hash"]) == (LICENCE, town.split_hash)
    assert properties["ctrs:weights_hash"] == hash_weights(run / "best" / "model.safetensors")
    (given,), (result,) = properties["mlm:input"], properties["mlm:output"]
    assert holds(given, INPUT)
    assert holds(result, RESULT)
    assert given["bands"] == [band["name"] for band in properties["bands"]] == ["near infrared", "red", "green"]
    for array, channels in ((given["input"], 3), (result["result"], 2)):
        assert holds(array, ARRAY)
        assert array["shape"] == [-1, channels, 64, 64]
        assert len(array["dim_order"]) == len(array["shape"])
    assert all(holds(entry, CLASS) for entry in result["classification:classes"])
    assert [entry["name"] for entry in result["classification:classes"]] == ["ground", "building"]


def test_the_item_lies_where_the_training_tiles_lie(run: Path) -> None:
    item = json.loads((run / "best" / "model.stac.json").read_text())
    assert item["geometry"]["type"] in ("Polygon", "MultiPolygon")
    corners = [(500000, 5800000 - 6.4), (500000 + 6 * 6.4, 5800000)]  # six training tiles side by side
    lon, lat = rasterio.warp.transform("EPSG:32633", "EPSG:4326", *zip(*corners, strict=True))
    assert item["bbox"] == pytest.approx([lon[0], lat[0], lon[1], lat[1]], abs=1e-5)


def test_assets_of_the_item_are_files_beside_it(run: Path) -> None:
    assets = json.loads((run / "best" / "model.stac.json").read_text())["assets"]
    assert all(holds(asset, ASSET) for asset in assets.values())
    files = {name: run / "best" / asset["href"] for name, asset in assets.items()}
    assert {path.name for path in files.values()} == {"model.safetensors", "model.json"}
    models = [name for name, asset in assets.items() if "mlm:model" in asset["roles"]]
    assert models == ["weights"]
    found = hashlib.sha256(files["weights"].read_bytes()).hexdigest()
    assert assets["weights"]["file:checksum"] == f"1220{found}"


def test_without_licence_and_validation_none_is_claimed(
    write_prepared: Any, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    data = write_prepared(tmp_path / "town", train=2, val=0)
    train(data, tmp_path / "run", dataclasses.replace(tiny_config, epochs=1, log=(), loss="none"))
    described = json.loads((tmp_path / "run" / "best" / "model.json").read_text())
    assert (described["data"]["licence"], described["protocol"]) == (None, None)
    item = json.loads((tmp_path / "run" / "best" / "model.stac.json").read_text())
    assert item["properties"]["ctrs:data_licence"] is None
