"""Polygon layers on disk: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON, Shapefile, each written as a stream of parts.

No more of a layer is in memory than the rows that are written at a time. Each file keeps the fingerprint of its job.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from ctrs.errors import CtrsError, OutputError, OutputExistsError, UsageError
from ctrs.jobs import PartialWork, not_writable
from ctrs.vector.layers.arrow_arrays import numpy_view
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.layers.shapefile import SHAPEFILE_JOB, SHAPEFILE_PARTS
from ctrs.vector.layers.stream import BATCH_ROWS, JOB_KEY, LayerFacts, LayerStream

EXTENSIONS = (".gpkg", ".parquet", ".fgb", ".geojson", ".shp")
_GEOJSON_HEAD_BYTES = 4096
_GEOPACKAGE_LOGS = ("-wal", "-journal")


def check_format(path: Path) -> None:
    """Refuse an extension that stands for no format that can be written.

    Raises:
        UsageError: With the extensions that can.
    """
    if path.suffix.lower() not in EXTENSIONS:
        found = path.suffix or "no extension"
        raise UsageError(f"{path}: {found} found, expected {', '.join(EXTENSIONS)}; choose one of these with -o")


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
    stream = LayerStream(parts, facts)
    try:
        if staged.suffix.lower() == ".parquet":
            _write_parquet(stream, staged, facts)
        else:
            from ctrs.vector.layers.gdal import WRITERS

            WRITERS[staged.suffix.lower()](stream, staged, work.final.stem, facts)
    except BaseException as error:
        # A half-written layer is of no use to a later attempt, and must not look like unfinished work.
        for leftover in work.folder.glob(f"{work.final.stem}*"):
            leftover.unlink()
        if stream.error is not None:
            raise stream.error from None
        if not _is_of_writing(error):
            raise
        cause = " ".join(str(error).split())
        raise not_writable(work.final, cause) from error
    if staged.suffix.lower() == ".shp":
        _publish_siblings(work, staged)
    if staged.suffix.lower() == ".gpkg":
        _refuse_open_geopackage(work.final)  # it may have been opened meanwhile
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
    except (OSError, ValueError, KeyError, TypeError):
        return None
    from ctrs.vector.layers.gdal import read_metadata_job

    return read_metadata_job(path)


def check_siblings(path: Path, *, overwrite: bool) -> None:
    """Refuse a layer that does not go with files beside it.

    A log that another program keeps beside a GeoPackage would be read into the new one and ruin it. A Shapefile would
    replace files that stand there without one, such as a table.

    Raises:
        OutputExistsError: With the file that is in the way.
    """
    if path.suffix.lower() == ".gpkg":
        _refuse_open_geopackage(path)
    if overwrite or path.suffix.lower() != ".shp" or path.exists() or path.with_suffix(SHAPEFILE_JOB).exists():
        return
    for suffix in SHAPEFILE_PARTS:
        if (part := path.with_suffix(suffix)).exists():
            raise OutputExistsError(
                f"{part}: exists and is no part of a Shapefile of ctrs; pass --overwrite to replace it, or another "
                "name with -o"
            )


def _refuse_open_geopackage(path: Path) -> None:
    """Refuse a GeoPackage that another program has open for writing, or left with a log."""
    logs = [path.with_name(path.name + suffix) for suffix in _GEOPACKAGE_LOGS]
    found = next((log for log in logs if log.is_file() and log.stat().st_size), None)
    if found is None and logs[0].is_file() and _is_open_elsewhere(path):
        found = logs[0]
    if found is not None:
        raise OutputExistsError(
            f"{found}: exists, so another program (QGIS?) has {path.name} open or left it unfinished; save and "
            "close it there, then run the same command again, or choose another name with -o"
        )


def _is_open_elsewhere(path: Path) -> bool:
    """Tell whether another connection holds a database with a write-ahead log; where none does, the empty log goes."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)) as database:
            # Leaving the write-ahead mode takes the file for itself, which no other connection may have then.
            database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False
    return False


def read_columns(path: Path, columns: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Read columns of a layer that ``write_layer`` made, without its geometries."""
    if path.suffix.lower() == ".parquet":
        table = pq.read_table(path, columns=columns)
    else:
        from ctrs.vector.layers.gdal import read_table

        table = read_table(path, columns)
    known = set(table.column_names)  # an empty GeoJSON names no columns
    return {name: table[name].to_numpy() if name in known else np.empty(0, object) for name in columns}


def _publish_siblings(work: PartialWork, staged: Path) -> None:
    """Put the files beside a Shapefile in place; it comes last, and the one that it replaces goes first."""
    try:
        work.final.unlink(missing_ok=True)
        # First the one that says whose the others are.
        for suffix in (SHAPEFILE_JOB, *SHAPEFILE_PARTS):
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


def _is_of_writing(error: BaseException) -> bool:
    """Tell whether an error says that a file cannot be written."""
    if isinstance(error, CtrsError):
        return False
    if isinstance(error, (OSError, pa.ArrowException)):
        return True
    from ctrs.vector.layers.gdal import WRITE_ERRORS

    return isinstance(error, WRITE_ERRORS)


def _write_parquet(stream: LayerStream, path: Path, facts: LayerFacts) -> None:
    box = pa.struct([pa.field(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
    schema = stream.schema(pa.field("geometry", pa.binary())).append(pa.field("bbox", box))
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in stream.batches(schema):
            writer.write_batch(batch, row_group_size=BATCH_ROWS)
            sides = [numpy_view(batch.column("bbox").field(place)) for place in range(4)]
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
