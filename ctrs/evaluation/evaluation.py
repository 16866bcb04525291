"""How good a network is, on whole scenes: one pass over the pixels, every protocol and every score from it.

A scene's tiles are laid together again and mapped by the same Predictor, with the same windows and overlap, as
``ctrs predict`` uses, so that scores are those of the masks that users get, not of single tiles.
"""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctrs.config import EvalConfig, SplitName
from ctrs.errors import BandMismatchError, ConfigError, DataError, DataWarning, OutputExistsError
from ctrs.evaluation.fold_choice import data_of_checkpoint, fold_of
from ctrs.evaluation.openings import record_opening, times_before
from ctrs.evaluation.required_scores import check_requirements
from ctrs.evaluation.scene_picturing import ERRORS
from ctrs.evaluation.score_files import save_report
from ctrs.evaluation.score_intervals import score_intervals
from ctrs.evaluation.score_page import PAGE_FILE, write_score_page
from ctrs.evaluation.score_places import gallery_for
from ctrs.evaluation.score_report import REPORT_FILE, EvaluationReport, read_report
from ctrs.evaluation.split_scoring import MASKS, SplitScoring, erodes_here
from ctrs.inference.device import resolve_device, resolve_inference_precision
from ctrs.inference.predictor import Predictor
from ctrs.jobs import PartialWork, fingerprint, hash_file, partial_work, recover
from ctrs.model_files import CheckpointFiles, CheckpointMetadata, describe, find_checkpoint
from ctrs.progress import Progress, no_progress
from ctrs.tiles.manifest import Manifest, scene_mosaics

logger = logging.getLogger(__name__)

AS_ASKED_FOR = "as asked for"

SCORING_VERSION = 2
"""Raised when the same masks would be scored otherwise, so that older reports are not taken for new ones."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What is going to be scored, checked before time is spent.

    Args:
        files: Of the checkpoint.
        metadata: Of the checkpoint.
        manifest: The prepared data as the checkpoint saw them.
        data: Folder of the data as it was given.
        split: Split to score.
        reason: Why this one.
        config: Options.
        weights: Hash of the weights.
        job: Fingerprint of the job.
    """

    files: CheckpointFiles
    metadata: CheckpointMetadata
    manifest: Manifest
    data: Path
    split: SplitName
    reason: str
    config: EvalConfig
    weights: str
    job: str

    @property
    def folder(self) -> Path:
        """The checkpoint's folder."""
        return self.files.folder

    @property
    def home(self) -> Path:
        """The run's folder, or the checkpoint's own."""
        return self.files.home

    @property
    def final(self) -> Path:
        """Folder of the report."""
        return self.home / "eval" / self.split


