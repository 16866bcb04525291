"""Polygon layers on disk: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON, Shapefile, each written as a stream of parts.

No more of a layer is in memory than the rows that are written at a time. Each file keeps the fingerprint of its job.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from ctrs.errors import CtrsError, LayerWarning, OutputError, UsageError
from ctrs.jobs import PartialWork
from ctrs.vector.layer_part import LayerPart
from ctrs.vector.shapefile import SHAPEFILE_JOB, SHAPEFILE_PARTS, shapefile_names

JOB_KEY = "CTRS_JOB"
_GEOJSON_CRS = "EPSG:4326"
_GEOJSON_DECIMALS = 8
_GEOJSON_HEAD_BYTES = 4096
# On a full disk GDAL may fail at the file, the layer, its fields or its features.
_WRITE_ERRORS = (DataSourceError, DataLayerError, FieldError, FeatureError, GeometryError, OSError)
_BATCH_ROWS = 4096
"""Rows that are written at a time, and of a group of rows in GeoParquet: how they came in leaves no trace."""


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """What is known of a layer before its first polygon.

    Args:
        crs: As pyproj takes it; None where there is none.
        empty: A part without polygons, for the columns and their kinds.
        job: Fingerprint of the job, kept with the file.
        date: Date of the layer (GeoPackage and Shapefile record one); the same date makes the same bytes.
        multipart: The geometries are multipolygons, each of them; else polygons.
    """

    crs: str | None
    empty: LayerPart
    job: str
    date: datetime
    multipart: bool = False

    @property
    def geometry_type(self) -> str:
        """Name of the geometries' kind, the same in every format."""
        return "MultiPolygon" if self.multipart else "Polygon"


def check_format(path: Path) -> None:
    """Refuse an extension that stands for no format that can be written.

    Raises:
        UsageError: With the extensions that can.
    """
    if path.suffix.lower() not in _WRITERS:
        found = path.suffix or "no extension"
        raise UsageError(f"{path}: {found} found, expected {', '.join(_WRITERS)}; choose one of these with -o")


def write_layer(parts: Iterable[LayerPart], work: PartialWork, facts: LayerFacts) -> None:
    """Write polygons to the format that the final name's extension asks for, and publish the file.

    The layer bears the file's stem as its name. Its first column is ``id``, from 1. GeoJSON is written in WGS84 as
    RFC 7946 asks, if the layer has a CRS.

    Args:
        parts: The polygons in their order; taken one after the other while the file is written.
        work: Where to write; ``work.final`` is the file.
        facts: Of the layer.

    Raises:
        OutputError: The file cannot be written.
    """
    staged = work.folder / work.final.name
    stream = _Stream(parts, facts)
    try:
        _WRITERS[work.final.suffix.lower()](stream, staged, work.final.stem, facts)
    except BaseException as error:
        # A half-written layer is of no use to a later attempt, and must not look like unfinished work.
        for leftover in work.folder.glob(f"{work.final.stem}*"):
            leftover.unlink()
        if stream.error is not None:
            raise stream.error from None
        if not isinstance(error, (*_WRITE_ERRORS, pa.ArrowException)) or isinstance(error, CtrsError):
            raise
        cause = " ".join(str(error).split())
        raise OutputError(
            f"{work.final}: not writable ({cause}); free space there or choose another place with -o"
        ) from error
    if staged.suffix.lower() == ".shp":
        _publish_siblings(work, staged)
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
        if path.suffix.lower() == ".shp":
            beside = json.loads(path.with_suffix(SHAPEFILE_JOB).read_text(encoding="utf-8"))
            return str(beside[JOB_KEY])
        metadata = pyogrio.read_info(path)["layer_metadata"] or {}
    except (DataSourceError, OSError, ValueError, KeyError, TypeError):
        return None
    job = metadata.get(JOB_KEY)
    return str(job) if job else None


