"""What vectorizing can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ctrs.config.choices import Connectivity, Regularization, Split, require

BUILDING = "building"
"""The one class whose walls are straight."""


@dataclass(frozen=True, kw_only=True)
class VectorizeConfig:
    """How a mask becomes polygons.

    Args:
        classes: Class names; ``("all",)`` for each class of the mask.
        min_area_m2: Polygons below this ground area go to their surroundings or vanish; None: 4, or 8 where buildings
            are regularized.
        min_hole_m2: Holes below this ground area are filled; None: 2, or 4 where buildings are regularized.
        opening_m: Parts of a class that are narrower than this, in ground metres, leave before polygons are drawn;
            0: none.
        closing_m: Gaps within a class that are narrower than this, in ground metres, are filled; 0: none.
        connectivity: Pixels of a class that touch at a corner only make one polygon (8) or two (4).
        instances: The mask numbers objects (0 is background): each number is a building of its own, and neighbours
            share their party walls.
        split: How buildings that touch in the mask are parted: at narrow places of their shape (``erosion``,
            ``watershed``) or where their probability dips (``probability``).
        split_m: Width in ground metres of the narrowest place that two parts of one building may have; None: 3. Only
            with ``split``.
        probabilities: Raster of class probabilities on the mask's grid, for outlines between pixels, for splitting and
            for the column ``confidence``; None: SCENE_probabilities.tif beside SCENE_mask.tif, where it is there.
        use_probabilities: False leaves the raster beside the mask alone.
        tolerance_m: Tolerance of simplification in ground metres; None: 1.5 pixels; 0: none.
        smooth_m: Wave length in ground metres below which borders of classes other than buildings are evened out;
            0: none.
        regularize: Give buildings straight walls: ``fast`` with right angles alone, ``full`` with diagonals, other
            angles and circles where they pay.
        qml: Also write a QGIS style beside the layer.
        jobs: Threads; None: one for each core. Decides nothing about the result.
        overwrite: Replace a different result.
    """

    classes: tuple[str, ...] = (BUILDING,)
    min_area_m2: float | None = None
    min_hole_m2: float | None = None
    opening_m: float = 0.0
    closing_m: float = 0.0
    connectivity: Connectivity = 4
    instances: bool = False
    split: Split = "none"
    split_m: float | None = None
    probabilities: Path | None = None
    use_probabilities: bool = True
    tolerance_m: float | None = None
    smooth_m: float = 0.0
    regularize: Regularization = "none"
    qml: bool = False
    jobs: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require(bool(self.classes), "classes", self.classes, "at least one class name, or all")
        for key in ("min_area_m2", "min_hole_m2", "tolerance_m", "opening_m", "closing_m", "smooth_m"):
            found = getattr(self, key)
            require(found is None or 0 <= found < math.inf, key, found, "0 or more")
        require(self.split_m is None or 0 < self.split_m < math.inf, "split_m", self.split_m, "more than 0")
        require(self.jobs is None or self.jobs >= 1, "jobs", self.jobs, "1 or more")
        for key, choices in (("regularize", Regularization), ("split", Split), ("connectivity", Connectivity)):
            known = get_args(choices)
            listed = ", ".join(str(choice) for choice in known)
            require(getattr(self, key) in known, key, getattr(self, key), f"one of {listed}")
        require(self.split_m is None or self.split != "none", "split_m", self.split_m, "none without split")
        drawn = BUILDING in self.classes or "all" in self.classes
        expected = 'none, or classes with "building": only its walls are straight'
        require(self.regularize == "none" or drawn, "regularize", self.regularize, expected)
        expected = 'none, or classes with "building": only those are parted'
        require(self.split == "none" or drawn, "split", self.split, expected)
        apart = self.regularize == "none" and self.split == "none" and not self.instances
        expected = "4 with regularize, split or instances, which part what shares no side"
        require(self.connectivity == 4 or apart, "connectivity", self.connectivity, expected)
        divided = self.split == "none" or not self.instances
        require(divided, "split", self.split, "none with instances: each number is a building already")
        for key in ("opening_m", "closing_m"):
            found = getattr(self, key)
            require(found == 0 or not self.instances, key, found, "0 with instances: each number is drawn as it is")

    @property
    def neck_m(self) -> float:
        """Width in ground metres of the narrowest place that two parts of one building may have."""
        return 3.0 if self.split_m is None else self.split_m

    @property
    def smallest_polygon_m2(self) -> float:
        """Ground area below which a polygon vanishes."""
        if self.min_area_m2 is not None:
            return self.min_area_m2
        return 4.0 if self.regularize == "none" else 8.0

    @property
    def smallest_hole_m2(self) -> float:
        """Ground area below which a hole is filled."""
        if self.min_hole_m2 is not None:
            return self.min_hole_m2
        return 2.0 if self.regularize == "none" else 4.0
