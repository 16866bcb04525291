"""How good a network is, on whole scenes: one pass over the pixels, every protocol from it.

A scene's tiles are laid together again and mapped by the same Predictor, with the same windows and overlap, as
``ctrs predict`` uses, so that scores are those of the masks that users get, not of single tiles.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctrs.config import EvalConfig, PredictConfig, SplitName
from ctrs.errors import BandMismatchError, DataError, DataWarning, MissingCrsWarning, OutputExistsError
from ctrs.inference.device import resolve_device, resolve_precision
from ctrs.inference.predictor import Predictor
from ctrs.jobs import PartialWork, fingerprint, partial_work, recover
from ctrs.model_files import CheckpointFiles, CheckpointMetadata, describe, find_checkpoint
from ctrs.progress import Progress, no_progress
from ctrs.tiles.manifest import Manifest, SceneMosaic, scene_mosaics
from ctrs.training.fold_choice import data_of_checkpoint, fold_of
from ctrs.training.mask_comparison import count_pixels
from ctrs.training.openings import record_opening
from ctrs.training.protocols import Labels
from ctrs.training.score_report import REPORT_FILE, EvaluationReport, SceneScore, read_report

logger = logging.getLogger(__name__)

SCENES = "scoring scenes"
"""The phase of progress that counts scenes; those between count the windows of one."""


def evaluate(
    checkpoint: Path,
    data_dir: Path,
    config: EvalConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Score a network on the scenes of a split.

    The report (``report.json``, confusion matrices, ``masks/SCENE_mask.tif``) goes to ``eval/SPLIT`` in the run's
    folder, or in the checkpoint's own where it belongs to no run. If it stands there already as the result of the same
    job, it is read; interrupted work is gone on with.

    Args:
        checkpoint: A run folder (its best checkpoint), a checkpoint folder, or its ``model.safetensors``.
        data_dir: Folder that ``ctrs prepare`` wrote.
        config: Options.
        progress: Told the windows mapped and the scenes scored.

    Raises:
        InputNotFoundError: There is no such checkpoint or no such prepared data.
        CheckpointError: The checkpoint is of another kind, broken or incomplete.
        DataError: The data have no such split, or other classes than the checkpoint.
        BandMismatchError: Their bands or dtype differ from the checkpoint's.
        OutputExistsError: The report of another job stands there and ``config.overwrite`` is False.
        OutputError: The report cannot be written.
    """
    started = time.monotonic()
    config = config or EvalConfig()
    files = find_checkpoint(checkpoint)
    folder, metadata = files.folder, describe(files)
    manifest = data_of_checkpoint(Manifest.open(data_dir), metadata)
    split, reason = choose_split(manifest, config.split)
    if split == "val" and manifest.num_folds:
        reason = f"{reason}, fold {fold_of(metadata)} of {manifest.num_folds}"
    _check_fit(manifest, metadata, folder, config)
    home = run_home(folder)
    final = home / "eval" / split
    weights = _hash_file(files.weights)
    job = fingerprint(_job(files, weights, metadata, manifest, split, config))
    logger.info("scoring the %s split of %s (%s) with %s", split, manifest.root, reason, folder)
    if _is_finished(final, job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", final)
        return replace(read_report(final / REPORT_FILE), path=final / REPORT_FILE, data=data_dir, checkpoint=folder)
    options = config.predict
    predictor = Predictor.from_checkpoint(files.weights, device=options.device, precision=options.precision)
    with partial_work(final, job, overwrite=config.overwrite) as work:
        openings: int | None = None
        if split == "test":
            openings = _open_test_split(work, home, manifest, weights)
        staged = work.folder / "report"
        scenes = _score_scenes(predictor, manifest, split, config.predict, work.folder, staged / "masks", progress)
        report = EvaluationReport(
            scenes=scenes,
            classes=manifest.classes,
            split=split,
            reason=reason,
            checkpoint=folder,
            data=data_dir,
            seconds=time.monotonic() - started,
            test_openings=openings,
            path=final / REPORT_FILE,
            fingerprint=job,
        )
        report.save(staged, final=final)
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
        return wanted, "as asked for"
    if "test" in present:
        return "test", "the data have one"
    if "val" in present:
        return "val", "the data have no test split"
    raise DataError(
        f"{manifest.root}: neither test nor val split found, it has {' and '.join(present) or 'none'}; prepare the "
        "data with --val or --test, or score the training scenes with --split train"
    )


def run_home(folder: Path) -> Path:
    """Return the run that a checkpoint folder belongs to, or the folder itself where it belongs to none.

    >>> run_home(Path("models/roofs")).as_posix()
    'models/roofs'
    """
    if folder.name in ("", ".."):
        folder = folder.resolve()
    if folder.name in ("best", "last") and (folder.parent / "config.toml").is_file():
        return folder.parent
    return folder


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
        "metadata": _hash_file(files.description),
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
            "precision": str(resolve_precision(options.precision, device)),
        },
    }


def _open_test_split(work: PartialWork, home: Path, manifest: Manifest, weights: str) -> int:
    """Count this opening of the test split, once for a job however often it is interrupted."""
    mark = work.folder / "opening"
    if mark.exists():
        return int(mark.read_text(encoding="utf-8"))
    openings = record_opening(home, manifest.split_hash, data=manifest.root, weights=weights)
    mark.write_text(str(openings), encoding="utf-8")
    before = {1: "never before", 2: "once before"}.get(openings, f"{openings - 1} times before")
    logger.info("the test split of %s is opened now; %s opened it %s", manifest.root, home, before)
    return openings


def _score_scenes(
    predictor: Predictor,
    manifest: Manifest,
    split: SplitName,
    options: PredictConfig,
    work: Path,
    masks: Path,
    progress: Progress,
) -> tuple[SceneScore, ...]:
    """Map each scene of a split and count its pixels."""
    mosaics = scene_mosaics(manifest, split, work / "mosaics")
    masks.mkdir(parents=True, exist_ok=True)
    scenes: list[SceneScore] = []
    for number, mosaic in enumerate(mosaics):
        # Virtual rasters are written anew by each attempt; with one time of change they are the same input for jobs.
        os.utime(mosaic.image, ns=(0, 0))
        mask = _predict(predictor, mosaic.image, masks / f"{mosaic.scene.name}_mask.tif", options, progress)
        confusions = {
            kind: count_pixels(truth, mask, manifest.classes) for kind, truth in _truths(mosaic, manifest).items()
        }
        scenes.append(SceneScore(name=mosaic.scene.name, confusions=confusions, mask=f"masks/{mask.name}"))
        progress(number + 1, len(mosaics), SCENES)
    shutil.rmtree(work / "mosaics")
    return tuple(scenes)


def _predict(predictor: Predictor, image: Path, mask: Path, options: PredictConfig, progress: Progress) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingCrsWarning)  # scores are counted in pixels
        try:
            return predictor.predict_raster(image, mask, replace(options, overwrite=False), progress=progress)
        except OutputExistsError:  # left by an attempt in another place, or by another version
            return predictor.predict_raster(image, mask, replace(options, overwrite=True), progress=progress)


def _truths(mosaic: SceneMosaic, manifest: Manifest) -> dict[Labels, Path]:
    truths: dict[Labels, Path] = {"strict": mosaic.mask}
    if manifest.has_eroded and mosaic.mask_eroded is not None:
        truths["isprs"] = mosaic.mask_eroded
    return truths


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


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
