"""Masks of known footprints with the errors that networks make, as probabilities; seeded, and drawn band by band.

The signed distance to the footprints (positive outside) is blurred (``psf``), moved for each building (``bias``), has
discs bitten out of outlines (trees), pinholes and false blobs, and a smooth random field added (``wobble``). The
probability is ``sigmoid(-d / tau)``, the mask where it is above 0.5. All lengths are ground metres: the errors have the
same statistics whatever the pixel size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.special import expit

from ctrs.raster.geotiff import Grid
from ctrs.raster.units import ground_pixel_size_m

NoiseLevel = Literal["clean", "low", "medium", "high"]
Field = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_PIXELS_AT_A_TIME = 2**21
_BLUR_REACH, _FIELD_REACH = 3.0, 3.0
"""In standard deviations: where the Gaussian of the blur and of the field's kernel end."""


@dataclass(frozen=True, kw_only=True)
class MaskNoise:
    """How wrong a mask is. Lengths in ground metres; the defaults are those of all levels.

    Args:
        psf_m: Standard deviation of the Gaussian that blurs the signed distance: it rounds corners and closes gaps.
        bias_m: Standard deviation of how much each building is too large or too small all around.
        wobble_m: Standard deviation and length of each random field; the length is the standard deviation of the
            Gaussian that smooths white noise into the field.
        bite_probability: Share of the buildings with a disc bitten out of their outline.
        bite_radius_m: Smallest and largest radius.
        pinholes_per_100m2: Number for 100 square metres of building.
        pinhole_radius_m: Smallest and largest radius.
        blobs_per_ha: False buildings for each hectare of ground.
        blob_radius_m: Smallest and largest radius.
        tau_m: Distance from the outline at which the probability is 0.27 or 0.73.
    """

    psf_m: float = 0.0
    bias_m: float = 0.0
    wobble_m: tuple[tuple[float, float], ...] = ()
    bite_probability: float = 0.0
    bite_radius_m: tuple[float, float] = (0.6, 1.8)
    pinholes_per_100m2: float = 0.0
    pinhole_radius_m: tuple[float, float] = (0.15, 0.6)
    blobs_per_ha: float = 0.0
    blob_radius_m: tuple[float, float] = (0.3, 1.2)
    tau_m: float = 0.3

    @property
    def reach_m(self) -> float:
        """Distance from the true outlines beyond which only discs change the mask."""
        wobble = math.hypot(*(std for std, _ in self.wobble_m))
        return 1.0 + _BLUR_REACH * self.psf_m + 4.0 * math.hypot(self.bias_m, wobble)


NOISE_LEVELS: dict[NoiseLevel, MaskNoise] = {
    "clean": MaskNoise(),
    "low": MaskNoise(
        psf_m=0.25,
        bias_m=0.05,
        wobble_m=((0.06, 1.5), (0.05, 0.3)),
        bite_probability=0.03,
        pinholes_per_100m2=0.05,
        blobs_per_ha=1.0,
    ),
    "medium": MaskNoise(
        psf_m=0.5,
        bias_m=0.12,
        wobble_m=((0.18, 1.5), (0.10, 0.3)),
        bite_probability=0.12,
        pinholes_per_100m2=0.2,
        blobs_per_ha=4.0,
    ),
    "high": MaskNoise(
        psf_m=0.8,
        bias_m=0.2,
        wobble_m=((0.30, 2.0), (0.15, 0.3)),
        bite_probability=0.25,
        pinholes_per_100m2=0.6,
        blobs_per_ha=12.0,
    ),
}


@dataclass(frozen=True)
class _Discs:
    """Circles in ground metres along the pixel axes: (N, 3), x, y, radius."""

    circles: FloatArray

    def between(self, top: float, bottom: float, reach: float) -> FloatArray:
        """Discs whose distance is below ``reach`` somewhere between two heights."""
        _, y, radius = self.circles.T
        return np.asarray(self.circles[(y + radius + reach > top) & (y - radius - reach < bottom)], np.float64)


