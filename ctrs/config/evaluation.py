"""What evaluation can be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ctrs.config.choices import SplitName, require, require_seed
from ctrs.config.predict import PredictConfig


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a checkpoint, or a mask made elsewhere, is scored.

    Args:
        split: None: ``test`` where the data have it, else ``val``.
        predict: How the scenes are mapped; the checkpoint's window and overlap unless told otherwise.
        classes: Masks only: TOML file with ``[[class]]`` tables; None takes the classes that the mask names.
        class_field: Masks only: field of truth polygons that holds the class; None: each polygon is ``building``.
        resample: Masks only: bring a mask on another grid onto that of the truth, nearest; False refuses it.
        boundary_px: Width of the band along outlines that Boundary IoU compares.
        distances_px: Distances up to which an outline counts as found, for the boundary F1.
        objects: Classes whose connected areas are matched as objects, as far as the data have them.
        object_iou: IoU from which a predicted object matches a true one.
        min_object_px: Objects of fewer pixels are left out, true and predicted ones.
        bins: Bins of confidence for the calibration error.
        bootstrap: Samples of scenes for confidence intervals; 0: none.
        confidence: Probability that an interval covers.
        seed: Of the bootstrap.
        num_places: Worst and best places shown in the report, of each.
        eroded: Also score labels that are eroded here, as ISPRS does, 3 px from each class border. None: where a data
            set of ISPRS (preset potsdam, vaihingen) comes without eroded labels of its own.
        pixels_only: Scores of pixels and nothing else: no outlines, objects, areas, confidences, pictures of places.
        fail_under: ``(name, value)`` of scores below which the command fails, such as ``("building", 0.8)``; they
            decide nothing about the report.
        overwrite: Replace a different report.
    """

    split: SplitName | None = None
    predict: PredictConfig = field(default_factory=PredictConfig)
    classes: Path | None = None
    class_field: str | None = None
    resample: bool = False
    boundary_px: int = 3
    distances_px: tuple[float, ...] = (1.0, 3.0, 5.0)
    objects: tuple[str, ...] = ("building",)
    object_iou: float = 0.5
    min_object_px: int = 1
    bins: int = 15
    bootstrap: int = 1000
    confidence: float = 0.95
    seed: int = 0
    num_places: int = 6
    eroded: bool | None = None
    pixels_only: bool = False
    fail_under: tuple[tuple[str, float], ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        require(1 <= self.boundary_px <= 64, "boundary_px", self.boundary_px, "1 to 64")
        ok = all(0 < distance <= 64 for distance in self.distances_px)
        require(ok, "distances_px", self.distances_px, "pixels above 0, up to 64")
        require(0 < self.object_iou < 1, "object_iou", self.object_iou, "above 0 and below 1")
        require(self.min_object_px >= 1, "min_object_px", self.min_object_px, "1 or more")
        require(2 <= self.bins <= 1000, "bins", self.bins, "2 to 1000")
        require(0 <= self.bootstrap <= 1_000_000, "bootstrap", self.bootstrap, "0 to 1000000")
        require(0.5 <= self.confidence < 1, "confidence", self.confidence, "0.5 to below 1")
        require_seed(self.seed)
        require(0 <= self.num_places <= 100, "num_places", self.num_places, "0 to 100")
        for name, value in self.fail_under:
            require(0 < value <= 1, f"fail_under {name}", value, "above 0, up to 1")


def parse_required_scores(texts: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """Read the ``NAME=VALUE`` texts of ``--fail-under``.

    >>> parse_required_scores(["building=0.8", "mean_iou = 0.7"])
    (('building', 0.8), ('mean_iou', 0.7))

    Raises:
        ConfigError: One is not of this form.
    """
    found: list[tuple[str, float]] = []
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found.append((name.strip(), float(value)))
        except ValueError:
            name = ""
        require(bool(name.strip()), "fail_under", text, "NAME=VALUE such as building=0.8")
    return tuple(found)
