"""What stands in the town: ground patches, roofs, boxes, trees and cars, and the six ISPRS classes.

Positions are ground metres (x east, y south), angles radians from east towards south, sizes metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rgb = tuple[float, float, float]  # 0..1


class TownClass(IntEnum):
    """The ISPRS classes, in the order of the benchmark."""

    IMPERVIOUS = 0
    BUILDING = 1
    LOW_VEGETATION = 2
    TREE = 3
    CAR = 4
    CLUTTER = 5


CLASS_COLORS: NDArray[np.uint8] = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], dtype=np.uint8
)
"""Label colour of each `TownClass`."""

PatchKind = Literal[
    "lawn", "meadow", "soil", "bed", "asphalt", "paving", "red_paving", "concrete", "gravel", "water", "pool", "site",
    "court", "sand", "rubbish",
]  # fmt: skip
RoofShape = Literal["gable", "half_hip", "hip", "shed", "flat"]
RoofMaterial = Literal["red", "orange", "brown", "slate", "bitumen", "gravel", "white", "metal", "green"]
TreeKind = Literal["broadleaf", "conifer", "autumn", "shrub"]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A piece of ground, a rectangle or ellipse in plan coordinates; ``rough_m`` frays its border."""

    kind: PatchKind
    u0: float
    v0: float
    u1: float
    v1: float
    tone: float
    ellipse: bool = False
    rough_m: float = 0.0
    bay_m: float = 0.0  # parking bays of this width are marked along u, or along v where negative


@dataclass(frozen=True, kw_only=True)
class Roof:
    """A roof with its ridge along ``length_m``; roofs of one house overlap, the higher face shows."""

    x: float
    y: float
    angle_rad: float
    length_m: float
    width_m: float
    eave_m: float
    slope: float  # rise over run
    shape: RoofShape
    material: RoofMaterial
    tone: Rgb  # factors on the material's colour

    def contains(self, x: float, y: float, margin_m: float) -> bool:
        """Tell whether a ground point lies on the roof or within ``margin_m`` of it."""
        dx, dy = x - self.x, y - self.y
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        a, b = dx * cos + dy * sin, dy * cos - dx * sin
        return abs(a) < self.length_m / 2 + margin_m and abs(b) < self.width_m / 2 + margin_m


@dataclass(frozen=True, kw_only=True)
class Box:
    """A cuboid: chimney, dormer, panel, container, hedge, bin. It stands on whatever is below it."""

    x: float
    y: float
    angle_rad: float
    length_m: float
    width_m: float
    height_m: float
    color: Rgb
    label: TownClass | None  # None keeps the class below
    texture: float = 0.03  # strength of its speckle
    ribs: bool = False  # corrugated as a container


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A crown."""

    x: float
    y: float
    radius_m: float
    height_m: float
    kind: TreeKind
    tone: float
    phase: float


@dataclass(frozen=True, kw_only=True)
class Car:
    """A car or van; its front looks along ``angle_rad``."""

    x: float
    y: float
    angle_rad: float
    length_m: float
    width_m: float
    color: Rgb


@dataclass
class Inventory:
    """Everything of one quarter, in the order in which it was placed."""

    patches: list[Patch] = field(default_factory=list)
    roofs: list[Roof] = field(default_factory=list)
    roof_boxes: list[Box] = field(default_factory=list)
    ground_boxes: list[Box] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    cars: list[Car] = field(default_factory=list)

    def roofed(self, x: float, y: float, margin_m: float) -> bool:
        """Tell whether a ground point lies on or within ``margin_m`` of any roof."""
        return any(roof.contains(x, y, margin_m) for roof in self.roofs)
