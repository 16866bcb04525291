"""Label polygons become a class raster on a scene's grid, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize as burn

from ctrs.classes import Mask
from ctrs.errors import InputNotFoundError, LabelError
from ctrs.raster.geotiff import Grid
from ctrs.raster.names import file_name, gdal_name, is_virtual, split_layer, with_layer
from ctrs.raster.windows import PixelWindow
from ctrs.vector.ground_buffers import flat_parts, margin_px, widen

if TYPE_CHECKING:
    import geopandas

VECTOR_SUFFIXES = frozenset({".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".geoparquet"})
"""File name endings that are read as vector labels."""


_PARQUET = frozenset({".parquet", ".geoparquet"})

_LONG = 256
"""Corners from which a polygon is clipped to a window before it is painted: rasterio takes 6 us for each."""

_AREAS, _COLLECTION = (3, 6), 7
"""Type numbers of shapely."""


@dataclass(frozen=True, kw_only=True)
class PolygonLayer:
    """Polygons of a label file, mended and in the file's CRS.

    Args:
        path: The file.
        frame: One row for each polygon, in the file's order, which is the order of painting; with lines and points
            among them where these were asked for.
        num_repaired: Invalid polygons that were made valid.
        num_dropped: Features left out: no geometry, points, lines.
        num_thin: Features among the dropped ones that are points or lines.
    """

    path: Path
    frame: geopandas.GeoDataFrame
    num_repaired: int = 0
    num_dropped: int = 0
    num_thin: int = 0


def is_vector(path: Path) -> bool:
    """Tell by its name whether a label is a vector file, such as ``a.gpkg`` or ``a.gpkg|layername=houses``.

    >>> is_vector(Path("a.GPKG")), is_vector(Path("a.gpkg|layername=v1.2")), is_vector(Path("a.tif"))
    (True, True, False)
    """
    return file_name(path).suffix.lower() in VECTOR_SUFFIXES


def read_polygons(
    path: Path, *, class_field: str | None = None, fields: Sequence[str] = (), thin: bool = False
) -> PolygonLayer:
    """Read the polygons of a vector file.

    Args:
        path: GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet; ``a.gpkg|layername=houses`` names one of
            several layers.
        class_field: Field to read with them; None for none.
        fields: Further fields to read.
        thin: Keep lines and points, which have to be widened before they are painted.

    Raises:
        InputNotFoundError: There is no such file.
        LabelError: It is not readable, holds several layers, or has no such field.
    """
    file, layer = split_layer(path)
    if not is_virtual(file) and not file.exists():
        raise InputNotFoundError(f"{file}: not found; check the path")
    wanted = [name for name in dict.fromkeys((class_field, *fields)) if name is not None]
    frame = _read_frame(file, layer, wanted)
    for name in wanted:
        if name in frame.columns:
            continue
        if len(frame):
            found = ", ".join(_fields(file, layer, frame)) or "none"
            raise LabelError(f"{path}: no field {name!r} found, expected one of its fields: {found}")
        frame[name] = None  # a GeoJSON file without features has no fields
    frame = frame[[*wanted, frame.geometry.name]]
    shapes = frame.geometry.to_numpy().copy()
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    kinds = shapely.get_type_id(shapes)
    broken = present & np.isin(kinds, (*_AREAS, _COLLECTION)) & ~shapely.is_valid(shapes)
    for place in np.flatnonzero(present & (kinds == _COLLECTION)):
        shapes[place] = _sorted_out(shapes[place], thin=thin)
    polygonal = present & np.isin(shapely.get_type_id(shapes), _AREAS) & ~shapely.is_empty(shapes)
    others = present & ~polygonal & ~shapely.is_empty(shapes)
    mended = broken & polygonal
    shapes[mended] = [_polygonal_parts(shapely.make_valid(shape)) for shape in shapes[mended]]
    polygonal &= ~shapely.is_empty(shapes)
    lost = others | (present & (kinds == _COLLECTION) & ~polygonal)
    kept = polygonal | others if thin else polygonal
    return PolygonLayer(
        path=path,
        frame=frame.set_geometry(shapes, crs=frame.crs)[kept].reset_index(drop=True),
        num_repaired=int((broken & kept).sum()),
        num_dropped=int((~kept).sum()),
        num_thin=int((lost & ~kept).sum()),
    )


def is_thin(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Return which shapes are not polygons alone."""
    return ~np.isin(shapely.get_type_id(shapes), _AREAS)


