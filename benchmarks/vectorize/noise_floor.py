"""The best that walls fitted to a noisy mask can be, when which walls there are is given away.

Each true wall is moved by what the mask's outline says, measured every 0.25 m on the noisy signed distance and away
from corners: one offset for each wall and one rotation for each building, by robust least squares. Corners are where
moved walls meet. What remains is the noise of the mask itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import map_coordinates

from ctrs.synthetic.mask_noise import NoisyMask
from ctrs.vector.quality.outlines import Outlines

FloatArray = npt.NDArray[np.float64]

SPACING_M, CORNER_FREE_M, HUBER_M, ROUNDS = 0.25, 1.0, 0.15, 6


def fit_walls(truth: npt.NDArray[np.object_], noisy: NoisyMask) -> npt.NDArray[np.object_]:
    """Return the true polygons with their walls where the mask puts them; north-up grids in metres only."""
    outlines = Outlines.of(truth)
    wall, place, share = outlines.pieces(SPACING_M)
    middle = place + share / 2
    length = outlines.wall_lengths[wall]
    free = np.minimum(CORNER_FREE_M, 0.3 * length)
    kept = (middle * length >= free) & ((1 - middle) * length >= free)
    wall, middle = wall[kept], middle[kept]
    points = outlines.corners[wall] + middle[:, None] * outlines.walls[wall]
    moved = _distances(noisy, points)
    fitted: list[object] = []
    cuts = np.searchsorted(outlines.owners[wall], np.arange(len(truth) + 1))
    first = np.concatenate([[0], np.cumsum(outlines.corner_counts)])
    for index in range(len(truth)):
        part, walls = slice(cuts[index], cuts[index + 1]), slice(first[index], first[index + 1])
        rings = outlines.rings[walls]
        corners = _fitted_corners(
            outlines.corners[walls],
            outlines.following[walls] - first[index],
            wall[part] - first[index],
            points[part],
            moved[part],
        )
        shells = [corners[rings == ring] for ring in np.unique(rings)]
        fitted.append(shapely.Polygon(shells[0], shells[1:]))
    return np.array(fitted, object)


def _distances(noisy: NoisyMask, points: FloatArray) -> FloatArray:
    """Interpolate the noisy signed distance, band by band; it is positive outside."""
    grid = noisy.grid
    columns, rows = ~grid.transform @ (points[:, 0], points[:, 1])
    result = np.zeros(len(points))
    for start in range(0, grid.height, 256):
        chosen = np.flatnonzero((rows >= start) & (rows < start + 256))
        top = max(0, start - 1)
        field = noisy.distance(top, min(grid.height, start + 257))
        result[chosen] = map_coordinates(field, [rows[chosen] - 0.5 - top, columns[chosen] - 0.5], order=1)
    return result


def _fitted_corners(
    corners: FloatArray,
    following: npt.NDArray[np.int64],
    wall: npt.NDArray[np.int64],
    points: FloatArray,
    moved: FloatArray,
) -> FloatArray:
    count = len(corners)
    along = corners[following] - corners
    along /= np.hypot(*along.T)[:, None]
    ring_side = np.column_stack([along[:, 1], -along[:, 0]])
    center = corners.mean(axis=0)
    # The signed distance grows outwards, whichever way round a ring runs; -moved is how far out the mask's outline is.
    outward = ring_side * _outward(corners, following, ring_side)[:, None]
    design = np.zeros((len(wall), count + 1))
    design[np.arange(len(wall)), wall] = 1
    turn = np.column_stack([-(points - center)[:, 1], (points - center)[:, 0]])
    design[:, count] = (turn * outward[wall]).sum(axis=1)
    weights = np.ones(len(wall))
    solution = np.zeros(count + 1)
    ridge = np.diag(np.append(np.full(count, 1e-6), 1e-3))
    for _ in range(ROUNDS):
        weighted = design * weights[:, None]
        solution = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ -moved)
        weights = np.minimum(1, HUBER_M / np.maximum(np.abs(moved + design @ solution), 1e-9))
    angle = solution[count]
    rotation = np.array([[1.0, angle], [-angle, 1.0]]) / np.hypot(1.0, angle)
    normals = outward @ rotation
    offsets = ((corners - center) * outward).sum(axis=1) + solution[:count]
    before = np.empty(count, np.int64)
    before[following] = np.arange(count)
    systems = np.stack([normals[before], normals], axis=1)
    return center + np.linalg.solve(systems, np.stack([offsets[before], offsets], axis=1)[..., None])[..., 0]


def _outward(corners: FloatArray, following: npt.NDArray[np.int64], side: FloatArray) -> FloatArray:
    polygon_rings = np.split(np.arange(len(corners)), np.flatnonzero(following < np.arange(len(corners)))[:-1] + 1)
    polygon = shapely.Polygon(corners[polygon_rings[0]], [corners[ring] for ring in polygon_rings[1:]])
    probe = (corners + corners[following]) / 2 + 1e-3 * side
    return np.where(shapely.contains_xy(polygon, probe), -1.0, 1.0)
