"""``ablate``: every run of a grid over seeds, trained and scored as ``train`` and ``evaluate`` do, and their table.

What a run saw depends on its seed alone, not on its loss: order, crops and augmentation are pure functions of (seed,
epoch, index), and the network's first weights are drawn before the projection heads of a loss. So runs that share
network and seed differ in nothing but the loss, and are compared in pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ctrs.ablation.pictures import draw_pictures
from ctrs.ablation.runs import RUNS, RunStatus, note_failure, read_status
from ctrs.ablation.table import AblationResult, write_tables
from ctrs.config import AblationConfig, AblationRun, EvalConfig, PredictConfig, SplitName
from ctrs.errors import CtrsError, InputNotFoundError, OutputExistsError
from ctrs.evaluation.evaluation import choose_split, evaluate
from ctrs.evaluation.fold_choice import data_of_fold
from ctrs.evaluation.split_scoring import SCENES
from ctrs.inference.device import resolve_device
from ctrs.locks import held
from ctrs.models.encoder import create_encoder
from ctrs.models.segmentation import create_model
from ctrs.progress import Progress, no_progress
from ctrs.tiles.manifest import Manifest
from ctrs.training.random_state import own_random_state
from ctrs.training.settings import check_data
from ctrs.training.step import create_training_step
from ctrs.training.trainer import train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """What a grid is going to do.

    Args:
        config: The grid.
        out_dir: Folder of the ablation.
        split: What is scored.
        runs: Every run, as far as it is.
        parameters: Trainable parameters of each network, projection heads apart; empty where the data are not there.
    """

    config: AblationConfig
    out_dir: Path
    split: SplitName
    runs: tuple[RunStatus, ...]
    parameters: dict[str, int]

    @property
    def num_finished(self) -> int:
        """Runs that are trained and scored."""
        return sum(status.is_finished for status in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "out": str(self.out_dir),
            "data": str(self.config.data),
            "split": self.split,
            "num_runs": len(self.runs),
            "num_finished": self.num_finished,
            "parameters": self.parameters,
            "runs": [{**status.to_json(), "changed": list(status.changed)} for status in self.runs],
        }


def plan_ablation(config: AblationConfig, out_dir: Path) -> AblationPlan:
    """Say what ``ablate`` would do; nothing is written, and the data need not be there.

    Args:
        config: The grid.
        out_dir: Folder of the ablation.

    Raises:
        UsageError: A backbone, a decoder or a loss cannot be built.
        DataError: The data have no such split, or nothing can be learnt from them.
    """
    manifest = _open_where_it_is(config.data)
    split = _choose_split(config, out_dir, manifest)
    runs = _read_all(config, out_dir, split, manifest)
    parameters = {} if manifest is None else check_networks([status.run for status in runs], manifest)
    return AblationPlan(config=config, out_dir=out_dir, split=split, runs=runs, parameters=parameters)


def ablate(
    config: AblationConfig, out_dir: Path, *, overwrite: bool = False, progress: Progress = no_progress
) -> AblationResult:
    """Train and score every run of a grid, and write the table of their scores.

    Each run is an ordinary one in ``out_dir/runs/NAME``. Runs that are finished are left as they are, those that were
    stopped go on at their last finished epoch. A run that fails is noted, left out of the table, and tried again by the
    next call. ``table.md``, ``table.csv`` and ``ablation.json`` are made from the runs' files after each run, the
    folder ``pictures`` at the end; once all are finished, neither data nor weights are needed for that.

    Args:
        config: The grid.
        out_dir: Folder of the ablation.
        overwrite: Train runs anew that were set up with other settings or data; the others are kept all the same.
        progress: Told the steps of each run, and the runs.

    Raises:
        InputNotFoundError: The prepared data, or a file of encoder weights, are not there.
        DataError: Nothing can be learnt from the data, or they have no such split.
        UsageError: A backbone, a decoder or a loss cannot be built; found before anything is trained.
        CheckpointError: Encoder weights cannot be had; found before anything is trained.
        OutputExistsError: A run stands there with other settings and ``overwrite`` is False.
        OutputError: ``out_dir`` cannot be written, or another process works there.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise OutputExistsError(f"{out_dir}: is a file; choose a folder with --out")
    manifest = _open_where_it_is(config.data)
    split = _choose_split(config, out_dir, manifest)
    runs = _read_all(config, out_dir, split, manifest)
    pending = [status for status in runs if not status.is_finished]
    if pending:
        manifest = Manifest.open(config.data)
        check_data(manifest)
        _refuse_others(pending, overwrite=overwrite)
        check_networks([status.run for status in pending], manifest, with_weights=True)
        with held(out_dir / RUNS, out_dir):
            _work_off(config, out_dir, split, manifest, len(runs), overwrite=overwrite, progress=progress)
    else:
        logger.info("all %d runs are finished; nothing to train", len(runs))
    result = _write(config, out_dir, split, manifest)
    draw_pictures(result)
    return result


