"""What a map of patch embeddings says in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrs.config import LearningSplit
from ctrs.inspection.embedding_space import Separation


@dataclass(frozen=True, kw_only=True)
class StageSeparation:
    """How well a run keeps the classes apart at a stage.

    Args:
        run: Name of the run.
        loss: Its ``--loss``.
        stage: 0 to 3.
        stride: Of the stage.
        counts: Patches by class name, in the class table's order; classes without a one-class patch have 0.
        separation: The numbers, from the full space.
    """

    run: str
    loss: str
    stage: int
    stride: int
    counts: Mapping[str, int]
    separation: Separation

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "run": self.run,
            "loss": self.loss,
            "stage": self.stage,
            "stride": self.stride,
            "patches": dict(self.counts),
            "silhouette": self.separation.silhouette,
            "purity": self.separation.purity,
            "chance": self.separation.chance,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> StageSeparation:
        """Build from ``to_json`` output."""
        numbers = Separation(silhouette=row["silhouette"], purity=row["purity"], chance=row["chance"])
        kept = {key: row[key] for key in ("run", "loss", "stage", "stride")}
        return cls(**kept, counts=row["patches"], separation=numbers)


@dataclass(frozen=True, kw_only=True)
class EmbeddingReport:
    """A map of patch embeddings and the numbers that it shows.

    Args:
        path: The picture.
        data: The prepared data.
        split: Split of the tiles.
        num_tiles: Tiles that patches were drawn from.
        stages: For each run, each stage.
    """

    path: Path
    data: Path
    split: LearningSplit
    num_tiles: int
    stages: tuple[StageSeparation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "path": str(self.path),
            "data": str(self.data),
            "split": self.split,
            "num_tiles": self.num_tiles,
            "stages": [entry.to_json() for entry in self.stages],
        }
