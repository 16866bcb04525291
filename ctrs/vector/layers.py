"""Polygon layers on disk: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON, each with the fingerprint of its job inside."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pyarrow.parquet as pq
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from ctrs.errors import OutputError, UsageError
from ctrs.jobs import PartialWork

JOB_KEY = "CTRS_JOB"
_GEOJSON_CRS = "EPSG:4326"
_GEOJSON_DECIMALS = 8
_GEOJSON_HEAD_BYTES = 4096
# On a full disk GDAL may fail at the file, the layer, its fields or its features.
_WRITE_ERRORS = (DataSourceError, DataLayerError, FieldError, FeatureError, GeometryError, OSError)


def check_format(path: Path) -> None:
    """Refuse an extension that stands for no format that can be written.

    Raises:
        UsageError: With the extensions that can.
    """
    if path.suffix.lower() not in _WRITERS:
        found = path.suffix or "no extension"
        raise UsageError(f"{path}: {found} found, expected {', '.join(_WRITERS)}; choose one of these with -o")


def write_layer(layer: geopandas.GeoDataFrame, work: PartialWork, *, job: str, date: datetime) -> None:
    """Write polygons to the format that the final name's extension asks for, and publish the file.

    The layer bears the file's stem as its name. GeoJSON is written in WGS84 as RFC 7946 asks, if the layer has a CRS.

    Args:
        layer: Polygons.
        work: Where to write; ``work.final`` is the file.
        job: Fingerprint of the job, kept inside the file.
        date: Date of the layer (GeoPackage records one); the same date makes the same bytes.

    Raises:
        OutputError: The file cannot be written.
    """
    staged = work.folder / work.final.name
    try:
        _WRITERS[work.final.suffix.lower()](layer, staged, work.final.stem, job, date)
    except BaseException as error:
        # A half-written layer is of no use to a later attempt, and must not look like unfinished work.
        for leftover in work.folder.glob(f"{work.final.name}*"):
            leftover.unlink()
        if not isinstance(error, _WRITE_ERRORS):
            raise
        cause = " ".join(str(error).split())
        raise OutputError(
            f"{work.final}: not writable ({cause}); free space there or choose another place with -o"
        ) from error
    work.publish(staged)


def read_job(path: Path) -> str | None:
    """Return the fingerprint of the job that wrote a layer; None where the file is absent, damaged or by others."""
    if not path.is_file():
        return None
    try:
        if path.suffix.lower() == ".parquet":
            found = (pq.read_metadata(path).metadata or {}).get(JOB_KEY.encode())
            return found.decode() if found else None
        if path.suffix.lower() == ".geojson":
            with path.open("rb") as stream:
                head = stream.read(_GEOJSON_HEAD_BYTES).decode(errors="replace")
            match = re.search(rf'"description": "{JOB_KEY}=(\w+)"', head)
            return match[1] if match else None
        metadata = pyogrio.read_info(path)["layer_metadata"] or {}
    except (DataSourceError, OSError, ValueError):
        return None
    job = metadata.get(JOB_KEY)
    return str(job) if job else None


def read_columns(path: Path, columns: list[str]) -> Any:
    """Read columns of a layer that ``write_layer`` made, without its geometries."""
    if path.suffix.lower() == ".parquet":
        return pq.read_table(path, columns=columns).to_pandas()
    found = pyogrio.read_dataframe(path, columns=columns, read_geometry=False)
    return found.reindex(columns=columns)  # an empty GeoJSON names no columns


def _write_gpkg(layer: geopandas.GeoDataFrame, path: Path, name: str, job: str, date: datetime) -> None:
    with _gdal_date(date):
        _write(layer, path, driver="GPKG", layer=name, layer_metadata={JOB_KEY: job})


def _write_fgb(layer: geopandas.GeoDataFrame, path: Path, name: str, job: str, date: datetime) -> None:
    del date
    _write(layer, path, driver="FlatGeobuf", layer=name, layer_metadata={JOB_KEY: job})


def _write_geojson(layer: geopandas.GeoDataFrame, path: Path, name: str, job: str, date: datetime) -> None:
    del date
    options: dict[str, Any] = {"DESCRIPTION": f"{JOB_KEY}={job}", "COORDINATE_PRECISION": _GEOJSON_DECIMALS}
    if layer.crs is not None:
        layer = layer.to_crs(_GEOJSON_CRS)
        options["RFC7946"] = "YES"
    _write(layer, path, driver="GeoJSON", layer=name, **options)


def _write_parquet(layer: geopandas.GeoDataFrame, path: Path, name: str, job: str, date: datetime) -> None:
    del name, date
    layer.to_parquet(path, index=False, schema_version="1.1.0", write_covering_bbox=True)
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), JOB_KEY.encode(): job.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def _write(polygons: geopandas.GeoDataFrame, path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        # The mask's reader has said so already.
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(polygons, path, geometry_type="Polygon", **options)


@contextmanager
def _gdal_date(date: datetime) -> Iterator[None]:
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({option: before})


_WRITERS: dict[str, Callable[[geopandas.GeoDataFrame, Path, str, str, datetime], None]] = {
    ".gpkg": _write_gpkg,
    ".parquet": _write_parquet,
    ".fgb": _write_fgb,
    ".geojson": _write_geojson,
}
