"""Pictures for people: scene, truth, prediction and polygons side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import UsageError
from ctrs.raster.bands import Bands
from ctrs.report.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Outline

Image = npt.NDArray[np.uint8]

TITLES = ("scene", "truth", "prediction", "polygons")
UNLABELLED_COLOR = (150, 150, 150)

_DPI = 100
_WIDTH_PX = 2000
_GAP_PX = 14
_TITLE_PX = 34
_LEGEND_ROW_PX = 36
_INK = "#222222"
_OUTLINE = "#ffe600"


def display_rgb(
    pixels: npt.NDArray[Any], bands: Bands | None = None, *, valid: npt.NDArray[np.bool_] | None = None
) -> Image:
    """Turn raster pixels of any dtype and band count into an image to look at.

    Bands named red, green and blue are shown as such; without them the first three bands (false colour), or the first
    one in grey. Values are stretched by the data set's statistics; without ``bands``, uint8 is shown as it is, and any
    other dtype stretched between its 2nd and 98th percentile.

    Args:
        pixels: Raw values (C, H, W).
        bands: Description of the bands.
        valid: True = valid (H, W); the rest is painted white.

    Returns:
        uint8 (3, H, W).

    Raises:
        BandMismatchError: ``bands`` describes another number of bands.
    """
    if bands is not None:
        names = [name.lower() for name in bands.names]
        scaled = bands.scale(pixels)
        chosen = (
            [names.index(name) for name in ("red", "green", "blue")] if {"red", "green", "blue"} <= {*names} else []
        )
    else:
        scaled, chosen = _stretch(pixels, valid), []
    if not chosen:
        chosen = [0, 1, 2] if len(scaled) >= 3 else [0, 0, 0]
    image: Image = np.rint(scaled[chosen] * 255).astype(np.uint8)
    if valid is not None:
        image[:, ~valid] = 255
    return image


def _stretch(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float32]:
    values = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        values /= 255
        return values
    for band in values:
        counted = np.isfinite(band) if valid is None else np.isfinite(band) & valid
        low, high = np.percentile(band[counted], (2, 98)) if counted.any() else (0.0, 1.0)
        band -= low
        band /= max(high - low, 1e-12)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    np.clip(values, 0, 1, out=values)
    return values


def comparison_picture(
    path: Path,
    image: Image,
    truth: Mask | None,
    pred: Mask | None,
    polygons: Iterable[BaseGeometry] | None,
    classes: ClassMap,
    titles: Sequence[str] = TITLES,
) -> Path:
    """Draw a scene, its true mask, the predicted mask and the polygons side by side, with a legend below.

    Args:
        path: PNG to write; about 2000 px wide.
        image: The scene, uint8 (3, H, W), e.g. from ``display_rgb``.
        truth: Mask (H, W); None leaves the panel out.
        pred: Mask (H, W); None leaves the panel out.
        polygons: Geometries in pixel coordinates (column to the right, row downwards, corners of pixels whole);
            None leaves the panel out.
        classes: Names and colours of the masks.
        titles: Of the four panels.

    Returns:
        ``path``.

    Raises:
        UsageError: Image and masks differ in size.
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[-2:]
    masks = [mask for mask in (truth, pred) if mask is not None]
    for mask in masks:
        if mask.shape != (height, width):
            raise UsageError(f"picture: mask {mask.shape} and image {(height, width)} differ in size")
    panels: list[tuple[str, Image]] = [(titles[0], image)]
    for title, layer in ((titles[1], truth), (titles[2], pred)):
        if layer is not None:
            panels.append((title, classes.encode_colors(layer, ignored_color=UNLABELLED_COLOR)))
    if polygons is not None:
        panels.append((titles[3], image))

    panel_px = (_WIDTH_PX - _GAP_PX * (len(panels) + 1)) / len(panels)
    rows_px = panel_px * height / width
    entries = _legend_entries(masks, classes, with_polygons=polygons is not None)
    legend_px = _LEGEND_ROW_PX * -(-len(entries) // _LEGEND_COLUMNS) + _GAP_PX
    total_px = _TITLE_PX + rows_px + legend_px
    figure = Figure(figsize=(_WIDTH_PX / _DPI, total_px / _DPI), dpi=_DPI, facecolor="white")
    for number, (title, picture) in enumerate(panels):
        left = _GAP_PX + number * (panel_px + _GAP_PX)
        axes = figure.add_axes((left / _WIDTH_PX, legend_px / total_px, panel_px / _WIDTH_PX, rows_px / total_px))
        axes.imshow(np.moveaxis(picture, 0, -1), extent=(0, width, height, 0), interpolation="antialiased")
        axes.set_title(title, fontsize=14, color=_INK, pad=6)
        _frame(axes)
        if polygons is not None and number == len(panels) - 1:
            _draw_polygons(axes, polygons)
    _draw_legend(figure, entries)
    return save_png(figure, path)


_LEGEND_COLUMNS = 8


def _legend_entries(masks: Sequence[Mask], classes: ClassMap, *, with_polygons: bool) -> list[tuple[str, Any]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def swatch(color: tuple[int, int, int]) -> Patch:
        return Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="#777777", linewidth=0.8)

    present = np.unique(np.concatenate([np.unique(mask) for mask in masks])) if masks else np.empty(0, np.uint8)
    entries: list[tuple[str, Any]] = [
        (name, swatch(color))
        for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        if index in present
    ]
    if IGNORE_INDEX in present:
        entries.append(("not labelled", swatch(UNLABELLED_COLOR)))
    if with_polygons:
        entries.append(("polygon", Line2D([], [], color=_OUTLINE, linewidth=2.5, path_effects=_casing(4.5))))
    return entries


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> None:
    if entries:
        figure.legend(
            [handle for _, handle in entries],
            [name for name, _ in entries],
            loc="lower center",
            ncol=min(len(entries), _LEGEND_COLUMNS),
            frameon=False,
            fontsize=13,
            labelcolor=_INK,
            handlelength=1.6,
            handleheight=1.1,
            columnspacing=1.8,
            borderaxespad=0.35,
        )


def _draw_polygons(axes: Axes, polygons: Iterable[BaseGeometry]) -> None:
    from matplotlib.patches import PathPatch

    parts = shapely.get_parts(shapely.get_parts(np.array(list(polygons), dtype=object)))
    for part in parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]:
        if part.is_empty:
            continue
        outline = _outline(part)
        axes.add_patch(PathPatch(outline, facecolor=_OUTLINE, alpha=0.1, linewidth=0))
        axes.add_patch(
            PathPatch(
                outline, fill=False, edgecolor=_OUTLINE, linewidth=1.2, path_effects=_casing(2.6), capstyle="butt"
            )
        )


def _outline(polygon: Any) -> Outline:
    """Return the rings of a polygon as one path, so that its holes stay open."""
    from matplotlib.path import Path as Outline

    turned = shapely.orient_polygons(polygon)  # matplotlib leaves holes open that run against the outer ring
    rings = [np.asarray(ring.coords)[:, :2] for ring in (turned.exterior, *turned.interiors)]
    codes = [[Outline.MOVETO, *[Outline.LINETO] * (len(ring) - 2), Outline.CLOSEPOLY] for ring in rings]
    return Outline(np.concatenate(rings), [code for ring in codes for code in ring])


def _casing(width: float) -> list[Any]:
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=width, foreground="#1a1a1a", alpha=0.75), patheffects.Normal()]


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#888888")
        spine.set_linewidth(0.8)
