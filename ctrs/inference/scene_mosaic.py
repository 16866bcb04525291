"""Neighbouring scenes mapped as one raster, so that no seam stands where their files meet."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrs.config import PredictConfig
from ctrs.errors import UsageError
from ctrs.inference.prediction_log import copy_log
from ctrs.inference.products import Products
from ctrs.inference.provenance import SOURCE_TAG
from ctrs.inference.records import WantedRecords, complete_records, is_own_item, refuse_foreign_records
from ctrs.inference.row_files import StagedFiles, is_finished, outputs
from ctrs.inference.scene_source import SceneSource, open_scene
from ctrs.inference.scenes import check_mask_name, mask_paths, scenes_in
from ctrs.jobs import fingerprint, partial_work
from ctrs.progress import Progress, no_progress
from ctrs.raster.alpha import bands_for
from ctrs.raster.cog import JOB_TAG, write_class_cog
from ctrs.raster.confidence import confidence_path, write_confidence_cog
from ctrs.raster.cutting import ReadValid, cut_rows, own_tags
from ctrs.raster.geotiff import Grid, color_bands, open_raster
from ctrs.raster.mosaic_parts import Mosaic, join_parts
from ctrs.raster.names import file_name, source_path
from ctrs.raster.probabilities import write_probabilities_cog
from ctrs.raster.rectangles import counted_from, overlap
from ctrs.raster.row_bands import RowBands
from ctrs.raster.windows import PixelWindow
from ctrs.report.mask_stac import item_path
from ctrs.report.qgis_style import style_path

if TYPE_CHECKING:
    from ctrs.inference.predictor import Predictor

log = logging.getLogger(__name__)

ALIGNMENT_PX = 0.25
"""Largest distance of a scene's corners from the pixel corners of the mosaic."""