@dataclass(frozen=True, kw_only=True)
class GridPolygons:
    """Polygons in the pixel coordinates (col, row) of a grid, each with the mask value that it paints.

    Args:
        shapes: Polygons, in the order of painting: later ones lie on top.
        values: Mask value of each.
    """

    shapes: npt.NDArray[np.object_]
    values: npt.NDArray[np.uint8]
    _index: shapely.STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", shapely.STRtree(self.shapes))

    def rasterize(self, window: PixelWindow, *, background: int) -> Mask:
        """Paint a window: a pixel takes the value of the topmost polygon that covers its centre.

        Args:
            window: Part of the grid.
            background: Mask value where no polygon lies.

        Returns:
            Mask (h, w).
        """
        right, bottom = window.col_off + window.width, window.row_off + window.height
        hits = np.sort(self._index.query(shapely.box(window.col_off, window.row_off, right, bottom)))
        if not len(hits):
            return np.full((window.height, window.width), background, np.uint8)
        shapes = self.shapes[hits]
        long = shapely.get_num_coordinates(shapes) > _LONG
        # Edges that clipping adds lie beyond the centres of the window's pixels.
        shapes[long] = shapely.clip_by_rect(shapes[long], window.col_off - 1, window.row_off - 1, right + 1, bottom + 1)
        painted = ~shapely.is_empty(shapes)
        if not painted.any():
            return np.full((window.height, window.width), background, np.uint8)
        moved = shapely.transform(shapes[painted], lambda xy: xy - (window.col_off, window.row_off))
        mask: Mask = burn(
            zip(moved, self.values[hits][painted].tolist(), strict=True),
            out_shape=(window.height, window.width),
            fill=background,
            all_touched=False,
            dtype="uint8",
        )
        return mask


def place_polygons(
    layer: PolygonLayer,
    grid: Grid,
    values: npt.NDArray[np.uint8],
    *,
    widths_m: npt.NDArray[np.float64] | None = None,
) -> GridPolygons:
    """Bring the polygons that touch a grid into its pixel coordinates.

    A grid or a layer without CRS takes the other's coordinates as they are.

    Args:
        layer: Polygons.
        grid: Grid of the scene.
        values: Mask value of each row of the layer.
        widths_m: Half width of lines and radius of points in ground metres, for each row of the layer.

    Raises:
        LabelError: The CRS of the two do not go together, or the ground's scale is not known.
    """
    frame = layer.frame
    thin = np.zeros(len(frame), bool) if widths_m is None else is_thin(frame.geometry.to_numpy())
    reach = 0.0
    if widths_m is not None and thin.any():
        reach = margin_px(grid, float(widths_m[thin].max()))
    near = _rows_near(frame, grid, reach)
    shapes, values, thin = frame.geometry.to_numpy()[near], values[near], thin[near]
    if frame.crs is not None and grid.crs is not None and not _same_crs(frame, grid.crs):
        shapes = frame.geometry.iloc[near].to_crs(grid.crs.to_wkt()).to_numpy()
    a, b, c, d, e, f = tuple(~grid.transform)[:6]
    in_pixels = shapely.transform(
        shapes, lambda xy: np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])
    )
    # A polygon with a vertex that has no place in the grid's CRS comes out as infinite coordinates.
    finite = np.isfinite(shapely.bounds(in_pixels)).all(axis=1)
    in_pixels, values, thin = in_pixels[finite], values[finite], thin[finite]
    if widths_m is not None and thin.any():
        in_pixels[thin] = widen(in_pixels[thin], widths_m[near][finite][thin], grid)
    bounds = shapely.bounds(in_pixels)  # NaN for empty ones
    inside = (bounds[:, 2] > 0) & (bounds[:, 3] > 0) & (bounds[:, 0] < grid.width) & (bounds[:, 1] < grid.height)
    return GridPolygons(shapes=in_pixels[inside], values=np.asarray(values[inside], np.uint8))


