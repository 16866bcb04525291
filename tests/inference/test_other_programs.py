"""Masks as other programs read them: GDAL's own tools, and QGIS where it is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ctrs.config import PredictConfig

ASK_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "mask")
if len(sys.argv) > 2:
    layer.loadNamedStyle(sys.argv[2])
provider = layer.dataProvider()
classes = [[entry.value, entry.label, entry.color.name()] for entry in layer.renderer().classes()]
print(json.dumps({
    "valid": layer.isValid(), "crs": layer.crs().authid(), "classes": classes,
    "nodata": provider.sourceNoDataValue(1) if provider.sourceHasNoDataValue(1) else None,
}))
"""


@pytest.fixture
def mask(make_identity, tmp_path):
    from tests.inference.conftest import UTM, rasterio

    scene = tmp_path / "scene.tif"
    pixels = np.random.default_rng(0).integers(1, 256, (3, 300, 200)).astype(np.uint8)
    profile = {"driver": "GTiff", "width": 200, "height": 300, "count": 3, "dtype": "uint8"}
    with rasterio.open(scene, "w", **profile, crs="EPSG:32633", transform=UTM) as file:
        file.write(pixels)
    return make_identity().predict_raster(scene, tmp_path / "scene_mask.tif", PredictConfig(style=True))


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="GDAL's programs are not installed")
def test_gdalinfo_names_classes_and_colours(mask):
    answer = subprocess.run(["gdalinfo", "-json", mask], capture_output=True, check=True, timeout=60).stdout
    (band,) = json.loads(answer)["bands"]
    assert band["categories"] == ["class 0", "class 1", "class 2"]
    assert band["colorInterpretation"] == "Palette"
    assert band["noDataValue"] == 255
    assert band["colorTable"]["entries"][:3] == [[0, 100, 200, 255], [1, 100, 200, 255], [2, 100, 200, 255]]


@pytest.fixture(scope="module")
def everything(make_identity, tmp_path_factory):
    """All kinds of rasters that a command writes, by number format of the probabilities, of a scene with a collar."""
    from tests.inference.conftest import UTM, rasterio

    folder = tmp_path_factory.mktemp("everything")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 1100, 600)).astype(np.uint8)
    pixels[:, :, :40] = 0
    profile = {"driver": "GTiff", "width": 600, "height": 1100, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(folder / "scene.tif", "w", **profile, crs="EPSG:32633", transform=UTM) as file:
        file.write(pixels)
    found = {}
    for number_format in ("uint8", "float16"):
        config = PredictConfig(window_px=256, confidence="margin", probabilities=number_format)
        mask = make_identity().predict_raster(folder / "scene.tif", folder / number_format / "a_mask.tif", config)
        found[number_format] = {path.stem: path for path in sorted(mask.parent.glob("*.tif"))}
        assert list(found[number_format]) == ["a_confidence", "a_mask", "a_probabilities"]
    return found


@pytest.mark.parametrize("number_format", ["uint8", "float16"])
def test_rio_cogeo_accepts_every_raster(everything, number_format):
    for path in everything[number_format].values():
        done = subprocess.run(
            [Path(sys.executable).with_name("rio"), "cogeo", "validate", "--strict", path],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stdout.strip().endswith(f"{path.name} is a valid cloud optimized GeoTIFF"), (
            done.stdout + done.stderr
        )


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="GDAL's programs are not installed")
@pytest.mark.parametrize("number_format", ["uint8", "float16"])
def test_gdalinfo_knows_every_raster(everything, number_format):
    def bands(name):
        path = everything[number_format][name]
        answer = subprocess.run(["gdalinfo", "-json", path], capture_output=True, check=True, timeout=60).stdout
        found = json.loads(answer)["bands"]
        assert [[overview["size"] for overview in band["overviews"]] for band in found] == [
            [[300, 550], [150, 275]]
        ] * len(found)
        return found

    (mask,) = bands("a_mask")
    assert (mask["type"], mask["noDataValue"], mask["colorInterpretation"]) == ("Byte", 255, "Palette")
    assert mask["categories"] == ["class 0", "class 1", "class 2"]
    (confidence,) = bands("a_confidence")
    assert (confidence["type"], confidence["noDataValue"]) == ("UInt16", 0)
    assert confidence["scale"] == pytest.approx(1 / 65535)
    probabilities = bands("a_probabilities")
    assert [band["description"] for band in probabilities] == ["class 0", "class 1", "class 2"]
    for band in probabilities:
        if number_format == "uint8":
            assert (band["type"], band["noDataValue"]) == ("Byte", 255)
            assert band["scale"] == pytest.approx(1 / 254)
        else:
            assert band["type"] in {"Float32", "Float16"}  # by the version of GDAL
            assert band["noDataValue"] == "NaN"


@pytest.mark.slow
@pytest.mark.parametrize("styled", [False, True], ids=["by itself", "by the style"])
def test_qgis_shows_classes_and_colours(mask, ask_qgis, styled):
    answer = ask_qgis(ASK_QGIS, mask, *([mask.with_suffix(".qml")] if styled else []))
    assert answer["valid"]
    assert answer["crs"] == "EPSG:32633"
    assert answer["nodata"] == 255
    expected = [[0, "class 0", "#0064c8"], [1, "class 1", "#0164c8"], [2, "class 2", "#0264c8"]]
    shown = [[int(value), name, color] for value, name, color in answer["classes"]]
    assert (shown if styled else shown[:3]) == expected