_INDIFFERENT = frozenset(
    {"bounds", "aoi", "gsd", "bidx", "threads", "max_memory", "skip_unreadable", "strict", "style", "stac"}
    | {"resume", "overwrite"}
)
"""Options that determine nothing, or that what ``SceneSource.describe`` returns tells of."""


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A scene of a mosaic and the part of it that is mapped.

    Args:
        scene: The scene.
        mask: Where its mask goes.
        in_scene: What is mapped, in pixels of the scene.
        in_mosaic: The same, in pixels of the mosaic's mask.
        alone: Whether no other scene lies there.
        job: Fingerprint of its mask.
    """

    scene: Path
    mask: Path
    in_scene: PixelWindow
    in_mosaic: PixelWindow
    alone: bool
    job: str


def predict_mosaic(
    predictor: Predictor,
    scenes: Iterable[Path | str],
    out: Path | None,
    config: PredictConfig | None = None,
    *,
    each: bool = False,
    progress: Progress = no_progress,
    command: Sequence[str] | None = None,
) -> list[Path]:
    """Map many scenes as one raster and write one mask, or the mask of each on its own grid.

    Where scenes overlap, later ones are taken; where these are invalid, earlier ones show. With ``each`` the mosaic's
    mask is kept in ``.mosaic.partial/`` beside the first output until the last scene has its own, which is nodata
    where the scene itself is invalid.

    Args:
        predictor: Maps the mosaic.
        scenes: What ``scenes_in`` takes: one CRS, pixel lattice, dtype, nodata value and number of bands for all.
        out: The mask (``.tif``); with ``each`` what ``mask_paths`` takes: a folder, or None for beside each scene.
        config: Options, as for a single scene. Bounds are in the CRS of the scenes; with ``each``, scenes beside the
            bounds or the area of interest get no mask.
        each: Whether each scene gets its own mask.
        progress: Told the number of windows done, then of masks cut.
        command: Command line, for the logs beside the masks.

    Returns:
        The masks, those that stood there already as the result of the same job among them.

    Raises:
        InputNotFoundError: There is no such scene.
        GridMismatchError: Two scenes lie on different pixels, or have different CRSs.
        RasterError: Two scenes have different bands, or one has no place or cannot be read.
        UsageError: ``out`` is missing, or no place for this.
        OutputExistsError: Another result stands at an output and ``config.overwrite`` is False.
        OutputError: An output cannot be written.
    """
    config = config or PredictConfig()
    if each:
        pairs = mask_paths(scenes, out)
        mosaic = _join([scene for scene, _ in pairs], "mosaic", predictor, config)
        return _predict_each(predictor, mosaic, [mask for _, mask in pairs], config, progress, command)
    if out is None or out.is_dir() or not out.suffix:
        found = "no -o" if out is None else f"-o {out}"
        raise UsageError(f"--mosaic one: {found} found, expected the mask of all scenes: -o FILE.tif")
    check_mask_name(out)
    found_scenes = scenes_in(scenes)
    mosaic = _join(found_scenes, out.stem.removesuffix("_mask"), predictor, config)
    if any(source.path.absolute() == out.absolute() for source in mosaic.sources):
        raise UsageError(f"{out}: is one of the scenes; choose another output with -o")
    return [predictor.predict_raster(mosaic.path, out, config, progress=progress, command=command)]


def _join(scenes: Sequence[Path | str], name: str, predictor: Predictor, config: PredictConfig) -> Mosaic:
    paths = [source_path(str(scene)) for scene in scenes]
    with open_raster(paths[0]) as first:
        bidx = config.bidx or bands_for(first, predictor.bands.count)
        alpha_is_data = not set(bidx) <= set(color_bands(first))
    return join_parts(paths, name, alpha_is_data=alpha_is_data, tolerance_px=ALIGNMENT_PX)


def _predict_each(
    predictor: Predictor,
    mosaic: Mosaic,
    masks: Sequence[Path],
    config: PredictConfig,
    progress: Progress,
    command: Sequence[str] | None,
) -> list[Path]:
    unmapped = replace(config, window_px=None)  # windows are judged where they are used
    with open_scene(mosaic.path, predictor.bands, unmapped, model_gsd=predictor.pixel_size_m) as whole:
        job = fingerprint(_job(predictor, whole, config))
        cuts = _cuts(mosaic, masks, whole, job)
        config = replace(config, bidx=whole.bidx)  # of each scene too
    left_out = len(masks) - len(cuts)
    if left_out:
        log.info("%d of %d scenes lie beside the bounds or the area of interest and get no mask", left_out, len(masks))
    products = Products.for_config(predictor.classes, config)
    for cut in cuts:
        refuse_foreign_records(cut.mask, _records(cut, predictor, config))
    missing = [cut for cut in cuts if not is_finished(cut.mask, cut.job, products, overwrite=config.overwrite)]
    for cut in cuts:
        if cut not in missing:
            complete_records(cut.mask, _records(cut, predictor, config))
    if not missing:
        log.info("all %d masks exist and are the result of the same job; nothing to do", len(cuts))
        return [cut.mask for cut in cuts]
    anew = config.overwrite or not config.resume
    with partial_work(cuts[0].mask.parent / "mosaic", job, overwrite=anew) as work:
        mask = work.folder / "mosaic_mask.tif"
        # What stands there is this job's own, also where outputs may be replaced.
        inner = replace(config, overwrite=False, resume=True, style=False, stac=False)
        predictor.predict_raster(mosaic.path, mask, inner, progress=progress, command=command)
        for number, cut in enumerate(missing):
            progress(number, len(missing), f"cutting {cut.mask.name}")
            _write_cut(cut, mask, predictor, config)
        progress(len(missing), len(missing), "cutting masks")
        shutil.rmtree(work.folder, ignore_errors=True)
    return [cut.mask for cut in cuts]


def _job(predictor: Predictor, whole: SceneSource, config: PredictConfig) -> dict[str, Any]:
    """Return all that determines the mask of a mosaic."""
    options = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name not in _INDIFFERENT}
    return {
        "step": "predict mosaic",
        "model": predictor.model_hash,
        "classes": predictor.classes.to_json(),
        "bands": predictor.bands.to_json(),
        "window": [predictor.window_px, predictor.overlap, predictor.resize_factor],
        "device": [predictor.device.type, str(predictor.precision)],
        "options": options,
        "source": whole.describe(),
    }


def _cuts(mosaic: Mosaic, masks: Sequence[Path], whole: SceneSource, job: str) -> list[_Cut]:
    """Return the scenes of which a part is mapped."""
    sources = mosaic.sources
    places = np.array([(s.col_off, s.row_off, s.col_off + s.width, s.row_off + s.height) for s in sources])
    cuts: list[_Cut] = []
    for number, (source, mask) in enumerate(zip(sources, masks, strict=True)):
        place = PixelWindow(col_off=source.col_off, row_off=source.row_off, width=source.width, height=source.height)
        part = overlap(place, whole.window)
        if part is None or not whole.touches(counted_from(part, whole.window)):
            continue
        left, top, right, bottom = places[number]
        beside = (places[:, 0] >= right) | (places[:, 2] <= left) | (places[:, 1] >= bottom) | (places[:, 3] <= top)
        own = fingerprint({"mosaic": job, "scene": str(source.path), "place": vars(part)})
        cuts.append(
            _Cut(
                scene=source.path,
                mask=mask,
                in_scene=counted_from(part, place),
                in_mosaic=counted_from(part, whole.window),
                alone=int(beside.sum()) == len(sources) - 1,
                job=own,
            )
        )
    return cuts


def _write_cut(cut: _Cut, mosaic_mask: Path, predictor: Predictor, config: PredictConfig) -> None:
    """Write the mask of a scene, and what is wanted beside it, from those of the mosaic."""
    # The scene's own pixels are asked for their validity alone; where it lies is known.
    own = replace(config, bounds=None, aoi=None, gsd=None, window_px=None)
    with (
        open_scene(cut.scene, predictor.bands, own) as source,
        partial_work(cut.mask, cut.job, overwrite=config.overwrite or not config.resume) as work,
    ):

        def valid(window: PixelWindow) -> npt.NDArray[np.bool_]:
            place = replace(
                window, col_off=window.col_off + cut.in_scene.col_off, row_off=window.row_off + cut.in_scene.row_off
            )
            return source.read(place)[1]

        whole = (cut.in_scene.height, cut.in_scene.width) == source.grid.shape
        grid = source.grid if whole else source.grid.window(cut.in_scene)
        tags = {JOB_TAG: cut.job, SOURCE_TAG: file_name(cut.scene).name}
        if source.area_or_point is not None:
            tags["AREA_OR_POINT"] = source.area_or_point
        kept = None if cut.alone else valid
        products = Products.for_config(predictor.classes, config)
        beside = _write_beside(mosaic_mask, cut, work.folder, grid, products, config, tags, kept)
        mask = write_class_cog(
            work.folder / cut.mask.name,
            cut_rows(mosaic_mask, cut.in_mosaic, valid=kept),
            grid,
            products.written,
            {**own_tags(mosaic_mask), **tags},
            values=products.values,
            creation_options=config.creation_options,
        )
        staged = StagedFiles(mask=mask, beside=tuple(beside))
        staged.publish(work, cut.job, before_mask=lambda: copy_log(mosaic_mask, cut.mask, scene=cut.scene))
    wanted = _records(cut, predictor, config)
    if is_own_item(item_path(cut.mask)):  # it tells of another file, the mask before
        item_path(cut.mask).unlink()
        wanted = replace(wanted, stac=True)
    if wanted.style:
        style_path(cut.mask).unlink(missing_ok=True)
    complete_records(cut.mask, wanted)


def _records(cut: _Cut, predictor: Predictor, config: PredictConfig) -> WantedRecords:
    return WantedRecords(scene=cut.scene, weights=predictor.weights, style=config.style, stac=config.stac)


def _write_beside(
    mosaic_mask: Path,
    cut: _Cut,
    folder: Path,
    grid: Grid,
    products: Products,
    config: PredictConfig,
    tags: Mapping[str, str],
    valid: ReadValid | None,
) -> list[tuple[Path, Path]]:
    """Write what is wanted beside the mask of a scene; return the files with their final names."""
    staged: list[tuple[Path, Path]] = []
    for of_mosaic, output in zip(outputs(mosaic_mask, products)[:-1], outputs(cut.mask, products)[:-1], strict=True):
        scratch = folder / f"{output.stem}.rows"
        shutil.rmtree(scratch, ignore_errors=True)
        bands = RowBands(scratch, grid.width)
        is_confidence = output == confidence_path(cut.mask)
        as_half = config.probabilities == "float16" and not is_confidence
        for rows in cut_rows(of_mosaic, cut.in_mosaic, valid=valid):
            bands.append(rows.astype(np.float16) if as_half else rows)
        every = {**own_tags(of_mosaic), **tags}
        part, options = folder / output.name, config.creation_options
        if is_confidence:
            kind = config.confidence or "probability"
            write_confidence_cog(part, bands, grid, every, kind=kind, creation_options=options)
        else:
            number_format, names = config.probabilities or "uint8", products.probability_names
            write_probabilities_cog(part, bands, grid, names, number_format, every, options)
        shutil.rmtree(scratch, ignore_errors=True)
        staged.append((part, output))
    return staged