def evaluate(
    checkpoint: Path,
    data_dir: Path,
    config: EvalConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Score a network on the scenes of a split.

    The report (``report.html``, ``report.json``, tables, ``masks/SCENE_mask.tif``, ``errors/SCENE_errors.tif``) goes
    to ``eval/SPLIT`` in the run's folder, or in the checkpoint's own where it belongs to no run. If it stands there
    already as the result of the same job, it is read; interrupted work is gone on with.

    Args:
        checkpoint: A run folder (its best checkpoint), a checkpoint folder, or its ``model.safetensors``.
        data_dir: Folder that ``ctrs prepare`` wrote.
        config: Options.
        progress: Told the windows mapped and the scenes scored.

    Raises:
        InputNotFoundError: There is no such checkpoint or no such prepared data.
        CheckpointError: The checkpoint is of another kind, broken or incomplete.
        ConfigError: A score is required that there will not be.
        DataError: The data have no such split, or other classes than the checkpoint.
        BandMismatchError: Their bands or dtype differ from the checkpoint's.
        OutputExistsError: The report of another job stands there and ``config.overwrite`` is False.
        OutputError: The report cannot be written.
    """
    return run_plan(plan_evaluation(checkpoint, data_dir, config), progress=progress)


def plan_evaluation(checkpoint: Path, data_dir: Path, config: EvalConfig | None = None) -> EvaluationPlan:
    """Check all that can be checked without the network; arguments and errors as for ``evaluate``."""
    config = config or EvalConfig()
    files = find_checkpoint(checkpoint)
    metadata = describe(files)
    manifest = data_of_checkpoint(Manifest.open(data_dir), metadata)
    split, reason = choose_split(manifest, config.split)
    if split == "val" and manifest.num_folds:
        reason = f"{reason}, fold {fold_of(metadata)} of {manifest.num_folds}"
    _check_fit(manifest, metadata, files.folder, config)
    _check_objects(config, manifest)
    check_requirements(config.fail_under, manifest.classes, config)
    weights = hash_file(files.weights)[:32]
    return EvaluationPlan(
        files=files,
        metadata=metadata,
        manifest=manifest,
        data=data_dir,
        split=split,
        reason=reason,
        config=config,
        weights=weights,
        job=fingerprint(_job(files, weights, metadata, manifest, split, config)),
    )


def run_plan(plan: EvaluationPlan, *, progress: Progress = no_progress) -> EvaluationReport:
    """Score what was planned, or read the report that stands there; see ``evaluate``."""
    started = time.monotonic()
    final, manifest, config = plan.final, plan.manifest, plan.config
    logger.info("scoring the %s split of %s (%s) with %s", plan.split, manifest.root, plan.reason, plan.folder)
    if _is_finished(final, plan.job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", final)
        report = read_report(final / REPORT_FILE)
        return replace(report, path=final / REPORT_FILE, data=plan.data, checkpoint=plan.folder)
    options = config.predict
    predictor = Predictor.from_checkpoint(plan.files.weights, device=options.device, precision=options.precision)
    predictor.training = None  # the scenes are those of the data set; there is nothing to warn of
    with partial_work(final, plan.job, overwrite=config.overwrite) as work:
        openings = _open_test_split(work, plan) if plan.split == "test" else None
        staged = work.folder / "report"
        mosaics = scene_mosaics(manifest, plan.split, work.folder / "mosaics")
        shapes = [mosaic.scene.grid.shape for mosaic in mosaics]
        gallery = gallery_for(manifest.classes, config, shapes, manifest.bands)
        scoring = SplitScoring(
            manifest=manifest,
            config=config,
            scores=work.folder / "scores",
            masks=staged / MASKS,
            errors=staged / ERRORS,
            gallery=gallery,
        )
        scenes = scoring.run(predictor, mosaics, progress)
        report = EvaluationReport(
            scenes=scenes,
            classes=manifest.classes,
            split=plan.split,
            reason=plan.reason,
            split_hash=manifest.split_hash,
            checkpoint=plan.folder,
            weights=plan.weights,
            data=plan.data,
            intervals=score_intervals(
                [scene.confusions["strict"] for scene in scenes],
                manifest.classes,
                samples=config.bootstrap,
                confidence=config.confidence,
                seed=config.seed,
            ),
            seconds=time.monotonic() - started,
            test_openings=openings,
            fingerprint=plan.job,
        )
        report = save_report(report, staged, final=final)
        write_score_page(staged / PAGE_FILE, {report.name: report}, gallery)
        shutil.rmtree(work.folder / "mosaics")
        work.publish(staged)
    return report


def choose_split(manifest: Manifest, wanted: SplitName | None) -> tuple[SplitName, str]:
    """Return the split to score, and why in a few words.

    Raises:
        DataError: The data have no such split.
    """
    present = manifest.splits
    if manifest.num_folds and wanted != "train" and not {wanted or "val", wanted or "test"} & set(present):
        raise DataError(
            f"{manifest.root}: validates by folds, and what shall be scored was trained with none of them; score a run "
            "of `ctrs train --fold`, on the data that it was trained on"
        )
    if wanted is not None:
        if wanted not in present:
            raise DataError(
                f"{manifest.root}: no split {wanted!r} found, it has {' and '.join(present) or 'none'}; choose one of "
                "them with --split, or prepare the data with such scenes"
            )
        return wanted, AS_ASKED_FOR
    if "test" in present:
        return "test", "the data have one"
    if "val" in present:
        return "val", "the data have no test split"
    raise DataError(
        f"{manifest.root}: neither test nor val split found, it has {' and '.join(present) or 'none'}; prepare the "
        "data with --val or --test, or score the training scenes with --split train"
    )


def _check_objects(config: EvalConfig, manifest: Manifest) -> None:
    """Refuse objects of classes that there are not; only the default may name one that the data lack."""
    unknown = [name for name in config.objects if name not in manifest.classes.names]
    if unknown and config.objects != EvalConfig().objects:
        raise ConfigError(
            f"objects = {unknown[0]!r} found, expected classes of {manifest.root} "
            f"({', '.join(manifest.classes.names)}), or none"
        )


def _check_fit(manifest: Manifest, metadata: CheckpointMetadata, folder: Path, config: EvalConfig) -> None:
    """Refuse data that the checkpoint cannot be scored on."""
    if manifest.classes.names != metadata.classes.names:
        raise DataError(
            f"{manifest.root}: classes {', '.join(manifest.classes.names)} found, but the checkpoint {folder} knows "
            f"{', '.join(metadata.classes.names)}; score it on data with its classes"
        )
    expected, found = metadata.bands, manifest.bands
    count = len(config.predict.bidx) or found.count
    if count != expected.count or found.dtype != expected.dtype:
        raise BandMismatchError(
            f"{manifest.root}: {count} bands of {found.dtype} ({', '.join(found.names)}) found, but the checkpoint "
            f"{folder} takes {expected.count} of {expected.dtype} ({', '.join(expected.names)}); score it on data with "
            "its bands"
        )
    if not config.predict.bidx and found.names != expected.names:
        warnings.warn(
            f"{manifest.root}: bands {', '.join(found.names)} found, but the checkpoint {folder} learnt "
            f"{', '.join(expected.names)}; they are taken in this order",
            DataWarning,
            stacklevel=3,
        )


def _job(
    files: CheckpointFiles,
    weights: str,
    metadata: CheckpointMetadata,
    manifest: Manifest,
    split: SplitName,
    config: EvalConfig,
) -> dict[str, Any]:
    """Return all that determines the scores, down to the rounding of logits."""
    options = config.predict
    device = resolve_device(options.device)
    return {
        "step": "eval",
        "weights": weights,
        "metadata": hash_file(files.description)[:32],
        "data": manifest.fingerprint,
        "split_hash": manifest.split_hash,
        "classes": manifest.classes.to_json(),
        "split": split,
        "options": {
            "window_px": options.window_px or metadata.window_px,
            "overlap": metadata.overlap if options.overlap is None else options.overlap,
            "blend": options.blend,
            "batch_size": options.batch_size,
            "bidx": list(options.bidx),
            "device": device.type,
            "precision": str(resolve_inference_precision(options.precision, device)),
        },
        "scoring": {
            "version": SCORING_VERSION,
            "eroded": erodes_here(manifest, config),
            "pixels_only": config.pixels_only,
            "boundary_px": config.boundary_px,
            "distances_px": list(config.distances_px),
            "objects": list(config.objects),
            "object_iou": config.object_iou,
            "min_object_px": config.min_object_px,
            "bins": config.bins,
            "bootstrap": [config.bootstrap, config.confidence, config.seed],
            "num_places": config.num_places,
        },
    }


def _open_test_split(work: PartialWork, plan: EvaluationPlan) -> int:
    """Count this opening of the test split, once for a job however often it is interrupted."""
    mark = work.folder / "opening"
    if mark.exists():
        return int(mark.read_text(encoding="utf-8"))
    root, home = plan.manifest.root, plan.home
    openings = record_opening(home, plan.manifest, weights=plan.weights)
    mark.write_text(str(openings), encoding="utf-8")
    logger.info("the test split of %s is opened now; %s opened it %s", root, home, times_before(openings))
    return openings


def _is_finished(final: Path, job: str, *, overwrite: bool) -> bool:
    """Tell whether the report of this very job stands there; refuse to replace another one without leave."""
    recover(final)
    if not final.exists() or overwrite:
        return False
    try:
        earlier = read_report(final / REPORT_FILE)
    except DataError as error:
        raise OutputExistsError(
            f"{final}: exists and holds no report ({error}); pass --overwrite to replace it"
        ) from error
    if earlier.fingerprint != job:
        raise OutputExistsError(
            f"{final}: holds the report of other weights, data or options (checkpoint {earlier.checkpoint}, "
            f"data {earlier.data}); pass --overwrite to replace it"
        )
    return True
