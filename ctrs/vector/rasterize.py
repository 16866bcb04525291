"""Label polygons become a class raster on a scene's grid, window by window."""

from __future__ import annotations

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
from ctrs.raster.windows import PixelWindow

if TYPE_CHECKING:
    import geopandas

VECTOR_SUFFIXES = frozenset({".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".geoparquet"})
"""File name endings that are read as vector labels."""


@dataclass(frozen=True, kw_only=True)
class PolygonLayer:
    """Polygons of a label file, mended and in the file's CRS.

    Args:
        path: The file.
        frame: One row for each polygon, in the file's order, which is the order of painting.
        num_repaired: Invalid polygons that were made valid.
        num_dropped: Features left out: no geometry, points, lines.
    """

    path: Path
    frame: geopandas.GeoDataFrame
    num_repaired: int = 0
    num_dropped: int = 0


def read_polygons(path: Path, *, class_field: str | None = None) -> PolygonLayer:
    """Read the polygons of a vector file.

    Args:
        path: GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet.
        class_field: Field to read with them; None for none.

    Raises:
        InputNotFoundError: There is no such file.
        LabelError: It is not readable, holds several layers, or has no such field.
    """
    if not path.exists():
        raise InputNotFoundError(f"{path}: not found; check the path")
    frame = _read_frame(path)
    if class_field is not None and class_field not in frame.columns:
        fields = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name) or "none"
        raise LabelError(f"{path}: no field {class_field!r} found, expected one of its fields: {fields}")
    frame = frame[[class_field, frame.geometry.name] if class_field is not None else [frame.geometry.name]]
    shapes = frame.geometry.to_numpy()
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    polygonal = present & np.isin(shapely.get_type_id(shapes), (3, 6, 7))
    broken = polygonal & ~shapely.is_valid(shapes)
    if broken.any():
        shapes = shapes.copy()
        shapes[broken] = [_polygonal_parts(shapely.make_valid(shape)) for shape in shapes[broken]]
        frame = frame.set_geometry(shapes, crs=frame.crs)
    kept = polygonal & ~shapely.is_empty(shapes)
    return PolygonLayer(
        path=path,
        frame=frame[kept].reset_index(drop=True),
        num_repaired=int((broken & kept).sum()),
        num_dropped=int((~kept).sum()),
    )


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
        moved = shapely.transform(self.shapes[hits], lambda xy: xy - (window.col_off, window.row_off))
        mask: Mask = burn(
            zip(moved, self.values[hits].tolist(), strict=True),
            out_shape=(window.height, window.width),
            fill=background,
            all_touched=False,
            dtype="uint8",
        )
        return mask


def place_polygons(layer: PolygonLayer, grid: Grid, values: npt.NDArray[np.uint8]) -> GridPolygons:
    """Bring the polygons that touch a grid into its pixel coordinates.

    A grid or a layer without CRS takes the other's coordinates as they are.

    Args:
        layer: Polygons.
        grid: Grid of the scene.
        values: Mask value of each polygon of the layer.
    """
    frame = layer.frame
    near = _rows_near(frame, grid)
    shapes, values = frame.geometry.to_numpy()[near], values[near]
    if frame.crs is not None and grid.crs is not None and not _same_crs(frame, grid.crs):
        shapes = frame.geometry.iloc[near].to_crs(grid.crs.to_wkt()).to_numpy()
    a, b, c, d, e, f = tuple(~grid.transform)[:6]
    in_pixels = shapely.transform(
        shapes, lambda xy: np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])
    )
    # A polygon with a vertex that has no place in the grid's CRS comes out as infinite coordinates.
    bounds = shapely.bounds(in_pixels)
    inside = np.isfinite(bounds).all(axis=1)
    inside &= (bounds[:, 2] > 0) & (bounds[:, 3] > 0) & (bounds[:, 0] < grid.width) & (bounds[:, 1] < grid.height)
    return GridPolygons(shapes=in_pixels[inside], values=np.asarray(values[inside], np.uint8))


def _rows_near(frame: geopandas.GeoDataFrame, grid: Grid) -> npt.NDArray[np.intp]:
    """Rows whose bounds meet the grid's bounds, with a margin, in the frame's CRS."""
    from rasterio.warp import transform_bounds

    corners = [grid.transform @ (float(col), float(row)) for col in (0, grid.width) for row in (0, grid.height)]
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
    parts = shapely.get_parts(shape)
    areas = [part for outer in parts for part in shapely.get_parts(outer) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(areas) if len(areas) != 1 else areas[0]


def _read_frame(path: Path) -> geopandas.GeoDataFrame:
    import geopandas
    import pyogrio
    import pyogrio.errors

    try:
        if path.suffix.lower() in {".parquet", ".geoparquet"}:
            return geopandas.read_parquet(path)
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            raise LabelError(
                f"{path}: {len(layers)} layers with geometry found ({', '.join(layers) or 'none'}), expected one; "
                "export the layer with the labels to a file of its own"
            )
        return geopandas.read_file(path, layer=layers[0])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        if isinstance(error, LabelError):
            raise
        raise LabelError(f"{path}: not readable as polygons ({str(error).splitlines()[0]}); check the file") from error
