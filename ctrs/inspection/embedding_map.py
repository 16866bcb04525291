"""Where patches of each class lie among the features of a run, and beside it of a run without (or with) contrast."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.config import EmbeddingMapConfig, LearningSplit
from ctrs.data.dataset import TileDataset
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import whole_tile_transform
from ctrs.errors import BandMismatchError, DataError, InputNotFoundError, UsageError
from ctrs.evaluation.fold_choice import data_of_checkpoint, fold_of
from ctrs.inference.device import cpu_threads, resolve_device
from ctrs.inspection.embedding_report import EmbeddingReport, StageSeparation
from ctrs.inspection.embedding_space import flatten, separation, unit_rows
from ctrs.inspection.patch_samples import PatchSamples, choose_tiles, sample_patches
from ctrs.inspection.patch_vectors import patch_vectors
from ctrs.inspection.stage_heads import load_stage_heads, require_heads
from ctrs.jobs import check_existing, fingerprint, hash_file, partial_work
from ctrs.model_files import CheckpointFiles, CheckpointMetadata, describe, find_checkpoint
from ctrs.models.checkpoint import load_checkpoint
from ctrs.progress import Progress, no_progress
from ctrs.report.embedding_picture import EmbeddingPanel, embedding_picture
from ctrs.report.png import read_description
from ctrs.tiles.manifest import Manifest
from ctrs.training.run_folder import RunFolder
from ctrs.workspace import run_data_dir

logger = logging.getLogger(__name__)

_KIND = "ctrs embeddings"
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class _Run:
    name: str
    home: Path
    files: CheckpointFiles
    metadata: CheckpointMetadata

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def loss(self) -> str:
        return str(self.metadata.config.get("loss", "unknown"))


def inspect_embeddings(
    run: Path,
    path: Path | None = None,
    config: EmbeddingMapConfig | None = None,
    *,
    beside: Path | None = None,
    data_dir: Path | None = None,
    progress: Progress = no_progress,
) -> EmbeddingReport:
    """Draw where patches of each class lie among a run's stage features, on a plane.

    One-class patches are drawn at random from the tiles' masks, the same ones for both runs; their feature vectors are
    scaled to length 1. The numbers (silhouette by cosine, share of the ten nearest neighbours of the own class) come
    from the full space, for a plane shows only part of it.

    Args:
        run: A run folder (its best checkpoint), a checkpoint folder, or its ``model.safetensors``.
        path: PNG to write; None: ``picture_name`` in the run's folder. If it stands there already as the
            result of the same job, it is left as it is.
        config: Options.
        beside: Another run to draw beside it, e.g. from ``ctrs.inspection.run_pairs.find_counterpart``.
        data_dir: Folder that prepare wrote; None: what ``run`` was trained on.
        progress: Told of the tiles mapped.

    Raises:
        InputNotFoundError: There is no such run, no checkpoint in it, no data, or no projection heads where those are
            asked for.
        CheckpointError: A checkpoint is broken.
        UsageError: The two runs can't be compared.
        DataError: The data have no such split, other classes than the runs, or no one-class patch.
        BandMismatchError: The data have other bands.
        OutputExistsError: Another picture stands there and ``config.overwrite`` is False.
        OutputError: The picture cannot be written.
    """
    config = config or EmbeddingMapConfig()
    runs = [_open_run(folder) for folder in (run, beside) if folder is not None]
    data_dir = data_dir or run_data_dir(run)
    if data_dir is None:
        raise InputNotFoundError(f"{run}: the data that it was trained on are not known or gone; pass --data")
    manifest = data_of_checkpoint(Manifest.open(data_dir), runs[0].metadata)
    for one in runs:
        _check_fit(one, manifest)
        if config.projected:
            require_heads(one.home, one.folder, one.metadata)
    if len(runs) == 2:
        _check_comparable(runs[0], runs[1])
    split = _choose_split(manifest, config.split)
    final = path or runs[0].home / picture_name(config)
    job = fingerprint(_job(runs, manifest, split, config))
    earlier = read_description(final) or {}
    if check_existing(final, earlier.get("fingerprint"), job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", final)
        stages = tuple(StageSeparation.from_json(row) for row in earlier["stages"])
        return EmbeddingReport(path=final, data=data_dir, split=split, num_tiles=earlier["num_tiles"], stages=stages)
    with cpu_threads(config.threads), partial_work(final, job, overwrite=True) as work:
        tiles = choose_tiles(manifest.split(split), config.tiles, seed=config.seed)
        store = TileStore(tiles)
        samples, vectors = _embed(runs, store, manifest, config, progress)
        panels, stages = _lay_out(runs, samples, vectors, manifest, config)
        report = EmbeddingReport(path=final, data=data_dir, split=split, num_tiles=len(tiles), stages=stages)
        description = {"kind": _KIND, "format_version": _FORMAT_VERSION, "fingerprint": job, **report.to_json()}
        staged = embedding_picture(
            work.folder / final.name,
            panels,
            manifest.classes,
            title=_title(report, manifest, config),
            description={key: value for key, value in description.items() if key not in ("path", "data")},
        )
        work.publish(staged)
    return report


def picture_name(config: EmbeddingMapConfig) -> str:
    """Return the default name of a picture: what is chosen beside the method stands in it.

    >>> picture_name(EmbeddingMapConfig())
    'embeddings_pca.png'
    >>> picture_name(EmbeddingMapConfig(method="tsne", stages=(2, 3), split="train", projected=True))
    'embeddings_tsne_projected_stages23_train.png'
    """
    parts = ["embeddings", config.method, *(["projected"] if config.projected else [])]
    if config.stages != EmbeddingMapConfig.stages:
        parts.append("stages" + "".join(map(str, config.stages)))
    return "_".join([*parts, *([config.split] if config.split else [])]) + ".png"


def _open_run(path: Path) -> _Run:
    files = find_checkpoint(path)
    home = files.home
    return _Run(name=home.absolute().name, home=home, files=files, metadata=describe(files))


def _check_fit(run: _Run, manifest: Manifest) -> None:
    """Refuse data that a run can't map."""
    expected, found = run.metadata.classes.names, manifest.classes.names
    if expected != found:
        raise DataError(
            f"{manifest.root}: classes {', '.join(found)} found, but {run.folder} knows {', '.join(expected)}; "
            "pass the data that it was trained on with --data"
        )
    bands = run.metadata.bands
    if (bands.count, bands.dtype) != (manifest.bands.count, manifest.bands.dtype):
        raise BandMismatchError(
            f"{manifest.root}: {manifest.bands.count} bands of {manifest.bands.dtype} found, but {run.folder} takes "
            f"{bands.count} of {bands.dtype}; pass the data that it was trained on with --data"
        )


