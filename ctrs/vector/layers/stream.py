"""Parts of a layer as Arrow batches of even size, whichever format is written from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from ctrs.vector.layers.arrow_arrays import arrow_array
from ctrs.vector.layers.part import LayerPart

JOB_KEY = "CTRS_JOB"
BATCH_ROWS = 4096
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


class LayerStream:
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
                while count >= BATCH_ROWS:
                    whole = LayerPart.joined(waiting)
                    yield whole.take(slice(0, BATCH_ROWS))
                    waiting, count = [whole.take(slice(BATCH_ROWS, None))], count - BATCH_ROWS
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
            arrays = [arrow_array(column, field.type) for column, field in zip(values, schema, strict=False)]
            if len(schema) > len(arrays):
                arrays.append(_boxes(polygons, schema.field(len(arrays)).type))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _arrow_type(values: npt.NDArray[Any]) -> pa.DataType:
    return pa.string() if values.dtype == object else pa.from_numpy_dtype(values.dtype)


def _boxes(polygons: npt.NDArray[np.object_], kind: pa.StructType) -> pa.Array:
    bounds = shapely.bounds(polygons)
    return pa.StructArray.from_arrays(
        [arrow_array(bounds[:, place], pa.float64()) for place in range(4)],
        fields=[kind.field(place) for place in range(4)],
    )
