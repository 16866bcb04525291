"""What ``ctrs inspect`` draws: patches over a tile, and maps of patch embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ctrs.config.choices import LearningSplit, MapMethod, VoidMode, require, require_seed


@dataclass(frozen=True, kw_only=True)
class PatchMapConfig:
    """Which patches of a tile are drawn.

    Args:
        class_name: The class whose patches are drawn; None: each class that occurs in the tile.
        void: As ``contrast.void``: whether windows with void pixels count as negatives (``allow``) or not.
        overwrite: Replace a different picture.
    """

    class_name: str | None = None
    void: VoidMode = "exclude"
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbeddingMapConfig:
    """Which patches are embedded, and how they are laid out on a plane.

    Args:
        stages: Encoder stages, 0 (stride 4) to 3 (stride 32).
        method: Linear (``pca``) or neighbourhood-preserving (``tsne``) projection to two dimensions.
        split: Tiles to take; None: ``val`` where there is one, else ``train``. The test split is never opened.
        samples: Cap on the one-class patches of each class and stage.
        tiles: Cap on the tiles they are drawn from.
        projected: Show the vectors that the contrast loss sees (behind the projection heads), not the stage features.
        seed: Of the choice of tiles and patches.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        threads: CPU threads of torch; None leaves torch's choice.
        overwrite: Replace a different picture.
    """

    stages: tuple[int, ...] = (0, 1, 2, 3)
    method: MapMethod = "pca"
    split: LearningSplit | None = None
    samples: int = 200
    tiles: int = 64
    projected: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        holds = bool(self.stages) and set(self.stages) <= {0, 1, 2, 3} and len(set(self.stages)) == len(self.stages)
        require(holds, "stages", self.stages, "distinct numbers from 0 to 3")
        allowed = (None, *get_args(LearningSplit))
        require(self.split in allowed, "split", self.split, "train or val; the test split is for eval alone")
        require(2 <= self.samples <= 5000, "samples", self.samples, "2 to 5000")
        require(self.tiles >= 1, "tiles", self.tiles, "1 or more")
        require_seed(self.seed)
        if self.threads is not None:
            require(self.threads >= 1, "threads", self.threads, "1 or more")
