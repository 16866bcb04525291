"""The style says what QGIS draws; where QGIS is installed, it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import rasterio

from ctrs.errors import LabelError
from ctrs.raster.cog import MaskClass
from ctrs.report.qgis_style import qgis_style, write_style
from tests.report.masks import write_mask


def test_each_class_has_its_value_name_and_colour(tmp_path: Path) -> None:
    path = write_style(write_mask(tmp_path / "town_mask.tif"))
    assert path == tmp_path / "town_mask.qml"
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == "qgis"
    renderer = root.find("./pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    rows = [(e.get("value"), e.get("color"), e.get("label"), e.get("alpha")) for e in renderer.iter("paletteEntry")]
    assert rows == [
        ("0", "#0a141e", "ground", "255"),
        ("1", "#ff0000", 'roof & <"gable">', "255"),
        ("2", "#00ff10", "Straße", "255"),
    ]


def test_a_mask_that_is_not_in_place_yet_is_styled_where_it_will_be(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    staged = write_mask(tmp_path / "work/town_mask.tif")
    assert write_style(staged, final=tmp_path / "town_mask.tif") == tmp_path / "town_mask.qml"
    assert not (tmp_path / "work/town_mask.qml").exists()


def test_values_keep_their_gaps() -> None:
    style = qgis_style(
        [MaskClass(value=1, name="roof", color=(1, 2, 3)), MaskClass(value=6, name="other", color=(9, 9, 9))]
    )
    assert [entry.get("value") for entry in ElementTree.fromstring(style).iter("paletteEntry")] == ["1", "6"]


def test_a_raster_of_others_has_no_style(tmp_path: Path) -> None:
    with rasterio.open(write_mask(tmp_path / "m.tif")) as dataset:
        profile = {**dataset.profile, "driver": "GTiff"}
        with rasterio.open(tmp_path / "other.tif", "w", **profile) as copy:
            copy.write(dataset.read())
    with pytest.raises(LabelError, match="no tag CTRS_CLASSES found"):
        write_style(tmp_path / "other.tif")
    assert not (tmp_path / "other.qml").exists()


_ASK_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "mask")
message, loaded = layer.loadDefaultStyle()
renderer = layer.renderer()
classes = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
image = renderer.block(1, layer.extent(), layer.width(), layer.height())
seen = sorted({image.color(row, col) for row in range(layer.height()) for col in range(layer.width())})
drawn = [color & 0xFFFFFFFF for color in seen]
print(json.dumps({"loaded": loaded, "type": renderer.type(), "classes": classes, "drawn": drawn}))
"""


@pytest.mark.slow
def test_qgis_draws_the_classes_and_nothing_for_nodata(tmp_path: Path, ask_qgis: Callable[..., Any]) -> None:
    mask = write_mask(tmp_path / "town_mask.tif")
    write_style(mask)
    found = ask_qgis(_ASK_QGIS, mask)
    assert found["loaded"] is True
    assert found["type"] == "paletted"
    assert found["classes"] == [[0, "ground", "#0a141e"], [1, 'roof & <"gable">', "#ff0000"], [2, "Straße", "#00ff10"]]
    assert found["drawn"] == [0, 0xFF00FF10, 0xFF0A141E, 0xFFFF0000]
