"""The vectors that a network has for chosen patches: features of a stage, or what a projection head makes of them.

Dimension letters: n patches, C channels of a stage, D of a projection, h x w cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctrs.data.dataset import TileDataset
from ctrs.inspection.patch_samples import PatchSamples
from ctrs.models.segmentation import SegmentationModel
from ctrs.progress import Progress


@torch.inference_mode()
def patch_vectors(
    model: SegmentationModel,
    heads: Sequence[nn.Module] | None,
    dataset: TileDataset,
    samples: Sequence[PatchSamples],
    stages: Sequence[int],
    device: torch.device,
    progress: Progress,
) -> list[npt.NDArray[np.float32]]:
    """Map tiles and pick the vectors of cells.

    Args:
        model: In evaluation mode, on ``device``.
        heads: Projection head of each of ``stages``; None for the features themselves.
        dataset: The tiles, as the network sees them whole.
        samples: Cells of each of ``stages``; tiles without any are not mapped.
        stages: Of the encoder, 0 to 3.
        device: Where the network lives.
        progress: Told of each tile.

    Returns:
        (n, C) for each stage.
    """
    found: list[list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]] = [[] for _ in stages]
    needed = sorted({int(tile) for of_stage in samples for tile in of_stage.tiles})
    for done, tile in enumerate(needed):
        progress(done, len(needed), "mapping tiles")
        features = model(dataset[0, tile]["image"][None].to(device)).features
        for place, (stage, cells) in enumerate(zip(stages, samples, strict=True)):
            chosen = np.flatnonzero(cells.tiles == tile)
            if len(chosen):
                rows = _rows(features[stage], heads[place] if heads else None, cells.rows[chosen], cells.cols[chosen])
                found[place].append((chosen, rows.float().cpu().numpy()))
    progress(len(needed), len(needed), "mapping tiles")
    return [_in_place(parts, len(cells)) for parts, cells in zip(found, samples, strict=True)]


def _rows(features: Tensor, head: nn.Module | None, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> Tensor:
    """Return (n, D): cells of a map (1, C, h, w), projected where there is a head, as the losses project them."""
    dense = getattr(head, "dense", None)  # the part of a head that works on whole maps
    if dense is not None:
        features = dense(features)
    cells = torch.from_numpy(rows * features.shape[-1] + cols).to(features.device)
    gathered = features[0].flatten(1).index_select(1, cells).T
    projected: Tensor = gathered if head is None else head(gathered)
    return projected


def _in_place(
    parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], n: int
) -> npt.NDArray[np.float32]:
    if not parts:
        return np.empty((0, 1), np.float32)
    vectors = np.empty((n, parts[0][1].shape[1]), np.float32)
    for chosen, rows in parts:
        vectors[chosen] = rows
    return vectors
