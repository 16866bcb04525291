"""The grid of a scene's tiles: the image's own, or a north-up one of another CRS, ground pixel or direction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import GCPTransformer, from_gcps

from ctrs.errors import DataError, RasterError, UsageError
from ctrs.raster.geotiff import Grid, crs_name
from ctrs.raster.locate import Positions, control_points, project
from ctrs.raster.names import shown
from ctrs.raster.units import ground_pixel_size_m, ground_scale

SAME_GSD = 1e-3
"""Ground pixels whose sizes differ by a smaller share are the same: nothing is resampled for that."""

MAX_EDGE_PX = 2_000_000
"""Longest edge of a grid that is asked for on purpose."""

_STRAIGHT_PX = 0.05
"""A rotation that moves no corner by more than this is none."""

_OVERHANG_PX = 1e-3
"""An extent may stand over its grid by this much, which is rounding, not ground."""

_EDGE_POINTS = 65


def parse_crs(text: str, option: str) -> CRS:
    """Return the CRS that a text names.

    Args:
        text: Authority code, WKT or PROJ text.
        option: The option that it was given with.

    Raises:
        UsageError: It names none, or none of places on the ground.
    """
    try:
        with rasterio.Env():  # else PROJ writes to stderr
            crs = CRS.from_user_input(text)
            placed = crs.is_projected or crs.is_geographic
    except CRSError as error:
        raise UsageError(f"{option}: {text!r} names no CRS that is known, expected one like EPSG:32633") from error
    if not placed:
        raise UsageError(
            f"{option}: {text!r} is neither a projected nor a geographic CRS, expected one like EPSG:32633"
        )
    return crs


def tilt(grid: Grid) -> str:
    """Say in a few words why a grid is not north-up; an empty text if it is, or if there is no telling.

    >>> tilt(Grid(crs=CRS.from_epsg(32633), transform=Affine.rotation(30) @ Affine.scale(1, -1), width=9, height=9))
    'rotated by 30 degrees'
    """
    if grid.ground_control is not None:
        return f"placed by {len(grid.ground_control.points)} ground control points"
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    width, height = math.hypot(a, d), math.hypot(b, e)
    if grid.transform.is_identity or not (width and height):
        return ""
    if max(abs(d) / height * grid.width, abs(b) / width * grid.height) > _STRAIGHT_PX:
        if abs(a * b + d * e) > 1e-6 * width * height:
            return f"sheared, its rows turned by {math.degrees(math.atan2(d, a)):.4g} degrees"
        return f"rotated by {math.degrees(math.atan2(d, a)):.4g} degrees"
    if grid.crs is None:
        return ""
    if a < 0:
        return "stored from east to west" if e < 0 else "rotated by 180 degrees"
    return "stored south up" if e > 0 else ""


def target_grid(grid: Grid, path: Path, *, crs: CRS | None = None, gsd_m: float | None = None) -> Grid:
    """Return the grid of a scene's tiles.

    It is the image's own, unless that is not north-up or another CRS or ground pixel is asked for. A new grid covers
    the image. Its first pixel is the image's where the CRS stays the same, so that pixels that are a whole number of
    the image's hold just these; elsewhere its pixels lie at multiples of their size.

    Args:
        grid: Grid of the image.
        path: The image, for messages.
        crs: CRS of the tiles; None: the image's.
        gsd_m: Edge of their pixels in ground metres; None: the image's.

    Raises:
        RasterError: The image is not georeferenced as it would have to be, or it has no place in the CRS.
    """
    own_crs = grid.ground_control.crs if grid.ground_control is not None else grid.crs
    if own_crs is None and (crs is not None or gsd_m is not None or grid.ground_control is not None):
        raise RasterError(_no_crs(grid, path, crs, gsd_m))
    north_up = not tilt(grid)
    if north_up and (crs is None or crs == own_crs):
        if gsd_m is None:
            return grid
        size = ground_pixel_size_m(grid)
        if all(abs(edge / gsd_m - 1) <= SAME_GSD for edge in size):
            return grid
    same_crs = crs is None or crs == own_crs
    target_crs = own_crs if same_crs else crs
    plain = _plain_grid(grid)
    left, bottom, right, top = _extent(grid, target_crs, path)
    if gsd_m is None and same_crs:
        a, b, _, d, e, _ = tuple(plain.transform)[:6]
        width, height = math.hypot(a, d), math.hypot(b, e)
        if _is_quarter_turn(plain):
            width, height = height, width
    else:
        # Digits beyond the sixth are those of the local scale, which is not the same all over the image.
        edge_m = gsd_m or float(f"{math.sqrt(math.prod(ground_pixel_size_m(plain))):.6g}")
        scale_x, scale_y = ground_scale(target_crs, (left + right) / 2, (bottom + top) / 2)
        width, height = edge_m / scale_x, edge_m / scale_y
    if not (same_crs and (north_up or _is_quarter_turn(plain))):
        left = math.floor(left / width + _OVERHANG_PX) * width
        top = math.ceil(top / height - _OVERHANG_PX) * height
    num_cols = max(1, math.ceil((right - left) / width - _OVERHANG_PX))
    num_rows = max(1, math.ceil((top - bottom) / height - _OVERHANG_PX))
    if max(num_cols, num_rows) > MAX_EDGE_PX:
        raise RasterError(
            f"{shown(path)}: {num_cols} x {num_rows} px at {width:.6g} x {height:.6g} units of {crs_name(target_crs)}, "
            f"expected at most {MAX_EDGE_PX} along an edge; choose a coarser --gsd"
        )
    transform = Affine(width, 0.0, left, 0.0, -height, top)
    return Grid(crs=target_crs, transform=transform, width=num_cols, height=num_rows)


def edge_px(option: str, length_m: float, grid: Grid, path: Path) -> int:
    """Return how many pixels of a grid a length on the ground is, rounded.

    Raises:
        DataError: The grid has no CRS, so that nobody knows its metres.
    """
    if grid.crs is None:
        raise DataError(
            f"{shown(path)}: {place_lack(grid)} found, so {option} in metres says nothing of its pixels; "
            f"{place_advice(grid)}, or give {option} in pixels"
        )
    return max(1, round(length_m / math.sqrt(math.prod(ground_pixel_size_m(grid)))))


def place_lack(grid: Grid) -> str:
    """Say in a few words what an image lacks that has no CRS: that alone, or a place as well."""
    return "no transform (world file or georeference)" if _is_unplaced(grid) else "no CRS"


def place_advice(grid: Grid) -> str:
    """Say what gives an image without CRS a place on the ground; a CRS alone helps only if there is a transform."""
    if _is_unplaced(grid):
        return "add a world file and name its CRS with --src-crs (--src-crs alone does not place it)"
    return "name the CRS with --src-crs"


def _is_unplaced(grid: Grid) -> bool:
    return grid.ground_control is None and bool(grid.transform.is_identity)


def _plain_grid(grid: Grid) -> Grid:
    """Return a grid with a transform: one with ground control points gets that which fits them best."""
    if grid.ground_control is None:
        return grid
    return replace(grid, crs=grid.ground_control.crs, transform=from_gcps(control_points(grid)), ground_control=None)


def _is_quarter_turn(grid: Grid) -> bool:
    """Tell whether rows of a grid run along an axis of its CRS."""
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    return bool(min(max(abs(a), abs(e)), max(abs(b), abs(d))) <= 1e-9 * max(abs(a), abs(b), abs(d), abs(e)))


def _extent(grid: Grid, crs: CRS | None, path: Path) -> tuple[float, float, float, float]:
    """Return left, bottom, right and top of an image in a CRS, from points along its border."""
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    none, full = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    cols = np.concatenate([along, along, none, full]) * grid.width
    rows = np.concatenate([none, full, along, along]) * grid.height
    xs, ys = _placed(grid, cols, rows, path)
    own_crs = grid.ground_control.crs if grid.ground_control is not None else grid.crs
    xs, ys = project(own_crs, crs, xs, ys)
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise RasterError(
            f"{shown(path)}: parts of it have no place in {crs_name(crs)} (its own CRS is {crs_name(own_crs)}); "
            "choose a CRS that holds it with --crs"
        )
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def _placed(grid: Grid, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], path: Path) -> Positions:
    """Return coordinates in the image's own CRS."""
    if grid.ground_control is None:
        a, b, c, d, e, f = tuple(grid.transform)[:6]
        return a * cols + b * rows + c, d * cols + e * rows + f
    points = control_points(grid)
    if len(points) < 3:
        raise RasterError(
            f"{shown(path)}: {len(points)} ground control points found, expected at least 3; georeference the image"
        )
    with GCPTransformer(points) as transformer:
        xs, ys = transformer.xy(rows, cols, offset="ul")
    return np.asarray(xs, np.float64), np.asarray(ys, np.float64)


def _no_crs(grid: Grid, path: Path, crs: CRS | None, gsd_m: float | None) -> str:
    if grid.ground_control is not None:
        return (
            f"{shown(path)}: ground control points without CRS found, expected one for them to be placed in; "
            "name it with --src-crs"
        )
    wanted = f"a place in {crs_name(crs)}" if crs is not None else f"a ground pixel of {gsd_m:g} m"
    if grid.transform.is_identity:
        return (
            f"{shown(path)}: {place_lack(grid)} found, so {wanted} cannot be had; {place_advice(grid)}, or leave out "
            "--crs and --gsd"
        )
    return f"{shown(path)}: no CRS found, so {wanted} cannot be had; name the image's CRS with --src-crs"
