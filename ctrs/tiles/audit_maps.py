"""Where the tiles of each split lie: maps of scenes near each other, and plans of scenes without CRS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ctrs.config import SplitName
from ctrs.raster.geotiff import crs_name
from ctrs.raster.units import ground_scale
from ctrs.raster.windows import PixelWindow
from ctrs.report.charts import SERIES_COLORS
from ctrs.report.ground_map import MapLayer, MapOutline, Ring, ground_map
from ctrs.report.html import Html, element, figure, join, legend, paragraph, swatch
from ctrs.tiles.audit import Audit, SceneAudit
from ctrs.tiles.audit_tables import count, more
from ctrs.tiles.footprints import common_crs
from ctrs.tiles.manifest import SPLITS

MAX_MAPS = 60
"""Most maps of a page."""

MAX_SINGLE_TILES = 3000
"""Above this many tiles, those of a split that touch each other are drawn as one area."""

SPLIT_COLORS: Mapping[SplitName, tuple[int, int, int]] = {
    "train": SERIES_COLORS[0],
    "val": SERIES_COLORS[1],
    "test": SERIES_COLORS[3],
}

_NEAR = 0.5
"""Scenes nearer than this share of their size stand on one map."""

_MAX_NAMES = 12
_MANY = 6
"""Scenes from which on a map is drawn large."""

_FEW_TILES = 12
"""Up to so many tiles a small map is enough."""

_PLAN_PX, _SMALL_PX, _LARGE_PX = 160.0, 320.0, 660.0

Areas = Mapping[SplitName | None, Sequence[Ring]]
"""Outlines in columns and rows, by split; None for tiles that were left out."""


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A scene on the ground: its outline in the common CRS."""

    scene: SceneAudit
    ring: Ring


def split_maps(audit: Audit) -> Html:
    """Return maps of the tiles by split."""
    tiles = _TilesOfScenes(audit)
    crs = common_crs(scene.grid.crs for scene in audit.scenes if scene.grid.crs is not None)
    placed, unplaced = _place(audit.scenes, crs)
    groups = _near_each_other(placed)
    total = len(groups) + len(unplaced)
    if not total:
        return paragraph("There are no scenes.")
    is_alone = total <= 2 and len(audit.tiles) > _FEW_TILES
    maps = [
        _map_of(group, crs, tiles, key=f"map-{number}", is_large=is_alone or len(group) >= _MANY)
        for number, group in enumerate(groups[:MAX_MAPS])
    ]
    plans = [
        _plan_of(scene, tiles, key=f"plan-{number}", is_large=is_alone)
        for number, scene in enumerate(unplaced[: MAX_MAPS - len(maps)])
    ]
    parts = [_legend(audit)]
    if maps:
        noun = "maps, one for each place," if len(groups) > 1 else "map"
        text = f"{len(groups):,} {noun} in {crs_name(crs)}; lengths are measured on the ground."
        parts += [paragraph(text, class_="soft"), element("div", *maps, class_="gallery")]
    if unplaced:
        drawn = "it is drawn in its" if len(unplaced) == 1 else "each is drawn in its"
        text = f"{count(len(unplaced), 'scene')} without a place on the ground: {drawn} own pixels."
        kind = "gallery" if is_alone else "gallery small"
        parts += [paragraph(text, class_="soft"), element("div", *plans, class_=kind)]
    parts.append(more(total, len(maps) + len(plans), "map"))
    return join(parts)


def _legend(audit: Audit) -> Html:
    present = {tile.split for tile in audit.tiles}
    entries: list[tuple[Html, str]] = [(swatch(SPLIT_COLORS[split]), split) for split in SPLITS if split in present]
    if None in present:
        entries.append((element("span", class_="swatch hatched"), "left out"))
    return legend(entries)


class _TilesOfScenes:
    """The tiles by scene and split: their number and what they cover."""

    def __init__(self, audit: Audit) -> None:
        self._windows: dict[str, dict[SplitName | None, list[PixelWindow]]] = {}
        for tile in audit.tiles:
            self._windows.setdefault(tile.scene, {}).setdefault(tile.split, []).append(tile.window)
        self.are_merged = len(audit.tiles) > MAX_SINGLE_TILES
        """Whether areas are of many tiles together, so that their lines mean nothing."""

    def areas(self, scene: str) -> Areas:
        """Return outlines by split."""
        outlines = _merge if self.are_merged else _each
        return {split: outlines(windows) for split, windows in self._windows.get(scene, {}).items()}

    def counts(self, scenes: Iterable[str]) -> str:
        """Return the number of tiles of each split in words."""
        numbers: Counter[SplitName | None] = Counter()
        for scene in scenes:
            numbers.update({split: len(windows) for split, windows in self._windows.get(scene, {}).items()})
        order: tuple[SplitName | None, ...] = (*SPLITS, None)
        return ", ".join(f"{numbers[split]:,} {split or 'left out'}" for split in order if numbers[split]) or "no tiles"


def _each(windows: Sequence[PixelWindow]) -> list[Ring]:
    return [_corners(window) for window in windows]


def _corners(window: PixelWindow) -> Ring:
    left, top = window.col_off, window.row_off
    return _rectangle(left, left + window.width, top, top + window.height)


