"""A mask as a STAC item, so that catalogues find it: where it lies, what its values mean, what it was made from.

STAC 1.0.0, which most servers and readers speak, with the extensions projection 1.1, raster 1.1, classification 2.0,
file 2.1 and processing 1.1. The place is the border of the mask's grid, with points along its edges, in longitude and
latitude; null where the raster has no geotransform or CRS, as the specification wants it. The time is that at which the
scene was taken, where its tags say, else that at which it was mapped.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import shapely
from pyproj.exceptions import ProjError

from ctrs import __version__
from ctrs.classes import IGNORE_INDEX
from ctrs.jobs import hash_file, write_text
from ctrs.raster.cog import JOB_TAG, MaskClass, read_class_tag
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.names import is_remote, shown
from ctrs.raster.units import ground_pixel_size_m

STAC_VERSION = "1.0.0"
_BASE = "https://stac-extensions.github.io"
EXTENSIONS = (
    f"{_BASE}/projection/v1.1.0/schema.json",
    f"{_BASE}/raster/v1.1.0/schema.json",
    f"{_BASE}/classification/v2.0.0/schema.json",
    f"{_BASE}/file/v2.1.0/schema.json",
    f"{_BASE}/processing/v1.1.0/schema.json",
)

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_MEDIA_TYPES = {".tif": _COG, ".qml": "application/xml", ".json": "application/json", ".xml": "application/xml"}
_POINTS_ON_EDGE = 21
_TOLERANCE_DEG = 1e-6  # a decimetre
_DIGITS = 7  # of degrees: a centimetre
_TIME_TAGS = (
    ("IMAGERY", "ACQUISITIONDATETIME"),
    (None, "ACQUISITIONDATETIME"),
    (None, "EXIF_DateTimeOriginal"),
    (None, "TIFFTAG_DATETIME"),
)
_TAGS = {"ctrs:model": "CTRS_MODEL", "ctrs:input": "CTRS_INPUT", "ctrs:job": JOB_TAG}


@dataclass(frozen=True, kw_only=True)
class MaskOrigin:
    """What a mask file does not say of itself.

    Args:
        scene: The raster that was mapped, as ``open_raster`` takes it; None where that is not known.
        model: STAC item of the model, a file; None where there is none.
        mapped: When the mask was made.
        acquired: When the scene was taken, from ``acquired_at``; None where that is not known.
        beside: Further files of the mask by name of their asset, e.g. ``confidence``; those that do not stand yet are
            left out.
    """

    scene: Path | str | None
    model: Path | None
    mapped: datetime
    acquired: datetime | None = None
    beside: Mapping[str, Path] = field(default_factory=dict)


def item_path(mask: Path) -> Path:
    """Return where the item of a mask stands.

    >>> item_path(Path("city/scene_mask.tif")).as_posix()
    'city/scene_mask.stac.json'
    """
    return mask.with_name(f"{mask.stem}.stac.json")


def write_mask_item(mask: Path, origin: MaskOrigin, *, final: Path | None = None) -> Path:
    """Write a mask's item beside it; one that stood there is replaced.

    Args:
        mask: A mask of ctrs.
        origin: What it was made from.
        final: Where the mask will stand, if it is not there yet; None: where it is.

    Raises:
        LabelError: The mask does not say what its values mean.
        OutputError: The file cannot be written.
    """
    path = item_path(final or mask)
    write_text(path, json.dumps(mask_item(mask, origin, final=final), indent=2, allow_nan=False) + "\n")
    return path


def mask_item(mask: Path, origin: MaskOrigin, *, final: Path | None = None) -> dict[str, Any]:
    """Return the item as JSON values; arguments as for ``write_mask_item``."""
    final = final or mask
    with open_raster(mask) as dataset:
        grid, classes, tags = Grid.of(dataset), read_class_tag(dataset), dataset.tags()
    geometry = footprint(grid)
    box = None if geometry is None else _bounds(geometry)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": final.stem,
        "geometry": geometry,
        **({} if box is None else {"bbox": box}),
        "properties": _properties(grid, classes, tags, origin),
        "links": _links(final, origin),
        "assets": {
            "mask": {
                "href": f"./{final.name}",
                "title": "Class mask",
                "type": _COG,
                "roles": ["data"],
                "file:size": mask.stat().st_size,
                "file:checksum": f"1220{hash_file(mask)}",  # SHA-256 as multihash
                "raster:bands": [_band(grid, tags)],
                "classification:classes": _classes(classes),
            },
        },
    }
    for name, path in origin.beside.items():
        if path.is_file():
            item["assets"][name] = {
                "href": f"./{path.name}",
                "type": _MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
                "roles": ["data" if path.suffix == ".tif" else "metadata"],
            }
    return item


def acquired_at(dataset: rasterio.DatasetReader) -> datetime | None:
    """Return when a scene was taken, as far as its tags say; a time without zone is taken for UTC.

    ``TIFFTAG_DATETIME`` comes last: many programs write there when the file was made.
    """
    for domain, name in _TIME_TAGS:
        text = (dataset.tags() if domain is None else dataset.tags(ns=domain)).get(name)
        if text and (time := _parse_time(text)) is not None:
            return time
    return None


def _parse_time(text: str) -> datetime | None:
    """Read ``2021:06:30 10:11:12`` (TIFF, EXIF) and ISO 8601.

    >>> _parse_time("2021:06:30 10:11:12").isoformat(), _parse_time("0000:00:00 00:00:00")
    ('2021-06-30T10:11:12+00:00', None)
    """
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def footprint(grid: Grid) -> dict[str, Any] | None:
    """Return the border of a grid as GeoJSON in longitude and latitude (WGS 84), counter-clockwise.

    A border that crosses the antimeridian is cut there into a MultiPolygon (RFC 7946, 3.1.9).

    Returns:
        None where the grid lies nowhere on the earth: no CRS, no geotransform, or ground control points only.
    """
    if grid.crs is None or grid.transform.is_identity:
        return None
    along = np.linspace(0, 1, _POINTS_ON_EDGE)[:-1]
    unit = np.concatenate([
        np.stack([along, 0 * along], axis=1), np.stack([0 * along + 1, along], axis=1),
        np.stack([1 - along, 0 * along + 1], axis=1), np.stack([0 * along, 1 - along], axis=1),
    ])  # fmt: skip
    cols, rows = unit[:, 0] * grid.width, unit[:, 1] * grid.height
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    try:
        to_degrees = pyproj.Transformer.from_crs(
            pyproj.CRS.from_wkt(grid.crs.to_wkt(version="WKT2_2019")), "EPSG:4326", always_xy=True
        )
        lon, lat = to_degrees.transform(a * cols + b * rows + c, d * cols + e * rows + f)
    except ProjError:
        return None
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    shape = _polygon(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    shape = shapely.orient_polygons(shapely.simplify(shape, _TOLERANCE_DEG))
    rounded = shapely.transform(shape, lambda corners: corners.round(_DIGITS))
    mapped: dict[str, Any] = shapely.geometry.mapping(rounded)
    return {"type": mapped["type"], "coordinates": _lists(mapped["coordinates"])}


def _polygon(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> Any:
    """Return the ring as a polygon between -180 and 180 degrees."""
    steps = np.diff(lon, append=lon[:1])
    steps -= 360 * np.round(steps / 360)
    turn = float(steps.sum())
    if abs(turn) > 180:  # around a pole: the ring does not close
        pole = 90.0 if lat.mean() > 0 else -90.0
        return shapely.box(-180, min(lat.min(), pole), 180, max(lat.max(), pole))
    unrolled = lon[0] + np.concatenate([[0.0], np.cumsum(steps[:-1])])
    unrolled -= 360 * math.floor((unrolled.min() + 180) / 360)
    ring = shapely.polygons(np.stack([unrolled, lat], axis=1))
    if unrolled.max() <= 180:
        return ring
    west = shapely.intersection(ring, shapely.box(-180, -90, 180, 90))
    east = shapely.transform(
        shapely.intersection(ring, shapely.box(180, -90, 540, 90)), lambda corners: corners - np.array([360.0, 0.0])
    )
    parts = [part for part in (*shapely.get_parts(west), *shapely.get_parts(east)) if part.area > 0]
    return shapely.multipolygons(parts)


def _bounds(geometry: dict[str, Any]) -> list[float]:
    """Return west, south, east, north; west exceeds east where the antimeridian is crossed (RFC 7946, 5.2)."""
    shape = shapely.geometry.shape(geometry)
    west, south, east, north = shape.bounds
    boxes = shapely.bounds(shapely.get_parts(shape))
    if len(boxes) > 1:
        west = min(box[0] for box in boxes if box[2] == 180.0)
        east = max(box[2] for box in boxes if box[0] == -180.0)
    return [float(value) for value in (west, south, east, north)]


def _properties(
    grid: Grid, classes: tuple[MaskClass, ...], tags: Mapping[str, str], origin: MaskOrigin
) -> dict[str, Any]:
    scene = "a scene" if origin.scene is None else _public(origin.scene, name_only=True)
    properties: dict[str, Any] = {
        "title": f"Class mask of {scene}",
        "description": (
            f"Class of each pixel of {scene} ({', '.join(entry.name for entry in classes)}), predicted by a neural "
            f"network; {IGNORE_INDEX} is nodata. The time is that of the "
            f"{'prediction; the scene names none' if origin.acquired is None else 'scene'}."
        ),
        "datetime": _time(origin.acquired or origin.mapped),
        "created": _time(origin.mapped),
        "proj:epsg": None if grid.crs is None else grid.crs.to_epsg(),
        "proj:shape": [grid.height, grid.width],
        "processing:software": {"ctrs": __version__},
        "processing:lineage": "ctrs predict: semantic segmentation by sliding windows",
    }
    if grid.crs is not None:
        if properties["proj:epsg"] is None:
            properties["proj:wkt2"] = grid.crs.to_wkt(version="WKT2_2019")
        if not grid.transform.is_identity:
            properties["proj:transform"] = [float(value) for value in tuple(grid.transform)[:6]]
            properties["proj:bbox"] = _grid_bounds(grid)
            properties["gsd"] = _pixel_m(grid)
    properties |= {name: tags[tag] for name, tag in _TAGS.items() if tag in tags}
    if "CTRS_OPTIONS" in tags:
        properties["ctrs:options"] = json.loads(tags["CTRS_OPTIONS"])
    return properties


def _pixel_m(grid: Grid) -> float:
    return float(f"{float(np.mean(ground_pixel_size_m(grid))):.6g}")


def _grid_bounds(grid: Grid) -> list[float]:
    """Return the least and greatest coordinates of the corners in the grid's own CRS."""
    corners = [grid.transform @ place for place in ((0.0, 0.0), (float(grid.width), 0.0),
               (0.0, float(grid.height)), (float(grid.width), float(grid.height)))]  # fmt: skip
    xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return [float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))]


