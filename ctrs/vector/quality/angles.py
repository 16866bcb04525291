"""How far matched walls point astray, in degrees, and which corners are right angles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.quality.outlines import Outlines

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TANGENT_SPACING_M = 0.75
"""Steps of the max tangent angle error: some pixels, so that the staircase of a mask is not what it measures."""

_STRETCH = 2.0
"""Girard et al. leave out pieces that grow or shrink by more than this on their way to the true outline."""

_AT_CORNER_M = 1e-6

_DIRECTED = 0.3
"""Length of the mean vector of 4 x direction, 0 to 1, below which a building has no direction."""


def tangent_angle_errors(
    predicted: Outlines, truth: Outlines, *, spacing: float = TANGENT_SPACING_M, corner_free: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Return the max tangent angle error of each pair, with and without corners.

    Girard et al. 2021, "Polygonal building extraction by frame field learning", section 4: points along the predicted
    outline are projected onto the true one; the error of a piece is the angle between the chord of two consecutive
    points and the chord of their projections; the largest counts. As in their code, pieces whose two chords differ in
    length by more than a factor of two are left out. They step by a pixel of 0.3 m; here steps are ``spacing``.

    A perfect polygon moved by 0.3 m scores about 30 degrees, all of it at its corners. So the second figure leaves out
    pieces with an end within ``corner_free`` of a corner of the true polygon: it judges walls.

    Args:
        predicted: Of the pairs; polygon k belongs to polygon k of the truth.
        truth: Of the pairs.
        spacing: Steps along the predicted outline, metres.
        corner_free: Metres around true corners; pieces there don't count in the second figure.

    Returns:
        Degrees for each pair, 0 where no piece is left.
    """
    points, following, owners = predicted.along_rings(spacing)
    projected, _ = truth.nearest(points, owners)
    chord, image = points[following] - points, projected[following] - projected
    length, image_length = np.hypot(*chord.T), np.hypot(*image.T)
    counted = (image_length > 0) & (length <= _STRETCH * image_length) & (image_length <= _STRETCH * length)
    cross = chord[:, 0] * image[:, 1] - chord[:, 1] * image[:, 0]
    angle = np.where(counted, np.degrees(np.abs(np.arctan2(cross, (chord * image).sum(axis=1)))), 0.0)
    cuts = np.cumsum(truth.corner_counts)[:-1]
    corner_sets = np.array([shapely.MultiPoint(part) for part in np.split(truth.corners, cuts)][: truth.count], object)
    free = shapely.distance(shapely.points(points), corner_sets[owners]) > corner_free
    on_wall = free & free[following]
    errors, wall_errors = np.zeros(predicted.count), np.zeros(predicted.count)
    np.maximum.at(errors, owners, angle)
    np.maximum.at(wall_errors, owners, np.where(on_wall, angle, 0.0))
    return errors, wall_errors


def parallel_share(predicted: Outlines, truth: Outlines, *, within_deg: float = 1.0, spacing: float = 0.25) -> float:
    """Return the share of the predicted outlines, by length, that is parallel to the nearest true wall.

    Where a corner is nearest, both of its walls are, and one of them has to be parallel.

    Args:
        predicted: Of the pairs; polygon k belongs to polygon k of the truth.
        truth: Of the pairs.
        within_deg: Largest angle that counts as parallel.
        spacing: Longest piece of a wall that has a nearest true wall of its own, metres.
    """
    wall, start, share = predicted.pieces(spacing)
    middle = predicted.corners[wall] + (start + share / 2)[:, None] * predicted.walls[wall]
    place, nearest = truth.nearest(middle, predicted.owners[wall])
    starts, ends = (
        np.hypot(*(place - truth.corners[end]).T) < _AT_CORNER_M for end in (nearest, truth.following[nearest])
    )
    beside = np.where(starts, truth.preceding[nearest], np.where(ends, truth.following[nearest], nearest))
    direction, true_direction = _directions(predicted)[wall], _directions(truth)
    parallel = np.zeros(len(wall), bool)
    for candidate in (nearest, beside):
        angle = np.degrees(direction - true_direction[candidate])
        parallel |= np.abs((angle + 90) % 180 - 90) <= within_deg
    length = share * predicted.wall_lengths[wall]
    return float(length[parallel].sum() / length.sum())


def main_directions(outlines: Outlines) -> tuple[FloatArray, FloatArray]:
    """Return the direction of each polygon's walls modulo 90 degrees, and how far they agree.

    The mean of 4 x direction over the walls, weighted by length: walls at right angles add up.

    Returns:
        Degrees from 0 to below 90; length of the mean vector, 0 to 1.
    """
    turned = outlines.wall_lengths * np.exp(4j * _directions(outlines))
    mean = np.bincount(outlines.owners, turned.real, outlines.count) + 1j * np.bincount(
        outlines.owners, turned.imag, outlines.count
    )
    total = np.bincount(outlines.owners, outlines.wall_lengths, outlines.count)
    angle = np.degrees(np.angle(mean)) / 4 % 90
    return np.where(angle < 90, angle, 0.0), np.abs(mean) / np.maximum(total, 1e-30)


def direction_errors(predicted: Outlines, truth: Outlines) -> FloatArray:
    """Return the angle between main directions modulo 90 degrees, 0 to 45, of the pairs whose truth has a direction."""
    angle, _ = main_directions(predicted)
    true_angle, agreement = main_directions(truth)
    error = np.abs((angle - true_angle + 45) % 90 - 45)
    return np.asarray(error[agreement >= _DIRECTED])


def right_angle_share(outlines: Outlines, *, within_deg: float = 1.0) -> float:
    """Return the share of all corners at which the outline turns by 90 degrees, to the left or right."""
    direction = _directions(outlines)
    turn = np.degrees(direction[outlines.following] - direction)
    off = np.abs(np.abs((turn + 180) % 360 - 180) - 90)
    return float((off <= within_deg).mean())


def _directions(outlines: Outlines) -> FloatArray:
    return np.asarray(np.arctan2(outlines.walls[:, 1], outlines.walls[:, 0]))
