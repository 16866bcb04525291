"""A QGIS style beside a layer: one category for each class, in the colour of the mask.

Outlines of buildings that no straight walls fit are dashed. The style is a file of its own also beside a GeoPackage: in
a table ``layer_styles`` it would make readers that list layers see two, and geopandas warn at each read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ctrs.config.vectorize import BUILDING
from ctrs.errors import OutputExistsError
from ctrs.jobs import not_writable
from ctrs.raster.cog import MaskClass

_FILL_ALPHA = 110
_OUTLINE_SHARE = 0.6
"""Outlines have the class's colour, darker by this factor."""

_OUTLINE_STYLE = "if(\"method\" = 'outline', 'dash', 'solid')"
"""Expression of QGIS; null, where no walls were asked for, is solid."""

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def style_path(layer: Path) -> Path:
    """Return where QGIS looks for the style of a layer.

    >>> style_path(Path("city/scene_mask.gpkg")).as_posix()
    'city/scene_mask.qml'
    """
    return layer.with_suffix(".qml")


def style_text(classes: Sequence[MaskClass]) -> str:
    """Return the style: polygons by the column ``class``, filled half transparent, with darker outlines."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class", symbollevels="0")
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, entry in enumerate(classes):
        label = {"value": entry.name, "label": entry.name, "symbol": str(number), "render": "true", "type": "string"}
        ElementTree.SubElement(categories, "category", label)
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        darker = [round(_OUTLINE_SHARE * tone) for tone in entry.color]
        properties = {
            "color": _rgba(entry.color, _FILL_ALPHA),
            "style": "solid",
            "outline_color": _rgba(darker, 255),
            "outline_style": "solid",
            "outline_width": "0.3",
            "outline_width_unit": "MM",
        }
        for key, value in properties.items():
            ElementTree.SubElement(layer, "prop", k=key, v=value)
        # QGIS 3.26 and later read options, earlier ones properties.
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for key, value in properties.items():
            ElementTree.SubElement(options, "Option", name=key, value=value, type="QString")
        if entry.name == BUILDING:
            _add_expression(layer, "outlineStyle", _OUTLINE_STYLE)
    ElementTree.indent(root)
    return _HEAD + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_expression(layer: ElementTree.Element, name: str, expression: str) -> None:
    """Let an expression decide a property of a symbol's layer, as QGIS writes it."""
    root = ElementTree.SubElement(ElementTree.SubElement(layer, "data_defined_properties"), "Option", type="Map")
    ElementTree.SubElement(root, "Option", name="name", value="", type="QString")
    properties = ElementTree.SubElement(root, "Option", name="properties", type="Map")
    entry = ElementTree.SubElement(properties, "Option", name=name, type="Map")
    ElementTree.SubElement(entry, "Option", name="active", value="true", type="bool")
    ElementTree.SubElement(entry, "Option", name="expression", value=expression, type="QString")
    ElementTree.SubElement(entry, "Option", name="type", value="3", type="int")
    ElementTree.SubElement(root, "Option", name="type", value="collection", type="QString")


def check_style(layer: Path, classes: Sequence[MaskClass], *, overwrite: bool) -> None:
    """Refuse to replace another style that stands beside a layer.

    Raises:
        OutputExistsError: One stands there, and may not be replaced.
    """
    path = style_path(layer)
    if path.exists() and not overwrite and path.read_bytes() != style_text(classes).encode():
        raise OutputExistsError(
            f"{path}: is another style; choose another name with -o, or replace it with --overwrite"
        )


def write_style(layer: Path, classes: Sequence[MaskClass]) -> None:
    """Write the style beside a layer, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    path = style_path(layer)
    staged = path.with_name(f".{path.name}.partial")
    try:
        staged.write_text(style_text(classes), encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise not_writable(path, error.strerror or str(error)) from error


def _rgba(color: Sequence[int], alpha: int) -> str:
    return ",".join(str(tone) for tone in (*color, alpha))