def check_networks(runs: Sequence[AblationRun], manifest: Manifest, *, with_weights: bool = False) -> dict[str, int]:
    """Build each network and its losses without memory for their weights.

    Args:
        runs: Whose networks.
        manifest: The prepared data.
        with_weights: Also load the encoder weights that are asked for, so that missing ones are found now.

    Returns:
        Parameters of each network, projection heads apart.

    Raises:
        UsageError: A backbone, a decoder or a loss cannot be built.
        InputNotFoundError: A file of weights is not there.
        CheckpointError: The weights cannot be had, or do not fit.
    """
    parameters: dict[str, int] = {}
    seen: set[str] = set()
    loaded: set[tuple[str, str]] = set()
    num_classes, in_channels = manifest.classes.num_classes, manifest.bands.count
    with own_random_state():
        for run in runs:
            config = run.config
            if repr(replace(config, seed=0)) in seen:
                continue
            seen.add(repr(replace(config, seed=0)))
            resolve_device(config.device)
            with torch.device("meta"):
                model = create_model(config.backbone, config.decoder, num_classes=num_classes, in_channels=in_channels)
                create_training_step(
                    model, config, num_classes=num_classes, class_counts=manifest.class_counts("train")
                )
            parameters.setdefault(run.network, sum(parameter.numel() for parameter in model.parameters()))
            source = (config.backbone, config.weights)
            if with_weights and config.weights != "none" and source not in loaded:
                create_encoder(config.backbone, in_channels=in_channels, weights=config.weights)
                loaded.add(source)
    return parameters


def _work_off(
    config: AblationConfig,
    out_dir: Path,
    split: SplitName,
    manifest: Manifest,
    num_runs: int,
    *,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Train and score what is not finished, one run after the other."""
    with _goes_on(out_dir):
        for number, run in enumerate(config.runs, 1):
            status = read_status(run, out_dir, split, manifest)
            if not status.is_finished:
                logger.info("run %d of %d: %s", number, num_runs, run.name)
                error = _train_and_score(status, config.split, manifest, overwrite=overwrite, progress=progress)
                note_failure(out_dir, run, error)
                if error is not None:
                    logger.error("%s failed: %s", run.name, error)
                _write(config, out_dir, split, manifest)
            progress(number, num_runs, "runs")


def _train_and_score(
    status: RunStatus, split: SplitName | None, manifest: Manifest, *, overwrite: bool, progress: Progress
) -> str | None:
    """Bring a run to its end; return why that failed, None where it did not."""
    run, folder = status.run, status.folder

    def scenes(done: int, total: int, what: str) -> None:
        if what == SCENES:  # not the windows of each scene: a grid has too many
            progress(done, total, what)

    try:
        if status.state != "trained":
            anew = overwrite and bool(status.changed)
            train(manifest.root, folder, run.config, overwrite=anew, progress=progress)
        predict = PredictConfig(device=run.config.device, precision=run.config.precision, threads=run.config.threads)
        scoring = EvalConfig(split=split, predict=predict)
        try:
            report = evaluate(folder, manifest.root, scoring, progress=scenes)
        except OutputExistsError:
            if not overwrite:
                raise
            report = evaluate(folder, manifest.root, replace(scoring, overwrite=True), progress=scenes)
        logger.info("%s: %s", run.name, report.summary())
    except CtrsError as error:
        return str(error)
    except Exception as error:  # whatever is wrong with this run, the others are worth their hours
        logger.debug("%s", run.name, exc_info=True)
        return f"unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return None


def _write(config: AblationConfig, out_dir: Path, split: SplitName, manifest: Manifest | None) -> AblationResult:
    """Make the table from what stands in the runs' folders."""
    runs = _read_all(config, out_dir, split, manifest)
    result = AblationResult(config=config, out_dir=out_dir, split=split, runs=runs)
    write_tables(result)
    return result


def _read_all(
    config: AblationConfig, out_dir: Path, split: SplitName, manifest: Manifest | None
) -> tuple[RunStatus, ...]:
    return tuple(read_status(run, out_dir, split, manifest) for run in config.runs)


def _open_where_it_is(data_dir: Path) -> Manifest | None:
    """Open the prepared data; None where they are not there, which matters only if something is to be trained."""
    try:
        return Manifest.open(data_dir)
    except InputNotFoundError:
        return None


def _choose_split(config: AblationConfig, out_dir: Path, manifest: Manifest | None) -> SplitName:
    """Return the split to score; where the data are not there, the one that was scored."""
    if manifest is not None:
        _check_folds(config, manifest)
        return choose_split(data_of_fold(manifest, config.runs[0].config.fold), config.split)[0]
    if config.split is not None:
        return config.split
    was_tested = any((out_dir / RUNS / run.name / "eval" / "test").is_dir() for run in config.runs)
    return "test" if was_tested else "val"


def _check_folds(config: AblationConfig, manifest: Manifest) -> None:
    """Refuse folds that the data do not have, before anything is trained."""
    for fold in sorted({run.config.fold for run in config.runs} - {None}, key=str):
        data_of_fold(manifest, fold)


def _refuse_others(pending: Sequence[RunStatus], *, overwrite: bool) -> None:
    """Refuse to mix runs of another grid or other data into this one."""
    others = [status for status in pending if status.changed]
    if others and not overwrite:
        first = others[0]
        more = f", and {len(others) - 1} more such runs" if len(others) > 1 else ""
        raise OutputExistsError(
            f"{first.folder}: another run stands there ({'; '.join(first.changed)}){more}; pass --overwrite to train "
            "such runs anew, or choose another folder with --out"
        )


@contextmanager
def _goes_on(out_dir: Path) -> Iterator[None]:
    """Say how to go on after Ctrl-C, in the words of this command."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.__notes__ = [f"{out_dir} holds all finished epochs; the same command goes on"]
        raise
