"""Each set of real imagery becomes a data set by one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import rasterio

from ctrs.tiles import Manifest

if TYPE_CHECKING:
    from tests.conftest import RunCtrs

pytestmark = pytest.mark.slow

COMMANDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "drone scenes": (
        ["oam_fair_buildings", "--test", "zanzibar_b*", "--test", "catanduanes_*"],
        {"scenes": 10, "bands": 3, "dtype": "uint8", "crs": 3857, "classes": ["background", "building"]},
    ),
    "chips whose CRS stands in a sidecar": (
        ["oam_banepa_urban", "--images", "chips/*.tif", "--labels", "labels/buildings.geojson"],
        {"scenes": 48, "bands": 3, "dtype": "uint8", "crs": 4326, "classes": ["background", "building"]},
    ),
    "colours, some off the legend": (
        [
            "dubai_mbrsc_landcover", "--classes", "dubai_mbrsc_landcover/palette.json", "--max-unknown", "0.01",
            "--val", "t5_*", "--test", "t6_*",
        ],
        {"scenes": 54, "bands": 3, "dtype": "uint8", "crs": None, "classes": 6},
    ),
    "four classes of polygons": (
        ["nrcan_gdl_fixtures/new_brunswick_aerial_0.5m", "--class-field", "Quatreclasses", "--tile", "128"],
        {"scenes": 2, "bands": 3, "dtype": "uint8", "crs": 2953, "classes": 5},
    ),
    "metres": (
        [
            "nrcan_gdl_fixtures/massachusetts_1m", "--images", "22978945_15.tif", "--labels", "22978945_15.gpkg",
            "--tile", "128m",
        ],
        {"scenes": 1, "bands": 3, "dtype": "uint8", "crs": 26986, "classes": ["background", "building"]},
    ),
    "16 bits": (
        [
            "nrcan_gdl_fixtures/massachusetts_1m", "--images", "23429155_15_uint16.tif", "--labels", "23429155_15.gpkg",
        ],
        {"scenes": 1, "bands": 3, "dtype": "uint16", "crs": 26986, "classes": ["background", "building"]},
    ),
    "near infrared that is called alpha": (
        ["nrcan_gdl_fixtures/spacenet4_atlanta_rgbnir_0.5m", "--bidx", "1,2,3,4", "--tile", "128"],
        {"scenes": 1, "bands": 4, "dtype": "uint8", "crs": 32616, "classes": ["background", "building"]},
    ),
    "pixels that are not square": (
        [
            "nrcan_gdl_fixtures/spacenet2_vegas_singleband_0.27m", "--images", "WV03-R.tif", "--labels",
            "buildings.gpkg", "--tile", "128",
        ],
        {"scenes": 1, "bands": 1, "dtype": "uint8", "crs": 26911, "classes": ["background", "building"]},
    ),
    "labels whose nodata is a class": (
        ["nrcan_gdl_fixtures/quebec_aerial_chips", "--tile", "128"],
        {"scenes": 2, "bands": 3, "dtype": "uint8", "crs": 2949, "classes": ["background", "building"]},
    ),
    "panchromatic": (
        ["solaris_spacenet_atlanta_pan16", "--images", "sample_geotiff.tif", "--labels", "geotiff_labels.geojson"],
        {"scenes": 1, "bands": 1, "dtype": "uint16", "crs": 32616, "classes": ["background", "building"]},
    ),
    "four bands": (
        ["chesapeake_naip_rgbn_wv", "--bidx", "1-4", "--val", "val_*"],
        {"scenes": 16, "bands": 4, "dtype": "uint8", "crs": None, "classes": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_one_command(what: str, real_data: Path, tmp_path: Path, run_ctrs: RunCtrs) -> None:
    arguments, expected = COMMANDS[what]
    arguments = [str(real_data / text) if (real_data / text).exists() else text for text in arguments]
    out = tmp_path / "prepared"
    done = run_ctrs("prepare", *arguments, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.open(out)
    assert json.loads(done.stdout)["path"] == str(out)
    assert len({tile.scene for tile in manifest.tiles}) == len(manifest.scenes) == expected["scenes"]
    assert (manifest.bands.count, manifest.bands.dtype) == (expected["bands"], expected["dtype"])
    names = expected["classes"]
    assert manifest.classes.num_classes == names if isinstance(names, int) else list(manifest.classes.names) == names
    report = (out / "report.html").read_text(encoding="utf-8")
    assert all(scene.name in report for scene in manifest.scenes)
    for tile in manifest.tiles:
        with rasterio.open(tile.image) as image, rasterio.open(tile.mask) as mask:
            assert image.count == expected["bands"]
            assert (None if image.crs is None else image.crs.to_epsg()) == expected["crs"]
            assert (image.crs, image.transform, image.shape) == (mask.crs, mask.transform, mask.shape)
    again = run_ctrs("prepare", *arguments, "--out", out)
    assert again.returncode == 0
    assert "already prepared" in again.stderr
