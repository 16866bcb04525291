"""Whether imagery and labels are where their CRS says: polygons beside their image, scenes beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import CRSError, ProjError

from ctrs.errors import LabelError
from ctrs.raster.geotiff import Grid, crs_name
from ctrs.raster.names import shown
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles.findings import Findings
from ctrs.tiles.polygon_labels import PolygonLabel
from ctrs.tiles.scenes import ReadyScene
from ctrs.vector.rasterize import read_polygons

_MARGIN_DEG = 3.0
"""How far beyond its area a CRS is commonly used, zones of UTM above all."""

_FAR_EDGES = 10.0
"""Edges of a scene that neighbours by coordinates may lie apart on the ground."""

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top."""

_LabelPlace = tuple[Bounds, pyproj.CRS | None]
"""Where the polygons of a file lie, and in which CRS."""


def check_places(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Look for labels and images that are not where their CRS says."""
    check_polygons(scenes, findings)
    check_neighbours(scenes, findings)
    check_area_of_use(scenes, findings)


def check_polygons(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Make it a fault where all polygons lie beside their images, or would lie on one in another CRS."""
    drawn = [scene for scene in scenes if isinstance(scene.label, PolygonLabel)]
    empty = [scene for scene in drawn if not len(scene.label.polygons.shapes)]  # type: ignore[attr-defined]
    places: dict[Path, _LabelPlace | None] = {}
    advised: dict[tuple[Path, str], list[ReadyScene]] = {}
    for scene in empty:
        path = scene.source.label
        if path not in places:
            places[path] = _label_place(path)
        advice = _suggest(places[path], scene.grid)
        if advice:
            advised.setdefault((path, advice), []).append(scene)
    if not advised and empty and len(empty) == len(drawn):
        path = empty[0].source.label
        where = f"{_describe(places[path], empty[0].grid)}; check the CRS and place of both"
        advised[path, where] = empty
    for (path, advice), beside in advised.items():
        findings.fault(
            "georeference",
            LabelError(f"{shown(path)}: none of its polygons lies on {_images(beside)}; {advice}"),
            scene=beside[0].name if len(beside) == 1 else None,
            items=[scene.name for scene in beside],
        )


def check_neighbours(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Find scenes whose numbers adjoin those of the others, but in another CRS: one of the CRSs is wrong."""
    by_crs: dict[str, list[ReadyScene]] = {}
    for scene in _placed(scenes):
        by_crs.setdefault(crs_name(scene.grid.crs), []).append(scene)
    if len(by_crs) < 2:
        return
    common = max(by_crs, key=lambda name: len(by_crs[name]))
    tree = shapely.STRtree([shapely.box(*bounds_of(scene.grid)) for scene in by_crs[common]])
    for name, group in by_crs.items():
        odd: list[tuple[ReadyScene, ReadyScene]] = []
        for scene in group if name != common else ():
            left, bottom, right, top = bounds_of(scene.grid)
            margin = max(right - left, top - bottom)
            hits = tree.query(shapely.box(left - margin, bottom - margin, right + margin, top + margin))
            other = by_crs[common][int(hits[0])] if len(hits) else None
            if other is not None and _distance_in_edges(scene.grid, other.grid) > _FAR_EDGES:
                odd.append((scene, other))
        if odd:
            scene, other = odd[0]
            findings.warn(
                "georeference",
                f"{_images([each for each, _ in odd])}: lies in {name}, its neighbour by coordinates "
                f"{shown(other.source.image)} in {common}: far apart on the ground; one of the two "
                "names a wrong CRS (gdal_edit -a_srs sets it)",
                scene=scene.name if len(odd) == 1 else None,
                items=[each.name for each, _ in odd],
            )


def check_area_of_use(scenes: Sequence[ReadyScene], findings: Findings) -> None:
    """Find images that lie where their CRS is not made for: swapped axes, another zone, another unit."""
    outside: dict[str, list[ReadyScene]] = {}
    for scene in _placed(scenes):
        if not _is_in_area(scene.grid):
            outside.setdefault(crs_name(scene.grid.crs), []).append(scene)
    for name, group in outside.items():
        centre = _centre_deg(group[0].grid)
        where = "nowhere on Earth" if centre is None else f"at longitude {centre[0]:.4g}, latitude {centre[1]:.4g}"
        area = _crs(group[0].grid).area_of_use
        findings.warn(
            "georeference",
            f"{_images(group)}: lies {where}, outside the area that {name} is made for"
            f"{f' ({area.name})' if area is not None else ''}; check its CRS and the order of its coordinates",
            scene=group[0].name if len(group) == 1 else None,
            items=[scene.name for scene in group],
        )


def _placed(scenes: Sequence[ReadyScene]) -> list[ReadyScene]:
    return [scene for scene in scenes if scene.grid.crs is not None and not scene.grid.transform.is_identity]


def _images(scenes: Sequence[ReadyScene]) -> str:
    """Name the first image of several scenes."""
    noun = "image" if len(scenes) == 2 else "images"
    more = f" and {len(scenes) - 1} more {noun}" if len(scenes) > 1 else ""
    return f"{shown(scenes[0].source.image)}{more}"


def _is_in_area(grid: Grid) -> bool:
    centre, area = _centre_deg(grid), _crs(grid).area_of_use
    if centre is None or area is None:
        return centre is not None
    lon, lat = centre
    return area.south - _MARGIN_DEG <= lat <= area.north + _MARGIN_DEG and (
        area.west > area.east or area.west - _MARGIN_DEG <= lon <= area.east + _MARGIN_DEG
    )


def bounds_of(grid: Grid) -> Bounds:
    """Return the bounds of a grid in its own CRS."""
    corners = [grid.transform @ (float(col), float(row)) for col in (0, grid.width) for row in (0, grid.height)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _suggest(place: _LabelPlace | None, grid: Grid) -> str | None:
    """Say under what other reading of the coordinates the polygons would lie on the image; None where none fits."""
    if place is None or grid.crs is None:
        return None
    bounds, declared = place
    image = bounds_of(grid)
    image_crs = _crs(grid)
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
    centre = _centre_deg(grid)
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


def _label_place(path: Path) -> _LabelPlace | None:
    """Return bounds and CRS of a vector file; None where it is empty."""
    frame = read_polygons(path, thin=True).frame
    if not len(frame):
        return None
    left, bottom, right, top = (float(value) for value in frame.total_bounds)
    return (left, bottom, right, top), frame.crs


def _describe(place: _LabelPlace | None, grid: Grid) -> str:
    """Say where polygons and image lie, each in its own CRS."""
    if place is None:
        return "it has no polygons"
    bounds, crs = place
    label_text = f"{_box(bounds)} in {'no CRS' if crs is None else _name(crs)}"
    return f"they lie at {label_text}, the image at {_box(bounds_of(grid))} in {crs_name(grid.crs)}"


def _box(bounds: Bounds) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.7g} to {right:.7g}, y {bottom:.7g} to {top:.7g}"


def _name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def _crs(grid: Grid) -> pyproj.CRS:
    """Return the CRS of a grid that has one."""
    return _crs_of(grid.crs.to_wkt())[0] if grid.crs is not None else pyproj.CRS.from_epsg(4326)


@lru_cache(maxsize=64)
def _crs_of(wkt: str) -> tuple[pyproj.CRS, pyproj.Transformer | None]:
    """Return a CRS and how to come from it to degrees, None where it has no place on Earth."""
    crs = pyproj.CRS.from_wkt(wkt)
    authority = crs.to_authority()
    if authority is not None:  # GDAL's text does not tell the area of use, the registry does
        crs = pyproj.CRS.from_authority(*authority)
    try:
        geodetic = crs.geodetic_crs
        return crs, None if geodetic is None else pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    except (CRSError, ProjError):
        return crs, None


def _centre_deg(grid: Grid) -> tuple[float, float] | None:
    """Return longitude and latitude of a grid's centre, None where it has no place on Earth."""
    transformer = _crs_of(grid.crs.to_wkt())[1] if grid.crs is not None else None
    if transformer is None:
        return None
    left, bottom, right, top = bounds_of(grid)
    lon, lat = transformer.transform((left + right) / 2, (bottom + top) / 2)
    return (lon, lat) if np.isfinite([lon, lat]).all() and abs(lat) <= 90 and abs(lon) <= 360 else None


def _distance_in_edges(first: Grid, second: Grid) -> float:
    """Return how far two grids lie apart on the ground, in longer edges of the first."""
    one, other = _centre_deg(first), _centre_deg(second)
    if one is None or other is None:
        return float("inf")
    _, _, apart = pyproj.Geod(ellps="WGS84").inv(*one, *other)
    width, height = ground_pixel_size_m(first)
    return float(apart / max(width * first.width, height * first.height))