def _band(grid: Grid, tags: Mapping[str, str]) -> dict[str, Any]:
    band: dict[str, Any] = {
        "data_type": "uint8",
        "nodata": IGNORE_INDEX,
        "sampling": "point" if tags.get("AREA_OR_POINT", "").casefold() == "point" else "area",
    }
    if grid.crs is not None and not grid.transform.is_identity:
        band["spatial_resolution"] = _pixel_m(grid)
    return band


def _classes(classes: tuple[MaskClass, ...]) -> list[dict[str, Any]]:
    return [
        {
            "value": entry.value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", entry.name).strip("-") or f"class-{entry.value}",
            "title": entry.name,
            "description": entry.name,
            "color_hint": "".join(f"{part:02X}" for part in entry.color),
        }
        for entry in classes
    ]


def _links(final: Path, origin: MaskOrigin) -> list[dict[str, str]]:
    links: list[dict[str, str]] = []
    if origin.scene is not None:
        links.append({
            "rel": "derived_from", "href": _reference(origin.scene, final.parent),
            "title": f"The scene, {_public(origin.scene, name_only=True)}",
        })  # fmt: skip
    if origin.model is not None:
        links.append({
            "rel": "derived_from", "href": _reference(origin.model, final.parent), "type": "application/geo+json",
            "title": "The model",
        })  # fmt: skip
    return links


def _reference(path: Path | str, folder: Path) -> str:
    """Return how a file is named from a folder: relative to it, or by its URL without a signature."""
    if is_remote(path) or "://" in str(path):
        return _public(path)
    if not Path(path).exists():  # a name that only GDAL understands
        return str(path)
    try:
        relative = os.path.relpath(Path(path).absolute(), folder.absolute())
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()
    text = Path(relative).as_posix()
    return text if text.startswith("../") else f"./{text}"


def _public(path: Path | str, *, name_only: bool = False) -> str:
    """Return a scene as it may be named to everybody: without the query of a URL, which may be a signature."""
    text = str(path) if "://" in str(path) else shown(path)
    if "://" in text:
        text = re.sub(r"(://)[^/@]*@", r"\1", text).partition("?")[0]
    return Path(text).name if name_only else text


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
