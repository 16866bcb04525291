"""``ctrs eval A B``: several networks scored on the same ground, and what that says about their differences."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctrs.config import EvalConfig
from ctrs.errors import DataError, OutputExistsError, UsageError
from ctrs.evaluation.comparison import Comparison, compare
from ctrs.evaluation.difference_section import difference_section
from ctrs.evaluation.evaluation import AS_ASKED_FOR, EvaluationPlan, plan_evaluation, run_plan
from ctrs.evaluation.openings import ground_hash
from ctrs.evaluation.scene_picturing import add_scene
from ctrs.evaluation.score_files import csv_text, exact_text
from ctrs.evaluation.score_page import PAGE_FILE, write_score_page
from ctrs.evaluation.score_places import PlaceGallery, gallery_for
from ctrs.jobs import check_existing, fingerprint, partial_work, recover, write_text
from ctrs.progress import Progress, no_progress
from ctrs.tiles.manifest import Manifest, scene_mosaics

logger = logging.getLogger(__name__)

COMPARISONS = "comparisons"
COMPARISON_FILE = "comparison.json"
TABLE_FILE = "comparison.csv"

CHOSEN_BY_VALIDATION = "models are compared by validation"
"""Why that split is scored where none was asked for."""

MAX_PICTURED = 3
"""Most models whose masks are shown side by side."""


def evaluate_models(
    checkpoints: Sequence[Path],
    data_dir: Path,
    config: EvalConfig | None = None,
    *,
    out: Path | None = None,
    progress: Progress = no_progress,
) -> Comparison:
    """Score several networks on the same scenes, and compare them with the first.

    Each has its own report, as ``evaluate`` writes it; those that stand there already are read. To compare is to
    choose: without ``config.split`` the validation places are scored, never the test, which has to be asked for.

    Args:
        checkpoints: Runs, checkpoint folders or weight files; the first is the reference.
        data_dir: Folder that ``ctrs prepare`` wrote.
        config: Options.
        out: Folder of the comparison; None: ``comparisons/A-vs-B-SPLIT`` in the current folder.
        progress: As for ``evaluate``.

    Raises:
        UsageError: There are fewer than two, or one twice.
        DataError: They were not trained for the same classes, or would be scored on other ground (another fold), or
            there is nothing to validate on and the test was not asked for.
        OutputExistsError: Another report or comparison stands there and ``config.overwrite`` is False.
        CtrsError: As for ``evaluate``.
    """
    config = config or EvalConfig()
    plans = _plan(checkpoints, data_dir, config)
    reports = [run_plan(plan, progress=progress) for plan in plans]
    comparison = compare(reports, samples=config.bootstrap, confidence=config.confidence, seed=config.seed)
    job = fingerprint({"step": "compare", "jobs": [plan.job for plan in plans], "names": list(comparison.names)})
    folder = out or Path(COMPARISONS) / _folder_name(comparison)
    comparison = replace(comparison, path=folder / COMPARISON_FILE, fingerprint=job)
    recover(folder)
    if check_existing(folder, _stored_job(folder), job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", folder)
        return comparison
    with partial_work(folder, job, overwrite=config.overwrite) as work:
        staged = work.folder / "comparison"
        staged.mkdir(exist_ok=True)
        write_text(staged / TABLE_FILE, _table(comparison))
        text = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
        write_text(staged / COMPARISON_FILE, text + "\n")
        gallery = _places(comparison, plans[0], work.folder / "mosaics")
        runs = dict(zip(comparison.names, comparison.reports, strict=True))
        write_score_page(staged / PAGE_FILE, runs, gallery, differences=difference_section(comparison))
        work.publish(staged)
    return comparison


def _plan(checkpoints: Sequence[Path], data_dir: Path, config: EvalConfig) -> list[EvaluationPlan]:
    """Check that all can be compared, before time is spent on the first."""
    if len(checkpoints) < 2:
        raise UsageError(f"{len(checkpoints)} model found, expected two or more to compare")
    asked = config.split is not None
    if not asked:
        manifest = Manifest.open(data_dir)
        if "val" not in manifest.splits and not manifest.num_folds:
            raise DataError(
                f"{manifest.root}: no validation split found, and models are not chosen by the test; prepare the data "
                "with --val, or pass --split test to report final figures of models that are settled"
            )
        config = replace(config, split="val")
    plans = [plan_evaluation(checkpoint, data_dir, config) for checkpoint in checkpoints]
    if not asked:
        plans = [replace(plan, reason=plan.reason.replace(AS_ASKED_FOR, CHOSEN_BY_VALIDATION)) for plan in plans]
    first = plans[0]
    for place, plan in enumerate(plans[1:], 1):
        if any(plan.files.weights.resolve() == other.files.weights.resolve() for other in plans[:place]):
            raise UsageError(f"{plan.folder}: given twice; name different models")
        if any(plan.home == other.home for other in plans[:place]):
            raise UsageError(
                f"{plan.folder}: its report would take the place of another checkpoint's of the same run; copy one "
                "checkpoint folder out of the run to compare both"
            )
        if ground_hash(plan.manifest, plan.split) != ground_hash(first.manifest, first.split):
            raise DataError(
                f"{plan.folder}: its {plan.split} split of {plan.data} is other ground than that of {first.folder} "
                f"({plan.reason}; {first.reason}); compare models of one fold, or on the test"
            )
    return plans


def _places(comparison: Comparison, plan: EvaluationPlan, scratch: Path) -> PlaceGallery | None:
    """Choose places that show the first models side by side; None where none are wanted, or masks are gone."""
    if plan.config.pixels_only or not plan.config.num_places:
        return None
    masks: dict[str, dict[str, Path]] = {}
    for name, report in list(zip(comparison.names, comparison.reports, strict=True))[:MAX_PICTURED]:
        if report.path is not None:
            for scene in report.scenes:
                masks.setdefault(scene.name, {})[name] = report.path.parent / scene.mask
    gone = [path for of_scene in masks.values() for path in of_scene.values() if not path.is_file()]
    if gone:
        logger.warning("%s: not found; the comparison shows no places", gone[0])
        return None
    mosaics = scene_mosaics(plan.manifest, plan.split, scratch)
    shapes = [mosaic.scene.grid.shape for mosaic in mosaics]
    gallery = gallery_for(plan.manifest.classes, plan.config, shapes, plan.manifest.bands)
    if gallery is not None:
        for mosaic in mosaics:
            add_scene(gallery, mosaic, masks[mosaic.scene.name])
    shutil.rmtree(scratch)
    return gallery


def _folder_name(comparison: Comparison) -> str:
    """Return ``A-vs-B-SPLIT``."""
    return "-vs-".join(name.replace("/", "-") for name in comparison.names) + f"-{comparison.reference.split}"


def _stored_job(folder: Path) -> str | None:
    path = folder / COMPARISON_FILE
    if not folder.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputExistsError(
            f"{folder}: exists and holds no comparison (no readable {COMPARISON_FILE}); choose another --out"
        ) from error
    return found if isinstance(found, str) else None


def _table(comparison: Comparison) -> str:
    header = ("model", "score", "reference", "value", "difference", "low", "high", "two_sided", "better", "worse")
    rows = (
        (
            entry.model,
            entry.name,
            *map(exact_text, (entry.reference, entry.value, entry.difference, entry.low, entry.high, entry.two_sided)),
            entry.scenes_better,
            entry.scenes_worse,
        )
        for entry in comparison.differences
    )
    return csv_text([header, *rows])
