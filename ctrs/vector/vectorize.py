"""``vectorize()``: a class mask becomes a layer of clean polygons."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError, InputNotFoundError, LayerWarning
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import warn_missing_crs
from ctrs.vector.block_drawing import draw_blocks
from ctrs.vector.drawing import draw_block, reach_m
from ctrs.vector.drawing_code import hash_drawing_code
from ctrs.vector.idle_options import warn_idle_options
from ctrs.vector.layers.columns import model_of
from ctrs.vector.layers.files import check_format, check_siblings, read_columns, read_job, write_layer
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.layers.stream import LayerFacts
from ctrs.vector.layers.style import check_style, write_style
from ctrs.vector.polygonize import crs_text
from ctrs.vector.regions.blocks import Block, object_blocks
from ctrs.vector.regions.class_mask import MaskFile, open_class_mask
from ctrs.vector.regions.instances import FIRST_VALUE, open_instance_mask
from ctrs.vector.regions.morphology import open_and_close
from ctrs.vector.regions.probabilities import ClassProbabilities, find_probabilities, open_probabilities
from ctrs.vector.straying import measure_straying

logger = logging.getLogger(__name__)

ALL_CLASSES = "all"


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


def check_mask(mask: Path, config: VectorizeConfig) -> None:
    """Refuse a mask that ``vectorize`` would refuse on sight, before others of the same call are drawn.

    Args:
        mask: As ``vectorize`` takes it.
        config: Likewise.

    Raises:
        ConfigError: The mask has no such class.
        InputNotFoundError: There is no such mask.
        LabelError: It is no class mask.
        RasterError: It cannot be read.
    """
    with _open_mask(mask, config) as file:
        choose_classes(file.classes, config.classes, mask)


def _open_mask(mask: Path, config: VectorizeConfig) -> AbstractContextManager[MaskFile]:
    return (open_instance_mask if config.instances else open_class_mask)(mask)


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
        out: File to write; its extension chooses the format: .gpkg, .parquet, .fgb, .geojson or .shp.
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
    with _open_mask(mask, config) as file:
        wanted = choose_classes(file.classes, config.classes, mask)
        all_wanted = len(wanted) == len(file.classes) and not config.instances
        warn_idle_options(config, file.grid, wanted, all_wanted=all_wanted, mask=mask)
        # Threads decide nothing about the result, and a style stands beside it.
        options = replace(config, jobs=None, qml=False)
        facts_of_job = {
            "step": "vectorize",
            "drawing": hash_drawing_code(),
            "mask": describe_file(mask),
            "config": options,
        }
        probabilities = _probabilities(file, config)
        if probabilities is not None:
            facts_of_job["probabilities"] = describe_file(probabilities.path)
        job = fingerprint(facts_of_job)
        totals = _Totals(wanted)
        if config.qml:
            check_style(out, wanted, overwrite=config.overwrite)
        if check_existing(out, read_job(out), job, overwrite=config.overwrite):
            logger.info("%s: is the result of this very job already", out)
            columns = read_columns(out, ["class", "area_m2"])
            totals.add(columns["class"], columns["area_m2"])
            if config.qml:
                write_style(out, wanted)
            return VectorizeResult(path=out, counts=totals.counts, area_m2=totals.areas_m2, skipped=True)
        check_siblings(out, overwrite=config.overwrite)
        if file.grid.crs is None:
            warn_missing_crs(mask, placed=not file.grid.transform.is_identity, stacklevel=3)
            if out.suffix.lower() == ".geojson":
                warnings.warn(
                    f"{out}: GeoJSON is read as WGS84, but the mask has no CRS and its coordinates stay as they are; "
                    ".gpkg and .parquet say that there is none",
                    LayerWarning,
                    stacklevel=2,
                )
        with partial_work(out, job, overwrite=config.overwrite) as work:
            empty = draw_block(Block.empty(file.grid), wanted, config, probabilities=probabilities)
            date = datetime.fromtimestamp(mask.stat().st_mtime, UTC)
            facts = LayerFacts(
                crs=crs_text(file.grid), empty=empty, job=job, date=date, multipart=config.connectivity == 8
            )
            parts = draw_parts(file, wanted, config, probabilities=probabilities, progress=progress)
            write_layer(totals.counting(parts), work, facts)
        if config.qml:
            write_style(out, wanted)
    return VectorizeResult(path=out, counts=totals.counts, area_m2=totals.areas_m2)


def draw_parts(
    file: MaskFile,
    wanted: Sequence[MaskClass],
    config: VectorizeConfig,
    *,
    probabilities: ClassProbabilities | None = None,
    band_rows: int | None = None,
    progress: Progress = no_progress,
) -> Iterator[LayerPart]:
    """Draw the polygons of a mask in blocks of whole objects, by several threads.

    Args:
        file: The mask.
        wanted: Classes to draw; the others count as nothing.
        config: How.
        probabilities: Of the mask's classes.
        band_rows: Rows to read at a time; they leave no trace in the polygons.
        progress: Told after each band of rows.

    Yields:
        Polygons in the order of their first pixels, as soon as no other can come before them.

    Raises:
        LabelError: Values have no meaning.
        RasterError: The mask cannot be read.
    """
    all_wanted = len(wanted) == len(file.classes)
    is_wanted = np.zeros(257, bool)
    is_wanted[[FIRST_VALUE] if config.instances else [entry.value for entry in wanted]] = True
    bands = file.checked_runs(band_rows, progress)
    blocks = object_blocks(
        open_and_close(bands, file.grid, is_wanted, opening_m=config.opening_m, closing_m=config.closing_m),
        file.grid,
        is_wanted,
        reach_m=reach_m(config, file.grid),
        small_hole_m2=config.smallest_hole_m2,
    )
    model = model_of(file.dataset)
    straying_m = measure_straying(file, wanted, config)
    return draw_blocks(
        blocks,
        lambda block: draw_block(
            block,
            wanted,
            config,
            all_wanted=all_wanted,
            probabilities=probabilities,
            model=model,
            straying_m=straying_m,
            jobs=1,
        ),
        jobs=config.jobs,
    )


def _probabilities(file: MaskFile, config: VectorizeConfig) -> ClassProbabilities | None:
    """Return the probabilities of the mask's classes: those that are named, or that stand beside it.

    Raises:
        InputNotFoundError: They are needed and not there.
        RasterError: Those that are named or needed do not go with the mask.
    """
    path = find_probabilities(file.path, config)
    needed = config.split == "probability"
    if path is None and needed:
        raise InputNotFoundError(
            f"{file.path}: no probabilities found for --split probability; predict with --probabilities, name the "
            "raster with --probabilities, or choose --split watershed"
        )
    if path is None:
        return None
    named = needed or config.probabilities is not None
    return open_probabilities(path, file.path, file.grid, file.classes, named=named)


def choose_classes(classes: Sequence[MaskClass], names: Sequence[str], where: Path) -> tuple[MaskClass, ...]:
    """Return the classes of a mask with the given names, in the mask's order.

    Raises:
        ConfigError: A name is unknown.
    """
    known = [entry.name for entry in classes]
    for name in names:
        if name not in (*known, ALL_CLASSES):
            raise ConfigError(
                f"{where}: class {name!r} is unknown; expected one of: {', '.join(known)}, or {ALL_CLASSES}; "
                "choose with --classes"
            )
    if ALL_CLASSES in names and ALL_CLASSES not in known:
        return tuple(classes)
    return tuple(entry for entry in classes if entry.name in names)


class _Totals:
    """Polygons and ground area of each class, counted while they pass."""

    def __init__(self, wanted: Sequence[MaskClass]) -> None:
        self.counts = {entry.name: 0 for entry in wanted}
        self.areas_m2 = {entry.name: 0.0 for entry in wanted}

    def add(self, names: npt.NDArray[np.object_], areas_m2: npt.NDArray[np.float64]) -> None:
        for name in self.counts:
            chosen = names == name
            self.counts[name] += int(chosen.sum())
            self.areas_m2[name] = math.fsum([self.areas_m2[name], *areas_m2[chosen].tolist()])

    def counting(self, parts: Iterable[LayerPart]) -> Iterator[LayerPart]:
        for part in parts:
            self.add(part.columns["class"], part.columns["area_m2"])
            yield part