def _check_comparable(first: _Run, second: _Run) -> None:
    """Refuse two runs whose patches are not the same ground."""
    one, other = first.metadata.resize_factor, second.metadata.resize_factor
    folds = fold_of(first.metadata), fold_of(second.metadata)
    if folds[0] != folds[1]:
        raise UsageError(
            f"{first.folder} was validated on fold {folds[0]} and {second.folder} on fold {folds[1]}, so what one has "
            "never seen the other was trained on; choose another run with --beside"
        )
    if one != other:
        raise UsageError(
            f"{first.folder} sees tiles enlarged by {one:g} and {second.folder} by {other:g}, so their patches are not "
            "the same ground; choose another run with --beside"
        )


def _choose_split(manifest: Manifest, wanted: LearningSplit | None) -> LearningSplit:
    order: tuple[LearningSplit, ...] = ("val", "train") if wanted is None else (wanted,)
    for split in order:
        if split in manifest.splits:
            return split
    raise DataError(
        f"{manifest.root}: no split {' or '.join(order)} found, it has {' and '.join(manifest.splits) or 'none'}; "
        "choose another with --split, or other data with --data"
    )


def _job(runs: Sequence[_Run], manifest: Manifest, split: str, config: EmbeddingMapConfig) -> dict[str, Any]:
    """Return all that determines the picture."""
    heads = [RunFolder(run.home).heads for run in runs] if config.projected else []
    return {
        "step": "inspect embeddings",
        "runs": [
            [run.name, *(hash_file(path)[:32] for path in (run.files.weights, run.files.description))] for run in runs
        ],
        "heads": [hash_file(file)[:32] for file in heads],
        "data": manifest.fingerprint,
        "split_hash": manifest.split_hash,
        "classes": manifest.classes.to_json(),
        "split": split,
        "options": {key: getattr(config, key) for key in ("stages", "method", "samples", "tiles", "projected", "seed")},
        "device": resolve_device(config.device).type,
    }


