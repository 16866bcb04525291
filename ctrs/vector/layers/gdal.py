"""Layers that GDAL writes from a stream: GeoPackage, FlatGeobuf, GeoJSON, Shapefile.

pyogrio loads geopandas and pandas, some 70 MB: it is loaded for these formats alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from pyproj.exceptions import ProjError

from ctrs.errors import LayerWarning, OutputError
from ctrs.vector.layers.degrees import DECIMALS, round_degrees
from ctrs.vector.layers.shapefile import SHAPEFILE_JOB, SHAPEFILE_PARTS, shapefile_names
from ctrs.vector.layers.stream import JOB_KEY, LayerFacts, LayerStream

# On a full disk GDAL may fail at the file, the layer, its fields or its features.
WRITE_ERRORS = (DataSourceError, DataLayerError, FieldError, FeatureError, GeometryError, OSError)
"""What may be raised where a layer cannot be written."""

_GEOJSON_CRS = "EPSG:4326"


def read_metadata_job(path: Path) -> str | None:
    """Return the fingerprint in the metadata of a layer; None where there is none, or no layer."""
    try:
        metadata = pyogrio.read_info(path)["layer_metadata"] or {}
    except (DataSourceError, OSError, ValueError):
        return None
    job = metadata.get(JOB_KEY)
    return str(job) if job else None


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a layer without its geometries."""
    _, table = pyogrio.read_arrow(path, columns=columns, read_geometry=False)
    return table


def _write_gpkg(stream: LayerStream, path: Path, name: str, facts: LayerFacts) -> None:
    with _gdal_date(facts.date):
        _write(stream, path, facts.crs, driver="GPKG", layer=name, layer_metadata={JOB_KEY: facts.job})


def _write_fgb(stream: LayerStream, path: Path, name: str, facts: LayerFacts) -> None:
    _write(stream, path, facts.crs, driver="FlatGeobuf", layer=name, layer_metadata={JOB_KEY: facts.job})


def _write_geojson(stream: LayerStream, path: Path, name: str, facts: LayerFacts) -> None:
    options: dict[str, Any] = {
        "DESCRIPTION": f"{JOB_KEY}={facts.job}",
        "COORDINATE_PRECISION": str(DECIMALS),
    }
    if facts.crs is None:
        _write(stream, path, None, driver="GeoJSON", layer=name, **options)
        return
    try:
        to_wgs84 = pyproj.Transformer.from_crs(facts.crs, _GEOJSON_CRS, always_xy=True)
    except ProjError as error:
        raise OutputError(
            f"{name}{path.suffix}: GeoJSON is in WGS84, and nothing leads there from the mask's CRS "
            f"({pyproj.CRS(facts.crs).name}), tied to no place on Earth; write .gpkg or .parquet, which keep it"
        ) from error

    def change(polygons: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        degrees = shapely.transform(polygons, lambda xy: np.column_stack(to_wgs84.transform(xy[:, 0], xy[:, 1])))
        return round_degrees(np.asarray(degrees, object))

    _write(stream, path, _GEOJSON_CRS, driver="GeoJSON", layer=name, change=change, RFC7946="YES", **options)


def _write_shapefile(stream: LayerStream, path: Path, name: str, facts: LayerFacts) -> None:
    names = shapefile_names(["id", *facts.empty.columns])
    shortened = ", ".join(f"{long} is {short}" for long, short in names.items() if long != short)
    warnings.warn(
        f"{path.name}: a Shapefile is {len(SHAPEFILE_PARTS) + 2} files that belong together, none above 2 GB, with "
        f"names of 10 characters ({shortened or 'none is longer'}) and the CRS as an old WKT; .gpkg and .parquet lose "
        "nothing",
        LayerWarning,
        stacklevel=2,
    )
    date = facts.date.astimezone(UTC).strftime("%Y-%m-%d")
    options = {"DBF_DATE_LAST_UPDATE": date, "ENCODING": "UTF-8", "2GB_LIMIT": "YES"}
    _write(stream, path, facts.crs, driver="ESRI Shapefile", layer=name, names=names, layer_options=options)
    path.with_suffix(SHAPEFILE_JOB).write_text(json.dumps({JOB_KEY: facts.job, "names": names}), encoding="utf-8")


def _write(
    stream: LayerStream,
    path: Path,
    crs: str | None,
    *,
    names: dict[str, str] | None = None,
    change: Callable[[npt.NDArray[np.object_]], npt.NDArray[np.object_]] | None = None,
    **options: Any,
) -> None:
    geometry = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    schema = stream.schema(geometry, names)
    reader = pa.RecordBatchReader.from_batches(schema, stream.batches(schema, change))
    text = None if crs is None else pyproj.CRS(crs).to_wkt()
    with warnings.catch_warnings():
        # The mask's reader has said so already.
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_arrow(
            reader, path, geometry_name="geometry", geometry_type=stream.geometry_type, crs=text, **options
        )


@contextmanager
def _gdal_date(date: datetime) -> Iterator[None]:
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({option: before})


WRITERS: dict[str, Callable[[LayerStream, Path, str, LayerFacts], None]] = {
    ".gpkg": _write_gpkg,
    ".fgb": _write_fgb,
    ".geojson": _write_geojson,
    ".shp": _write_shapefile,
}
