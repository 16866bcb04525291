from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import shapely

from ctrs.config import VectorizeConfig
from ctrs.errors import OutputExistsError
from ctrs.raster.cog import MaskClass
from ctrs.vector import vectorize
from ctrs.vector.layers.style import style_path, style_text

CLASSES = (
    MaskClass(value=1, name="building", color=(200, 40, 10)),
    MaskClass(value=4, name='trees & "<shrubs>"', color=(0, 120, 0)),
)
_READ_BACK = """
import json, sys
from qgis.core import QgsApplication, QgsSymbolLayer, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsVectorLayer(sys.argv[1], "polygons", "ogr")
assert layer.isValid()
renderer = layer.renderer()
found = [(c.value(), list(c.symbol().color().getRgb())) for c in renderer.categories()]
styles = []
for category in renderer.categories():
    symbol = category.symbol().clone()
    part = symbol.symbolLayer(0)
    styles.append(part.dataDefinedProperties().property(QgsSymbolLayer.PropertyStrokeStyle).expressionString())
print(json.dumps([renderer.type(), renderer.classAttribute(), found, styles]))
"""


def test_each_class_has_a_category_in_its_colour() -> None:
    root = ElementTree.fromstring(style_text(CLASSES))
    categories = root.findall("renderer-v2/categories/category")
    assert [entry.get("value") for entry in categories] == [entry.name for entry in CLASSES]
    symbols = {symbol.get("name"): symbol for symbol in root.findall("renderer-v2/symbols/symbol")}
    for category, entry in zip(categories, CLASSES, strict=True):
        layer = symbols[category.get("symbol")].find("layer")
        assert layer is not None
        properties = {prop.get("k"): prop.get("v") for prop in layer.findall("prop")}
        assert str(properties["color"]).split(",")[:3] == [str(tone) for tone in entry.color]
        assert properties == {option.get("name"): option.get("value") for option in layer.findall("Option/Option")}


def test_buildings_without_straight_walls_have_dashed_outlines() -> None:
    root = ElementTree.fromstring(style_text(CLASSES))
    building, trees = root.findall("renderer-v2/symbols/symbol/layer")
    found = building.findall("data_defined_properties/Option/Option[@name='properties']/Option[@name='outlineStyle']/")
    values = {option.get("name"): option.get("value") for option in found}
    assert values == {"active": "true", "expression": "if(\"method\" = 'outline', 'dash', 'solid')", "type": "3"}
    assert trees.find("data_defined_properties") is None


def test_qgis_reads_the_style_beside_the_layer(tmp_path: Path, ask_qgis: Callable[..., Any]) -> None:
    layer = tmp_path / "scene_mask.gpkg"
    geopandas.GeoDataFrame(
        {"class": [entry.name for entry in CLASSES]}, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs="EPSG:32633"
    ).to_file(layer)
    style_path(layer).write_text(style_text(CLASSES), encoding="utf-8")
    kind, column, found, styles = ask_qgis(_READ_BACK, layer)
    assert (kind, column) == ("categorizedSymbol", "class")
    assert styles == ["if(\"method\" = 'outline', 'dash', 'solid')", ""]
    assert [(value, color[:3]) for value, color in found] == [(entry.name, list(entry.color)) for entry in CLASSES]


def test_a_style_is_written_on_request_and_no_other_is_replaced(
    write_mask: Callable[..., Path], tmp_path: Path
) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[4:12, 5:20] = 1
    mask, out = write_mask(labels), tmp_path / "houses.gpkg"
    vectorize(mask, out)
    assert not style_path(out).exists()
    assert vectorize(mask, out, VectorizeConfig(qml=True)).skipped  # the layer is the same
    text = style_path(out).read_text(encoding="utf-8")
    assert 'value="building"' in text
    style_path(out).write_text("<qgis/>", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"houses\.qml: is another style"):
        vectorize(mask, out, VectorizeConfig(qml=True))
    vectorize(mask, out, VectorizeConfig(qml=True, overwrite=True))
    assert style_path(out).read_text(encoding="utf-8") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["houses.gpkg", "houses.qml", "scene_mask.tif"]
