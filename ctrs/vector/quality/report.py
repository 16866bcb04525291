"""``report_quality()``: a drawn layer judged against reference buildings, as files beside it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

import ctrs
from ctrs.classes import IGNORE_INDEX
from ctrs.config import VectorizeConfig
from ctrs.config.vectorize import BUILDING
from ctrs.errors import ConfigError, InputNotFoundError, LabelError, OutputExistsError, UsageError
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work, write_text
from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.names import split_layer
from ctrs.raster.units import ground_pixel_size_m
from ctrs.report.verdict_style import verdict_style
from ctrs.vector.layers.files import read_job
from ctrs.vector.polygonize import Geometries, crs_text
from ctrs.vector.quality import DEFINITIONS_VERSION, Judgement, judge_polygons
from ctrs.vector.quality.matching import Overlaps
from ctrs.vector.quality.reference import Reference, ReferencePart, cut_to, on_grid
from ctrs.vector.quality.valid_area import valid_area
from ctrs.vector.quality.verdict_layer import write_verdicts

logger = logging.getLogger(__name__)

_FORMAT = 1

SMALLEST_PART_M2 = 8.0
"""Parts of buildings that the border of the scene cuts off count from this ground area, whatever is drawn."""


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """What ``report_quality`` wrote.

    Args:
        path: The report, JSON.
        verdicts_path: The layer of judged buildings.
        style_path: Its QGIS style.
        content: What stands in the report.
        judgement: What the report is made of; None where it stood there already.
    """

    path: Path
    verdicts_path: Path
    style_path: Path
    content: dict[str, Any]
    judgement: Judgement | None = None

    @property
    def skipped(self) -> bool:
        """True if all stood there already as the result of the same job."""
        return self.judgement is None


def report_paths(layer: Path) -> tuple[Path, Path, Path]:
    """Return where the report on a layer, its layer of verdicts and the style of that stand.

    >>> [path.as_posix() for path in report_paths(Path("maps/scene_mask.parquet"))]
    ['maps/scene_mask_quality.json', 'maps/scene_mask_verdicts.gpkg', 'maps/scene_mask_verdicts.qml']
    """
    stem = layer.with_suffix("").name
    report, verdicts, style = (
        layer.with_name(f"{stem}{ending}") for ending in ("_quality.json", "_verdicts.gpkg", "_verdicts.qml")
    )
    return report, verdicts, style


def judged_class(config: VectorizeConfig) -> str:
    """Return the class that is judged: the only one drawn, or the buildings among several.

    Raises:
        ConfigError: Several classes are drawn, and none is the building.
    """
    if len(config.classes) == 1 and config.classes[0] != "all":
        return config.classes[0]
    if BUILDING in config.classes or "all" in config.classes:
        return BUILDING
    raise ConfigError(
        f"--truth: {', '.join(config.classes)} are drawn, but one class is judged; name one with --classes"
    )


def check_report(layer: Path, mask: Path, reference: Reference) -> None:
    """Refuse, before anything is drawn, what could not be judged or written.

    Args:
        layer: Where the layer is drawn.
        mask: The mask that it is drawn from.
        reference: True buildings.

    Raises:
        InputNotFoundError: There is no such mask.
        LabelError: The reference does not lie on the mask, or one of the two has no CRS.
        UsageError: The reference is one of the files that are written.
        OutputExistsError: Something that ctrs did not write stands where the report goes.
    """
    with open_raster(mask) as dataset:
        on_grid(reference, Grid.of(dataset), mask)
    _check_outputs(layer, reference)


def _check_outputs(layer: Path, reference: Reference) -> None:
    truth = split_layer(reference.path)[0]
    report, verdicts, style = report_paths(layer)
    for path in (layer, report, verdicts, style):
        if path.exists() and truth.exists() and path.samefile(truth):
            raise UsageError(f"--truth {truth}: is a file that is written here; choose another place with -o")
        if truth.is_dir() and path.absolute().is_relative_to(truth.absolute()):
            raise UsageError(f"--truth {truth}: {path.name} would be written into it; choose another place with -o")
    for path, found in ((report, _report_job(report)), (verdicts, read_job(verdicts))):
        if path.exists() and found is None:
            raise OutputExistsError(
                f"{path}: stands there and was not written by ctrs vectorize, so it is not replaced; choose another "
                "name with -o, or move it away"
            )


def report_quality(
    layer: Path,
    mask: Path,
    reference: Reference,
    config: VectorizeConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> QualityReport:
    """Judge a layer that was drawn from a mask, and write the report beside it.

    ``LAYER_quality.json`` holds all figures, ``LAYER_verdicts.gpkg`` the buildings of both layers with their verdicts,
    ``LAYER_verdicts.qml`` its colours in QGIS; a style that stands there already is kept, unless ``overwrite`` is set.
    The reference is cut to the valid area of the mask.

    Args:
        layer: As ``vectorize`` wrote it.
        mask: The mask it was drawn from.
        reference: True buildings.
        config: As given to ``vectorize``.
        progress: Told after each unit of work.

    Raises:
        InputNotFoundError: There is no such layer or mask.
        LabelError: The reference does not lie on the mask, or one of the two has no CRS.
        OutputError: A file cannot be written; OutputExistsError: other files stand there.
    """
    config = config or VectorizeConfig()
    name = judged_class(config)
    _check_outputs(layer, reference)
    if not layer.exists():
        raise InputNotFoundError(f"{layer}: not found; draw it first with ctrs vectorize {mask}")
    report, verdicts, style = report_paths(layer)
    job = fingerprint(
        {
            "step": "judge polygons",
            "format": _FORMAT,
            "definitions": DEFINITIONS_VERSION,
            "layer": describe_file(layer),
            "mask": describe_file(mask),
            "truth": reference.hash_content(),
            "name": str(reference.path),
            "class": name,
            "ignored": not config.instances,
        }
    )
    finished = check_existing(verdicts, read_job(verdicts), job, overwrite=config.overwrite)
    finished &= check_existing(report, _report_job(report), job, overwrite=config.overwrite)
    if finished:
        logger.info("%s: is the result of this very job already", report)
        content = json.loads(report.read_text(encoding="utf-8"))
        if not style.exists():
            write_text(style, verdict_style())
        return QualityReport(path=report, verdicts_path=verdicts, style_path=style, content=content)
    with open_raster(mask) as dataset:
        grid = Grid.of(dataset)
    polygons = on_grid(reference, grid, mask)
    area, _ = valid_area(mask, ignored=None if config.instances else IGNORE_INDEX, progress=progress)
    part = cut_to(polygons, area, smallest=_in_crs_units(SMALLEST_PART_M2, grid))
    drawn = read_drawn(layer, name, grid)
    drawn = drawn[~_lies_in(drawn.geometry.to_numpy(), part.small)].reset_index(drop=True)
    judgement = judge_polygons(drawn, part.polygons, progress=progress)
    content = _content(judgement, part, reference, job=job, name=name, layer=layer, mask=mask)
    with partial_work(verdicts, job, overwrite=config.overwrite) as work:
        date = datetime.fromtimestamp(layer.stat().st_mtime, UTC)
        write_verdicts(_with_sources(judgement, part, drawn["id"].to_numpy()), work, job=job, date=date)
    if config.overwrite or not style.exists():
        write_text(style, verdict_style())
    # Last: that the report is there says that all is.
    write_text(report, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return QualityReport(path=report, verdicts_path=verdicts, style_path=style, content=content, judgement=judgement)


def read_drawn(layer: Path, name: str, grid: Grid) -> geopandas.GeoDataFrame:
    """Read the polygons of a class from a layer of ctrs, in the CRS of the mask, with the column ``id``.

    Raises:
        LabelError: It cannot be read.
    """
    try:
        if layer.suffix.lower() == ".parquet":
            frame = geopandas.read_parquet(layer, columns=["id", "class", "geometry"])
        else:
            frame = pyogrio.read_dataframe(layer, columns=["id", "class"])
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise LabelError(f"{layer}: not readable as polygons ({cause}); draw it again with --overwrite") from error
    crs = crs_text(grid)
    if not len(frame):  # an empty GeoJSON has neither columns nor geometries
        return geopandas.GeoDataFrame({"id": np.empty(0, np.int64)}, geometry=geopandas.GeoSeries([], crs=crs))
    # GeoJSON always names a CRS, and is in WGS 84 wherever the mask has one.
    frame = frame.set_crs(None, allow_override=True) if crs is None else frame.to_crs(crs)
    return frame[frame["class"] == name].reset_index(drop=True)


def _lies_in(shapes: Geometries, areas: Geometries) -> npt.NDArray[np.bool_]:
    """Tell which shapes lie in one of some areas with more than half of their own."""
    overlaps = Overlaps.of(shapes, areas)
    result = np.zeros(len(shapes), bool)
    result[overlaps.predicted[overlaps.in_truth]] = True
    return result


def _with_sources(
    judgement: Judgement, part: ReferencePart, drawn_ids: npt.NDArray[np.int64]
) -> geopandas.GeoDataFrame:
    """Name buildings as their own files do, and say which true ones were cut."""
    buildings = judgement.buildings.copy()
    is_true = (buildings["layer"] == "truth").to_numpy()
    rows = buildings["source_id"].to_numpy(copy=True)
    rows[is_true], rows[~is_true] = part.sources, drawn_ids[rows[~is_true] - 1]
    buildings["source_id"] = rows
    cut = np.zeros(len(buildings), bool)
    cut[is_true] = part.cut
    buildings.insert(9, "cut", cut)
    return buildings


def _content(
    judgement: Judgement,
    part: ReferencePart,
    reference: Reference,
    *,
    job: str,
    name: str,
    layer: Path,
    mask: Path,
) -> dict[str, Any]:
    report, verdicts, style = report_paths(layer)
    return {
        "format_version": _FORMAT,
        "definitions_version": DEFINITIONS_VERSION,
        "ctrs_version": ctrs.__version__,
        "job": job,
        "mask": str(mask),
        "layer": str(layer),
        "truth": str(reference.path),
        "report": str(report),
        "verdicts": str(verdicts),
        "style": str(style),
        "class": name,
        "reference": {
            "num_in_file": len(reference.polygons),
            "num_repaired": reference.num_repaired,
            "num_dropped": reference.num_dropped,
            "num_outside": part.num_outside,
            "num_cut_small": part.num_small,
            "num_cut": int(part.cut.sum()),
            "num_judged": len(part.polygons),
        },
        "truth_verdicts": judgement.count("truth"),
        "drawn_verdicts": judgement.count("drawn"),
        "quality": judgement.quality.figures(),
    }


def _report_job(report: Path) -> str | None:
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(found, dict) and {"definitions_version", "job", "quality"} <= set(found)
    return str(found["job"]) if is_ours else None


def _in_crs_units(area_m2: float, grid: Grid) -> float:
    width_m, height_m = ground_pixel_size_m(grid)
    return area_m2 * abs(grid.transform.determinant) / (width_m * height_m)
