"""Whether imagery and labels are where their CRS says: polygons beside their image, scenes beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import CRSError, ProjError

from ctrs.errors import LabelError
from ctrs.raster.geotiff import Grid, crs_name
from ctrs.raster.names import shown
from ctrs.tiles.findings import Findings
from ctrs.tiles.polygon_labels import PolygonLabel
from ctrs.tiles.scenes import ReadyScene

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def check_places(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Look for labels and images that are not where their CRS says."""
    check_polygons(scenes, findings)
    check_neighbours(scenes, findings)
    check_area_of_use(scenes, findings)


def check_polygons(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Make it a fault where all polygons lie beside their images, or would lie on one in another CRS."""
    drawn = [scene for scene in scenes if isinstance(scene.label, PolygonLabel)]
    empty = [scene for scene in drawn if not len(scene.label.polygons.shapes)]  # type: ignore[attr-defined]
    for scene in empty:
        advice = _suggest(scene.source.label, scene.grid)
        if advice:
            findings.fault(
                "georeference",
                LabelError(
                    f"{shown(scene.source.label)}: none of its polygons lies on {shown(scene.source.image)}; {advice}"
                ),
                scene=scene.name,
            )
        elif len(empty) == len(drawn) and scene is empty[0]:
            others = f" and {len(empty) - 1} more images" if len(empty) > 1 else ""
            findings.fault(
                "georeference",
                LabelError(
                    f"{shown(scene.source.label)}: none of its polygons lies on {shown(scene.source.image)}{others}; "
                    f"{_places(scene.source.label, scene.grid)}; check the CRS and place of both"
                ),
                scene=scene.name if len(empty) == 1 else None,
            )


def check_neighbours(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Find scenes whose numbers adjoin those of the others, but in another CRS: one of the CRSs is wrong."""
    placed = [scene for scene in scenes if scene.grid.crs is not None and not scene.grid.transform.is_identity]
    by_crs: dict[str, list[ReadyScene]] = {}
    for scene in placed:
        by_crs.setdefault(crs_name(scene.grid.crs), []).append(scene)
    if len(by_crs) < 2:
        return
    common = max(by_crs, key=lambda name: len(by_crs[name]))
    tree = shapely.STRtree([shapely.box(*bounds_of(scene.grid)) for scene in by_crs[common]])
    for name, group in by_crs.items():
        if name == common:
            continue
        for scene in group:
            left, bottom, right, top = bounds_of(scene.grid)
            margin = max(right - left, top - bottom)
            box = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
            hits = tree.query(box)
            if not len(hits):
                continue
            other = by_crs[common][int(hits[0])]
            if _distance_in_edges(scene.grid, other.grid) > 10:
                findings.warn(
                    "georeference",
                    f"{shown(scene.source.image)}: lies in {name}, its neighbour by coordinates "
                    f"{shown(other.source.image)} in {common}: far apart on the ground; one of the two "
                    "names a wrong CRS (gdal_edit -a_srs sets it)",
                    scene=scene.name,
                )


def check_area_of_use(scenes: Sequence[ReadyScene], findings: Findings, *, margin_deg: float = 3.0) -> None:
    """Find images that lie where their CRS is not made for: swapped axes, another zone, another unit."""
    for scene in scenes:
        if scene.grid.crs is None or scene.grid.transform.is_identity:
            continue
        try:
            crs = pyproj.CRS.from_wkt(scene.grid.crs.to_wkt())
            centre = _centre_deg(scene.grid)
        except (CRSError, ProjError):
            continue
        area = crs.area_of_use
        if area is None or centre is None:
            inside = centre is not None
        else:
            lon, lat = centre
            inside = area.south - margin_deg <= lat <= area.north + margin_deg and (
                area.west > area.east or area.west - margin_deg <= lon <= area.east + margin_deg
            )
        if not inside:
            where = "nowhere on Earth" if centre is None else f"at longitude {centre[0]:.4g}, latitude {centre[1]:.4g}"
            findings.warn(
                "georeference",
                f"{shown(scene.source.image)}: lies {where}, outside the area that {crs_name(scene.grid.crs)} is made "
                f"for{f' ({area.name})' if area is not None else ''}; check its CRS and the order of its coordinates",
                scene=scene.name,
            )


def bounds_of(grid: Grid) -> Bounds:
    """Return the bounds of a grid in its own CRS."""
    corners = [grid.transform @ (float(col), float(row)) for col in (0, grid.width) for row in (0, grid.height)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _suggest(label: Path, grid: Grid) -> str | None:
    """Say under what other reading of the coordinates the polygons would lie on the image; None where none fits."""
    found = _label_place(label)
    if found is None or grid.crs is None:
        return None
    bounds, declared = found
    image = bounds_of(grid)
    image_crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    own = declared or image_crs
    if _meets(bounds, own, image, image_crs):
        return None  # the layer is there, only without polygons on this image
    left, bottom, right, top = bounds
    if _meets((bottom, left, top, right), own, image, image_crs):
        return (
            "they would with x and y swapped (latitude before longitude?): swap the coordinates of the label "
            "(ogr2ogr -swapxy)"
        )
    left, bottom, right, top = image
    if _meets(bounds, own, (bottom, left, top, right), image_crs):
        return "they would with x and y of the image swapped: mend the image's transform"
    for crs in _candidates(own, image_crs, grid):
        if _meets(bounds, crs, image, image_crs):
            return (
                f"its CRS is {_name(own)}, they would in {_name(crs)}: assign that to the label (ogr2ogr -a_srs) "
                "if it is the right one"
            )
    for crs in _candidates(image_crs, own, grid):
        if _meets(bounds, own, image, crs):
            return (
                f"the image's CRS is {_name(image_crs)}, they would with {_name(crs)}: assign that to the image "
                "(gdal_edit -a_srs) if it is the right one"
            )
    return None


def _candidates(own: pyproj.CRS, other: pyproj.CRS, grid: Grid) -> Iterator[pyproj.CRS]:
    """Yield CRSs that coordinates may really be in: the other file's, degrees, web maps, UTM zones near the image."""
    seen = {_name(own)}
    wanted: list[Any] = [other, 4326, 3857]
    try:
        centre = _centre_deg(grid)
    except (CRSError, ProjError):
        centre = None
    zones = [int((centre[0] + 180) // 6) + 1] if centre is not None else []
    zones += [zone + step for zone in zones[:1] for step in (-1, 1)]
    for crs in (own, other):
        if crs.utm_zone:
            zone = int(crs.utm_zone[:-1])
            zones += [zone, zone - 1, zone + 1]
    wanted += [base + (zone - 1) % 60 + 1 for zone in dict.fromkeys(zones) for base in (32600, 32700)]
    for candidate in wanted:
        crs = pyproj.CRS.from_user_input(candidate)
        if _name(crs) not in seen:
            seen.add(_name(crs))
            yield crs


def _meets(first: Bounds, first_crs: pyproj.CRS, second: Bounds, second_crs: pyproj.CRS) -> bool:
    """Tell whether two boxes meet on the ground."""
    try:
        transformer = pyproj.Transformer.from_crs(second_crs, first_crs, always_xy=True)
        moved = transformer.transform_bounds(*second, densify_pts=5)
    except (ProjError, CRSError):
        return False
    if not np.isfinite([*first, *moved]).all():
        return False
    return bool(shapely.box(*first).intersects(shapely.box(*moved)))


def _label_place(path: Path) -> tuple[Bounds, pyproj.CRS | None] | None:
    """Return bounds and CRS of a vector file; None where it is empty or cannot tell."""
    from ctrs.vector.rasterize import read_polygons

    frame = read_polygons(path).frame
    if not len(frame):
        return None
    left, bottom, right, top = (float(value) for value in frame.total_bounds)
    return (left, bottom, right, top), frame.crs


def _places(label: Path, grid: Grid) -> str:
    """Say where polygons and image lie, each in its own CRS."""
    found = _label_place(label)
    if found is None:
        return "it has no polygons"
    bounds, crs = found
    label_text = f"{_box(bounds)} in {'no CRS' if crs is None else _name(crs)}"
    return f"they lie at {label_text}, the image at {_box(bounds_of(grid))} in {crs_name(grid.crs)}"


def _box(bounds: Bounds) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.7g} to {right:.7g}, y {bottom:.7g} to {top:.7g}"


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def _centre_deg(grid: Grid) -> tuple[float, float] | None:
    """Return longitude and latitude of a grid's centre, None where it has no place on Earth."""
    left, bottom, right, top = bounds_of(grid)
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt()) if grid.crs is not None else None
    if crs is None or crs.geodetic_crs is None:
        return None
    transformer = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = transformer.transform((left + right) / 2, (bottom + top) / 2)
    return (lon, lat) if np.isfinite([lon, lat]).all() and abs(lat) <= 90 and abs(lon) <= 360 else None


def _distance_in_edges(first: Grid, second: Grid) -> float:
    """Return how far two grids lie apart on the ground, in units of the first one's longer edge (in degrees)."""
    one, other = _centre_deg(first), _centre_deg(second)
    if one is None or other is None:
        return float("inf")
    left, bottom, right, top = bounds_of(first)
    geodesic = pyproj.Geod(ellps="WGS84")
    _, _, apart = geodesic.inv(*one, *other)
    crs = pyproj.CRS.from_wkt(first.crs.to_wkt()) if first.crs is not None else None
    unit = 111_320.0 if crs is not None and crs.is_geographic else 1.0
    return float(apart / (max(right - left, top - bottom) * unit))
