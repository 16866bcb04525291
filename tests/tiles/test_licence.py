from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ctrs.config import PrepareConfig
from ctrs.errors import ConfigError
from ctrs.tiles import prepare_tiles
from ctrs.tiles.manifest import Manifest
from ctrs.tiles.preset_file import parse_preset
from ctrs.tiles.presets import load_preset, preset_text

SMALL = PrepareConfig(tile_px=64)


@pytest.fixture
def source(make, tmp_path: Path) -> Path:
    make.raster(tmp_path / "src" / "images" / "a.tif", make.noise(64, 128), crs="EPSG:32633")
    make.raster(tmp_path / "src" / "labels" / "a.tif", make.indices(64, 128, num=2), crs="EPSG:32633")
    return tmp_path / "src"


def licence_in(folder: Path) -> str | None:
    return json.loads((folder / "prepared.json").read_text())["licence"]


def test_the_licence_given_is_kept(source: Path, tmp_path: Path) -> None:
    manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64, licence="CC BY 4.0"))
    assert manifest.licence == Manifest.open(tmp_path / "out").licence == licence_in(tmp_path / "out") == "CC BY 4.0"


def test_another_licence_cuts_nothing_anew(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_tiles(source, tmp_path / "out", SMALL)
    assert first.licence is None

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("cut again")

    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", forbidden)
    tiles = (tmp_path / "out" / "manifest.parquet").read_bytes()
    named = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64, licence="CC0"))
    assert named.licence == licence_in(tmp_path / "out") == "CC0"
    assert named.fingerprint == first.fingerprint
    assert (tmp_path / "out" / "manifest.parquet").read_bytes() == tiles
    assert prepare_tiles(source, tmp_path / "out", SMALL) == named  # not told again: it stays


def test_data_that_were_prepared_before_there_were_licences_are_read(source: Path, tmp_path: Path) -> None:
    prepare_tiles(source, tmp_path / "out", SMALL)
    file = tmp_path / "out" / "prepared.json"
    document = json.loads(file.read_text())
    del document["licence"]
    file.write_text(json.dumps(document))
    assert Manifest.open(tmp_path / "out").licence is None


def test_a_preset_may_name_a_licence_which_does_not_tell_data_apart() -> None:
    preset = load_preset("landcover_ai")
    assert preset is not None
    assert preset.licence == "CC BY-NC-SA 4.0"
    without = "\n".join(line for line in preset_text("landcover_ai").splitlines() if not line.startswith("licence"))
    assert repr(parse_preset(without, name="landcover_ai", where="x")) == repr(preset)


def test_an_empty_licence_is_refused() -> None:
    with pytest.raises(ConfigError, match="licence = ' ' found, expected some text"):
        PrepareConfig(licence=" ")


def test_the_ground_of_the_training_tiles(source: Path, make, tmp_path: Path) -> None:
    manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0))
    geometry = manifest.training_ground
    assert geometry is not None
    assert geometry["type"] == "Polygon"
    corners = np.array(geometry["coordinates"][0])
    assert (corners[0] == corners[-1]).all()
    json.dumps(geometry)
