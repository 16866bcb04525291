"""Borders without the wobble of pixels: arcs of a coverage are smoothed along their length, their ends stay.

A Gaussian over arc length takes wavy detail away and keeps what is longer: of waves of the stated length half their
height stays, of waves half as long a sixteenth. At an open arc's ends it goes on point-symmetrically, so that the end
keeps its place and a straight arc stays straight; a closed arc keeps its area.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.coverage.arcs import Arcs, Flags, FloatArray, Geometries, IntArray, lines_of

_SIGMA_OF_WAVE = float(np.sqrt(np.log(2) / 2) / np.pi)
"""exp(-2 (pi sigma / wave)^2), a Gaussian's answer to a wave, is one half there."""

_REACH = 3.0
"""Standard deviations after which the Gaussian is cut off."""

_ARC_OF_SIGMA = 12.0
"""Least length of an arc in standard deviations; on shorter arcs the Gaussian is narrower."""

_STEPS_OF_SIGMA = 4.0


def smooth_arcs(arcs: Arcs, wave: float, chosen: Flags) -> Geometries:
    """Return the arcs as linestrings, the chosen ones smoothed.

    Args:
        arcs: Of a coverage.
        wave: Wave length, in coordinate units, of which half the height stays.
        chosen: Arcs to smooth; shape (A,).
    """
    lines = arcs.lines()
    lengths = shapely.length(lines)
    places = np.flatnonzero(chosen & (lengths > 0))
    if wave <= 0 or not len(places):
        return lines
    sigma = np.minimum(wave * _SIGMA_OF_WAVE, lengths[places] / _ARC_OF_SIGMA)
    samples = np.ceil(lengths[places] / sigma * _STEPS_OF_SIGMA).astype(np.int64) + 1
    points, offsets = _sample(lines[places], samples)
    smooth = _gaussian(points, offsets, sigma / (lengths[places] / (samples - 1)), arcs.closed[places])
    smoothed = lines_of(smooth, offsets)
    loops = arcs.closed[places]
    smoothed[loops] = _with_area_of(smoothed[loops], lines[places[loops]])
    lines[places] = smoothed
    return lines


def _sample(lines: Geometries, samples: IntArray) -> tuple[FloatArray, IntArray]:
    """Even samples of lines, both ends among them, as ragged vertices."""
    xy, line = shapely.get_coordinates(lines, return_index=True)
    steps = np.hypot(*np.diff(xy, axis=0).T)
    # All lines on one axis; between them lies a step of no length, which nothing is sampled from.
    steps[line[1:] != line[:-1]] = 0
    along = np.concatenate([[0], np.cumsum(steps)])
    first = np.flatnonzero(np.diff(line, prepend=-1))
    last = np.append(first[1:], len(line)) - 1
    offsets = np.concatenate([[0], np.cumsum(samples)])
    of = np.repeat(np.arange(len(samples)), samples)
    share = (np.arange(offsets[-1]) - offsets[of]) / (samples - 1)[of]
    at = along[first][of] + share * (along[last] - along[first])[of]
    points = np.column_stack([np.interp(at, along, xy[:, 0]), np.interp(at, along, xy[:, 1])])
    points[offsets[:-1]] = xy[first]
    points[offsets[1:] - 1] = xy[last]
    return points, offsets


def _gaussian(points: FloatArray, offsets: IntArray, sigma: FloatArray, closed: Flags) -> FloatArray:
    """Smooth ragged samples; ``sigma`` is in samples, one for each line."""
    of = np.repeat(np.arange(len(sigma)), np.diff(offsets))
    first, last = offsets[of], offsets[of + 1] - 1
    place, count = np.arange(len(points)) - first, last - first
    loop = closed[of]
    total = np.zeros_like(points)
    weights = np.zeros(len(points))
    for step in range(-int(np.ceil(_REACH * sigma.max())), int(np.ceil(_REACH * sigma.max())) + 1):
        weight = np.where(abs(step) <= _REACH * sigma, np.exp(-0.5 * (step / sigma) ** 2), 0.0)[of]
        other = place + step
        before, after = ~loop & (other < 0), ~loop & (other > count)
        other = np.where(loop, other % np.maximum(count, 1), other)
        other = np.where(before, -other, np.where(after, 2 * count - other, other))
        value = points[first + np.clip(other, 0, count)]
        value[before] = 2 * points[first[before]] - value[before]
        value[after] = 2 * points[last[after]] - value[after]
        total += weight[:, None] * value
        weights += weight
    smooth = total / weights[:, None]
    ends = ~closed
    smooth[offsets[:-1][ends]] = points[offsets[:-1][ends]]
    smooth[offsets[1:][ends] - 1] = points[offsets[1:][ends] - 1]
    smooth[offsets[1:][closed] - 1] = smooth[offsets[:-1][closed]]
    return smooth


def _with_area_of(loops: Geometries, originals: Geometries) -> Geometries:
    """Scale closed lines about their centroids to the area that the original ones enclose."""
    if not len(loops):
        return loops
    rings, exact = _filled(loops), _filled(originals)
    areas = shapely.area(rings)
    factor = np.sqrt(np.divide(shapely.area(exact), areas, out=np.ones(len(areas)), where=areas > 0))
    xy, line = shapely.get_coordinates(loops, return_index=True)
    center = shapely.get_coordinates(shapely.centroid(rings))[line]
    scaled: npt.NDArray[np.float64] = center + (xy - center) * factor[line][:, None]
    return shapely.set_coordinates(loops.copy(), scaled)


def _filled(loops: Geometries) -> Geometries:
    offsets = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(loops))])
    polygons: Geometries = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, shapely.get_coordinates(loops), (offsets, np.arange(len(loops) + 1))
    )
    return polygons
