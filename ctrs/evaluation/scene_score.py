"""What one pass over a scene counts, and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ctrs.evaluation.protocols import Labels
from ctrs.metrics import AreaCounts, BoundaryCounts, CalibrationCounts, ConfusionMatrix, ObjectCounts


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """One scene's counts; every score is derived from them.

    Args:
        name: Name of the scene.
        confusions: Confusion matrix over all pixels, for each kind of labels.
        mask: The predicted mask, relative to the report where it lies beside it.
        outlines: Pixels along outlines; None where only pixels were scored.
        objects: Connected areas of the classes that are matched as objects.
        area: Ground area of each class in m²; None also for scenes without CRS.
        calibration: Confidence against correctness; None also where no confidence is known.
        notes: What was done to the masks before they were compared, in words.
    """

    name: str
    confusions: Mapping[Labels, ConfusionMatrix]
    mask: str
    outlines: BoundaryCounts | None = None
    objects: Mapping[str, ObjectCounts] = field(default_factory=dict)
    area: AreaCounts | None = None
    calibration: CalibrationCounts | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that ``from_json`` reads exactly."""
        return {
            "name": self.name,
            "mask": self.mask,
            "notes": list(self.notes),
            "confusion": {kind: matrix.counts.tolist() for kind, matrix in self.confusions.items()},
            "outlines": None if self.outlines is None else self.outlines.to_json(),
            "objects": {name: counts.to_json() for name, counts in self.objects.items()},
            "area": None if self.area is None else self.area.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> SceneScore:
        """Build from ``to_json`` output, or from a scene of a report of format 1, which counted pixels only.

        Raises:
            KeyError, TypeError, ValueError: Something is missing or wrong.
        """
        outlines, area, calibration = (row.get(key) for key in ("outlines", "area", "calibration"))
        return cls(
            name=row["name"],
            mask=row["mask"],
            notes=tuple(row.get("notes", ())),
            confusions={
                cast(Labels, kind): ConfusionMatrix.from_counts(np.array(counts, np.int64))
                for kind, counts in row["confusion"].items()
            },
            outlines=None if outlines is None else BoundaryCounts.from_json(outlines),
            objects={name: ObjectCounts.from_json(counts) for name, counts in row.get("objects", {}).items()},
            area=None if area is None else AreaCounts.from_json(area),
            calibration=None if calibration is None else CalibrationCounts.from_json(calibration),
        )