def read_columns(path: Path, columns: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Read columns of a layer that ``write_layer`` made, without its geometries."""
    if path.suffix.lower() == ".parquet":
        table = pq.read_table(path, columns=columns)
    else:
        _, table = pyogrio.read_arrow(path, columns=columns, read_geometry=False)
    known = set(table.column_names)  # an empty GeoJSON names no columns
    return {name: table[name].to_numpy() if name in known else np.empty(0, object) for name in columns}


class _Stream:
    """Parts as Arrow batches of even size, with ids; keeps what went wrong, which is lost on the way through GDAL."""

    def __init__(self, parts: Iterable[LayerPart], facts: LayerFacts) -> None:
        self.error: BaseException | None = None
        self._parts = parts
        self._empty = facts.empty
        self.geometry_type = facts.geometry_type

    def pieces(self) -> Iterator[LayerPart]:
        """Yield the rows, some thousand at a time."""
        waiting: list[LayerPart] = []
        count = 0
        try:
            for part in self._parts:
                waiting.append(part)
                count += len(part)
                while count >= _BATCH_ROWS:
                    whole = LayerPart.joined(waiting)
                    yield whole.take(slice(0, _BATCH_ROWS))
                    waiting, count = [whole.take(slice(_BATCH_ROWS, None))], count - _BATCH_ROWS
        except BaseException as error:
            self.error = error
            raise
        if count:
            yield LayerPart.joined(waiting)

    def schema(self, geometry: pa.Field, names: dict[str, str] | None = None) -> pa.Schema:
        """Return the fields of the layer; ``names`` are other names for columns."""
        fields = [pa.field("id", pa.int64())]
        for name, values in self._empty.columns.items():
            fields.append(pa.field((names or {}).get(name, name), _arrow_type(values)))
        return pa.schema([*fields, geometry])

    def batches(
        self, schema: pa.Schema, change: Callable[[npt.NDArray[np.object_]], npt.NDArray[np.object_]] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow batches; ``change`` is done to polygons before."""
        done = 0
        for piece in self.pieces():
            polygons = piece.polygons if change is None else change(piece.polygons)
            ids = np.arange(done + 1, done + len(piece) + 1, dtype=np.int64)
            done += len(piece)
            values = [ids, *piece.columns.values(), shapely.to_wkb(polygons)]
            # Numbers that are not known are NaN here, and null in the file.
            arrays = [
                pa.array(column, field.type, from_pandas=True) for column, field in zip(values, schema, strict=False)
            ]
            if len(schema) > len(arrays):
                arrays.append(_boxes(polygons, schema.field(len(arrays)).type))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _arrow_type(values: npt.NDArray[Any]) -> pa.DataType:
    return pa.string() if values.dtype == object else pa.from_numpy_dtype(values.dtype)


def _boxes(polygons: npt.NDArray[np.object_], kind: pa.StructType) -> pa.Array:
    bounds = shapely.bounds(polygons)
    return pa.StructArray.from_arrays(
        [pa.array(bounds[:, place]) for place in range(4)], fields=[kind.field(place) for place in range(4)]
    )


def _write_gpkg(stream: _Stream, path: Path, name: str, facts: LayerFacts) -> None:
    with _gdal_date(facts.date):
        _write(stream, path, facts.crs, driver="GPKG", layer=name, layer_metadata={JOB_KEY: facts.job})


def _write_fgb(stream: _Stream, path: Path, name: str, facts: LayerFacts) -> None:
    _write(stream, path, facts.crs, driver="FlatGeobuf", layer=name, layer_metadata={JOB_KEY: facts.job})


def _write_geojson(stream: _Stream, path: Path, name: str, facts: LayerFacts) -> None:
    options: dict[str, Any] = {
        "DESCRIPTION": f"{JOB_KEY}={facts.job}",
        "COORDINATE_PRECISION": str(_GEOJSON_DECIMALS),
    }
    if facts.crs is None:
        _write(stream, path, None, driver="GeoJSON", layer=name, **options)
        return
    to_wgs84 = pyproj.Transformer.from_crs(facts.crs, _GEOJSON_CRS, always_xy=True)

    def change(polygons: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        return np.asarray(
            shapely.transform(polygons, lambda xy: np.column_stack(to_wgs84.transform(xy[:, 0], xy[:, 1]))), object
        )

    _write(stream, path, _GEOJSON_CRS, driver="GeoJSON", layer=name, change=change, RFC7946="YES", **options)


def _write_shapefile(stream: _Stream, path: Path, name: str, facts: LayerFacts) -> None:
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


def _publish_siblings(work: PartialWork, staged: Path) -> None:
    """Put the files beside a Shapefile in place; it comes last, and the one that it replaces goes first."""
    try:
        work.final.unlink(missing_ok=True)
        for suffix in (*SHAPEFILE_PARTS, SHAPEFILE_JOB):
            part, place = staged.with_suffix(suffix), work.final.with_suffix(suffix)
            if part.exists():
                part.replace(place)
            else:
                place.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{work.final}: cannot be put in place ({error.strerror or error}); make room or free the names beside it, "
            "then run the same command again"
        ) from error


def _write_parquet(stream: _Stream, path: Path, name: str, facts: LayerFacts) -> None:
    del name
    box = pa.struct([pa.field(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
    schema = stream.schema(pa.field("geometry", pa.binary())).append(pa.field("bbox", box))
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in stream.batches(schema):
            writer.write_batch(batch, row_group_size=_BATCH_ROWS)
            sides = [batch.column("bbox").field(place).to_numpy(zero_copy_only=False) for place in range(4)]
            bounds[:2] = np.minimum(bounds[:2], [sides[0].min(), sides[1].min()])
            bounds[2:] = np.maximum(bounds[2:], [sides[2].max(), sides[3].max()])
        writer.add_key_value_metadata({"geo": json.dumps(_geo_metadata(facts, bounds)), JOB_KEY: facts.job})


def _geo_metadata(facts: LayerFacts, bounds: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the metadata of a GeoParquet 1.1 file."""
    sides = {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    column: dict[str, Any] = {
        "encoding": "WKB",
        "crs": None if facts.crs is None else pyproj.CRS(facts.crs).to_json_dict(),
        "geometry_types": [facts.geometry_type],
        "orientation": "counterclockwise",
        "covering": {"bbox": sides},
    }
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _write(
    stream: _Stream,
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


_WRITERS: dict[str, Callable[[_Stream, Path, str, LayerFacts], None]] = {
    ".gpkg": _write_gpkg,
    ".parquet": _write_parquet,
    ".fgb": _write_fgb,
    ".geojson": _write_geojson,
    ".shp": _write_shapefile,
}
