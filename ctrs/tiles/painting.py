"""In which order the features of a vector label are painted, how wide its lines are, and where classes overlap."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from ctrs.classes import IGNORE_INDEX, ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import ConfigError, LabelError, LabelWarning
from ctrs.tiles.findings import Findings
from ctrs.tiles.polygon_labels import class_rows
from ctrs.vector.ground_buffers import widen_in_crs
from ctrs.vector.rasterize import PolygonLayer, is_thin

logger = logging.getLogger(__name__)

MAX_PAIRS = 50_000
"""Most pairs of polygons of different classes whose overlap is measured, over all layers."""

_THIN_TYPES = tuple(
    shapely.GeometryType[name] for name in ("POINT", "LINESTRING", "LINEARRING", "MULTIPOINT", "MULTILINESTRING")
)

_SLIVER = 1e-3
"""Overlaps smaller than this share of the smaller polygon are the digitiser's, and not counted."""


@dataclass(frozen=True, kw_only=True)
class PaintedLayer:
    """A vector label whose features have classes.

    Args:
        layer: Features in the order of painting.
        values: Mask value of each.
        widths_m: Half width of lines and radius of points in ground metres; None where there are only polygons.
    """

    layer: PolygonLayer
    values: npt.NDArray[np.uint8]
    widths_m: npt.NDArray[np.float64] | None = None


def paint_layers(
    layers: Mapping[Path, PolygonLayer], classes: ClassMap, config: PrepareConfig, findings: Findings
) -> dict[Path, PaintedLayer]:
    """Settle the class, the place in the order and the width of each feature.

    Args:
        layers: From ``read_layers``.
        classes: Class table.
        config: Options.
        findings: Takes faults of layers, and warnings of what is missing and of classes that overlap.

    Raises:
        ConfigError: The order of painting names a class that there is not.
    """
    order = painting_ranks(classes, config.paint_order)
    painted: dict[Path, PaintedLayer] = {}
    without: dict[Path, int] = {}
    unwidened: dict[Path, int] = {}
    for path, layer in layers.items():
        painted[path] = _ignored(layer)  # stays where the layer has a fault
        with findings.gathering("classes"):
            rows = class_rows(layer, classes, config.class_field)
            widths = _widths(layer, config)
            drawn = np.ones(len(rows), bool) if widths is None else ~np.isnan(widths)
            priorities = _priorities(layer, config.priority_field)
            if (missing := int(np.isneginf(priorities[drawn]).sum())) > 0:
                without[path] = missing
            if not drawn.all():
                unwidened[path] = int((~drawn).sum())
            places = np.lexsort((priorities, order[rows]))  # stable: ties stay in file order
            places = places[drawn[places]]
            painted[path] = PaintedLayer(
                layer=replace(layer, frame=layer.frame.iloc[places].reset_index(drop=True)),
                values=np.array(classes.row_indices, np.uint8)[rows[places]],
                widths_m=None if widths is None else widths[places],
            )
    if without:
        findings.warn(
            "classes",
            f"{first_of(without)}: {sum(without.values())} features have no {config.priority_field}; they are painted "
            "first, below all others",
            LabelWarning,
        )
    if unwidened:
        findings.warn(
            "classes",
            f"{first_of(unwidened)}: {sum(unwidened.values())} lines and points have no {config.label_buffer_field} "
            "above 0 and are left out; fill the field",
            LabelWarning,
        )
    if not config.paint_order and config.priority_field is None:
        _warn_overlaps(painted, classes, findings)
    return painted


def _ignored(layer: PolygonLayer) -> PaintedLayer:
    """Return a layer whose features are all ignored."""
    size = len(layer.frame)
    return PaintedLayer(layer=layer, values=np.full(size, IGNORE_INDEX, np.uint8), widths_m=np.ones(size))


def first_of(paths: Sequence[Path] | Mapping[Path, object]) -> str:
    """Return the first of some paths and how many more there are."""
    return f"{next(iter(paths))}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"