def _rows_near(frame: geopandas.GeoDataFrame, grid: Grid, reach_px: float) -> npt.NDArray[np.intp]:
    """Rows whose bounds meet the grid's bounds, with a margin, in the frame's CRS."""
    from rasterio.warp import transform_bounds

    cols, rows = (-reach_px, grid.width + reach_px), (-reach_px, grid.height + reach_px)
    corners = [grid.transform @ (col, row) for col in cols for row in rows]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    bounds = (min(xs), min(ys), max(xs), max(ys))
    if frame.crs is not None and grid.crs is not None and not _same_crs(frame, grid.crs):
        try:
            bounds = transform_bounds(grid.crs, CRS.from_wkt(frame.crs.to_wkt()), *bounds)
        except CRSError as error:
            raise LabelError(f"labels in {frame.crs.name} cannot be brought to the image's CRS ({error})") from error
    margin = 0.05 * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    if not np.isfinite(bounds).all():
        return np.arange(len(frame))
    box = shapely.box(bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin)
    return np.sort(np.asarray(frame.sindex.query(box), np.intp))


def _same_crs(frame: geopandas.GeoDataFrame, crs: CRS) -> bool:
    return bool(CRS.from_wkt(frame.crs.to_wkt()) == crs)


def _polygonal_parts(shape: Any) -> Any:
    """Return the areas of a mended geometry, without the lines and points that mending can leave."""
    areas = [part for part in flat_parts(shape) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(areas) if len(areas) != 1 else areas[0]


def _sorted_out(collection: Any, *, thin: bool) -> Any:
    """Return the mended areas of a collection; with its lines and points in a collection where they are wanted."""
    parts = flat_parts(collection)
    areas = shapely.union_all(
        [_polygonal_parts(shapely.make_valid(part)) for part in parts if part.geom_type == "Polygon"]
    )
    others = [part for part in parts if part.geom_type != "Polygon"] if thin else []
    return shapely.GeometryCollection([areas, *others]) if others else areas


def _fields(path: Path, layer: str | None, frame: geopandas.GeoDataFrame) -> list[str]:
    import pyogrio

    if path.suffix.lower() in _PARQUET:
        return [str(column) for column in frame.columns if column != frame.geometry.name]
    return [str(name) for name in pyogrio.read_info(gdal_name(path), layer=layer)["fields"]]


def _read_frame(path: Path, layer: str | None, fields: Sequence[str]) -> geopandas.GeoDataFrame:
    import geopandas
    import pyogrio
    import pyogrio.errors

    try:
        if path.suffix.lower() in _PARQUET:
            return geopandas.read_parquet(path)
        name = gdal_name(path)
        layers = [str(entry) for entry, kind in pyogrio.list_layers(name) if kind is not None]
        if layer is not None and layer not in layers:
            raise LabelError(f"{path}: no layer {layer!r} found, expected one of: {', '.join(layers) or 'none'}")
        if layer is None and len(layers) != 1:
            advice = f"; name one as {with_layer(path, layers[0]).name}" if layers else ""
            found = ", ".join(layers) or "none"
            raise LabelError(f"{path}: {len(layers)} layers with geometry found ({found}), expected one{advice}")
        return geopandas.read_file(name, layer=layer or layers[0], columns=list(fields))
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        if isinstance(error, LabelError):
            raise
        if path.is_dir():
            raise LabelError(
                f"{path}: a folder that is no vector layer found, expected a file, or the folder of a FileGDB "
                "(NAME.gdb); name the file"
            ) from error
        raise LabelError(f"{path}: not readable as polygons ({str(error).splitlines()[0]}); check the file") from error