def _embed(
    runs: Sequence[_Run], store: TileStore, manifest: Manifest, config: EmbeddingMapConfig, progress: Progress
) -> tuple[list[PatchSamples], list[list[npt.NDArray[np.float32]]]]:
    """Draw the patches, and return them with their vectors, by run and stage."""
    device = resolve_device(config.device)
    samples: list[PatchSamples] = []
    strides: list[int] = []
    vectors: list[list[npt.NDArray[np.float32]]] = []
    for number, run in enumerate(runs):
        model, metadata = load_checkpoint(run.files.weights, device)
        own = [int(model.feature_strides[stage]) for stage in config.stages]
        dataset = TileDataset(store, metadata.bands, whole_tile_transform(resize_factor=metadata.resize_factor))
        if number == 0:
            strides = own
            masks = (dataset[0, index]["mask"] for index in range(len(dataset)))
            samples = sample_patches(
                masks, strides, num_classes=manifest.classes.num_classes, samples=config.samples, seed=config.seed
            )
            if not any(len(found) for found in samples):
                raise DataError(
                    f"{manifest.root}: no patch of strides {', '.join(map(str, strides))} holds one class only in "
                    f"{len(store)} tiles; choose a finer stage with --stage, or more --tiles"
                )
        elif own != strides:
            raise UsageError(
                f"{run.folder}: stages {', '.join(map(str, config.stages))} have strides {own}, those of "
                f"{runs[0].folder} {strides}; choose stages of equal strides with --stage, or another run"
            )
        heads = load_stage_heads(run.home, run.folder, model, metadata, config.stages) if config.projected else None

        def report(done: int, total: int, what: str, part: int = number) -> None:
            progress(part * total + done, len(runs) * total, what)

        vectors.append(patch_vectors(model, heads, dataset, samples, config.stages, device, report))
    return samples, vectors


def _lay_out(
    runs: Sequence[_Run],
    samples: Sequence[PatchSamples],
    vectors: Sequence[Sequence[npt.NDArray[np.float32]]],
    manifest: Manifest,
    config: EmbeddingMapConfig,
) -> tuple[list[list[EmbeddingPanel]], tuple[StageSeparation, ...]]:
    """Return the panels, one row for each run, and the numbers under them."""
    names = manifest.classes.names
    panels: list[list[EmbeddingPanel]] = []
    stages: list[StageSeparation] = []
    for run, of_run in zip(runs, vectors, strict=True):
        panels.append([])
        for stage, cells, rows in zip(config.stages, samples, of_run, strict=True):
            units = unit_rows(rows)
            entry = StageSeparation(
                run=run.name,
                loss=run.loss,
                stage=stage,
                stride=cells.stride,
                counts=dict(zip(names, cells.counts(len(names)), strict=True)),
                separation=separation(units, cells.classes),
            )
            stages.append(entry)
            panels[-1].append(
                EmbeddingPanel(
                    run=run.name,
                    loss=run.loss,
                    heading=f"stage {stage} (stride {entry.stride})",
                    points=flatten(units, config.method),
                    classes=cells.classes,
                    silhouette=entry.separation.silhouette,
                    purity=entry.separation.purity,
                    chance=entry.separation.chance,
                )
            )
    return panels, tuple(stages)


def _title(report: EmbeddingReport, manifest: Manifest, config: EmbeddingMapConfig) -> str:
    what = "projected patch vectors" if config.projected else "patch features"
    method = {"pca": "PCA", "tsne": "t-SNE"}[config.method]
    tiles = f"{report.num_tiles} tile{'s' * (report.num_tiles != 1)}"
    return f"{manifest.name}, {report.split}: {what} by class, {method}, {tiles}"