def painting_ranks(classes: ClassMap, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the rank of each row of the class table in the order of painting; 0 for those that are not named."""
    known = [entry.name.lower() for entry in classes.classes]
    ranks = np.zeros(len(known), np.int64)
    for rank, name in enumerate(names, start=1):
        if name.lower() not in known:
            raise ConfigError(
                f"paint order: class {name!r} is unknown; expected some of: "
                f"{', '.join(entry.name for entry in classes.classes)}"
            )
        ranks[known.index(name.lower())] = rank
    return ranks


def _numbers(layer: PolygonLayer, name: str) -> npt.NDArray[np.float64]:
    """Return a field as numbers, NaN where it is empty.

    Raises:
        LabelError: It holds anything else.
    """
    numbers = np.full(len(layer.frame), np.nan)
    for place, value in enumerate(layer.frame[name].tolist()):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            continue
        try:
            numbers[place] = float(value)
        except (TypeError, ValueError) as error:
            raise LabelError(
                f"{layer.path}: {name} = {value!r} found in feature {place}, expected a number; name another field or "
                "mend it"
            ) from error
    return numbers


def _priorities(layer: PolygonLayer, name: str | None) -> npt.NDArray[np.float64]:
    if name is None:
        return np.zeros(len(layer.frame))
    numbers = _numbers(layer, name)
    return np.where(np.isnan(numbers), -np.inf, numbers)


def _widths(layer: PolygonLayer, config: PrepareConfig) -> npt.NDArray[np.float64] | None:
    """Return the width of each feature, 0 for polygons, NaN where a line or point has none."""
    thin = is_thin(layer.frame.geometry.to_numpy())
    if not thin.any():
        return None
    widths = np.full(len(thin), np.nan if config.label_buffer_m is None else config.label_buffer_m)
    if config.label_buffer_field is not None:
        given = _numbers(layer, config.label_buffer_field)
        wrong = np.flatnonzero(thin & ((given < 0) | np.isinf(given)))
        if len(wrong):
            raise LabelError(
                f"{layer.path}: {config.label_buffer_field} = {given[wrong[0]]:g} found in feature {wrong[0]} (and "
                f"{len(wrong) - 1} more), expected a width in metres; mend the field"
            )
        widths = np.where(np.isnan(given), widths, given)
    widths[widths == 0] = np.nan
    widths[~thin] = 0
    return widths


def _warn_overlaps(painted: Mapping[Path, PaintedLayer], classes: ClassMap, findings: Findings) -> None:
    """Say where features of different classes lie on each other, because only the file's order decides there."""
    number, area, left = 0, 0.0, MAX_PAIRS
    where: list[Path] = []
    names: dict[tuple[int, int], int] = {}
    for path, entry in painted.items():
        if left <= 0:
            break
        pairs, areas, tried = overlaps(entry, most=left)
        left -= tried
        if len(pairs):
            where.append(path)
            number += len(pairs)
            area += float(areas.sum())
            for low, high in np.sort(entry.values[pairs], axis=1).tolist():
                names[low, high] = names.get((low, high), 0) + 1
    if not number:
        return
    top = max(names, key=lambda pair: names[pair])
    shown = " and ".join(classes.names[index] if index < classes.num_classes else "ignored" for index in top)
    least = "at least " if left <= 0 else ""
    noun = "polygons" if all(painted[path].widths_m is None for path in where) else "polygons, lines and points"
    unit = "m2" if painted[where[0]].layer.frame.crs is not None else "square units"
    findings.warn(
        "classes",
        f"{first_of(where)}: {least}{number} {'pair' if number == 1 else 'pairs'} of {noun} of different classes "
        f"{'overlaps' if number == 1 else 'overlap'} on {area:.4g} {unit}, most "
        f"often {shown}; the later in the file lies on top: say which does with --paint-order or --priority-field",
        LabelWarning,
    )


def _as_painted(painted: PaintedLayer) -> npt.NDArray[np.object_]:
    """Return the shapes of a layer, its lines and points as areas where that can be had."""
    frame = painted.layer.frame
    shapes: npt.NDArray[np.object_] = frame.geometry.to_numpy()
    if painted.widths_m is None or frame.crs is None:
        return shapes
    thin = np.flatnonzero(np.isin(shapely.get_type_id(shapes), _THIN_TYPES))
    if not len(thin):
        return shapes
    try:
        areas = widen_in_crs(shapes[thin], painted.widths_m[thin], CRS.from_wkt(frame.crs.to_wkt()))
    except LabelError:
        logger.info("%s: lines and points do not count among overlaps: some lie off the earth", painted.layer.path)
        return shapes
    shapes = np.array(shapes, object)
    shapes[thin] = areas
    return shapes


def overlaps(
    painted: PaintedLayer, *, most: int = MAX_PAIRS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    """Find polygons, and lines and points as wide as they are painted, with different mask values that overlap.

    Lines and points without a CRS, or off the earth, have no width here and are left out, and so are mixed collections.

    Args:
        painted: The layer.
        most: Most pairs to measure.

    Returns:
        Rows of each pair (N, 2), the lower one first; the ground that they share (N,) in m2, or in square units of
        the layer without a CRS; and how many pairs were measured.
    """
    frame = painted.layer.frame
    several = len(np.unique(painted.values)) > 1
    shapes = _as_painted(painted) if several else frame.geometry.to_numpy()
    areal = np.flatnonzero(~is_thin(shapes))
    if len(np.unique(painted.values[areal])) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0), 0
    tree = shapely.STRtree(shapes[areal])
    found: list[npt.NDArray[np.int64]] = []
    count = 0
    for start in range(0, len(areal), 4096):
        some = areal[start : start + 4096]
        first, second = tree.query(shapes[some])
        pairs = np.column_stack([some[first], areal[second]])
        pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (painted.values[pairs[:, 0]] != painted.values[pairs[:, 1]])]
        found.append(pairs[: most - count])
        count += len(found[-1])
        if count >= most:
            break
    pairs = np.concatenate(found)
    shared = shapely.intersection(shapes[pairs[:, 0]], shapes[pairs[:, 1]])
    smaller = np.minimum(shapely.area(shapes[pairs[:, 0]]), shapely.area(shapes[pairs[:, 1]]))
    real = shapely.area(shared) > _SLIVER * smaller
    pairs, shared = pairs[real], shared[real]
    if frame.crs is None or not len(shared):
        return pairs, shapely.area(shared), count
    import geopandas

    series = geopandas.GeoSeries(shared, crs=frame.crs).to_crs(4326)
    west, south, east, north = series.total_bounds.tolist()
    ground = series.to_crs(f"+proj=laea +lat_0={(south + north) / 2} +lon_0={(west + east) / 2} +datum=WGS84 +units=m")
    return pairs, ground.area.to_numpy(), count
