"""Which fold of the data validates: that of a run, for its training and for all that looks at it afterwards."""

from __future__ import annotations

import warnings

from ctrs.errors import DataWarning
from ctrs.model_files import CheckpointMetadata
from ctrs.tiles.manifest import Manifest


def data_of_fold(manifest: Manifest, fold: int | None) -> Manifest:
    """Return the data as a run sees them; all folds train where it names none.

    Args:
        manifest: The prepared data.
        fold: Fold that validates, as in ``TrainConfig``.

    Raises:
        DataError: The data have no folds, or no such one.
    """
    return manifest if fold is None else manifest.for_fold(fold)


def warn_all_folds_train(manifest: Manifest, fold: int | None) -> None:
    """Warn where data with folds are trained on as a whole, so that nothing validates."""
    if fold is None and manifest.num_folds:
        warnings.warn(
            DataWarning(
                f"{manifest.root}: has {manifest.num_folds} folds and none was chosen: all train, nothing validates, "
                "and the last epoch counts as the best; pass --fold 0 (and 1, 2, ... in further runs) to cross-validate"
            ),
            stacklevel=2,
        )


def fold_of(metadata: CheckpointMetadata) -> int | None:
    """Return the fold that validated when a checkpoint was trained, None where there was none."""
    fold = metadata.config.get("fold")
    return fold if isinstance(fold, int) else None


def data_of_checkpoint(manifest: Manifest, metadata: CheckpointMetadata) -> Manifest:
    """Return the data as a checkpoint saw them, so that validation is the fold that it was not trained on.

    Args:
        manifest: The prepared data; those that are not what it was trained on are returned as they are.
        metadata: Of the checkpoint.
    """
    fold = fold_of(metadata)
    if fold is None or fold >= manifest.num_folds:
        return manifest
    divided = manifest.for_fold(fold)
    return divided if divided.split_hash == metadata.data.get("split_hash") else manifest
