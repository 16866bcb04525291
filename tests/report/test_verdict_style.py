"""The style says what QGIS draws; where QGIS is installed, it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import pytest
import shapely

from ctrs.report.verdict_style import COLORS, verdict_style


def test_each_verdict_of_each_layer_has_its_colour() -> None:
    root = ElementTree.fromstring(verdict_style())
    renderer = root.find("./renderer-v2")
    assert renderer is not None
    assert renderer.get("type") == "categorizedSymbol"
    symbols = {entry.get("name"): entry for entry in renderer.iter("symbol")}
    categories = [(entry.get("value"), symbols[entry.get("symbol")]) for entry in renderer.iter("category")]
    assert [value for value, _ in categories] == [
        "drawn matched", "drawn split", "drawn merged", "drawn spurious",
        "truth matched", "truth split", "truth merged", "truth missed",
    ]  # fmt: skip
    for value, symbol in categories:
        layer, verdict = str(value).split()
        options = {entry.get("name"): entry.get("value") for entry in symbol.iter("Option") if entry.get("name")}
        assert options["outline_color"] == ",".join(map(str, COLORS[verdict])) + ",255"
        assert options["style"] == ("solid" if layer == "drawn" else "no")


_ASK_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer, QgsRenderContext
application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(sys.argv[1], "verdicts", "ogr")
renderer = layer.renderer()
context = QgsRenderContext()
renderer.startRender(context, layer.fields())
context.expressionContext().appendScope(layer.createExpressionContextScope())
found = []
for feature in layer.getFeatures():
    context.expressionContext().setFeature(feature)
    symbol = renderer.symbolForFeature(feature, context)
    found.append(None if symbol is None else symbol.symbolLayer(0).strokeColor().name())
renderer.stopRender(context)
print(json.dumps({"type": renderer.type(), "drawn": found}))
"""


@pytest.mark.slow
def test_qgis_draws_each_building_in_the_colour_of_its_verdict(tmp_path: Path, ask_qgis: Callable[..., Any]) -> None:
    path = tmp_path / "town_verdicts.gpkg"
    rows = [("truth", "matched"), ("truth", "missed"), ("drawn", "spurious"), ("drawn", "merged")]
    geopandas.GeoDataFrame(
        {"layer": [layer for layer, _ in rows], "verdict": [verdict for _, verdict in rows]},
        geometry=[shapely.box(place, 0, place + 1, 1) for place in range(len(rows))],
        crs="EPSG:32633",
    ).to_file(path)
    path.with_suffix(".qml").write_text(verdict_style(), encoding="utf-8")
    found = ask_qgis(_ASK_QGIS, path)
    assert found["type"] == "categorizedSymbol"
    assert found["drawn"] == ["#{:02x}{:02x}{:02x}".format(*COLORS[verdict]) for _, verdict in rows]
