"""The look of judged buildings for QGIS: ``NAME_verdicts.qml`` beside ``NAME_verdicts.gpkg``, which QGIS loads by name.

A categorized renderer: drawn buildings are filled with the colour of their verdict, true ones outlined with it.
"""

from __future__ import annotations

from xml.etree import ElementTree

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0"

COLORS: dict[str, tuple[int, int, int]] = {
    "matched": (46, 160, 67),
    "split": (255, 159, 28),
    "merged": (123, 44, 191),
    "missed": (214, 40, 40),
    "spurious": (0, 119, 182),
}
"""Colour of each verdict."""

_LABELS = {
    ("drawn", "matched"): "drawn: matched",
    ("drawn", "split"): "drawn: piece of one building",
    ("drawn", "merged"): "drawn: several buildings in one",
    ("drawn", "spurious"): "drawn: no building there",
    ("truth", "matched"): "truth: matched",
    ("truth", "split"): "truth: drawn in pieces",
    ("truth", "merged"): "truth: drawn as one with others",
    ("truth", "missed"): "truth: missed",
}

_SEPARATOR = " "


def verdict_style() -> str:
    """Return the style as QML; it reads the columns ``layer`` and ``verdict``."""
    root = ElementTree.Element("qgis", version=_VERSION, styleCategories="Symbology")
    attribute = f'"layer" || \'{_SEPARATOR}\' || "verdict"'
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=attribute, symbollevels="0", enableorderby="0"
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, ((layer, verdict), label) in enumerate(_LABELS.items()):
        value = f"{layer}{_SEPARATOR}{verdict}"
        ElementTree.SubElement(
            categories, "category", value=value, type="string", symbol=str(number), label=label, render="true"
        )
        _add_symbol(symbols, number, COLORS[verdict], filled=layer == "drawn")
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.SubElement(root, "layerGeometryType").text = "2"
    ElementTree.indent(root)
    return f"{_DOCTYPE}{ElementTree.tostring(root, encoding='unicode')}\n"


def _add_symbol(symbols: ElementTree.Element, number: int, color: tuple[int, int, int], *, filled: bool) -> None:
    symbol = ElementTree.SubElement(
        symbols, "symbol", name=str(number), type="fill", alpha="1", clip_to_extent="1", force_rhr="0"
    )
    fill = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    text = ",".join(map(str, color))
    properties = {
        "color": f"{text},110",
        "style": "solid" if filled else "no",
        "outline_color": f"{text},255",
        "outline_style": "solid",
        "outline_width": "0.26" if filled else "0.5",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    options = ElementTree.SubElement(fill, "Option", type="Map")
    for name, value in properties.items():
        ElementTree.SubElement(options, "Option", type="QString", name=name, value=value)
        ElementTree.SubElement(fill, "prop", k=name, v=value)  # QGIS before 3.26 reads these