def _rectangle(left: int, right: int, top: int, bottom: int) -> Ring:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def _merge(windows: Sequence[PixelWindow]) -> list[Ring]:
    """Return few rectangles that cover what windows cover: runs along rows, joined where those below are the same."""
    rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for window in windows:
        edges = (window.col_off, window.col_off + window.width)
        rows.setdefault((window.row_off, window.row_off + window.height), []).append(edges)
    merged: list[Ring] = []
    open_runs: dict[tuple[int, int], tuple[int, int]] = {}
    for (top, bottom), edges_of_row in sorted(rows.items()):
        here: dict[tuple[int, int], tuple[int, int]] = {}
        for run in _runs(edges_of_row):
            above = open_runs.get(run)
            joins = above is not None and above[0] <= top <= above[1]
            if joins:
                open_runs.pop(run)
            here[run] = (above[0], max(above[1], bottom)) if above is not None and joins else (top, bottom)
        merged += [_rectangle(*run, *heights) for run, heights in open_runs.items()]
        open_runs = here
    return merged + [_rectangle(*run, *heights) for run, heights in open_runs.items()]


def _runs(edges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join stretches that touch or overlap.

    >>> _runs([(0, 4), (9, 12), (3, 6), (6, 7)])
    [(0, 7), (9, 12)]
    """
    runs: list[tuple[int, int]] = []
    for left, right in sorted(edges):
        if runs and left <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(runs[-1][1], right))
        else:
            runs.append((left, right))
    return runs


def _place(scenes: Iterable[SceneAudit], crs: CRS | None) -> tuple[list[_Placed], list[SceneAudit]]:
    """Part scenes into those that have a place in the CRS and those that have none."""
    placed: list[_Placed] = []
    unplaced: list[SceneAudit] = []
    for scene in scenes:
        whole = PixelWindow(col_off=0, row_off=0, width=scene.grid.width, height=scene.grid.height)
        ring = None if crs is None or scene.grid.crs is None else _on_ground([_corners(whole)], scene, crs)
        if ring is None:
            unplaced.append(scene)
        else:
            placed.append(_Placed(scene=scene, ring=ring[0]))
    return placed, unplaced


def _on_ground(rings: Sequence[Ring], scene: SceneAudit, crs: CRS) -> list[Ring] | None:
    """Return rings of columns and rows in a CRS; None where they have no place in it."""
    if not rings:
        return []
    grid = scene.grid
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    pixels = np.concatenate(rings)
    xy = np.column_stack([a * pixels[:, 0] + b * pixels[:, 1] + c, d * pixels[:, 0] + e * pixels[:, 1] + f])
    if grid.crs != crs:
        try:
            xs, ys = transform(grid.crs, crs, xy[:, 0].tolist(), xy[:, 1].tolist())
        except RasterioError:  # a wrong CRS puts its pixels where the projection has no place
            return None
        xy = np.column_stack([xs, ys])
    if not np.isfinite(xy).all():
        return None
    return np.split(xy, np.cumsum([len(ring) for ring in rings])[:-1])


def _near_each_other(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """Group scenes whose bounds overlap or nearly do, in the order of their first scenes."""
    if not placed:
        return []
    low = np.array([one.ring.min(axis=0) for one in placed])
    high = np.array([one.ring.max(axis=0) for one in placed])
    reach = (high - low).max(axis=1, keepdims=True) * _NEAR
    boxes = shapely.box(*(low - reach).T, *(high + reach).T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    links = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(placed),) * 2)
    groups: dict[int, list[_Placed]] = {}
    for one, group in zip(placed, connected_components(links, directed=False)[1].tolist(), strict=True):
        groups.setdefault(group, []).append(one)
    return list(groups.values())


def _map_of(group: Sequence[_Placed], crs: CRS | None, tiles: _TilesOfScenes, *, key: str, is_large: bool) -> Html:
    corners = np.concatenate([one.ring for one in group])
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    metres = _metres_at(crs, centre)
    found: dict[SplitName | None, list[Ring]] = {}
    for one in group:
        for split, rings in tiles.areas(one.scene.name).items():
            on_ground = None if crs is None else _on_ground(rings, one.scene, crs)
            found.setdefault(split, []).extend((ring - centre) * metres for ring in on_ground or ())
    outlines = [MapOutline(name=one.scene.name, ring=(one.ring - centre) * metres) for one in group]
    return _drawn(found, outlines, tiles, key=key, is_large=is_large, unit="m")


def _metres_at(crs: CRS | None, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the ground metres of a unit along x and y."""
    scale = np.array(ground_scale(crs, float(centre[0]), float(centre[1])), np.float64)
    return scale if np.isfinite(scale).all() and (scale > 0).all() else np.ones(2)


def _plan_of(scene: SceneAudit, tiles: _TilesOfScenes, *, key: str, is_large: bool) -> Html:
    whole = PixelWindow(col_off=0, row_off=0, width=scene.grid.width, height=scene.grid.height)
    outlines = [MapOutline(name=scene.name, ring=_corners(whole))]
    return _drawn(tiles.areas(scene.name), outlines, tiles, key=key, is_large=is_large, unit="px")


def _drawn(
    areas: Areas,
    outlines: Sequence[MapOutline],
    tiles: _TilesOfScenes,
    *,
    key: str,
    is_large: bool,
    unit: Literal["m", "px"],
) -> Html:
    small = _SMALL_PX if unit == "m" else _PLAN_PX
    names = [outline.name for outline in outlines]
    caption = f"{_listed(names)}: {tiles.counts(names)}"
    drawn = ground_map(
        _layers(areas, are_merged=tiles.are_merged),
        outlines,
        key=key,
        alt=f"Map of the tiles of {caption}",
        unit=unit,
        y_down=unit == "px",
        width_px=_LARGE_PX if is_large else small,
    )
    return figure(drawn, caption, class_="double" if is_large else None)


def _layers(areas: Areas, *, are_merged: bool) -> list[MapLayer]:
    order: tuple[SplitName | None, ...] = (None, *SPLITS)
    return [
        MapLayer(
            name=split or "left out",
            rings=areas[split],
            color=None if split is None else SPLIT_COLORS[split],
            is_outlined=not are_merged,
        )
        for split in order
        if areas.get(split)
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
