"""A scene becomes a mask: the whole way of ``ctrs predict``, from opening the scene to what stands beside the mask."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ctrs.config import PredictConfig
from ctrs.errors import DataWarning, UsageError
from ctrs.inference.device import cpu_threads
from ctrs.inference.footprint import fitting_blocks
from ctrs.inference.guard import Difference, check_scene
from ctrs.inference.pixels import WindowBatch
from ctrs.inference.prediction_log import PhaseClock, PredictionLog
from ctrs.inference.prefetch import WriteBehind
from ctrs.inference.products import Products
from ctrs.inference.provenance import (
    INPUT_TAG,
    MODEL_TAG,
    OPTIONS_TAG,
    SOURCE_TAG,
    InputHash,
    options_text,
    result_options,
    what_differs,
)
from ctrs.inference.records import WantedRecords, complete_records, refuse_foreign_records, write_records
from ctrs.inference.row_files import RowFiles, is_finished
from ctrs.inference.rows import FinishedRows
from ctrs.inference.scene_source import SceneSource, open_scene
from ctrs.inference.window_plan import WindowPlan
from ctrs.jobs import PartialWork, fingerprint, partial_work
from ctrs.memory import kept_memory
from ctrs.progress import Progress
from ctrs.raster.cog import JOB_TAG
from ctrs.raster.creation_options import check_creation_options
from ctrs.raster.geotiff import warn_missing_crs
from ctrs.raster.names import in_memory

if TYPE_CHECKING:
    from ctrs.inference.predictor import Predictor

log = logging.getLogger(__name__)

UNREADABLE_FILE = "unreadable.json"
"""In the folder of unfinished work: blocks that were left out so far."""


@dataclass
class _Counts:
    """What happened in this process."""

    windows: int = 0
    seen: int = 0
    resumed_from_row: int | None = None
    clock: PhaseClock = field(default_factory=PhaseClock)


class _OverBlocks:
    """Progress over all blocks of columns, those that an earlier attempt finished included.

    Args:
        progress: Told of it.
        total: Windows of all blocks.
        what: The phase.
    """

    def __init__(self, progress: Progress, total: int, what: str) -> None:
        self._progress, self._total, self._what = progress, total, what
        self._before = 0

    def tell(self, done: int) -> None:
        """Tell of windows that are done in the block at hand."""
        self._progress(self._before + done, self._total, self._what)

    def finish(self, num_windows: int) -> None:
        """Go on to the next block, after one of so many windows."""
        self._before += num_windows
        self.tell(0)


def map_scene(
    predictor: Predictor,
    src: Path | str,
    dst: Path,
    config: PredictConfig,
    *,
    progress: Progress,
    command: Sequence[str] | None = None,
) -> Path:
    """Map a scene; see ``Predictor.predict_raster``, which this is.

    Args:
        predictor: The network and what belongs to it.
        src: The scene.
        dst: The mask to write.
        config: Options.
        progress: Told the number of windows done.
        command: Command line, for the log.
    """
    products = Products.for_config(predictor.classes, config)
    check_creation_options(config.creation_options)
    own = None if in_memory(src) else src  # a mosaic is gone with the process
    wanted = WantedRecords(scene=own, weights=predictor.weights, style=config.style, stac=config.stac)
    counts = _Counts()
    with open_scene(src, predictor.bands, config, model_gsd=predictor.pixel_size_m) as source:
        plan = predictor.plan(*source.grid.shape, config, gsd_factor=source.gsd_factor)
        parts, bound = fitting_blocks(
            plan,
            products,
            count=predictor.bands.count,
            dtype=predictor.bands.dtype,
            blocks=source.blocks(),
            cache_bytes=source.cache_bytes,
            max_memory=config.max_memory,
            tta=config.tta,
        )
        described = source.describe()
        options = result_options(config, _settled(predictor, source, plan, parts, described))
        job = fingerprint(_job(predictor, config, options, described))
        if dst.exists() and any(dst.samefile(file) for file in source.files if file.exists()):
            raise UsageError(f"{dst}: is the scene itself, or a part of it; choose another output with -o")
        refuse_foreign_records(dst, wanted)
        differs = partial(what_differs, model_hash=predictor.model_hash, options=options)
        if is_finished(dst, job, products, overwrite=config.overwrite, made_from=differs):
            log.info("%s: exists and is the result of the same job; nothing to do", dst)
            complete_records(dst, wanted)
            return dst
        if source.grid.crs is None and source.grid.ground_control is None:
            warn_missing_crs(src)
        source.warn_odd_alpha()
        differences: tuple[Difference, ...] = ()
        if predictor.training is not None:
            with counts.clock.phase("checking"):
                differences = check_scene(source, predictor.training, strict=config.strict)
        log.info("%s: %s", source.name, bound)
        with partial_work(dst, job, overwrite=config.overwrite) as work, InputHash(source.input_files()) as digest:
            if not config.resume:
                _discard(work)
            files = RowFiles(work.folder, products, [part.columns for part in parts])
            source.record_unreadable(work.folder / UNREADABLE_FILE)
            # Kept memory is faster, but how large its gaps become is not known exactly: not where a limit is a promise.
            keeping = kept_memory() if config.max_memory is None else nullcontext()
            with cpu_threads(config.threads), keeping, source.own_cache(), counts.clock.phase("mapping"):
                shown = _OverBlocks(progress, sum(part.num_windows for part in parts), f"predicting {source.name}")
                for number, part in enumerate(parts):
                    _map_block(predictor, source, part, number, config, files, counts, shown, dst)
                    shown.finish(part.num_windows)
            tags = {
                JOB_TAG: job,
                MODEL_TAG: predictor.model_hash,
                INPUT_TAG: digest.result(),
                SOURCE_TAG: source.name,
                OPTIONS_TAG: options_text(options),
            }
            if source.area_or_point is not None:
                tags["AREA_OR_POINT"] = source.area_or_point
            if source.unreadable:
                _warn_unreadable(source, dst)
            story = _story(
                predictor,
                src,
                config,
                options,
                plan,
                counts,
                command,
                digest,
                source,
                differences,
                bound.total,
            )
            with counts.clock.phase("finishing"):
                staged = files.write(work, source.grid, tags, creation_options=config.creation_options)
            staged.publish(work, job, before_mask=lambda: write_records(staged.mask, dst, story, wanted))
    return dst


def _map_block(
    predictor: Predictor,
    source: SceneSource,
    plan: WindowPlan,
    number: int,
    config: PredictConfig,
    files: RowFiles,
    counts: _Counts,
    progress: _OverBlocks,
    dst: Path,
) -> None:
    """Predict the rows of a block of columns that are still missing on disk."""
    begun = files.num_rows(number)
    if begun == plan.height:
        counts.resumed_from_row = begun
        return
    if begun:
        counts.resumed_from_row = begun
        log.info("%s: going on at row %d of %d", dst, begun, plan.height)
    first_row = plan.first_row_for(begun)
    num_cols = len(plan.col_starts)
    counts.windows += plan.num_windows - first_row * num_cols
    progress.tell(first_row * num_cols)

    def report(batch: WindowBatch) -> None:
        counts.seen += len(batch.places)
        row, col = batch.places[-1]
        progress.tell(row * num_cols + col + 1)

    def append(rows: FinishedRows) -> None:
        files.append(rows, number)

    with WriteBehind(append) as writer:
        rows_of_scene = predictor.finished_rows(
            source.read,
            plan,
            config,
            products=files.products,
            first_row=first_row,
            wanted=source.wanted,
            blocks=source.blocks(),
            report=report,
        )
        with closing(rows_of_scene):
            for finished in rows_of_scene:
                writer.put(finished)
    files.flush()


def _settled(
    predictor: Predictor,
    source: SceneSource,
    plan: WindowPlan,
    parts: Sequence[WindowPlan],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what was decided by the checkpoint, the scene and the machine, and determines the result."""
    return {
        "window_px": plan.window_px,
        "overlap": plan.overlap,
        "batch_size": plan.batch_size,
        "bidx": list(source.bidx),
        "resize_factor": predictor.resize_factor,
        "gsd_factor": source.gsd_factor,
        "area": described.get("area"),
        "precision": str(predictor.precision).removeprefix("torch."),
        "device": predictor.device.type,
        "column_blocks": len(parts) if len(parts) > 1 else None,
    }


