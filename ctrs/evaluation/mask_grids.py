"""Whether a mask lies on the grid of its truth, and how it is brought there on request."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from ctrs.errors import GridMismatchError, LabelWarning
from ctrs.raster.geotiff import Grid, crs_name, open_raster
from ctrs.raster.locate import locate
from ctrs.raster.warp import GridWarp, grid_warp
from ctrs.tiles.raster_labels import GRID_TOLERANCE_PX
from ctrs.vector.rasterize import GridPolygons, PolygonLayer

_PLACES = 65
"""Places along each edge at which it is looked whether a mask covers the truth."""


def grid_of(path: Path) -> Grid:
    """Return the grid of a raster."""
    with open_raster(path) as dataset:
        return Grid.of(dataset)


def way_to_truth(pred: Path, grid: Grid, truth: Path, *, resample: bool) -> GridWarp | None:
    """Return the way from the truth's grid to the mask's; None where they are the same.

    Args:
        pred: The mask.
        grid: Its grid.
        truth: A raster label.
        resample: Whether the mask may be brought onto another grid.

    Raises:
        GridMismatchError: They differ and the mask may not be resampled, or it does not lie on the truth's ground.
    """
    wanted = grid_of(truth)
    referenced = not (grid.transform.is_identity or wanted.transform.is_identity)
    known = grid.crs or wanted.crs
    difference = f"size {grid.width} x {grid.height} instead of {wanted.width} x {wanted.height}"
    if referenced:
        own, other = replace(wanted, crs=wanted.crs or known), replace(grid, crs=grid.crs or known)
        difference = own.difference(other, tolerance_px=GRID_TOLERANCE_PX)
    elif grid.shape == wanted.shape:
        return None
    if not difference:
        return None
    both = f"(mask {_place(grid)}; truth {_place(wanted)})"
    if not resample:
        raise GridMismatchError(
            f"{pred}: does not lie on the grid of the truth {truth}: {difference} {both}; pass --resample to bring the "
            "mask onto the truth's grid (nearest), or make it on that grid"
        )
    if not referenced:
        raise GridMismatchError(
            f"{pred}: cannot be brought onto the grid of the truth {truth}: {difference}, and one of them has no "
            f"georeference {both}; give both one, or make them of one size"
        )
    warp = grid_warp(replace(grid, crs=grid.crs or known), replace(wanted, crs=wanted.crs or known))
    if not _share_covered(warp):
        raise GridMismatchError(
            f"{pred}: lies elsewhere than the truth {truth} {both}; check the CRS and place of both"
        )
    return warp


def check_crs(pred: Path, grid: Grid, layer: PolygonLayer) -> None:
    """Refuse a mask without CRS where the polygons of its truth have one.

    Raises:
        GridMismatchError: It is so.
    """
    if grid.crs is None and layer.frame.crs is not None:
        raise GridMismatchError(
            f"{pred}: has no CRS, but the polygons of {layer.path} are in {_layer_crs(layer)}; give the mask its own "
            f"CRS (gdal_edit.py -a_srs EPSG:CODE {pred.name})"
        )


def check_touched(pred: Path, grid: Grid, layer: PolygonLayer, polygons: GridPolygons) -> None:
    """Refuse polygons of other ground: the mask would be scored as if nothing stood there.

    Where the layer reaches around the mask, nothing may indeed stand there: a warning says so.

    Raises:
        GridMismatchError: The layer holds polygons, and all lie elsewhere than the mask.
    """
    if len(polygons.shapes) or layer.frame.empty:
        return
    left, bottom, right, top = layer.frame.total_bounds.tolist()
    west, south, east, north = _bounds_in(layer, grid)
    if west <= right and left <= east and south <= top and bottom <= north:
        warnings.warn(
            f"{pred}: none of the {len(layer.frame)} polygons of {layer.path} touches the mask; it is scored as ground "
            "where nothing stands",
            LabelWarning,
            stacklevel=4,
        )
        return
    raise GridMismatchError(
        f"{pred}: no polygon of {layer.path} ({len(layer.frame)} in all) touches the mask (mask {_place(grid)}; "
        f"polygons in {_layer_crs(layer)}, {left:.10g} to {right:.10g}, {bottom:.10g} to {top:.10g}); check the CRS "
        "and place of both"
    )


def _bounds_in(layer: PolygonLayer, grid: Grid) -> tuple[float, float, float, float]:
    """Return left, bottom, right and top of a grid in the CRS of a layer."""
    corners = [
        grid.transform @ corner for corner in ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    ]
    xs, ys = zip(*corners, strict=True)
    bounds = min(xs), min(ys), max(xs), max(ys)
    if grid.crs is None or layer.frame.crs is None:
        return bounds
    left, bottom, right, top = transform_bounds(grid.crs, CRS.from_wkt(layer.frame.crs.to_wkt()), *bounds)
    return left, bottom, right, top


def _layer_crs(layer: PolygonLayer) -> str:
    return crs_name(None if layer.frame.crs is None else CRS.from_wkt(layer.frame.crs.to_wkt()))


def _share_covered(warp: GridWarp) -> float:
    """Return the share of the truth's grid on which the mask lies, by places spread over it."""
    along = (np.arange(_PLACES) + 0.5) / _PLACES
    cols, rows = np.meshgrid(along * warp.target.width, along * warp.target.height)
    found_cols, found_rows = locate(warp.source, warp.target, cols, rows)
    inside = (found_cols >= 0) & (found_rows >= 0)
    inside &= (found_cols <= warp.source.width) & (found_rows <= warp.source.height)
    return float(inside.mean())


def resampled_note(warp: GridWarp) -> str:
    """Say what was done to a mask on another grid."""
    return (
        f"mask resampled (nearest) from {_place(warp.source)} onto the truth's grid, {_place(warp.target)}, of which "
        f"it covers {_share_covered(warp):.1%}"
    )


def _place(grid: Grid) -> str:
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    turned = f", {b:.6g}, {d:.6g}" if b or d else ""
    return (
        f"{grid.width} x {grid.height} px in {crs_name(grid.crs)}, origin {c:.10g}, {f:.10g}, "
        f"pixel {a:.6g}, {e:.6g}{turned}"
    )
