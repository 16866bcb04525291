"""Where tiles lie on the ground, and which of them lie near each other, whatever their scenes, grids and CRSs.

Scenes with a CRS lie in one space. Scenes without CRS lie in another one if they have a world file, else each in a
space of its own, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ctrs.raster.geotiff import Grid
from ctrs.raster.units import ground_pixel_size_m, ground_scale
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.footprints import common_crs, polygons, tile_corners

OVERLAP_PX = 0.5
"""Tiles that share a strip no wider than twice this count as neighbours: grids of neighbouring files are rounded."""

ROUNDING_PX = 0.01
"""By how much less than a length a distance may be and still count as that length."""

_CRS_SPACE, _WORLD_FILE_SPACE = -1, -2
_CHUNK = 200_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tile as the split sees it.

    Args:
        scene: Name of its scene.
        grid: Grid of the scene.
        window: Its place in the scene.
        class_counts: Pixels by class index.
    """

    scene: str
    grid: Grid
    window: PixelWindow
    class_counts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Length:
    """A length in pixels or in ground metres; one of both is given."""

    px: float | None = None
    m: float | None = None

    @classmethod
    def of(cls, px: float | None, m: float | None) -> Length | None:
        """Return the length, None where neither is given.

        >>> Length.of(None, None), str(Length.of(64, None)), str(Length.of(None, 12.5))
        (None, '64 px', '12.5 m')
        """
        return None if px is None and m is None else cls(px=px, m=m)

    def __str__(self) -> str:
        return f"{self.px:g} px" if self.m is None else f"{self.m:g} m"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Tiles on the ground; made by ``locate``.

    Args:
        corners: (n, 4, 2), in coordinates of their space.
        cores: The same without half a pixel on each side.
        spaces: (n,), number of the space that each lies in.
        shifts: (n, 2), what moves the spaces apart, so that a search finds only what lies in one.
        scales: (n, 2), ground length of a unit along x and y: metres where there is a CRS, else 1.
        pixel_sizes: (n,), longer edge of a pixel on the ground.
    """

    corners: Floats
    cores: Floats
    spaces: Ints
    shifts: Floats
    scales: Floats
    pixel_sizes: Floats

    @property
    def centers(self) -> Floats:
        """Centre (n, 2) of each tile, in ground lengths from the origin of its space."""
        centers: Floats = self.corners.mean(axis=1) * self.scales
        return centers

    def lengths(self, length: Length | None) -> Floats:
        """Return a length on the ground, (n,), at each tile; 0 for None."""
        if length is None:
            return np.zeros(len(self.spaces))
        if length.m is not None:
            return np.full(len(self.spaces), float(length.m))
        return float(length.px or 0) * self.pixel_sizes

    def near(self, first: Ints, second: Ints, reach: Floats | None = None) -> tuple[Ints, Ints]:
        """Return the pairs of tiles that overlap, or lie nearer to each other than either's reach.

        Args:
            first: Numbers of tiles.
            second: Numbers of tiles; each is compared with each of ``first``, itself included.
            reach: (n,), ground lengths of all tiles; None or 0: only those that overlap.

        Returns:
            Numbers from ``first`` and from ``second``, pair by pair, sorted.
        """
        if not len(first) or not len(second):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        shapes = [polygons(self.cores[side] + self.shifts[side, None]) for side in (first, second)]
        one, other = shapely.STRtree(shapes[1]).query(shapes[0], predicate="intersects")
        pairs = [np.stack([first[one], second[other]], axis=1)]
        if reach is not None and (reach[first].any() or reach[second].any()):
            pairs.append(self._within(first, second, reach))
        joined = np.unique(np.concatenate(pairs), axis=0)
        joined = joined[self.spaces[joined[:, 0]] == self.spaces[joined[:, 1]]]
        return joined[:, 0], joined[:, 1]

    def _within(self, first: Ints, second: Ints, reach: Floats) -> Ints:
        """Return the pairs (m, 2) whose distance is below the reach of one of both."""
        margins = max(reach[first].max(), reach[second].max()) / self.scales[first]
        corners = self.corners[first] + self.shifts[first, None]
        boxes = shapely.box(*(corners.min(axis=1) - margins).T, *(corners.max(axis=1) + margins).T)
        tree = shapely.STRtree(polygons(self.corners[second] + self.shifts[second, None]))
        one, other = tree.query(boxes)
        one, other = first[one], second[other]
        same = self.spaces[one] == self.spaces[other]
        one, other = one[same], other[same]
        near = np.zeros(len(one), bool)
        for start in range(0, len(one), _CHUNK):
            a, b = one[start : start + _CHUNK], other[start : start + _CHUNK]
            scale = self.scales[a, None]
            distances = shapely.distance(polygons(self.corners[a] * scale), polygons(self.corners[b] * scale))
            limit = np.maximum(reach[a], reach[b]) - ROUNDING_PX * np.maximum(self.pixel_sizes[a], self.pixel_sizes[b])
            near[start : start + _CHUNK] = distances < limit
        return np.stack([one[near], other[near]], axis=1)

    def blocks(self, edges: Floats) -> Ints:
        """Return in which block of a regular grid the centre of each tile lies.

        The grid starts at the origin of the space: the same ground lies in the same block, whatever the scene.

        Args:
            edges: (n,), ground lengths of a block's edge; their median over a space counts, so that it has one grid.

        Returns:
            (n, 3): space, column and row.
        """
        cells = np.empty((len(edges), 3), np.int64)
        for space in np.unique(self.spaces):
            own = self.spaces == space
            units = np.median(edges[own]) / np.median(self.scales[own], axis=0)
            cells[own, 0] = space
            cells[own, 1:] = np.floor(self.corners[own].mean(axis=1) / units)
        return cells


def locate(places: Sequence[Place]) -> Ground:
    """Lay tiles out on the ground."""
    crs = common_crs(place.grid.crs for place in places if place.grid.crs is not None)
    windows = [(place.grid, place.window) for place in places]
    size = len(places)
    spaces, shifts = np.zeros(size, np.int64), np.zeros((size, 2))
    scales, pixel_sizes = np.ones((size, 2)), np.ones(size)
    scenes: dict[tuple[str, int], list[int]] = {}
    for number, place in enumerate(places):
        scenes.setdefault((place.scene, id(place.grid)), []).append(number)
    own_spaces: dict[str, int] = {}
    aside = 0.0
    for (name, _), numbers in scenes.items():
        grid = places[numbers[0]].grid
        a, b, _, d, e, _ = tuple(grid.transform)[:6]
        if grid.crs is not None and crs is not None:
            whole = PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height)
            x, y = tile_corners([(grid, whole)], crs)[0].mean(axis=0).tolist()
            spaces[numbers] = _CRS_SPACE
            scales[numbers] = ground_scale(crs, x, y)
            pixel_sizes[numbers] = max(ground_pixel_size_m(grid))
        elif not grid.transform.is_identity:
            spaces[numbers] = _WORLD_FILE_SPACE
            pixel_sizes[numbers] = max(float(np.hypot(a, d)), float(np.hypot(b, e)))
        else:
            spaces[numbers] = own_spaces.setdefault(name, len(own_spaces))
            shifts[numbers, 0] = aside
            aside += 2 * grid.width
    return Ground(
        corners=tile_corners(windows, crs),
        cores=tile_corners(windows, crs, shrink_px=OVERLAP_PX),
        spaces=spaces,
        shifts=shifts,
        scales=scales,
        pixel_sizes=pixel_sizes,
    )


def tie(size: int, first: Ints, second: Ints) -> Ints:
    """Number the groups (size,) of things that pairs tie together, directly or through others."""
    pairs = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    labels: Ints = connected_components(pairs, directed=False)[1].astype(np.int64)
    return labels
