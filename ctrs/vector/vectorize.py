"""``vectorize()``: a class mask becomes a layer of clean polygons."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import open_raster
from ctrs.vector.class_mask import check_values, named_classes, read_class_mask
from ctrs.vector.drawing import draw_polygons
from ctrs.vector.layers import check_format, read_columns, read_job, write_layer

logger = logging.getLogger(__name__)

ALL_CLASSES = "all"

_FORMAT = 1
"""Part of each job: raise it when the same mask and options give other polygons than before."""


@dataclass(frozen=True, kw_only=True)
class VectorizeResult:
    """What ``vectorize`` wrote.

    Args:
        path: The layer.
        counts: Polygons of each class that was asked for.
        area_m2: Ground area of each class that was asked for.
        skipped: True if the file stood there already as the result of the same job.
    """

    path: Path
    counts: dict[str, int]
    area_m2: dict[str, float]
    skipped: bool = False


def polygons_path(mask: Path) -> Path:
    """Return the layer's default place: beside the mask.

    >>> polygons_path(Path("maps/scene_mask.tif")).as_posix()
    'maps/scene_mask.gpkg'
    """
    return mask.with_suffix(".gpkg")


def vectorize(
    mask: Path, out: Path, config: VectorizeConfig | None = None, *, progress: Progress = no_progress
) -> VectorizeResult:
    """Draw polygons of classes of a mask, in the mask's CRS, and write them as a layer.

    Specks and pinholes leave by ground area, then borders are simplified once for both sides, so that polygons neither
    overlap nor gape. Columns: ``id`` (from 1, by first pixel, row by row), ``class``, ``area_m2``, ``perimeter_m``.
    Where buildings are regularized also ``method`` (``walls``, or ``outline`` where no straight walls fit) and
    ``regularization_iou`` (of the polygon with its outline in the mask).

    Metres are ground metres in any CRS. Where the mask has no CRS they are units of its transform; without a transform
    coordinates are pixels, y counting rows downwards.

    Args:
        mask: As ``ctrs predict`` writes it, or a raster of 0 (background) and 1 (building).
        out: File to write; its extension chooses the format: .gpkg, .parquet, .fgb or .geojson.
        config: Classes, smallest areas, tolerance.
        progress: Told after each unit of work.

    Returns:
        Path, and count and area for each class.

    Raises:
        UsageError: The extension stands for no format.
        ConfigError: The mask has no such class.
        InputNotFoundError: There is no such mask.
        LabelError: It is no class mask.
        RasterError: It cannot be read.
        OutputExistsError: A different result stands there.
        OutputError: The file cannot be written.
    """
    mask, out, config = Path(mask), Path(out), config or VectorizeConfig()
    check_format(out)
    job = fingerprint({"step": "vectorize", "format": _FORMAT, "mask": describe_file(mask), "config": config})
    if mask.exists() and check_existing(out, read_job(out), job, overwrite=config.overwrite):
        logger.info("%s: is the result of this very job already", out)
        return _finished(out, mask, config)
    source = read_class_mask(mask, progress=progress)
    check_values(source, mask)
    wanted = choose_classes(source.classes, config.classes, mask)
    with partial_work(out, job, overwrite=config.overwrite) as work:
        layer = draw_polygons(source, wanted, config, progress=progress)
        date = datetime.fromtimestamp(mask.stat().st_mtime, UTC)
        write_layer(layer, work, job=job, date=date)
    counts, areas = _totals(layer["class"].to_numpy(), layer["area_m2"].to_numpy(), wanted)
    return VectorizeResult(path=out, counts=counts, area_m2=areas)


def choose_classes(classes: Sequence[MaskClass], names: Sequence[str], where: Path) -> tuple[MaskClass, ...]:
    """Return the classes of a mask with the given names, in the mask's order.

    Raises:
        ConfigError: A name is unknown.
    """
    if ALL_CLASSES in names and ALL_CLASSES not in {entry.name for entry in classes}:
        return tuple(classes)
    known = [entry.name for entry in classes]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{where}: class {name!r} is unknown; expected one of: {', '.join(known)}, or {ALL_CLASSES}; "
                "choose with --classes"
            )
    return tuple(entry for entry in classes if entry.name in names)


def _finished(out: Path, mask: Path, config: VectorizeConfig) -> VectorizeResult:
    """Read the result back from a file that is finished already."""
    with open_raster(mask) as dataset:
        classes = named_classes(dataset)
    wanted = choose_classes(classes, config.classes, mask)
    columns = read_columns(out, ["class", "area_m2"])
    counts, areas = _totals(columns["class"].to_numpy(), columns["area_m2"].to_numpy(), wanted)
    return VectorizeResult(path=out, counts=counts, area_m2=areas, skipped=True)


def _totals(
    names: npt.NDArray[np.object_], areas_m2: npt.NDArray[np.float64], wanted: Sequence[MaskClass]
) -> tuple[dict[str, int], dict[str, float]]:
    rows = {entry.name: names == entry.name for entry in wanted}
    counts = {name: int(chosen.sum()) for name, chosen in rows.items()}
    return counts, {name: float(areas_m2[chosen].sum()) for name, chosen in rows.items()}
