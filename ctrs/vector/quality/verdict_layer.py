"""Judged buildings on disk: a GeoPackage with the fingerprint of its job inside."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import geopandas
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from ctrs.jobs import PartialWork, not_writable
from ctrs.vector.layers.stream import JOB_KEY

_DATE_OPTION = "OGR_CURRENT_DATE"
_ERRORS = (DataSourceError, DataLayerError, FieldError, FeatureError, GeometryError, OSError)


def write_verdicts(buildings: geopandas.GeoDataFrame, work: PartialWork, *, job: str, date: datetime) -> None:
    """Write judged buildings and publish the file; the layer bears the file's stem as its name.

    Args:
        buildings: Of both layers, polygons or multipolygons.
        work: Where to write; ``work.final`` is the file.
        job: Fingerprint of the job, kept with the layer.
        date: Date of the layer; the same date makes the same bytes.

    Raises:
        OutputError: The file cannot be written.
    """
    staged = work.folder / work.final.name
    several = bool((buildings.geometry.geom_type == "MultiPolygon").any())
    before = pyogrio.get_gdal_config_option(_DATE_OPTION)
    pyogrio.set_gdal_config_options({_DATE_OPTION: date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")})
    try:
        with warnings.catch_warnings():
            # The mask's reader has said so already.
            warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
            pyogrio.write_dataframe(
                buildings,
                staged,
                driver="GPKG",
                layer=work.final.stem,
                geometry_type="MultiPolygon" if several else "Polygon",
                promote_to_multi=several,
                layer_metadata={JOB_KEY: job},
            )
    except BaseException as error:
        # A half-written layer is of no use to a later attempt, and must not look like unfinished work.
        for leftover in work.folder.glob(f"{work.final.name}*"):
            leftover.unlink()
        if not isinstance(error, _ERRORS):
            raise
        cause = " ".join(str(error).split())
        raise not_writable(work.final, cause) from error
    finally:
        pyogrio.set_gdal_config_options({_DATE_OPTION: before})
    work.publish(staged)
