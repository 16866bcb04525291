"""A mask's look for QGIS: ``SCENE_mask.qml`` beside ``SCENE_mask.tif``, which QGIS 3 finds and loads by its name.

A paletted renderer with the value, name and colour of each class. Nodata (255) has no entry and is not drawn, as are
values that the mask's classes do not hold. Checked by loading it into QGIS 3.22.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ctrs.jobs import write_text
from ctrs.raster.cog import MaskClass, read_class_tag

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0"
"""Oldest QGIS that knows all that is written; newer ones read it too."""


def style_path(mask: Path) -> Path:
    """Return where the style of a mask stands.

    >>> style_path(Path("city/scene_mask.tif")).as_posix()
    'city/scene_mask.qml'
    """
    return mask.with_suffix(".qml")


def qgis_style(classes: Sequence[MaskClass]) -> str:
    """Return the style of a mask with these classes as QML."""
    root = ElementTree.Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    provider = ElementTree.SubElement(pipe, "provider")
    ElementTree.SubElement(
        provider,
        "resampling",
        enabled="false",  # anything but the nearest pixel would invent classes between two
        maxOversampling="2",
        zoomedInResamplingMethod="nearestNeighbour",
        zoomedOutResamplingMethod="nearestNeighbour",
    )
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in classes:
        red, green, blue = entry.color
        color = f"#{red:02x}{green:02x}{blue:02x}"
        ElementTree.SubElement(
            palette, "paletteEntry", value=str(entry.value), color=color, alpha="255", label=entry.name
        )
    ElementTree.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ElementTree.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0", invertColors="0")
    ElementTree.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ElementTree.SubElement(pipe, "resamplingStage").text = "resamplingFilter"
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.indent(root)
    return f"{_DOCTYPE}{ElementTree.tostring(root, encoding='unicode')}\n"


def write_style(mask: Path, *, final: Path | None = None) -> Path:
    """Write the style of a mask beside it.

    Args:
        mask: A mask of ctrs; read for its classes.
        final: Where the mask will stand, if it is not there yet; None: where it is.

    Returns:
        The file that was written; one that stood there is replaced.

    Raises:
        LabelError: The mask does not say what its values mean.
        OutputError: The file cannot be written.
    """
    path = style_path(final or mask)
    write_text(path, qgis_style(read_class_tag(mask)))
    return path