class NoisyMask:
    """Probability of building on a grid, row by row at will: any rows come out the same however they are asked for."""

    def __init__(self, polygons: npt.NDArray[np.object_], grid: Grid, noise: MaskNoise, *, seed: int = 0) -> None:
        """Draw what is wrong with the mask.

        Args:
            polygons: True footprints in the CRS of the grid; interiors must be disjoint. Units that share walls count
                as one building, since a mask does not see their party walls.
            grid: Where the mask's pixels lie.
            noise: How wrong it is.
            seed: The same seed gives the same mask.
        """
        self.grid = grid
        self.noise = noise
        self._seed = seed
        self._size = ground_pixel_size_m(grid)
        inverse = ~grid.transform
        local = shapely.transform(
            polygons,
            lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])) * self._size,
        )
        self._polygons = shapely.get_parts(shapely.union_all(local)) if len(local) else local
        self._tops, self._bottoms = shapely.bounds(self._polygons)[:, [1, 3]].T
        self._starts, self._ends, self._owners = _segments(self._polygons)
        rng = np.random.default_rng([seed, 2])
        self._bias = rng.normal(0.0, noise.bias_m, len(self._polygons)).astype(np.float32)
        self._bites = self._draw_bites(rng)
        self._pinholes, self._blobs = self._draw_pinholes_and_blobs(rng)

    def bands(self, rows: int | None = None) -> Iterator[tuple[int, Field]]:
        """Yield bands of the probability from top to bottom with their first row.

        Args:
            rows: Rows of a band; None: some 2 million pixels.
        """
        step = rows or max(1, _PIXELS_AT_A_TIME // self.grid.width)
        for row in range(0, self.grid.height, step):
            yield row, self.probability(row, min(row + step, self.grid.height))

    def probability(self, start: int, stop: int) -> Field:
        """Return the probability of building in the rows from ``start`` up to ``stop``; float32, (rows, columns)."""
        return np.asarray(expit(self.distance(start, stop) / np.float32(-self.noise.tau_m)), np.float32)

    def distance(self, start: int, stop: int) -> Field:
        """Return the noisy signed distance in metres, positive outside, cut off far from outlines."""
        width, height = self._size
        margin_x, margin_y = (math.ceil(_BLUR_REACH * self.noise.psf_m / side) for side in (width, height))
        exact, nearest = self._exact(start - margin_y, stop + margin_y, margin_x)
        inner = np.s_[margin_y : margin_y + stop - start, margin_x : margin_x + self.grid.width]
        if self.noise.psf_m:
            sigma = (self.noise.psf_m / height, self.noise.psf_m / width)
            gaussian_filter(exact, sigma, output=exact, mode="nearest", truncate=_BLUR_REACH)
        field = np.ascontiguousarray(exact[inner])
        field += np.append(self._bias, np.float32(0))[nearest[inner]]
        for circles, sign in ((self._bites, 1.0), (self._pinholes, 1.0), (self._blobs, -1.0)):
            self._stamp(field, start, circles, sign)
        for number, (std, length) in enumerate(self.noise.wobble_m):
            field += np.float32(std) * self._random_field(start, stop, length, number)
        return field

    def _exact(self, start: int, stop: int, margin: int) -> tuple[Field, npt.NDArray[np.int32]]:
        """Signed distance to the outlines, at most ``reach_m``, and the nearest building (-1: none so near)."""
        width, height = self._size
        reach = self.noise.reach_m
        shape = (stop - start, self.grid.width + 2 * margin)
        squared = np.full(shape, reach**2, np.float32)
        nearest = np.full(shape, -1, np.int32)
        xs = ((np.arange(shape[1]) - margin + 0.5) * width).astype(np.float32)
        ys = ((np.arange(shape[0]) + start + 0.5) * height).astype(np.float32)
        low = np.minimum(self._starts, self._ends) - reach
        high = np.maximum(self._starts, self._ends) + reach
        columns = np.stack([np.searchsorted(xs, low[:, 0]), np.searchsorted(xs, high[:, 0])], 1)
        rows = np.stack([np.searchsorted(ys, low[:, 1]), np.searchsorted(ys, high[:, 1])], 1)
        chosen = np.flatnonzero((rows[:, 0] < rows[:, 1]) & (columns[:, 0] < columns[:, 1]))
        for index in chosen.tolist():
            (top, bottom), (left, right) = rows[index], columns[index]
            found = _squared_distance(xs[left:right], ys[top:bottom], self._starts[index], self._ends[index])
            window = np.s_[top:bottom, left:right]
            closer = found < squared[window]
            np.copyto(squared[window], found, where=closer)
            np.copyto(nearest[window], np.int32(self._owners[index]), where=closer)
        np.sqrt(squared, out=squared)
        within = (self._bottoms > ys[0] - height) & (self._tops < ys[-1] + height)
        if within.any():
            inside = rasterize(
                [(polygon, 1) for polygon in self._polygons[within]],
                out_shape=shape,
                transform=_local_transform(width, height, start, margin),
                dtype="uint8",
            )
            np.negative(squared, out=squared, where=inside.view(np.bool_))
        return squared, nearest

    def _stamp(self, field: Field, start: int, discs: _Discs, sign: float) -> None:
        """Cut discs out (sign 1) or add them (sign -1)."""
        width, height = self._size
        top, bottom = start * height, (start + len(field)) * height
        for x, y, radius in discs.between(top, bottom, self.noise.reach_m).tolist():
            reach = radius + self.noise.reach_m
            left, right = max(0, int((x - reach) / width)), max(0, int((x + reach) / width) + 1)
            first, last = max(0, int((y - reach - top) / height)), max(0, int((y + reach - top) / height) + 1)
            window = field[first:last, left:right]
            dx = (np.arange(left, left + window.shape[1]) + 0.5) * width - x
            dy = (np.arange(start + first, start + first + window.shape[0]) + 0.5) * height - y
            outside = (np.hypot(dx[None], dy[:, None]) - radius).astype(np.float32)
            if sign > 0:
                np.maximum(window, -outside, out=window)
            else:
                np.minimum(window, outside, out=window)

    def _random_field(self, start: int, stop: int, length: float, number: int) -> Field:
        """Gaussian random field of unit variance: white noise on a lattice, smoothed straight onto the pixels.

        Each row of the lattice has its own seed, so that rows of pixels are the same whatever band they are drawn in.
        """
        width, height = self._size
        row_kernel, first_row, num_rows = _smoothing(np.arange(start, stop, dtype=np.float64) + 0.5, height, length)
        column_kernel, _, num_columns = _smoothing(np.arange(self.grid.width, dtype=np.float64) + 0.5, width, length)
        noise = np.empty((num_rows, num_columns), np.float32)
        for index in range(num_rows):
            # Lattice rows begin above the first pixel; seeds must not be negative.
            key = [self._seed, 3, number, first_row + index + 2**16]
            np.random.Generator(np.random.SFC64(key)).standard_normal(out=noise[index], dtype=np.float32)
        smooth = np.ascontiguousarray((row_kernel @ noise).T)
        return np.asarray((column_kernel @ smooth).T, np.float32)

    def _draw_bites(self, rng: np.random.Generator) -> _Discs:
        count = len(self._polygons)
        bitten = rng.random(count) < self.noise.bite_probability
        shells = shapely.get_exterior_ring(self._polygons)
        places = shapely.line_interpolate_point(shells, rng.random(count), normalized=True)
        radius = rng.uniform(*self.noise.bite_radius_m, count)
        circles = np.column_stack([shapely.get_x(places), shapely.get_y(places), radius]).reshape(-1, 3)
        return _Discs(circles[bitten])

    def _draw_pinholes_and_blobs(self, rng: np.random.Generator) -> tuple[_Discs, _Discs]:
        """Strew both over the whole ground; pinholes stay where their centre is in a building, blobs where not."""
        extent = np.array([self.grid.width * self._size[0], self.grid.height * self._size[1]])
        ground = float(extent.prod())
        tree = shapely.STRtree(self._polygons)
        discs: list[_Discs] = []
        for density, radii, wanted in (
            (self.noise.pinholes_per_100m2 / 100, self.noise.pinhole_radius_m, True),
            (self.noise.blobs_per_ha / 10_000, self.noise.blob_radius_m, False),
        ):
            count = int(rng.poisson(density * ground))
            centers = rng.random((count, 2)) * extent
            inside = np.zeros(count, bool)
            inside[tree.query(shapely.points(centers), predicate="intersects")[0]] = True
            circles = np.column_stack([centers, rng.uniform(*radii, count)])
            discs.append(_Discs(circles[inside == wanted]))
        return discs[0], discs[1]


def _segments(polygons: npt.NDArray[np.object_]) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return start, end and polygon of each side of all rings."""
    rings, ring_owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    inner = ring[1:] == ring[:-1]
    return xy[:-1][inner], xy[1:][inner], ring_owner[ring[1:][inner]].astype(np.int64)


def _squared_distance(xs: Field, ys: Field, start: FloatArray, end: FloatArray) -> Field:
    """Squared distance from a raster of points to a line segment; float32, (rows, columns)."""
    dx, dy = (float(value) for value in end - start)
    # Relative to the start: float32 holds what is near zero best.
    x, y = xs - np.float32(start[0]), ys - np.float32(start[1])
    squared_length = max(dx * dx + dy * dy, 1e-12)
    along = np.add.outer(y * np.float32(dy / squared_length), x * np.float32(dx / squared_length))
    np.clip(along, 0, 1, out=along)
    across = along * np.float32(-dx)
    across += x
    np.multiply(across, across, out=across)
    along *= np.float32(-dy)
    along += y[:, None]
    np.multiply(along, along, out=along)
    across += along
    return np.asarray(across, np.float32)


def _smoothing(pixels: FloatArray, size: float, length: float) -> tuple[Any, int, int]:
    """Return the sparse kernel from lattice nodes to pixels, rows of unit norm; the first node; the number of nodes."""
    places, step = pixels * size, length / 2
    reach = math.ceil(_FIELD_REACH * length / step)
    middle = np.rint(places / step).astype(np.int64)
    nodes = middle[:, None] + np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * ((nodes * step - places[:, None]) / length) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    first, last = int(nodes[0, 0]), int(nodes[-1, -1])
    rows = np.repeat(np.arange(len(places)), nodes.shape[1])
    shape = (len(places), last - first + 1)
    return (
        csr_array((weights.astype(np.float32).ravel(), (rows, (nodes - first).ravel())), shape=shape),
        first,
        shape[1],
    )


def _local_transform(width: float, height: float, start: int, margin: int) -> Affine:
    return Affine(width, 0.0, -margin * width, 0.0, height, start * height)