def _job(
    predictor: Predictor, config: PredictConfig, options: Mapping[str, Any], described: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all that determines the mask's bytes."""
    return {
        "step": "predict",
        "model": [type(predictor.model).__qualname__, predictor.model_hash],
        "classes": predictor.classes.to_json(),
        "bands": predictor.bands.to_json(),
        # What to do about damage: work that was stopped by it goes on with another answer.
        "options": {name: value for name, value in options.items() if name != "skip_unreadable"},
        "creation_options": [list(pair) for pair in config.creation_options],
        "scene": described,
    }


def _discard(work: PartialWork) -> None:
    """Remove what an earlier attempt at the same job left."""
    for path in work.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name == UNREADABLE_FILE:
            path.unlink()


def _warn_unreadable(source: SceneSource, dst: Path) -> None:
    blocks = source.unreadable
    first = blocks[0]
    warnings.warn(
        f"{source.shown}: {len(blocks)} {'block is' if len(blocks) == 1 else 'blocks are'} unreadable and nodata in "
        f"{dst.name}, the first of {first.width} x {first.height} px at row {first.row_off}, column {first.col_off}; "
        f"all are listed in {dst.with_suffix('.json').name}",
        DataWarning,
        stacklevel=3,
    )


def _story(
    predictor: Predictor,
    src: Path | str,
    config: PredictConfig,
    options: Mapping[str, Any],
    plan: WindowPlan,
    counts: _Counts,
    command: Sequence[str] | None,
    digest: InputHash,
    source: SceneSource,
    differences: Sequence[Difference],
    memory_bound: int,
) -> PredictionLog:
    device = predictor.device
    return PredictionLog(
        command=command,
        scene=src,
        model=predictor.weights,
        weights_hash=predictor.model_hash,
        input=digest.result(),
        files=digest.files(),
        options=options,
        clock=counts.clock,
        windows=plan.num_windows,
        windows_seen=counts.seen,
        windows_skipped=counts.windows - counts.seen,
        batch_size=plan.batch_size,
        threads={"network": config.threads or torch.get_num_threads(), "reading": 1, "writing": 1},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision=str(predictor.precision).removeprefix("torch."),
        memory_bound=memory_bound,
        unreadable=source.unreadable,
        differences=differences,
        resumed_from_row=counts.resumed_from_row,
    )
